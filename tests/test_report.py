"""`featx inspect`: what is in the file, and whether it is valid."""

import json
from pathlib import Path

import h5py
import pytest
from test_feature_file import write

from featx.report import inspect


def test_a_valid_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Shapes, statistics and attributes are shown, and the last word is valid."""
    assert inspect(write(tmp_path / "a.h5", [3, 5, 5]))
    out = capsys.readouterr().out
    assert "[3, 5, 4] float32" in out
    assert "gzip level 4" in out
    assert "min 3, max 5, mean 4.3" in out
    assert "2, of 1 to 2 videos" in out
    assert out.splitlines()[-1] == "valid"


def test_an_invalid_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is wrong is told, and the last word is not valid."""
    path = write(tmp_path / "a.h5", [3, 5])
    with h5py.File(path, "r+") as file:
        file["labels"][0] = 9
    assert not inspect(path)
    lines = capsys.readouterr().out.splitlines()
    assert any("invalid: labels: expected" in line for line in lines)
    assert lines[-1] == "not valid"


def test_json_is_one_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For a program: attributes, statistics and validity."""
    assert inspect(write(tmp_path / "a.h5", [3, 5]), json=True)
    found = json.loads(capsys.readouterr().out)
    assert found["valid"]
    assert found["problems"] == []
    assert found["features_shape"] == [2, 5, 4]
    assert found["num_frames"] == {"min": 3, "max": 5, "mean": 4.0}
    assert found["videos_per_category"] == {"a": 1, "b": 1}
    assert found["attributes"]["category_mapping"] == {"a": 0, "b": 1}
    assert found["attributes"]["multi_scale"] is True
    assert found["bytes"] == (tmp_path / "a.h5").stat().st_size
