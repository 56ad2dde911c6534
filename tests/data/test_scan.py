"""Inputs that are looked at by processes: as by threads, only sooner."""

import os
import signal
from pathlib import Path

import pytest
import torch
from helpers import Save, grey_levels, random_videos, scan

from featx.data import scan as scanning
from featx.data.manifest import Manifest, ScanSettings
from featx.data.media.clip import write_clip
from featx.data.media.preprocessing import Preprocessing
from featx.data.scan import map_inputs
from featx.data.sources.clips import scan_clips
from featx.errors import IncompleteError, InputError


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let processes pay for very few inputs."""
    monkeypatch.setattr(scanning, "ENOUGH", 0)
    monkeypatch.setattr(scanning, "_AT_ONCE", 2)
    monkeypatch.setattr(scanning, "count_cores", lambda: 2)


def look(number: int) -> tuple[int, int]:
    """What stands for a look at an input."""
    if number == 3:
        raise InputError("bad")
    return number, os.getpid()


@pytest.mark.usefixtures("few")
def test_processes_keep_the_order() -> None:
    """And an error is raised where its input is; the process's own random numbers stay."""
    before = torch.random.get_rng_state()
    found = [(item, future) for item, future in map_inputs(look, range(7), 7, 1)]
    assert [item for item, _ in found] == [*range(7)]
    pids = {future.result()[1] for item, future in found if item != 3}
    assert os.getpid() not in pids
    assert len(pids) == 2
    with pytest.raises(InputError, match="bad"):
        found[3][1].result()
    assert torch.equal(before, torch.random.get_rng_state())


def test_few_inputs_stay_in_the_process() -> None:
    """It does not pay to start others for them."""
    results = [future.result() for item, future in map_inputs(look, range(3), 3, 1)]
    assert results == [(number, os.getpid()) for number in range(3)]


@pytest.mark.usefixtures("few")
def test_a_process_that_dies_is_noticed() -> None:
    """The scan does not wait for it, nor leave anything out."""
    with pytest.raises(IncompleteError, match=r"0: expected to scan it and .* exited unexpectedly"):
        for _ in map_inputs(lambda item: os.kill(os.getpid(), signal.SIGKILL), range(4), 4, 1):
            pass


@pytest.mark.usefixtures("few")
def test_an_error_of_the_program_is_no_death() -> None:
    """It is raised as what it is."""
    with pytest.raises(ZeroDivisionError):
        [*map_inputs(lambda item: 1 // item, range(4), 4, 1)]

    def fail(item: int) -> None:
        raise RuntimeError("of the program")

    with pytest.raises(RuntimeError, match="of the program"):
        [*map_inputs(fail, range(4), 4, 1)]


def describe(manifest: Manifest) -> list[object]:
    """All that a scan has found."""
    videos = [manifest.files.make(number).identity for number in range(len(manifest.files))]
    ids = [[*manifest.video_ids(split)] for split in manifest.positions]
    made_of = [manifest.identities(split).tolist() for split in manifest.positions]
    return [videos, ids, made_of, repr(manifest.rejected), manifest.summary]


def test_a_scan_by_processes_finds_the_same(
    root: Path, save: Save, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Of files and of clips, good ones and bad ones."""
    for number in range(5):
        save(f"train/a/{number}", random_videos(2, 3, seed=number))
        clip = tmp_path / "clips" / "train" / "a" / f"{number}.mp4"
        clip.parent.mkdir(parents=True, exist_ok=True)
        write_clip(clip, grey_levels(5 + number))
    (root / "train" / "a" / "3" / "processed_data.pt").write_text("bad")
    (tmp_path / "clips" / "train" / "a" / "3.mp4").write_text("bad")
    given = Preprocessing(None, 16, stride=2)
    settings = ScanSettings(tmp_path / "clips", on_error="skip", preprocessing=given)
    by_threads = describe(scan(root, on_error="skip")), describe(scan_clips(settings))
    request.getfixturevalue("few")
    assert (describe(scan(root, on_error="skip")), describe(scan_clips(settings))) == by_threads
