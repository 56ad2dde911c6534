"""The feature file: the HDF5 layout of format 1, and how a file is opened, written and read.

`DATASETS` and the limits below it are the format. The writer, the readers and the validation all
take it from there.
"""

import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from featx.errors import InputError, MissingInputError, OutputError, first_line
from featx.features.names import Names
from featx.features.provenance import JSON_ATTRIBUTES, Provenance

GZIP_LEVEL = 4
MAX_CHUNK_FRAMES = 256

DAMAGE = (OSError, RuntimeError, KeyError, ValueError)
"""What h5py raises on damaged files; it has no error of its own."""

UNLABELLED = -1
"""The label of a video without a category."""

TIMES = "times"
"""When each frame is shown, in seconds from the beginning of its clip; NaN after a video's frames,
and where it is not known."""

INPUTS, RUN = "input_sha256", "run"
"""What each row was made of, and which run has made it."""

COLUMNS = "columns"
"""The group of what else a table says of each row: datasets `[num_videos]` of text or numbers."""


class DatasetSpec(NamedTuple):
    """A dataset of format 1.

    Attributes:
        shape: The attributes that hold its dimensions.
        dtypes: The types that it may have; `text` is UTF-8, `lists` is int64 of variable length.
    """

    shape: tuple[str, ...]
    dtypes: tuple[str, ...]


_ROW, _FRAME = ("num_videos",), ("num_videos", "max_frames")

DATASETS = {
    "features": DatasetSpec((*_FRAME, "feature_dim"), ("float32", "float16")),
    "labels": DatasetSpec(_ROW, ("int64",)),
    "num_frames": DatasetSpec(_ROW, ("int32",)),
    "video_ids": DatasetSpec(_ROW, ("text",)),
    INPUTS: DatasetSpec(_ROW, ("S64",)),
    RUN: DatasetSpec(_ROW, ("int32",)),
    TIMES: DatasetSpec(_FRAME, ("float32",)),
    "start_times": DatasetSpec(_FRAME, ("float32",)),
    "end_times": DatasetSpec(_FRAME, ("float32",)),
    "fps": DatasetSpec(_ROW, ("float32", "float64")),
    "duration": DatasetSpec(_ROW, ("float32", "float64")),
    "source_frames": DatasetSpec(_ROW, ("int32", "int64")),
    "label_sets": DatasetSpec(_ROW, ("lists",)),
}
"""All datasets of format 1 but those in `COLUMNS`; readers ignore others.

`features` may also be of rank 4, `[num_videos, max_frames, K, feature_dim]`, where a frame or a
window has K vectors; one of the attributes `views` and `grid` names them then.
"""

REQUIRED = ("features", "labels", "num_frames")
"""The datasets that every feature file has; the old script writes no others."""

MAX_ATTRIBUTE_BYTES = 64 * 2**20
MAX_JSON_LEVELS = 32

_TYPED = ("video_ids", INPUTS, RUN, TIMES)  # of another type, they cannot be read at all
_COPIED_WITH_ROWS = (*REQUIRED, *_TYPED)
_NOT_COPIED = ("views", "grid", "backbone_answer")  # attributes

_NAMES_AT_ONCE = 2**16  # in memory as Python's own objects

_ATTRIBUTES = ("num_videos", "max_frames", "feature_dim", "category_mapping", "multi_scale")


def has_dtype(dataset: h5py.Dataset, spec: DatasetSpec) -> bool:
    """Whether a dataset has one of the types of its specification."""
    for name in spec.dtypes:
        if name == "text":
            found = h5py.check_string_dtype(dataset.dtype) is not None
        elif name == "lists":
            found = h5py.check_vlen_dtype(dataset.dtype) == np.dtype("int64")
        else:
            found = dataset.dtype == np.dtype(name)
        if found:
            return True
    return False


def find_shape(file: h5py.File, spec: DatasetSpec) -> tuple[int, ...]:
    """The shape that a dataset should have by the attributes of its file."""
    shape = tuple(int(file.attrs[name]) for name in spec.shape)
    features = file["features"]
    if spec is DATASETS["features"] and features.ndim == 4:
        return (*shape[:2], features.shape[2], shape[2])
    return shape


def find_uncopied(file: h5py.File) -> list[str]:
    """What a copy of the rows of an open file into another file would lose."""
    features = file["features"]
    found = [f"dataset {name}" for name in file if name not in (*_COPIED_WITH_ROWS, COLUMNS)]
    found += [f"attribute {name}" for name in _NOT_COPIED if name in file.attrs]
    if features.ndim != 3 or features.dtype != np.float32:
        found.append(f"features of rank {features.ndim} and type {features.dtype}")
    return found


def file_name(split: str, multi_scale: bool) -> str:
    """Name of a split's feature file."""
    return f"{split}_features{'_multiscale' if multi_scale else ''}.h5"


Digests = NDArray[np.bytes_] | Sequence[str] | Sequence[bytes]
"""SHA-256 in hexadecimal digits of each row: S64 `[rows]`, or what can be made that."""


def to_digests(digests: Digests) -> NDArray[np.bytes_]:
    """Digests as a file has them, S64 `[rows]`."""
    return np.asarray(digests, "S64")


@dataclass(frozen=True, slots=True)
class FileLayout:
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
        provenance: How the features are made.
        columns: What else is known of each row, by name `[num_videos]`: text or numbers.
        has_times: Whether the file tells when frames are shown.
        input_sha256: What each row `[num_videos]` is made of, SHA-256 in hexadecimal digits, S64;
            empty as long as it is not known, and `[0]` in files that do not tell.
        run: Which of the runs in `provenance` each row `[num_videos]` is of, int32; None for the
            first one.
    """

    labels: NDArray[np.int64]
    num_frames: NDArray[np.int32]
    video_ids: Sequence[str]
    feature_dim: int
    max_frames: int
    chunk_frames: int
    provenance: Provenance
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    has_times: bool = False
    input_sha256: NDArray[np.bytes_] = field(default_factory=lambda: to_digests(()))
    run: NDArray[np.int32] | None = None

    @classmethod
    def plan(
        cls,
        labels: NDArray[np.int64],
        num_frames: NDArray[np.int32],
        video_ids: Sequence[str],
        feature_dim: int,
        provenance: Provenance,
        columns: Mapping[str, NDArray[Any]] | None = None,
        has_times: bool = False,
        input_sha256: Digests = (),
    ) -> "FileLayout":
        """Lay out a file for these rows.

        Raises:
            OutputError: Its attributes would exceed the limits of the format.
        """
        check_attributes(provenance)
        median = int(np.sort(num_frames)[len(num_frames) // 2])
        return cls(
            labels,
            num_frames,
            video_ids,
            feature_dim,
            max_frames=int(num_frames.max()),
            chunk_frames=min(median, MAX_CHUNK_FRAMES),
            provenance=provenance,
            columns=columns or {},
            has_times=has_times,
            input_sha256=to_digests(input_sha256),
        )

    def select(self, rows: Sequence[int] | NDArray[np.int64]) -> "FileLayout":
        """The layout of a part: some of the rows, in chunks of the same shape."""
        return replace(
            self,
            labels=self.labels[rows],
            num_frames=self.num_frames[rows],
            video_ids=Names.pack(self.video_ids[row] for row in rows),
            provenance=replace(self.provenance, skipped=None),
            columns={name: values[rows] for name, values in self.columns.items()},
            input_sha256=self.input_sha256[rows] if len(self.input_sha256) else self.input_sha256,
            run=None if self.run is None else self.run[rows],
        )

    def note_damage(self, damage: Mapping[int, str]) -> "FileLayout":
        """The layout with what is missing of the videos of some rows."""
        named = {self.video_ids[row]: damage[row] for row in sorted(damage)}
        return replace(self, provenance=replace(self.provenance, damaged_videos=named))

    def leave_out(self, reasons: Mapping[int, str]) -> "FileLayout":
        """The layout without some rows, whose names and reasons are recorded."""
        if not reasons:
            return self
        kept = [row for row in range(len(self.labels)) if row not in reasons]
        skipped = dict(self.provenance.skipped or {})
        skipped |= {self.video_ids[row]: reason for row, reason in reasons.items()}
        return replace(
            self.select(kept),
            max_frames=int(self.num_frames[kept].max()),
            provenance=replace(self.provenance, skipped=skipped),
        )


def open_feature_file(path: Path) -> h5py.File:
    """Open a feature file to read it.

    Raises:
        MissingInputError: The file does not exist.
        InputError: It is not an HDF5 file, or lacks a dataset or attribute.
    """
    try:
        if not path.is_file():
            raise MissingInputError(
                f"{path}: expected a feature file, found no file. Check the path."
            )
        file = open_beside_others(path)
    except MissingInputError:
        raise
    except OSError as error:
        raise InputError(
            f"{path}: expected an HDF5 file, found: {first_line(error)}. "
            "Extract the features again."
        ) from error
    try:
        found = _find_differences(file)
    except (*DAMAGE, TypeError, AttributeError) as error:  # a group in the place of a dataset
        found = [f"a damaged file ({first_line(error)})"]
    if found:
        file.close()
        raise InputError(
            f"{path}: expected a feature file, found {', '.join(found)}. "
            "Give a file named <split>_features.h5 or <split>_features_multiscale.h5."
        )
    return file


def refuse_damage(path: Path | str, error: Exception) -> InputError:
    """An error about a feature file of which something cannot be read."""
    return InputError(
        f"{path}: expected a readable feature file, found: {first_line(error)}. "
        "Extract the features again."
    )


def open_beside_others(path: Path) -> h5py.File:
    """Open a file that this process or another may have open, too, in whatever way.

    Within a process, HDF5 wants the same kind of lock of all who open a file: that of
    `h5py.File(path)` comes first, so that a person can say so while featx has it open. It fails
    beside other kinds, beside a writer in another process, and on file systems without locks.

    Raises:
        OSError: It is no HDF5 file.
    """
    for locking in (None, True):
        with suppress(OSError):
            return h5py.File(path, "r", locking=locking)
    return h5py.File(path, "r", locking=False)  # what it raises is about the file itself


def _find_differences(file: h5py.File) -> list[str]:
    """What distinguishes an HDF5 file from a feature file; nothing, if it is one."""
    found = [f"no dataset {name}" for name in REQUIRED if name not in file]
    found += [f"no attribute {name}" for name in _ATTRIBUTES if name not in file.attrs]
    if found:
        return found
    for name, ranks in {"features": (3, 4), "labels": (1,), "num_frames": (1,)}.items():
        if not isinstance(file[name], h5py.Dataset) or file[name].ndim not in ranks:
            found.append(f"{name} with other than {' or '.join(map(str, ranks))} dimensions")
    for name in DATASETS.keys() & {*file}:
        if not isinstance(file[name], h5py.Dataset):
            found.append(f"{name} that is not a dataset")
        elif name in _TYPED and not has_dtype(file[name], DATASETS[name]):
            found.append(f"{name} of type {file[name].dtype}")
    if not all(isinstance(column, h5py.Dataset) for column in file.get(COLUMNS, {}).values()):
        found.append(f"{COLUMNS} that are not datasets")
    for name in ("num_videos", "max_frames", "feature_dim"):
        if not isinstance(file.attrs[name], np.integer):
            found.append(f"{name} that is not an integer")
    if not isinstance(file.attrs["multi_scale"], np.bool_):
        found.append("multi_scale that is not a boolean")
    for name in JSON_ATTRIBUTES:
        if name in file.attrs and (problem := find_json_problem(file.attrs[name])):
            found.append(f"{name} {problem}")
    if found:
        return found
    if not _is_mapping(file.attrs["category_mapping"]):
        found.append("category_mapping that is not a JSON object of integers")
    return found


def _is_mapping(text: object) -> bool:
    try:
        mapping = json.loads(str(text))
    except ValueError:
        return False
    return isinstance(mapping, dict) and all(type(label) is int for label in mapping.values())


def find_json_problem(text: object) -> str:
    """Which limit an attribute of JSON exceeds; empty if it exceeds none, or is no JSON at all."""
    text = str(text)
    if len(text) > MAX_ATTRIBUTE_BYTES // 4 and len(text.encode()) > MAX_ATTRIBUTE_BYTES:
        return f"of more than {MAX_ATTRIBUTE_BYTES // 2**20} MB"
    if text.count("[") + text.count("{") <= MAX_JSON_LEVELS:
        return ""
    try:
        values, levels = [json.loads(text)], 0
    except ValueError:
        return ""
    except RecursionError:
        levels = MAX_JSON_LEVELS + 1
        values = []
    while values := [value for value in values if isinstance(value, (dict, list))]:
        levels += 1
        values = [v for each in values for v in (each.values() if isinstance(each, dict) else each)]
    return f"of more than {MAX_JSON_LEVELS} levels of JSON" if levels > MAX_JSON_LEVELS else ""


def encode(features: NDArray[np.float32], layout: FileLayout) -> list[bytes]:
    """Cut and compress the features `[num_frames, feature_dim]` of a video into its chunks."""
    size = layout.chunk_frames
    chunks = []
    for start in range(0, len(features), size):
        chunk = np.zeros((size, layout.feature_dim), np.float32)
        part = features[start : start + size]
        chunk[: len(part)] = part
        chunks.append(zlib.compress(chunk.data, GZIP_LEVEL))
    return chunks


def decode(chunks: Sequence[bytes], num_frames: int, feature_dim: int) -> NDArray[np.float32]:
    """The features `[num_frames, feature_dim]` of a video, of its compressed chunks.

    Raises:
        ValueError: They are damaged.
    """
    try:
        content = b"".join(map(zlib.decompress, chunks))
    except zlib.error as error:
        raise ValueError(f"a damaged chunk ({error})") from error
    values = np.frombuffer(content, np.float32, num_frames * feature_dim)
    return values.reshape(num_frames, feature_dim)


def create(file: h5py.File, layout: FileLayout) -> None:
    """Write everything but the features into an empty file.

    Raises:
        OutputError: Its attributes would exceed the limits of the format.
    """
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
    names = file.create_dataset("video_ids", (count,), h5py.string_dtype())
    for start in range(0, count, _NAMES_AT_ONCE):
        names[start : start + _NAMES_AT_ONCE] = [*layout.video_ids[start : start + _NAMES_AT_ONCE]]
    if len(layout.input_sha256):
        file.create_dataset(INPUTS, data=layout.input_sha256)
        run = np.zeros(count, np.int32) if layout.run is None else layout.run
        file.create_dataset(RUN, data=run)
    if layout.has_times:
        file.create_dataset(
            TIMES,
            shape=shape[:2],
            dtype=np.float32,
            chunks=(1, min(layout.chunk_frames, layout.max_frames)),
            compression="gzip",
            compression_opts=GZIP_LEVEL,
            fillvalue=np.nan,
        )
    for name, values in layout.columns.items():
        is_text = values.dtype == object
        file.create_dataset(
            f"{COLUMNS}/{name}", data=values, dtype=h5py.string_dtype() if is_text else None
        )
    write_attributes(file, count, layout.max_frames, layout.feature_dim, layout.provenance)


def write_attributes(
    file: h5py.File, num_videos: int, max_frames: int, feature_dim: int, provenance: Provenance
) -> None:
    """Write the attributes of a file: its sizes, and how its features were made."""
    file.attrs["num_videos"] = num_videos
    file.attrs["max_frames"] = max_frames
    file.attrs["feature_dim"] = feature_dim
    for name, value in check_attributes(provenance).items():
        file.attrs[name] = value


def check_attributes(provenance: Provenance) -> dict[str, Any]:
    """The attributes that say how features were made, after a check of the limits.

    Raises:
        OutputError: A limit is exceeded.
    """
    attributes = provenance.to_attributes()
    for name in JSON_ATTRIBUTES:
        if problem := find_json_problem(attributes.get(name, "")):
            raise OutputError(
                f"{name}: expected an attribute of up to {MAX_ATTRIBUTE_BYTES // 2**20} MB, and "
                f"{MAX_JSON_LEVELS} levels of JSON, found one {problem}. Split the data set."
            )
    return attributes


def write_row(file: h5py.File, row: int, chunks: Iterable[bytes]) -> None:
    """Write the compressed chunks of a row, as `encode` made them."""
    write_chunks(file["features"], row, chunks)


def write_chunks(features: h5py.Dataset, row: int, chunks: Iterable[bytes]) -> None:
    """Write the compressed chunks of a row, where there are many rows to write."""
    length = features.chunks[1]
    for number, chunk in enumerate(chunks):
        features.id.write_direct_chunk((row, number * length, 0), chunk)


def read_row(file: h5py.File, row: int) -> list[bytes] | None:
    """Read the compressed chunks of a row; see `read_chunks`."""
    return read_chunks(file["features"], row, int(file["num_frames"][row]))


def read_chunks(features: h5py.Dataset, row: int, num_frames: int) -> list[bytes] | None:
    """Read the compressed chunks of a row of so many frames, without decompressing them.

    None if a filter was left out of one, as HDF5 may do.
    """
    starts = range(0, num_frames, features.chunks[1])
    found = [features.id.read_direct_chunk((row, start, 0)) for start in starts]
    return None if any(left_out for left_out, _ in found) else [chunk for _, chunk in found]


def find_chunk_frames(features: h5py.Dataset) -> int:
    """Frames of the chunks of a row, if these are as `create` lays them out; otherwise 0."""
    created = features.id.get_create_plist()
    is_alike = (
        features.ndim == 3
        and features.dtype == np.dtype("<f4")
        and features.chunks is not None
        and features.chunks[::2] == (1, features.shape[2])
        and (features.compression, features.compression_opts) == ("gzip", GZIP_LEVEL)
        and created.get_nfilters() == 1
    )
    return int(features.chunks[1]) if is_alike else 0


def read_features(file: h5py.File, row: int) -> NDArray[np.float32]:
    """Read the features of a row as float32, whatever type the file has.

    Returns:
        `[num_frames, feature_dim]`; of files with several vectors a frame,
        `[num_frames, K, feature_dim]`.
    """
    features = file["features"][row, : int(file["num_frames"][row])]
    return np.asarray(features, np.float32)


def read_inputs(file: h5py.File) -> NDArray[np.bytes_]:
    """What each row was made of, S64 `[num_videos]`; `[0]` if the file does not tell."""
    return to_digests(file[INPUTS][:] if INPUTS in file else ())


def read_names(file: h5py.File) -> Names:
    """The name of each row; none at all if the file does not tell them."""
    return Names.read(file["video_ids"]) if "video_ids" in file else Names.pack(())


def write_times(file: h5py.File, row: int, times: NDArray[np.float32]) -> None:
    """Write when the frames of a row are shown."""
    file[TIMES][row, : len(times)] = times


def read_times(file: h5py.File, row: int) -> NDArray[np.float32]:
    """Read when the frames of a row are shown."""
    times: NDArray[np.float32] = file[TIMES][row, : int(file["num_frames"][row])]
    return times


def read_columns(file: h5py.File) -> dict[str, NDArray[Any]]:
    """What else is known of each row, by name: text as `str`, and numbers."""
    return {
        name: column.asstr()[:] if h5py.check_string_dtype(column.dtype) else column[:]
        for name, column in file.get(COLUMNS, {}).items()
    }
