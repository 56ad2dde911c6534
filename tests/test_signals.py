"""A signal, an error or a death of one process ends the whole job, with a status that is true."""

import os
import pty
import signal
import subprocess
import sys
import termios
import time
from contextlib import suppress
from pathlib import Path

import jobs
import pytest
from helpers import Save, problems, random_videos

pytestmark = pytest.mark.processes

SETTINGS = {"delay": 0.5, "num_workers": 1}
SAFE = "Finished videos are safe in "


@pytest.fixture
def data(root: Path, save: Save) -> Path:
    """Enough videos, so that no process comes to its end by itself in time."""
    save("train/a/x", random_videos(150, 3))
    return root


def parts(tmp_path: Path) -> list[Path]:
    """The parts on disk."""
    return [*(tmp_path / "out").rglob("part-*.h5")]


def wait_for_parts(tmp_path: Path, job: jobs.Job) -> None:
    """Wait until the job is in its midst."""
    deadline = time.monotonic() + 120
    while len(parts(tmp_path)) < 3:
        assert job.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)


def finish(tmp_path: Path, data: Path) -> None:
    """Run the job again, undisturbed: it publishes a valid file, and nothing else is left."""
    (name, *_) = sorted(jobs.run(data, tmp_path / "out", delay=0))[1:]
    assert problems(tmp_path / "out" / name) == []


@pytest.mark.parametrize(
    ("signum", "devices", "to"),
    [
        (signal.SIGTERM, 1, "parent"),
        (signal.SIGTERM, 2, "parent"),
        (signal.SIGTERM, 2, "child"),
        (signal.SIGTERM, 2, "group"),
        (signal.SIGINT, 1, "group"),
        (signal.SIGINT, 2, "group"),
    ],
)
def test_signals(
    tmp_path: Path,
    data: Path,
    signum: signal.Signals,
    devices: int,
    to: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The status is 128 and the signal; parts are on disk, and a rerun finishes the job."""
    job = jobs.start(data, tmp_path / "out", devices=devices, **SETTINGS)
    wait_for_parts(tmp_path, job)
    if to == "group":
        os.killpg(job.pid, signum)
    else:
        rank = 1 if to == "child" else 0
        os.kill(int((tmp_path / f"out.{rank}.pid").read_text()), signum)
    assert jobs.end(job, 30) in ((1, 128 + signum) if to == "child" else (128 + signum,))
    assert SAFE in capfd.readouterr().err
    assert parts(tmp_path)
    assert not [*(tmp_path / "out").glob("*.h5")]
    if to == "child":
        finish(tmp_path, data)


@pytest.mark.parametrize("fault", ["1:raise", "1:kill", "0:raise", "0:kill"])
def test_one_process_of_two_fails(
    tmp_path: Path, data: Path, fault: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Whichever it is, the job ends within a minute, not with 0, and leaves no process."""
    job = jobs.start(data, tmp_path / "out", devices=2, fault=fault, **SETTINGS)
    assert jobs.end(job, 60) == (-signal.SIGKILL if fault == "0:kill" else 1)
    assert (SAFE in capfd.readouterr().err) == (fault != "0:kill")
    assert not [*(tmp_path / "out").glob("*.h5")]
    if fault == "1:kill":
        finish(tmp_path, data)


def test_an_interpreter_that_forgets_its_workers_ends(tmp_path: Path, data: Path) -> None:
    """A loader left in its midst does not keep the interpreter from ending."""
    code = (
        "import sys; from featx import VideoDataModule\n"
        "data = VideoDataModule(sys.argv[1], num_workers=2); data.setup('predict')\n"
        "batches = iter(data.predict_dataloader()); next(batches)\n"
        "import torch.utils.data.dataloader as loader\n"
        "loader._MultiProcessingDataLoaderIter._shutdown_workers = lambda self: None\n"
    )
    done = subprocess.run([sys.executable, "-c", code, data], timeout=60)
    assert done.returncode == 0


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_signals_before_the_first_batch(root: Path, save: Save, signum: signal.Signals) -> None:
    """A command that is still reading headers ends at once, and without a traceback."""
    first = save("train/0/x", random_videos(1, 3))
    for number in range(1, 2000):
        (root / f"train/{number}/x").mkdir(parents=True)
        os.link(first, root / f"train/{number}/x" / first.name)
    command = ["--model.weights=random", "--model.backbone=resnet50", f"--data.root={root}"]
    screen, terminal = pty.openpty()  # for a progress bar
    termios.tcsetwinsize(terminal, (24, 80))
    job = subprocess.Popen(
        [sys.executable, "-m", "featx", "predict", *command, "--trainer.accelerator=cpu"],
        stderr=terminal,
        cwd=root,
        start_new_session=True,
    )
    os.close(terminal)
    printed = b""
    while b"Scanning" not in printed:
        printed += os.read(screen, 1000)
    os.kill(job.pid, signum)
    assert jobs.end(job, 30) == 128 + signum
    with suppress(OSError):  # which is the end of a terminal
        while more := os.read(screen, 1000):
            printed += more
    assert b"Traceback" not in printed
