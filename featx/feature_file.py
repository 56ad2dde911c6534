"""The feature file: its HDF5 layout, how a row is written, and what makes a file valid."""

import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from featx.errors import InputError, MissingInputError

FORMAT_VERSION = 1
GZIP_LEVEL = 4
MAX_CHUNK_FRAMES = 256

_DATASETS = {"features": "float32", "labels": "int64", "num_frames": "int32"}
_ATTRIBUTES = ("num_videos", "max_frames", "feature_dim", "category_mapping", "multi_scale")


def file_name(split: str, multi_scale: bool) -> str:
    """Name of a split's feature file."""
    return f"{split}_features{'_multiscale' if multi_scale else ''}.h5"


@dataclass(frozen=True, slots=True)
class Layout:
    """Everything about a feature file that is known before its first feature is.

    A chunk holds frames of one video alone, so reading a video costs what the video holds. It is
    as long as the median video, so that most videos are one chunk; frames that are all padding
    take no chunk, so that one long video does not make the others expensive.

    Attributes:
        labels: Label `[num_videos]` of each row, int64.
        num_frames: Real frames `[num_videos]` of each row, int32.
        video_ids: Name of each row.
        feature_dim: Number of features of a frame.
        max_frames: Frames that a row has room for.
        chunk_frames: Frames of a chunk.
        attributes: What the file says of itself beyond its shape.
    """

    labels: NDArray[np.int64]
    num_frames: NDArray[np.int32]
    video_ids: Sequence[str]
    feature_dim: int
    max_frames: int
    chunk_frames: int
    attributes: Mapping[str, Any]

    @classmethod
    def plan(
        cls,
        labels: NDArray[np.int64],
        num_frames: NDArray[np.int32],
        video_ids: Sequence[str],
        feature_dim: int,
        attributes: Mapping[str, Any],
    ) -> "Layout":
        """Lay out a file for these rows."""
        median = int(np.sort(num_frames)[len(num_frames) // 2])
        return cls(
            labels,
            num_frames,
            video_ids,
            feature_dim,
            max_frames=int(num_frames.max()),
            chunk_frames=min(median, MAX_CHUNK_FRAMES),
            attributes=attributes,
        )

    def select(self, rows: Sequence[int]) -> "Layout":
        """The layout of a file with some of the rows, whose chunks can be copied as they are."""
        return Layout(
            self.labels[rows],
            self.num_frames[rows],
            [self.video_ids[row] for row in rows],
            self.feature_dim,
            self.max_frames,
            self.chunk_frames,
            self.attributes,
        )

    def num_chunks(self, row: int) -> int:
        """Number of chunks that a row's real frames take."""
        return -(-int(self.num_frames[row]) // self.chunk_frames)


def encode(features: NDArray[np.float32], layout: Layout) -> list[bytes]:
    """Cut and compress the features `[num_frames, feature_dim]` of a video into its chunks."""
    size = layout.chunk_frames
    chunks = []
    for start in range(0, len(features), size):
        chunk = np.zeros((size, layout.feature_dim), np.float32)
        part = features[start : start + size]
        chunk[: len(part)] = part
        chunks.append(zlib.compress(chunk.data, GZIP_LEVEL))
    return chunks


def create(file: h5py.File, layout: Layout) -> None:
    """Write everything but the features into an empty file."""
    count = len(layout.labels)
    file.create_dataset(
        "features",
        shape=(count, layout.max_frames, layout.feature_dim),
        dtype=np.float32,
        chunks=(1, layout.chunk_frames, layout.feature_dim),
        compression="gzip",
        compression_opts=GZIP_LEVEL,
    )
    file.create_dataset("labels", data=layout.labels)
    file.create_dataset("num_frames", data=layout.num_frames)
    file.create_dataset("video_ids", data=layout.video_ids, dtype=h5py.string_dtype())
    file.attrs["num_videos"] = count
    file.attrs["max_frames"] = layout.max_frames
    file.attrs["feature_dim"] = layout.feature_dim
    for name, value in layout.attributes.items():
        file.attrs[name] = value


def write_row(file: h5py.File, row: int, chunks: Iterable[bytes]) -> None:
    """Write the compressed chunks of one row, as they are."""
    features = file["features"]
    for number, chunk in enumerate(chunks):
        features.id.write_direct_chunk((row, number * features.chunks[1], 0), chunk)


def read_row(file: h5py.File, row: int) -> list[bytes]:
    """Read the compressed chunks of one row, as they are."""
    features = file["features"]
    starts = range(0, int(file["num_frames"][row]), features.chunks[1])
    return [features.id.read_direct_chunk((row, start, 0))[1] for start in starts]


def open_feature_file(path: Path) -> h5py.File:
    """Open a feature file to read it.

    Raises:
        MissingInputError: There is no such file.
        InputError: It is no HDF5 file, or lacks a dataset or attribute of a feature file.
    """
    if not path.is_file():
        raise MissingInputError(f"{path}: expected a feature file, found no file. Check the path.")
    try:
        file = h5py.File(path, "r", locking=False)
    except OSError as error:
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"{path}: expected an HDF5 file, found: {reason}. Extract the features again."
        ) from error
    missing = [name for name in _DATASETS if not isinstance(file.get(name), h5py.Dataset)]
    missing += [name for name in _ATTRIBUTES if name not in file.attrs]
    if not missing and not _is_mapping(file.attrs["category_mapping"]):
        missing = ["category_mapping in JSON"]
    if missing:
        file.close()
        raise InputError(
            f"{path}: expected the feature file of a split, found no {', '.join(missing)}. "
            "Give a file named <split>_features.h5 or <split>_features_multiscale.h5."
        )
    return file


def _is_mapping(text: object) -> bool:
    try:
        return isinstance(json.loads(str(text)), dict)
    except ValueError:
        return False


def find_problems(file: h5py.File, read_features: bool = True) -> list[str]:
    """What is wrong with a feature file; nothing, if it is valid.

    Files of the script that featx replaces are valid too.

    Args:
        file: An open feature file.
        read_features: Also read every feature, one video at a time; otherwise only the structure.
    """
    features, labels, num_frames = (file[name] for name in _DATASETS)
    count, max_frames, dim = (int(file.attrs[name]) for name in _ATTRIBUTES[:3])
    problems = [
        f"{name}: expected {dtype}, found {file[name].dtype}"
        for name, dtype in _DATASETS.items()
        if file[name].dtype != dtype
    ]
    shapes = {"features": (count, max_frames, dim), "labels": (count,), "num_frames": (count,)}
    if "video_ids" in file:
        shapes["video_ids"] = (count,)
    problems += [
        f"{name}: expected shape {[*shape]} by the attributes, found {[*file[name].shape]}"
        for name, shape in shapes.items()
        if file[name].shape != shape
    ]
    if problems:
        return problems
    lengths = num_frames[:]
    mapping = json.loads(file.attrs["category_mapping"])
    if count and not (lengths.min() >= 1 and lengths.max() == max_frames):
        found = f"{lengths.min()} to {lengths.max()}"
        problems.append(f"num_frames: expected 1 to {max_frames}, found {found}")
    if unknown := sorted({*labels[:].tolist()} - {*mapping.values()}):
        problems.append(f"labels: expected those of category_mapping, found also {unknown[:5]}")
    if features.chunks and features.chunks[0] == 1:
        expected = int((-(-lengths // features.chunks[1])).sum())
        if (stored := features.id.get_num_chunks()) != expected:
            problems.append(f"features: expected {expected} chunks, found {stored}")
    if read_features and not problems:
        for row, length in enumerate(lengths):
            problems += _row_problems(features, row, int(length))
    return problems


def _row_problems(features: h5py.Dataset, row: int, length: int) -> list[str]:
    try:
        values = features[row]
    except OSError as error:
        return [f"features[{row}]: expected readable chunks, found: {error}"]
    problems = []
    if not np.isfinite(values).all():
        problems.append(f"features[{row}]: expected finite values, found NaN or infinity")
    if values[length:].any():
        problems.append(f"features[{row}]: expected zeros after frame {length}, found others")
    return problems
