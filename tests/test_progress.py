"""What a person sees: a bar, a line now and then, and no chatter."""

import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from helpers import Save, random_video, random_videos
from lightning.pytorch import Trainer

from featx import FeatureExtractor, FeatureWriter, VideoDataModule
from featx.progress import (
    Progress,
    format_speed,
    is_watched,
    without_chatter,
)


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard error is a terminal, for all that featx knows."""
    monkeypatch.setattr("featx.progress.is_watched", lambda: True)


def last_line(text: str) -> str:
    """What is left on the screen."""
    return text.rstrip().split("\r")[-1]


def test_it_counts_frames(capsys: pytest.CaptureFixture[str]) -> None:
    """Half of the frames are half of the work, in however few of the videos."""
    progress = Progress(4, 12, found=3)
    progress.show(2, 8, format_speed(1.25, 3.2))
    progress.close()
    line = last_line(capsys.readouterr().err)
    expected = (
        r"2/4 videos, 3 found from an earlier run:  67%\|.*\| 8/12 \[00:00<00:03, 1.2 frames/s\]"
    )
    assert re.fullmatch(expected, line)


def test_a_line_now_and_then_where_nobody_watches(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a log there is no bar, but a line a minute, which tells the same."""
    monkeypatch.setattr("featx.progress.is_watched", lambda: False)
    now = iter([0.0, 30.0, 70.0, 80.0])
    monkeypatch.setattr("featx.progress.time.monotonic", lambda: next(now))
    progress = Progress(4, 12, found=0)
    for videos in (1, 2, 3):
        progress.show(videos, 2 * videos, format_speed(0, None))
    progress.close()
    assert capsys.readouterr().err == "2/4 videos: 33% [01:10<?, 0.0 frames/s]\n"


def test_who_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal and a notebook; not a file or a pipe."""
    monkeypatch.undo()
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    assert not is_watched()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert is_watched()
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "ipykernel", None)
    assert is_watched()


def predict(root: Path, out: Path, **settings: bool | int) -> None:
    """Run a plain Trainer."""
    trainer = Trainer(
        accelerator="cpu",
        callbacks=[FeatureWriter(out)],
        logger=False,
        enable_checkpointing=False,
        **settings,  # type: ignore[arg-type]
    )
    extractor = FeatureExtractor("resnet50", "random")
    trainer.predict(extractor, VideoDataModule(root, num_workers=0), return_predictions=False)


@pytest.mark.usefixtures("tiny")
def test_all_splits_and_earlier_runs(
    root: Path, save: Save, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One bar for all splits, in the place of Lightning's, and it tells what was found."""
    save("train/a/x", random_videos(3, 4))
    predict(root, tmp_path / "out")
    assert "3/3 videos: 100%" in last_line(capsys.readouterr().err)
    save("val/a/x", [random_video(7), random_video(5)])
    predict(root, tmp_path / "out")
    output = capsys.readouterr()
    assert "2/2 videos, 3 found from an earlier run: 100%" in last_line(output.err)
    assert "Predicting" not in output.out + output.err


@pytest.mark.usefixtures("tiny")
def test_it_can_be_turned_off(
    root: Path, save: Save, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the flag of the Trainer."""
    save("train/a/x", random_videos(3, 4))
    predict(root, tmp_path / "out", enable_progress_bar=False)
    assert "videos:" not in capsys.readouterr().err


@pytest.mark.processes
def test_a_log_has_no_chatter(small_root: Path, tmp_path: Path) -> None:
    """Not on a terminal: what was warned of, and where the files are; no bars, no advertisement."""
    command = [sys.executable, "-m", "featx", "predict", "--model.weights=random"]
    command += ["--model.backbone=resnet50", f"--data.root={small_root}"]
    command += ["--trainer.accelerator=cpu", f"--writer.output_dir={tmp_path / 'out'}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    found = [line.split(":")[0] for line in lines if line.endswith(".h5") and "videos in" in line]
    assert found == ["train", "val", "test"]
    assert "\r" not in done.stderr
    for chatter in ("Tip", "TPU", "LeafSpec", "many workers", "it/s", "frame/s"):
        assert chatter not in done.stderr
    assert len(lines) <= 8


def test_other_warnings_stay() -> None:
    """Only Lightning's own are left out, and only for as long as it runs."""
    with pytest.warns(UserWarning, match="yours"), without_chatter():
        warnings.warn("yours", stacklevel=1)
    with pytest.warns(UserWarning, match="does not have many workers"):
        warnings.warn("it does not have many workers", stacklevel=1)
