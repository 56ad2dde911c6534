"""The demo: the whole job on clips that it makes itself."""

from pathlib import Path

import numpy as np
import pytest

from featx.cli import main
from featx.commands import demo as demo_module
from featx.commands.demo import draw_motion
from featx.errors import UsageError
from featx.features.feature_file import open_feature_file
from featx.features.validation import find_problems


def test_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Three valid files, their places, and what to type next; a second time it works as well."""
    for size in ([], ["--num-frames", "64", "--image-size", "32"]):
        assert main(["demo", "--output-dir", str(tmp_path / "demo"), *size]) == 0
        out = capsys.readouterr().out
        for split, count in {"train": 8, "val": 4, "test": 4}.items():
            path = tmp_path / "demo" / "features" / f"{split}_features_multiscale.h5"
            assert f"  {path}\n" in out
            with open_feature_file(path) as file:
                assert find_problems(file) == []
                assert file["features"].shape == (count, 73, 2048)
                assert sorted({*file["labels"][:].tolist()}) == [0, 1, 2, 3]
        assert out.count("\nvalid\n") == 3
        assert "featx preprocess RAW_DIR PROCESSED_DIR" in out
    clips = {path.relative_to(tmp_path / "demo").as_posix() for path in tmp_path.rglob("*.mp4")}
    assert len(clips) == 16
    assert "raw/val/down/clip_000.mp4" in clips


@pytest.mark.usefixtures("tiny")
def test_more_and_smaller_videos(tmp_path: Path) -> None:
    """As many clips as one asks for, each another, of the size that one asks for."""
    demo_module.demo(tmp_path, clips=3, num_frames=5, image_size=16)
    with open_feature_file(tmp_path / "features" / "train_features_multiscale.h5") as file:
        assert file.attrs["num_videos"] == 12
        assert file["num_frames"][:].tolist() == [5] * 12
    contents = [path.read_bytes() for path in tmp_path.rglob("*.mp4")]
    assert len(contents) == len({*contents}) == 12 + 8 + 8
    with pytest.raises(UsageError, match="clips: expected 1 or more, found 0"):
        demo_module.demo(tmp_path, clips=0)


def test_the_square_moves_its_way() -> None:
    """By half of the frame in each direction, through the middle."""
    for name, (x, y) in demo_module._DIRECTIONS.items():
        frames = draw_motion((x, y), seed=1)
        centres = [np.argwhere(frame.min(axis=2) >= 160).mean(axis=0) for frame in frames]
        moved = centres[-1] - centres[0]
        assert moved == pytest.approx((y * 64, x * 64), abs=2), name
        assert centres[24] == pytest.approx((64, 64), abs=12), name
