"""Validation: damage is found and named."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers import make_rows, plan, problems
from helpers import write_feature_file as write

from featx.errors import InputError, MissingInputError
from featx.features.feature_file import create, encode, open_feature_file, write_row


def corrupt_chunk(file: h5py.File) -> None:
    """Damage inside of a compressed chunk."""
    chunk = bytearray(file["features"].id.read_direct_chunk((1, 0, 0))[1])
    chunk[len(chunk) // 2] ^= 255
    file["features"].id.write_direct_chunk((1, 0, 0), bytes(chunk))


def replace(file: h5py.File, name: str, values: np.ndarray) -> None:
    """Another dataset under the same name."""
    del file[name]
    file[name] = values


DAMAGES: dict[str, Callable[[h5py.File], None]] = {
    "features[1]: expected readable chunks": corrupt_chunk,
    "features[0]: expected finite": lambda file: file["features"].__setitem__((0, 1, 1), np.nan),
    "features[0]: expected zeros after": lambda f: f["features"].__setitem__((0, 4, 1), 1),
    "labels: expected those of": lambda file: file["labels"].__setitem__(0, 7),
    "labels: expected shape [2]": lambda f: replace(f, "labels", np.zeros(3, np.int64)),
    "labels: expected int64": lambda f: replace(f, "labels", np.zeros(2, np.int32)),
    "num_frames: expected 1 to 5": lambda file: file["num_frames"].__setitem__(0, 0),
    "num_frames: expected 1 to": lambda file: file["num_frames"].__setitem__(slice(0, 2), 3),
    "features: expected shape": lambda file: file.attrs.__setitem__("feature_dim", 5),
}


@pytest.mark.parametrize("expected", DAMAGES)
def test_damage_is_found(tmp_path: Path, expected: str) -> None:
    """Each damage is named with its place."""
    path = write(tmp_path / "a.h5", [3, 5])
    with h5py.File(path, "r+") as file:
        DAMAGES[expected](file)
    assert any(expected in problem for problem in problems(path)), problems(path)


def test_a_missing_row_is_found(tmp_path: Path) -> None:
    """Rows that were never written read as zeros, so the chunks are counted."""
    layout = plan([3, 5])
    with h5py.File(tmp_path / "a.h5", "w") as file:
        create(file, layout)
        write_row(file, 1, encode(make_rows([3, 5])[1], layout))
    assert problems(tmp_path / "a.h5") == ["features: expected 2 chunks, found 1"]


def test_what_is_no_feature_file(tmp_path: Path) -> None:
    """Nothing, text, other HDF5 and a broken mapping are refused in one line."""
    path = tmp_path / "a.h5"
    with pytest.raises(MissingInputError, match="found no file"):
        open_feature_file(path)
    path.write_text("hello")
    with pytest.raises(InputError, match="expected an HDF5 file") as caught:
        open_feature_file(path)
    assert "\n" not in str(caught.value)
    with h5py.File(path, "w") as file:
        file["features"] = np.zeros(3)
    with pytest.raises(InputError, match="found no dataset labels, no dataset num_frames"):
        open_feature_file(path)
    write(path, [3])
    with h5py.File(path, "r+") as file:
        file.attrs["category_mapping"] = "{"
    with pytest.raises(InputError, match="category_mapping that is not a JSON"):
        open_feature_file(path)
