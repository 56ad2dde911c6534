"""The feature file: its HDF5 layout, and how rows are written and read."""

import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

FORMAT_VERSION = 1
GZIP_LEVEL = 4
MAX_CHUNK_FRAMES = 256


def file_name(split: str, multi_scale: bool) -> str:
    """Name of a split's feature file."""
    return f"{split}_features{'_multiscale' if multi_scale else ''}.h5"


@dataclass(frozen=True, slots=True)
class Layout:
    """Everything about a feature file that is known before its features are.

    Each chunk holds frames of only one video, so reading a video costs what the video holds. A
    chunk is as long as the median video, so that most videos are one chunk. Chunks that would be
    all padding are not stored, so that one long video does not make the others expensive.

    Attributes:
        labels: Label `[num_videos]` of each row, int64.
        num_frames: Real frames `[num_videos]` of each row, int32.
        video_ids: Name of each row.
        feature_dim: Number of features per frame.
        max_frames: Number of frames per row, padding included.
        chunk_frames: Number of frames per chunk.
        attributes: Attributes of the file beyond its shape.
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
        """The layout of a part: some of the rows, in chunks of the same shape."""
        attributes = {name: v for name, v in self.attributes.items() if name != "skipped"}
        return replace(
            self,
            labels=self.labels[rows],
            num_frames=self.num_frames[rows],
            video_ids=[self.video_ids[row] for row in rows],
            attributes=attributes,
        )

    def leave_out(self, reasons: Mapping[int, str]) -> "Layout":
        """The layout without some rows; the attribute `skipped` names them, with the reasons."""
        if not reasons:
            return self
        kept = [row for row in range(len(self.labels)) if row not in reasons]
        skipped = read_skipped(self.attributes)
        skipped |= {self.video_ids[row]: reason for row, reason in reasons.items()}
        return replace(
            self.select(kept),
            max_frames=int(self.num_frames[kept].max()),
            attributes={**self.attributes, "skipped": json.dumps(skipped, sort_keys=True)},
        )


def fingerprint(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """What the rows of a file depend on, from its attributes: settings, categories and inputs.

    Where the data set is does not matter. The fingerprint of a file without a record is empty.
    """
    try:
        run = json.loads(attributes["config"])
        return {
            **{name: value for name, value in run.items() if name != "root"},
            "category_mapping": attributes["category_mapping"],
            "inputs_sha256": attributes["inputs_sha256"],
            "format_version": int(attributes["format_version"]),
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


def read_skipped(attributes: Mapping[str, Any]) -> dict[str, str]:
    """The videos that a file lacks because of an error, and the error, from its attributes."""
    skipped: dict[str, str] = json.loads(attributes.get("skipped", "{}"))
    return skipped


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
    shape = (count, layout.max_frames, layout.feature_dim)
    longer = layout.chunk_frames > layout.max_frames  # where the longest videos were left out
    file.create_dataset(
        "features",
        shape=shape,
        maxshape=(count, layout.chunk_frames, layout.feature_dim) if longer else None,
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
    """Write the compressed chunks of a row, as `encode` made them."""
    features = file["features"]
    for number, chunk in enumerate(chunks):
        features.id.write_direct_chunk((row, number * features.chunks[1], 0), chunk)


def read_row(file: h5py.File, row: int) -> list[bytes]:
    """Read the compressed chunks of a row, without decompressing them."""
    features = file["features"]
    starts = range(0, int(file["num_frames"][row]), features.chunks[1])
    return [features.id.read_direct_chunk((row, start, 0))[1] for start in starts]
