"""A dataset of features: one video per item, from any process."""

import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from helpers import ROW_DIM, make_rows, problems, write_feature_file
from torch.utils.data import DataLoader

from featx import FeatureDataset
from featx.errors import ChangedInputError, InputError, MissingInputError
from featx.features.dataset import FeatureItem

LENGTHS = [3, 1, 5, 2]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A feature file."""
    return write_feature_file(tmp_path / "train_features_multiscale.h5", LENGTHS)


def test_an_item(path: Path) -> None:
    """Features without padding, the label, the length and the name, as they were written."""
    dataset = FeatureDataset(path)
    assert len(dataset) == 4
    assert dataset.max_frames == 5
    assert dataset.categories == {"a": 0, "b": 1}
    for row, expected in enumerate(make_rows(LENGTHS)):
        item = dataset[row]
        assert torch.equal(item.features, torch.from_numpy(expected))
        assert (item.label, item.num_frames) == (row % 2, LENGTHS[row])
        assert item.video_id == f"video {row}"
        assert item.features.shape == (item.num_frames, dataset.feature_dim)


def test_the_recipe_tells_files_apart(path: Path) -> None:
    """What the old script does not record is what it did; averages that are the same are one."""
    before = FeatureDataset(path).recipe
    write_feature_file(path, LENGTHS, {"scale_average": "zeros", "scale_align": "index"})
    assert FeatureDataset(path).recipe == before
    write_feature_file(path, LENGTHS, {"scale_average": "present"})
    assert FeatureDataset(path).recipe == before | {"scale_average": "present"}
    write_feature_file(path, LENGTHS, {"scale_average": "present", "scale_align": "time"})
    assert FeatureDataset(path).recipe == before | {"scale_align": "time"}


def test_several_vectors_a_frame(path: Path) -> None:
    """Files of rank 4 and of float16 give float32; `map_rows` takes the mean of a frame's."""
    write_feature_file(path, LENGTHS)
    rows = make_rows(LENGTHS)
    with h5py.File(path, "r+") as file:
        single = file["features"][:]
        del file["features"]
        several = np.stack([single, 3 * single], axis=2).astype(np.float16)
        file.create_dataset("features", data=several, chunks=(1, *several.shape[1:]))
        file.attrs["views"] = '["centre", "mirrored"]'
    assert problems(path) == []
    dataset = FeatureDataset(path)
    assert dataset.feature_dim == ROW_DIM
    item = dataset[2]
    assert (item.features.dtype, item.features.shape) == (torch.float32, (5, 2, ROW_DIM))
    expected = np.stack([rows[2], 3 * rows[2]], axis=1).astype(np.float16).astype(np.float32)
    assert np.array_equal(item.features.numpy(), expected)
    [mean] = dataset.map_rows(lambda features: features.copy(), [2])
    np.testing.assert_allclose(mean, expected.mean(axis=1), rtol=1e-6)


def test_an_item_unpacks_to_four(path: Path) -> None:
    """As a tuple of four did; a copy of it keeps its times and columns."""
    columns = {"signer": np.array([7, 8, 7, 9])}
    item = FeatureDataset(write_feature_file(path, LENGTHS, columns=columns, has_times=True))[1]
    features, label, num_frames, video_id = item
    assert (label, num_frames, video_id) == (1, 1, "video 1")
    assert features is item.features
    other = replace(item, label=5)
    assert (other.label, other.times, other.columns) == (5, item.times, {"signer": 8})


def test_batches_need_a_way_to_be_joined(path: Path) -> None:
    """PyTorch's own way refuses an item by its class; without batches, items come as they are."""
    dataset = FeatureDataset(path)
    with pytest.raises(TypeError, match=r"batch must contain .*FeatureItem"):
        next(iter(DataLoader(dataset, batch_size=2)))
    [item, *_] = DataLoader(dataset, batch_size=None)
    assert torch.equal(item.features, dataset[0].features)


def test_rows_from_the_end(path: Path) -> None:
    """As any sequence has them; beyond both ends there are none."""
    dataset = FeatureDataset(path)
    assert dataset[-1].video_id == "video 3"
    for row in (4, -5):
        with pytest.raises(IndexError, match=f"expected a row below 4, found {row}"):
            dataset[row]


def test_some_frames(path: Path) -> None:
    """In the order asked for, also repeatedly, with their times; the rest is of the video."""
    columns = {"signer": np.array([7, 8, 7, 9])}
    dataset = FeatureDataset(write_feature_file(path, LENGTHS, columns=columns, has_times=True))
    item = dataset.read(-2, np.array([3, 1, 1]))
    assert torch.equal(item.features, torch.from_numpy(make_rows(LENGTHS)[2][[3, 1, 1]]))
    assert (item.label, item.num_frames, item.video_id) == (0, 3, "video 2")
    assert item.times is not None
    assert item.times.tolist() == [3 / 8, 1 / 8, 1 / 8]
    assert item.columns == {"signer": 7}
    for frames, found in (([2, 5], "2 to 5"), ([-1, 0], "-1 to 0")):
        with pytest.raises(IndexError, match=f"expected frames below 5, found {found}"):
            dataset.read(2, np.array(frames))


def test_it_opens_lazily_and_travels(path: Path) -> None:
    """No file is open before the first item, and a copy in another process opens its own."""
    dataset = FeatureDataset(path)
    assert dataset._file is None
    assert dataset[1].num_frames == 1
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy._file is None
    assert torch.equal(copy[2].features, dataset[2].features)


class Telling(FeatureDataset):
    """Fails where a process reads from a file that another one has opened."""

    def __getitem__(self, row: int) -> FeatureItem:
        item = super().__getitem__(row)
        assert self._process == os.getpid()
        return item


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.processes)])
def test_workers(path: Path, method: str) -> None:
    """Each opens the file itself, also after it was opened in the main process."""
    dataset = Telling(path)
    expected = [dataset[row].features for row in range(4)]
    loader = DataLoader(
        dataset,
        batch_size=None,
        num_workers=2 if method == "fork" else 1,  # a spawned one imports all anew
        multiprocessing_context=method,
        shuffle=False,
    )
    for item, features in zip(loader, expected, strict=True):
        assert torch.equal(item.features, features)


def test_a_file_of_the_old_layout(path: Path, tmp_path: Path) -> None:
    """Chunks across videos and no names: rows serve as names."""
    old = tmp_path / "old.h5"
    with h5py.File(path) as source, h5py.File(old, "w") as target:
        for name in ("features", "labels", "num_frames"):
            target.create_dataset(name, data=source[name][:], chunks=True)
        for name in ("num_videos", "max_frames", "feature_dim", "category_mapping", "multi_scale"):
            target.attrs[name] = source.attrs[name]
    dataset = FeatureDataset(old)
    assert [item.video_id for item in map(dataset.__getitem__, range(4))] == ["0", "1", "2", "3"]
    assert torch.equal(dataset[2].features, FeatureDataset(path)[2].features)


def test_files_that_are_none(tmp_path: Path) -> None:
    """They are refused at once."""
    with pytest.raises(MissingInputError, match="expected a feature file"):
        FeatureDataset(tmp_path / "none.h5")
    (tmp_path / "text.h5").write_text("hello")
    with pytest.raises(InputError, match="expected an HDF5 file"):
        FeatureDataset(tmp_path / "text.h5")


def test_a_damaged_chunk(path: Path) -> None:
    """It is told in a line, with the file."""
    with h5py.File(path, "r+") as file:
        file["features"].id.write_direct_chunk((1, 0, 0), b"nonsense")
    dataset = FeatureDataset(path)
    assert dataset[0].features.isfinite().all()
    with pytest.raises(InputError, match=r"expected a readable feature file.*Extract the feature"):
        dataset[1]


KINDS = [
    {},
    {"mode": "r"},
    {"mode": "r+"},
    {"mode": "a"},
    {"mode": "r", "locking": True},
    {"mode": "r", "locking": False},
    {"mode": "r", "locking": "best-effort"},
    {"mode": "r+", "locking": False},
]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_beside_an_open_file(path: Path, kind: dict[str, Any]) -> None:
    """A file that the process has open in h5py, in whatever way, can be read and checked."""
    with h5py.File(path, **kind) as file:
        dataset = FeatureDataset(path)
        assert torch.equal(dataset[0].features, torch.from_numpy(file["features"][0, :3]))
        assert problems(path) == []


def test_h5py_beside_a_dataset(path: Path) -> None:
    """The other way round, too: h5py opens a file as it does by default."""
    dataset = FeatureDataset(path)
    expected = dataset[0].features
    with h5py.File(path) as file, h5py.File(path, "r") as again:
        assert torch.equal(expected, torch.from_numpy(file["features"][0, :3]))
        assert torch.equal(dataset[2].features, torch.from_numpy(again["features"][2, :5]))


@pytest.mark.processes
def test_beside_a_writer_elsewhere(path: Path) -> None:
    """Another process holds HDF5's lock of the file: it can be read all the same."""
    program = "import h5py, sys; f = h5py.File(sys.argv[1], 'r+'); print(1, flush=True); input()"
    command = [sys.executable, "-c", program, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout
        assert writer.stdout.readline() == b"1\n"
        assert FeatureDataset(path)[1].num_frames == 1
        writer.communicate(b"\n")


def test_a_file_that_was_replaced(path: Path) -> None:
    """Labels of one file never stand beside features of another."""
    dataset, opened = FeatureDataset(path), FeatureDataset(path)
    expected = opened[0].features
    write_feature_file(path.with_name("other.h5"), [2, 4, 6]).replace(path)
    with pytest.raises(ChangedInputError, match=r"found another\. It has been replaced since"):
        dataset[0]
    with pytest.raises(ChangedInputError, match="found another"):
        pickle.loads(pickle.dumps(opened))[0]
    assert torch.equal(opened[0].features, expected)  # it was open before
    assert len(FeatureDataset(path)) == 3


def test_rows_through_a_function(path: Path) -> None:
    """Read in any order, in our layout and in that of another program."""
    other = path.with_name("val_features_multiscale.h5")
    with h5py.File(path) as ours, h5py.File(other, "w") as file:
        for name in ("labels", "num_frames", "video_ids"):
            ours.copy(name, file)
        file.create_dataset("features", data=ours["features"][:], chunks=(2, 2, 4), shuffle=True)
        file.attrs.update(ours.attrs)
    expected = make_rows(LENGTHS)
    for dataset in (FeatureDataset(path), FeatureDataset(other)):
        found = [*dataset.map_rows(lambda features: features.copy())]
        assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
        assert [*dataset.map_rows(len, [2, 0])] == [5, 3]


def test_a_damaged_chunk_on_the_way(path: Path) -> None:
    """It is told in one line, and so is what a function raises of itself."""
    dataset = FeatureDataset(path)
    with h5py.File(path, "r+") as file:
        place = file["features"].id.get_chunk_info_by_coord((2, 0, 0))
    content = bytearray(path.read_bytes())
    content[place.byte_offset + 5] ^= 255
    path.write_bytes(content)
    dataset = FeatureDataset(path)
    with pytest.raises(InputError, match=r"expected a readable feature file, found: a damaged"):
        [*dataset.map_rows(len)]

    def fail(features: object) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        [*dataset.map_rows(fail, [0])]


def test_frames_that_are_none(path: Path) -> None:
    """No frame at all is an error like a frame that is not there; a list is as good as an array."""
    dataset = FeatureDataset(path)
    with pytest.raises(IndexError, match="expected one frame or more, found none"):
        dataset.read(0, [])
    assert torch.equal(dataset.read(2, [4, 0]).features, dataset[2].features[[4, 0]])
