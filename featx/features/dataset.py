"""`FeatureDataset`: the videos of a feature file, one by one, for training."""

import os
from bisect import bisect
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from featx.durable import expand, file_stats
from featx.errors import ChangedInputError
from featx.features.feature_file import (
    DAMAGE,
    TIMES,
    decode,
    find_chunk_frames,
    open_beside_others,
    open_feature_file,
    read_columns,
    read_features,
    read_inputs,
    read_names,
    read_row,
    read_times,
    refuse_damage,
)
from featx.features.names import Names
from featx.features.provenance import Provenance
from featx.features.shards import Shard, find_shards, open_shard
from featx.parallel import count_cores, map_ahead

T = TypeVar("T")

_OPEN_SHARDS = 64  # of a process: each is some file handles, and what HDF5 knows of its chunks

_RECIPE = (
    "multi_scale",
    "scales",
    "scale_average",
    "scale_align",
    "backbone",
    "weights_sha256",
)


@dataclass(frozen=True, slots=True, eq=False)
class FeatureItem:
    """A video of a feature file.

    It unpacks to four: `features, label, num_frames, video_id = dataset[0]`. A DataLoader with
    batches needs a `collate_fn`, because videos have different lengths: the one of PyTorch raises a
    TypeError. See `FeatureDataModule` for batches.

    Attributes:
        features: float32 `[num_frames, feature_dim]`, without padding; of files with several
            vectors a frame, `[num_frames, K, feature_dim]`.
        label: Index of its category; -1 if it has none.
        num_frames: Number of frames.
        video_id: Its name; its row, if the file has no names.
        columns: What else a table has said of it: text and numbers, by name.
        times: When each frame is shown, float32 `[num_frames]`, in seconds from the beginning of
            its clip; None if the file does not tell.
    """

    features: Tensor
    label: int
    num_frames: int
    video_id: str
    columns: Mapping[str, Any] = field(default_factory=dict)
    times: Tensor | None = None

    def __iter__(self) -> Iterator[Any]:
        """Yield features, label, num_frames and video_id."""
        return iter((self.features, self.label, self.num_frames, self.video_id))


def average_vectors(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """One vector a frame `[num_frames, feature_dim]`: the mean, if a frame has several."""
    if features.ndim == 2:
        return features
    means: NDArray[np.float64] = features.mean(axis=1, dtype=np.float64)
    return means.astype(np.float32)


class FeatureDataset(Dataset[FeatureItem]):
    """Map-style; an item is a `FeatureItem`.

    Only labels, lengths and names are held in memory. The file is opened when the first item is
    read, once per process, so that a DataLoader can send the dataset to its workers. Of a file over
    shards, these are opened when they are asked for, and only so many at a time.

    Args:
        path: A feature file, of featx or in the same layout.

    Attributes:
        path: The file.
        feature_dim: Number of features per frame.
        max_frames: Number of frames of the longest video.
        categories: Label of each category.
        provenance: How the file was made, as far as it says so.
        recipe: What else the features depend on, as far as the file records it.
        labels: Label `[num_videos]` of each video, int64.
        num_frames: Number of frames `[num_videos]` of each video, int32.
        video_ids: Name of each video; its row, if the file has no names.
        has_names: Whether it has.
        columns: What else a table has said of the videos, by name `[num_videos]`: text and numbers.
        has_times: Whether the file tells when frames are shown.
        input_sha256: What each row was made of: two of the same content have the same; empty if the
            file does not tell.

    Raises:
        MissingInputError: The file does not exist.
        InputError: It is not a feature file.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = expand(path)
        with open_feature_file(self.path) as file:
            self._stats = file_stats(self.path.stat())
            try:
                self.feature_dim = int(file.attrs["feature_dim"])
                self.max_frames = int(file.attrs["max_frames"])
                self.provenance = provenance = Provenance.from_attributes(file.attrs)
                self.categories = dict(provenance.categories)
                self.labels: NDArray[np.int64] = file["labels"][:]
                self.num_frames: NDArray[np.int32] = file["num_frames"][:]
                self.recipe = {name: str(getattr(provenance, name)) for name in _RECIPE}
                self.has_names = "video_ids" in file
                names = read_names(file)
                self._shards = find_shards(file)
                self.columns = read_columns(file)
                self.has_times = TIMES in file
                self.input_sha256 = Names.pack(map(bytes.decode, read_inputs(file)))
            except DAMAGE as error:
                raise refuse_damage(self.path, error) from error
        self.video_ids = names if self.has_names else Names.pack(map(str, range(len(self))))
        self._file: h5py.File | None = None
        self._opened: OrderedDict[int, h5py.File] = OrderedDict()  # shards, by their numbers
        self._checked: dict[Path, tuple[int, int]] = {}
        self._process: int | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> FeatureItem:
        """Read a video.

        Raises:
            IndexError: There is no such row.
            InputError: The file is damaged.
            ChangedInputError: It is another than at first.
        """
        return self.read(row)

    def read(
        self, row: int, frames: NDArray[np.int64] | Sequence[int] | None = None
    ) -> FeatureItem:
        """Read a video, or some frames of it.

        Args:
            row: Which video; below 0, from the end.
            frames: Which frames, in any order, also repeatedly; by default, all. What lies before
                the first and after the last of them is not read.

        Raises:
            IndexError: There is no such row, or no such frame.
            InputError: The file is damaged.
            ChangedInputError: It is another than at first.
        """
        if not -len(self) <= row < len(self):
            raise IndexError(f"{self.path}: expected a row below {len(self)}, found {row}.")
        row %= len(self)
        num_frames = int(self.num_frames[row])
        part = slice(num_frames)
        order: NDArray[np.int64] | slice = slice(None)
        if frames is not None:
            frames = np.asarray(frames, np.int64)
            if not len(frames):
                raise IndexError(f"{self.path}: expected one frame or more, found none.")
            first, last = frames.min(), frames.max()
            if first < 0 or last >= num_frames:
                raise IndexError(
                    f"{self.path}: expected frames below {num_frames}, found {first} to {last}."
                )
            num_frames, part, order = len(frames), slice(first, last + 1), frames - first
        file, place = self._locate(row)
        times = None
        try:
            values = file["features"][place, part][order]
            features = torch.from_numpy(values.astype(np.float32, copy=False))
            if self.has_times:
                times = torch.from_numpy(read_times(file, place)[part][order])
        except DAMAGE as error:
            raise refuse_damage(self.path, error) from error
        columns = {name: values[row] for name, values in self.columns.items()}
        return FeatureItem(
            features,
            int(self.labels[row]),
            num_frames,
            self.video_ids[row],
            {
                n: cell.item() if isinstance(cell, np.generic) else cell
                for n, cell in columns.items()
            },
            times,
        )

    def map_rows(
        self, function: Callable[[NDArray[np.float32]], T], rows: Sequence[int] | None = None
    ) -> Iterator[T]:
        """What a function gives for the features of each row, on all cores.

        HDF5 reads for one thread at a time, but most of reading is to decompress.

        Args:
            function: Takes features `[num_frames, feature_dim]`, without padding; where a frame
                has several vectors, their mean. It is called in threads, and must not change what
                it is given.
            rows: Which rows, in which order; by default all.

        Raises:
            InputError: The file is damaged.
            ChangedInputError: It is another than at first.
        """
        rows = range(len(self)) if rows is None else rows

        def read(row: int) -> list[bytes] | NDArray[np.float32]:
            file, place = self._locate(row)
            try:
                is_ours = find_chunk_frames(file["features"]) > 0
                chunks = read_row(file, place) if is_ours else None
                return read_features(file, place) if chunks is None else chunks
            except DAMAGE as error:
                raise refuse_damage(self.path, error) from error

        def compute(item: tuple[int, list[bytes] | NDArray[np.float32]]) -> T:
            row, found = item
            if isinstance(found, list):
                try:
                    found = decode(found, int(self.num_frames[row]), self.feature_dim)
                except ValueError as error:
                    raise refuse_damage(self.path, error) from error
            return function(average_vectors(found))

        items = ((row, read(row)) for row in rows)
        with closing(map_ahead(compute, items, count_cores(), "reading", ahead=4)) as ahead:
            for _, result in ahead:
                yield result.result()

    def __getstate__(self) -> dict[str, object]:
        """Everything but the open file: another process opens its own."""
        return self.__dict__ | {"_file": None, "_process": None, "_opened": OrderedDict()}

    def _locate(self, row: int) -> tuple[h5py.File, int]:
        """The file that has the features of a row, opened, and in which row of it."""
        whole = self._open()
        if not self._shards:
            return whole, row
        number = bisect(self._shards, row, key=lambda shard: shard.start) - 1
        shard = self._shards[number]
        file = self._opened.pop(number, None) or self._open_shard(shard, whole)
        self._opened[number] = file  # the last one that was read
        if len(self._opened) > _OPEN_SHARDS:
            self._opened.popitem(last=False)  # which closes it, once nobody reads it
        return file, row - shard.start

    def _open_shard(self, shard: Shard, whole: h5py.File) -> h5py.File:
        """Open a shard: to look at all that it says of its rows is enough the first time."""
        known = self._checked.get(shard.path)
        if known is not None and shard.path.exists() and file_stats(shard.path.stat()) == known:
            return open_beside_others(shard.path)
        self._check_unchanged()
        file = open_shard(shard, whole)
        self._checked[shard.path] = file_stats(shard.path.stat())
        return file

    def _open(self) -> h5py.File:
        """The file, opened by this very process: HDF5 does not survive a fork."""
        if self._file is None or self._process != os.getpid():
            self._check_unchanged()
            self._file, self._process = open_feature_file(self.path), os.getpid()
            self._opened = OrderedDict()
        return self._file

    def _check_unchanged(self) -> None:
        if file_stats(self.path.stat()) != self._stats:
            raise ChangedInputError(
                f"{self.path}: expected the file whose labels were read, found another. "
                "It has been replaced since: make the dataset again."
            )
