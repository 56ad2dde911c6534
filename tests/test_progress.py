"""The progress bar: videos, frames a second, the time left, and what was found."""

import re
from pathlib import Path

import numpy as np
import pytest
from helpers import Save, random_video, random_videos
from lightning.pytorch import Trainer

from featx import FeatureExtractor, FeatureWriter, VideoDataModule
from featx.progress import Progress


def last_line(text: str) -> str:
    """What is left on the screen."""
    return text.rstrip().split("\r")[-1]


def test_it_counts_frames(capsys: pytest.CaptureFixture[str]) -> None:
    """Half of the frames are half of the work, in however few of the videos."""
    progress = Progress(np.array([2, 6, 2, 2]), found=3, num_ranks=2)
    progress.advance(2, 8)
    progress.close()
    line = last_line(capsys.readouterr().err)
    expected = (
        r"2/4 videos, process 1 of 2, 3 found from an earlier run:  67%\|.*\| 8/12 \[.*frame/s\]"
    )
    assert re.fullmatch(expected, line)


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
