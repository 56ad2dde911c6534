"""The demo: the whole job on clips that it makes itself."""

from pathlib import Path

import numpy as np
import pytest

from featx import demo as demo_module
from featx.cli import main
from featx.demo import draw_motion
from featx.validation import find_problems, open_feature_file


def test_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Three valid files, their places, and what to type next; a second time it works as well."""
    for _ in range(2):
        assert main(["demo", "--output-dir", str(tmp_path / "demo")]) == 0
        out = capsys.readouterr().out
        for split, count in {"train": 6, "val": 2, "test": 2}.items():
            path = tmp_path / "demo" / "features" / f"{split}_features_multiscale.h5"
            assert f"  {path}\n" in out
            with open_feature_file(path) as file:
                assert find_problems(file) == []
                assert file["features"].shape == (count, 73, 2048)
                assert sorted({*file["labels"][:].tolist()}) == [0, 1]
        assert out.count("\nvalid\n") == 3
        assert "featx preprocess RAW_DIR PROCESSED_DIR" in out
    clips = {path.relative_to(tmp_path / "demo").as_posix() for path in tmp_path.rglob("*.mp4")}
    assert len(clips) == 10
    assert "raw/val/down/clip_0.mp4" in clips


def test_the_square_moves_its_way() -> None:
    """The bright square's centre goes right in one category, and down in the other."""
    for name, (x, y) in demo_module._DIRECTIONS.items():
        frames = draw_motion((x, y), seed=1)
        centres = [np.argwhere(frame.min(axis=2) >= 160).mean(axis=0) for frame in frames]
        moved = centres[-1] - centres[0]
        assert moved == pytest.approx((y * 62, x * 62), abs=2), name
