"""The HDF5 layout: what is written comes back, and what is damaged is found."""

import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers import ROW_DIM, make_rows, plan, problems
from helpers import write_feature_file as write
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from featx.features.feature_file import (
    encode,
    file_name,
    read_row,
)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 700), min_size=1, max_size=8))
def test_rows_come_back(tmp_path_factory: pytest.TempPathFactory, lengths: list[int]) -> None:
    """Any lengths: ordinary h5py reads what was written, and zeros after it; nothing is wrong."""
    path = write(tmp_path_factory.mktemp("rows") / "a.h5", lengths)
    with h5py.File(path) as file:
        assert file["features"].shape == (len(lengths), max(lengths), ROW_DIM)
        for row, features in enumerate(make_rows(lengths)):
            np.testing.assert_array_equal(file["features"][row, : len(features)], features)
            assert not file["features"][row, len(features) :].any()
    assert problems(path) == []


def test_chunks_hold_one_video(tmp_path: Path) -> None:
    """Videos of one length are one chunk each; a long one makes no other row expensive."""
    layout = plan([73, 73, 73])
    assert layout.chunk_frames == 73
    with h5py.File(write(tmp_path / "a.h5", [73] * 9 + [1000])) as file:
        assert file["features"].chunks == (1, 73, ROW_DIM)
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
        [np.frombuffer(zlib.decompress(chunk), np.float32).reshape(-1, ROW_DIM) for chunk in chunks]
    )
    np.testing.assert_array_equal(whole[:9], make_rows(lengths)[1])


def test_same_rows_same_bytes(tmp_path: Path) -> None:
    """Nothing but the content decides the bytes of a file: no clock, no order of creation."""
    first, second = write(tmp_path / "a.h5", [3, 9]), write(tmp_path / "b.h5", [3, 9])
    assert first.read_bytes() == second.read_bytes()


@given(arrays(np.float32, (5, ROW_DIM), elements=st.floats(width=32, allow_nan=False)))
def test_encode_is_exact(features: np.ndarray) -> None:
    """Every finite float survives, minus zero and the smallest ones too."""
    (chunk,) = encode(features, plan([5]))
    assert np.array_equal(
        np.frombuffer(zlib.decompress(chunk), np.int32), features.view(np.int32).ravel()
    )


def test_file_names() -> None:
    """Files are named as the old script names them."""
    assert file_name("train", multi_scale=True) == "train_features_multiscale.h5"
    assert file_name("train", multi_scale=False) == "train_features.h5"
