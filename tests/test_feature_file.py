"""The HDF5 layout: what is written comes back, and what is damaged is found."""

import json
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from featx.errors import InputError, MissingInputError
from featx.feature_file import (
    Layout,
    create,
    encode,
    file_name,
    find_problems,
    open_feature_file,
    read_row,
    write_row,
)

DIM = 4
ATTRIBUTES = {"category_mapping": json.dumps({"a": 0, "b": 1}), "multi_scale": True}


def plan(lengths: list[int]) -> Layout:
    """The layout of a file with rows of these lengths."""
    count = len(lengths)
    return Layout.plan(
        np.arange(count) % 2,
        np.array(lengths, np.int32),
        [f"video {i}" for i in range(count)],
        DIM,
        ATTRIBUTES,
    )


def make_rows(lengths: list[int]) -> list[np.ndarray]:
    """Random features of rows of these lengths."""
    rng = np.random.default_rng(0)
    return [rng.standard_normal((length, DIM)).astype(np.float32) for length in lengths]


def write(path: Path, lengths: list[int]) -> Path:
    """A whole file."""
    layout = plan(lengths)
    with h5py.File(path, "w") as file:
        create(file, layout)
        for row, features in enumerate(make_rows(lengths)):
            write_row(file, row, encode(features, layout))
    return path


def problems(path: Path) -> list[str]:
    """What is wrong with a file."""
    with open_feature_file(path) as file:
        return find_problems(file)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 700), min_size=1, max_size=8))
def test_rows_come_back(tmp_path_factory: pytest.TempPathFactory, lengths: list[int]) -> None:
    """Any lengths: ordinary h5py reads what was written, and zeros after it; nothing is wrong."""
    path = write(tmp_path_factory.mktemp("rows") / "a.h5", lengths)
    with h5py.File(path) as file:
        assert file["features"].shape == (len(lengths), max(lengths), DIM)
        for row, features in enumerate(make_rows(lengths)):
            np.testing.assert_array_equal(file["features"][row, : len(features)], features)
            assert not file["features"][row, len(features) :].any()
    assert problems(path) == []


def test_chunks_hold_one_video(tmp_path: Path) -> None:
    """Videos of one length are one chunk each; a long one makes no other row expensive."""
    layout = plan([73, 73, 73])
    assert (layout.chunk_frames, [layout.num_chunks(row) for row in range(3)]) == (73, [1, 1, 1])
    with h5py.File(write(tmp_path / "a.h5", [73] * 9 + [1000])) as file:
        assert file["features"].chunks == (1, 73, DIM)
        assert file["features"].id.get_num_chunks() == 9 + 14
        assert file["features"].compression == "gzip"
        assert file["features"].compression_opts == 4
    assert plan([5000] * 3).chunk_frames == 256


def test_rows_are_copied_compressed(tmp_path: Path) -> None:
    """The chunks of a row are what zlib made, and copying them needs no compression."""
    lengths = [3, 9, 3]
    layout = plan(lengths)
    with h5py.File(write(tmp_path / "a.h5", lengths)) as file:
        chunks = read_row(file, 1)
    assert chunks == encode(make_rows(lengths)[1], layout)
    whole = np.concatenate(
        [np.frombuffer(zlib.decompress(chunk), np.float32).reshape(-1, DIM) for chunk in chunks]
    )
    np.testing.assert_array_equal(whole[:9], make_rows(lengths)[1])


def test_same_rows_same_bytes(tmp_path: Path) -> None:
    """Nothing but the content decides the bytes of a file: no clock, no order of creation."""
    first, second = write(tmp_path / "a.h5", [3, 9]), write(tmp_path / "b.h5", [3, 9])
    assert first.read_bytes() == second.read_bytes()


@given(arrays(np.float32, (5, DIM), elements=st.floats(width=32, allow_nan=False)))
def test_encode_is_exact(features: np.ndarray) -> None:
    """Every finite float survives, minus zero and the smallest ones too."""
    (chunk,) = encode(features, plan([5]))
    assert np.array_equal(
        np.frombuffer(zlib.decompress(chunk), np.int32), features.view(np.int32).ravel()
    )


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
    with pytest.raises(InputError, match=r"found no labels, num_frames, num_videos"):
        open_feature_file(path)
    write(path, [3])
    with h5py.File(path, "r+") as file:
        file.attrs["category_mapping"] = "{"
    with pytest.raises(InputError, match="no category_mapping in JSON"):
        open_feature_file(path)


def test_file_names() -> None:
    """Files are named as the old script names them."""
    assert file_name("train", multi_scale=True) == "train_features_multiscale.h5"
    assert file_name("train", multi_scale=False) == "train_features.h5"
