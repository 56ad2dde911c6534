"""`featx inspect`: what is in the file, and whether it is valid."""

import json
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers import write_feature_file as write

from featx.errors import InputError
from featx.report import inspect


def test_a_valid_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Shapes, statistics and attributes are shown, and the last word is valid."""
    assert inspect(write(tmp_path / "a.h5", [3, 5, 5]))
    out = capsys.readouterr().out
    assert "[3, 5, 4] float32" in out
    assert "gzip level 4" in out
    assert "min 3, max 5, mean 4.33333" in out
    assert "2, with 1 to 2 videos each" in out
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
    assert inspect(write(tmp_path / "a.h5", [3, 5]), as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert found["valid"]
    assert found["problems"] == []
    assert found["features_shape"] == [2, 5, 4]
    assert found["num_frames"] == {"min": 3, "max": 5, "mean": 4.0}
    assert found["videos_per_category"] == {"a": 1, "b": 1}
    assert found["attributes"]["category_mapping"] == {"a": 0, "b": 1}
    assert found["attributes"]["multi_scale"] is True
    assert found["bytes"] == (tmp_path / "a.h5").stat().st_size


def test_an_old_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file without video_ids, and with chunks across videos, is valid; even without videos."""
    for count in (0, 9):
        path = tmp_path / f"{count}.h5"
        with h5py.File(path, "w") as file:
            file.create_dataset(
                "features",
                data=np.ones((count, 7 if count else 0, 4), np.float32),
                maxshape=(None, None, 4),
                chunks=True,
                compression="gzip",
            )
            file["labels"] = np.zeros(count, np.int64)
            file["num_frames"] = np.full(count, 7, np.int32)
            file.attrs["num_videos"] = count
            file.attrs["max_frames"] = 7 if count else 0
            file.attrs["feature_dim"] = 4
            file.attrs["category_mapping"] = json.dumps({"a": 0} if count else {})
            file.attrs["multi_scale"] = False
        assert inspect(path)
        assert "not recorded" in capsys.readouterr().out


def test_a_damaged_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A config that is no JSON is shown as it is."""
    path = write(tmp_path / "a.h5", [3])
    with h5py.File(path, "r+") as file:
        file.attrs["config"] = "{"
    assert inspect(path, as_json=True)
    assert json.loads(capsys.readouterr().out)["attributes"]["config"] == "{"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_videos", "abc"),
        ("num_videos", np.arange(3)),
        ("multi_scale", np.array([True, False])),
        ("category_mapping", '{"a": [1]}'),
    ],
)
def test_attributes_of_other_types(tmp_path: Path, name: str, value: object) -> None:
    """A file whose attributes are something else is no feature file."""
    path = write(tmp_path / "a.h5", [3])
    with h5py.File(path, "r+") as file:
        file.attrs[name] = value
    with pytest.raises(InputError, match=rf"expected a feature file, found {name} that is not"):
        inspect(path)


def test_damaged_bytes_are_no_traceback(tmp_path: Path) -> None:
    """However a file is damaged, it is valid, not valid, or refused in one line."""
    content = write(tmp_path / "a.h5", [3, 9, 2]).read_bytes()
    rng = np.random.default_rng(0)
    path = tmp_path / "damaged.h5"
    for _ in range(150):
        damaged = bytearray(content)
        for place in rng.integers(0, len(content), 20):
            damaged[place] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged[: rng.integers(1, len(content) + 1)])
        with suppress(InputError):
            inspect(path)
