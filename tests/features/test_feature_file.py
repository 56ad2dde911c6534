"""The HDF5 layout: what is written comes back, and what is damaged is found."""

import json
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

from featx.cli import main
from featx.errors import InputError, OutputError
from featx.features.dataset import FeatureDataset
from featx.features.feature_file import encode, file_name, open_feature_file, read_row


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


def add_optional(file: h5py.File) -> None:
    """Add everything that format 1 allows beside what featx writes today."""
    count, frames = file["features"].shape[:2]
    for name in ("start_times", "end_times"):
        file[name] = np.zeros((count, frames), np.float32)
    for name in ("fps", "duration"):
        file[name] = np.full(count, 25.0)
    file["source_frames"] = np.full(count, 100)
    sets = file.create_dataset("label_sets", (count,), h5py.vlen_dtype(np.int64))
    sets[0] = [0, 1]
    file.attrs["backbone_answer"] = np.arange(16.0)
    file["not known"] = np.zeros(1)


def test_readers_accept_all_of_format_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Optional datasets are checked, and names that are not known are ignored."""
    path = write(tmp_path / "train_features.h5", [3, 5])
    with h5py.File(path, "r+") as file:
        add_optional(file)
    assert problems(path) == []
    assert np.array_equal(FeatureDataset(path)[1].features, make_rows([3, 5])[1])
    assert main(["inspect", str(path)]) == 0
    assert main(["export", str(path), str(tmp_path / "npy")]) == 0
    capsys.readouterr()
    with h5py.File(path, "r+") as file:
        del file["fps"], file["label_sets"]
        file["fps"], file["label_sets"] = np.zeros(3), np.zeros(2, np.int64)
    assert problems(path) == [
        "label_sets: expected lists, found int64",
        "fps: expected shape [2] by the attributes, found [3]",
    ]


def nest(levels: int) -> dict[str, object]:
    """Settings of so many levels of JSON."""
    nested: object = {}
    for _ in range(levels - 2):
        nested = [nested]
    return {"preprocessing": nested}


def test_limits_of_the_writer_and_the_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """JSON of 32 levels is written and read; deeper or longer JSON is refused by both."""
    path = write(tmp_path / "a.h5", [3], nest(32))
    open_feature_file(path).close()
    with pytest.raises(OutputError, match="config: expected an attribute of up to 64 MB"):
        write(tmp_path / "b.h5", [3], nest(33))
    for config in (json.dumps(nest(33)), "[" * 100_000):
        with h5py.File(path, "r+") as file:
            file.attrs["config"] = config
        with pytest.raises(InputError, match="config of more than 32 levels of JSON"):
            open_feature_file(path)
    write(path, [3])
    monkeypatch.setattr("featx.features.feature_file.MAX_ATTRIBUTE_BYTES", 10)
    with pytest.raises(InputError, match="config of more than 0 MB"):
        open_feature_file(path)
    with pytest.raises(OutputError, match="category_mapping: expected an attribute of up to 0 MB"):
        write(tmp_path / "b.h5", [3])
