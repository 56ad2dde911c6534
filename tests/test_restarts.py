"""Under torchrun --max-restarts, a run outlives its processes: nobody has to start it again."""

import os
import random
import shutil
import signal
import time
from pathlib import Path

import jobs
import pytest
from helpers import TINY_JOB, Save, random_videos

import featx

pytestmark = [pytest.mark.processes, pytest.mark.usefixtures("tiny")]

SETTINGS = {"delay": 0.1, "num_workers": 1}


@pytest.fixture
def data(root: Path, save: Save) -> Path:
    """Two dozen videos in two splits."""
    save("train/a/x", random_videos(10, 5))
    save("train/b/x", random_videos(8, 7, seed=1))
    for category in "ab":
        save(f"test/{category}/x", random_videos(3, 5, seed=2))
    return root


def extract(root: Path, out: Path) -> dict[str, bytes]:
    """The bytes of the files of an undisturbed run, in this process."""
    featx.extract(root, out, **TINY_JOB)  # type: ignore[arg-type]
    return jobs.contents(out)


@pytest.mark.parametrize(("nodes", "fault"), [(1, "1:os error"), (2, "0:kill")])
def test_a_process_fails(
    data: Path, tmp_path: Path, nodes: int, fault: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """By an error of the system, or a signal, whichever it is: all begin anew, and get through."""
    out = tmp_path / "out"
    expected = extract(data, tmp_path / "one")
    started = jobs.start_nodes(data, out, nodes, 2 // nodes, fault=fault, once=True, **SETTINGS)
    assert jobs.end_nodes(started, out, 120) == [0] * nodes
    assert (tmp_path / "out.fault").exists()
    assert jobs.contents(out) == expected
    if fault[0] == "1":  # the other one lives to tell
        assert "Finished videos are safe in" in capfd.readouterr().err


def test_a_job_is_told_to_end(data: Path, tmp_path: Path) -> None:
    """A signal to torchrun ends all processes; what they have finished is on disk."""
    out = tmp_path / "out"
    started = jobs.start_nodes(data, out, 1, 2, **(SETTINGS | {"delay": 1}))
    while not [*out.rglob("part-*.h5")]:
        assert started[0].poll() is None
        time.sleep(0.05)
    os.kill(started[0].pid, signal.SIGTERM)
    assert jobs.end_nodes(started, out, 60) != [0]
    assert not [*out.glob("*.h5")]
    assert [*out.rglob("part-*.h5")]
    assert not (out / ".featx" / "status").exists()


def test_kills_at_random_under_torchrun(
    data: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Any rank or worker of two machines, at any time, again and again: the same bytes.

    But not once all is published: then torchrun itself waits five minutes for the machine that has
    begun anew, before it ends with status 0.
    """
    kills = request.config.getoption("kills")
    out = tmp_path / "out"
    expected = extract(data, tmp_path / "one")
    rng = random.Random(0)
    while kills:
        started = jobs.start_nodes(data, out, 2, 1, **SETTINGS)
        while kills and any(node.poll() is None for node in started):
            time.sleep(rng.uniform(1, 7))
            for path in out.glob("*.h5"):
                assert path.read_bytes() == expected[path.name]
            ranks = jobs.find_ranks(out)
            if ranks and not (out / "configuration_analysis.json").exists():
                os.kill(rng.choice(ranks), signal.SIGKILL)
                kills -= 1
        assert jobs.end_nodes(started, out, 240) == [0, 0]
        assert jobs.contents(out) == expected
        shutil.rmtree(out)
