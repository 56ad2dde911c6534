"""Finished rows on disk, in published files, shards and parts: read, found by content, copied."""

import json
from bisect import bisect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from featx.durable import file_sha256
from featx.errors import (
    IncompleteError,
    InputError,
    MissingInputError,
    OutputError,
    first_line,
)
from featx.features.feature_file import (
    DAMAGE,
    RUN,
    TIMES,
    FileLayout,
    encode,
    find_chunk_frames,
    open_beside_others,
    open_feature_file,
    read_chunks,
    read_features,
    read_inputs,
    read_names,
    read_times,
    refuse_damage,
    write_chunks,
    write_times,
)
from featx.features.folder import list_feature_files
from featx.features.provenance import Provenance
from featx.features.resume import STAGING_FOLDER
from featx.features.shards import Shard, find_shards, find_size, list_shard_paths

PARTS, MERGED = "part-*.h5", "shard-*.h5"
"""Names of parts and of merged shards in the folder of a run."""

PART_ROWS, PART_DAMAGE = "rows", "damage"
"""Datasets of a part beside those of a feature file: the number of each row in the file that it is
a part of, and what is missing of its video."""


@dataclass(frozen=True, eq=False)
class RowFile:
    """A file of finished rows.

    Attributes:
        path: The file.
        num_bytes: Its size, with the shards that it is over.
        provenance: How its rows were made.
        names: Name of each row.
        inputs: Content hash of each row `[rows]`, S64; `[0]` if the file does not tell.
        num_frames: Frames `[rows]` of each row.
        labels: Label `[rows]` of each row.
        run: Which of `runs` each row `[rows]` was made by.
        runs: The runs, with their settings.
        feature_dim: Number of features per frame.
        has_times: Whether it tells when frames are shown.
        damage: What is missing of the videos of some rows.
        numbers: Of a part: the number of each row `[rows]` in the file that it is a part of.
        shards: The files that it is over, if it does not have its features itself.
    """

    path: Path
    num_bytes: int
    provenance: Provenance
    names: Sequence[str]
    inputs: NDArray[np.bytes_]
    num_frames: NDArray[np.int32]
    labels: NDArray[np.int64]
    run: NDArray[np.int32]
    runs: Sequence[Mapping[str, Any]]
    feature_dim: int
    has_times: bool
    damage: Mapping[int, str]
    numbers: NDArray[np.int64]
    shards: Sequence[Shard] = ()

    @classmethod
    def read(cls, file: h5py.File) -> Self:
        """Read all but the features of an open file.

        Raises:
            InputError: It cannot be read.
        """
        try:
            return cls._read(file)
        except (*DAMAGE, IndexError) as error:
            raise refuse_damage(file.filename, error) from error

    @classmethod
    def _read(cls, file: h5py.File) -> Self:
        made = Provenance.from_attributes(file.attrs)
        names = read_names(file)
        damage = {}
        if known := made.damaged_videos:
            damage = {row: known[name] for row, name in enumerate(names) if name in known}
        if PART_DAMAGE in file:
            texts = file[PART_DAMAGE].asstr()[:].tolist()
            damage |= {row: text for row, text in enumerate(texts) if text}
        count = len(file["num_frames"])
        # A file of the old script is of one run, of which nothing is known.
        run = file[RUN][:] if RUN in file else np.zeros(count, np.int32)
        runs = made.runs if RUN in file else [made.last_bits()]
        if count:
            runs[run.max()]  # there is such a run
        path = Path(file.filename)
        shards = find_shards(file)
        return cls(
            path,
            find_size(path, shards),
            made,
            names,
            read_inputs(file),
            file["num_frames"][:],
            file["labels"][:],
            run,
            runs,
            file["features"].shape[-1],
            TIMES in file,
            damage,
            file[PART_ROWS][:] if PART_ROWS in file else np.zeros(0, np.int64),
            shards,
        )

    def locate(self, row: int) -> tuple[Path, int]:
        """Return the file that has the features of a row, and in which row of it."""
        if not self.shards:
            return self.path, row
        path, start, _ = self.shards[bisect(self.shards, row, key=lambda shard: shard.start) - 1]
        return path, row - start

    @cached_property
    def categories(self) -> NDArray[np.object_]:
        """The category of each row `[rows]`; None for one that has none."""
        return name_labels(self.labels, self.provenance.categories)


def name_labels(labels: NDArray[np.int64], categories: Mapping[str, int]) -> NDArray[np.object_]:
    """Return the category `[rows]` of each label; None for one that has none."""
    name_of = {label: name for name, label in categories.items()}
    return np.array([name_of.get(label) for label in labels.tolist()], object)


def find_keys(digests: NDArray[np.bytes_]) -> NDArray[np.uint64]:
    """Return a number `[rows]` for each content hash, in an eighth of the memory; 0 for none.

    Two hashes have the same number by a chance of 2 to the power of -64. Where features are taken,
    the hashes themselves are compared, too.
    """
    words = np.ascontiguousarray(digests, "S64").view(np.uint64).reshape(-1, 8)
    return words @ _WEIGHTS


_WEIGHTS = np.random.Generator(np.random.PCG64(0)).integers(2**64, size=8, dtype=np.uint64) | 1


def join_keys(keys: Iterable[NDArray[np.uint64]]) -> NDArray[np.uint64]:
    """Join the numbers of several files, each once, sorted, without 0."""
    joined = np.unique(np.concatenate([np.zeros(0, np.uint64), *keys]))
    known: NDArray[np.uint64] = joined[joined != 0]
    return known


class RowLocation(NamedTuple):
    """Where a finished row is.

    Attributes:
        file: In which file.
        row: In which row of it.
    """

    file: RowFile
    row: int


class RowLocations(Mapping[int, RowLocation]):
    """Where rows of a file are, by their numbers: a mapping, without an object for each row.

    Args:
        count: How many rows the file has.
        files: The files that they are in.

    Attributes:
        files: These files.
        file: Which of them each row `[rows]` is in; -1 for a row that is nowhere, int32.
        row: In which row of it `[rows]`, int64.
    """

    def __init__(self, count: int, files: Sequence[RowFile] = ()) -> None:
        self.files = [*files]
        self.file = np.full(count, -1, np.int32)
        self.row = np.zeros(count, np.int64)

    def __getitem__(self, row: int) -> RowLocation:
        if not 0 <= row < len(self.file) or self.file[row] < 0:
            raise KeyError(row)
        return RowLocation(self.files[self.file[row]], int(self.row[row]))

    def __iter__(self) -> Iterator[int]:
        return iter(self.numbers().tolist())

    def __len__(self) -> int:
        return int(np.count_nonzero(self.file >= 0))

    def __contains__(self, row: object) -> bool:
        return isinstance(row, int) and 0 <= row < len(self.file) and bool(self.file[row] >= 0)

    def numbers(self) -> NDArray[np.int64]:
        """Return the numbers of the rows that are somewhere, in order."""
        return np.flatnonzero(self.file >= 0)

    def add(self, file: RowFile, rows: NDArray[np.int64], numbers: NDArray[np.int64]) -> None:
        """Note that rows, by their numbers, are in some rows of a file."""
        self.file[numbers] = len(self.files)
        self.row[numbers] = rows
        self.files.append(file)

    def select(self, numbers: slice | NDArray[np.int64]) -> "RowLocations":
        """Return those of some rows, which are numbered anew."""
        chosen = RowLocations(0, self.files)
        chosen.file, chosen.row = self.file[numbers].copy(), self.row[numbers].copy()
        return chosen

    def by_file(self) -> Iterator[tuple[RowFile, NDArray[np.int64]]]:
        """Yield each file that has some of the rows, and the numbers of these, in order."""
        order = np.argsort(self.file, kind="stable")
        order = order[np.searchsorted(self.file[order], 0) :]
        if not len(order):
            return
        bounds = np.flatnonzero(np.diff(self.file[order])) + 1
        for numbers in np.split(order, bounds):
            yield self.files[self.file[numbers[0]]], numbers

    def gather(self) -> tuple[NDArray[np.bytes_], NDArray[np.int32], list[Mapping[str, Any]]]:
        """Return content hashes `[rows]`, run numbers `[rows]`, and the runs.

        Rows that are nowhere have an empty hash and run 0. Runs are numbered in the order of the
        first row of each.
        """
        inputs = np.zeros(len(self.file), "S64")
        run = np.full(len(self.file), -1, np.int32)
        known: dict[str, int] = {}
        runs: list[Mapping[str, Any]] = []
        for file, numbers in self.by_file():
            rows = self.row[numbers]
            if len(file.inputs):
                inputs[numbers] = file.inputs[rows]
            table = np.zeros(len(file.runs), np.int32)
            for number, settings in enumerate(file.runs):
                table[number] = known.setdefault(json.dumps(settings, sort_keys=True), len(runs))
                if table[number] == len(runs):
                    runs.append(settings)
            run[numbers] = table[file.run[rows]]
        used, first = np.unique(run[run >= 0], return_index=True)
        order = used[np.argsort(first)]
        renumber = np.zeros(len(runs) + 1, np.int32)  # the last one is for -1
        renumber[order] = np.arange(len(order), dtype=np.int32)
        return inputs, renumber[run], [runs[number] for number in order]


def find_rows(files: Sequence[RowFile], layout: FileLayout) -> RowLocations:
    """Find the rows of a layout in files by their content hash; earlier files are preferred.

    Of several rows with the same content, the one that has the name of the video is taken. Rows
    with another length do not count, nor those without times where the layout has times, nor those
    of damaged clips, unless these are kept. (Damage of videos that were sampled before is a note.)
    """
    made, inputs = layout.provenance, layout.input_sha256
    keeps_damaged = made.keep_damaged or made.source != "clips"
    keys, file_of, row_of = [np.zeros(0, np.uint64)], [np.zeros(0, np.int32)], [np.zeros(0, int)]
    for number, file in enumerate(files):
        if layout.has_times and not file.has_times:
            continue
        fits = np.ones(len(file.inputs), bool)
        if not keeps_damaged:
            fits[[row for row in file.damage if row < len(fits)]] = False
        rows = np.flatnonzero(fits)
        keys.append(find_keys(file.inputs)[rows])
        file_of.append(np.full(len(rows), number, np.int32))
        row_of.append(rows)
    all_keys, file_numbers, rows = (
        np.concatenate(keys),
        np.concatenate(file_of),
        np.concatenate(row_of),
    )
    order = np.argsort(all_keys, kind="stable")
    there, wanted = all_keys[order], find_keys(inputs)
    first, last = (np.searchsorted(there, wanted, side) for side in ("left", "right"))
    numbers = np.flatnonzero((last > first) & (inputs != b""))
    chosen = order[first[numbers]]
    several = np.flatnonzero((last - first)[numbers] > 1)
    by_name: dict[tuple[int, str], int] = {}
    for start in np.unique(first[numbers[several]]).tolist():
        for place in order[start : np.searchsorted(there, there[start], "right")].tolist():
            name = files[file_numbers[place]].names[rows[place]]
            by_name.setdefault((start, name), place)
    for position in several.tolist():
        number = int(numbers[position])
        name = layout.video_ids[number]
        chosen[position] = by_name.get((int(first[number]), name), chosen[position])
    found = RowLocations(len(inputs), files)
    found.file[numbers], found.row[numbers] = file_numbers[chosen], rows[chosen]
    for file, located in found.by_file():
        taken = found.row[located]
        is_same = file.inputs[taken] == inputs[located]
        is_same &= file.num_frames[taken] == layout.num_frames[located]
        found.file[located[~is_same]] = -1
    return found


def open_part(path: Path) -> h5py.File:
    """Open a part, after a check of its bytes against the checksum in its name.

    Raises:
        IncompleteError: It is not what was written.
    """
    if path.is_file() and file_sha256(path) == path.stem.rpartition("-")[2]:
        try:
            part = h5py.File(path, "r", locking=False)
        except OSError:  # it is no HDF5 file
            part = None
        if part is not None:
            if PART_ROWS in part:
                return part
            part.close()
    raise IncompleteError(
        f"{path}: expected the bytes that were written, found others. "
        "The disk or another program has changed them: run again."
    )


def copy_rows(
    locations: Iterable[tuple[int, RowLocation]], target: h5py.File, layout: FileLayout
) -> None:
    """Copy rows to another file: as compressed chunks, if both files have the same chunks.

    Args:
        locations: Where each row is, by its number in the other file.
        target: That file.
        layout: Its layout.

    Raises:
        OutputError: A row cannot be read.
    """
    written = target["features"]
    located = (
        (number, *file.locate(row), int(file.num_frames[row])) for number, (file, row) in locations
    )
    for path, group in groupby(located, lambda item: item[1]):
        with ExitStack() as stack:
            file = None
            for number, _, row, length in group:
                try:
                    if file is None:
                        file = stack.enter_context(open_beside_others(path))
                        features = file["features"]
                        is_alike = find_chunk_frames(features) == layout.chunk_frames
                    chunks = read_chunks(features, row, length) if is_alike else None
                    if chunks is None:
                        chunks = encode(read_features(file, row), layout)
                    times = read_times(file, row) if layout.has_times else None
                except DAMAGE as error:
                    raise OutputError(
                        f"{path}: expected a readable row of {layout.video_ids[number]}, found: "
                        f"{first_line(error)}. Set overwrite to true to compute it again."
                    ) from error
                write_chunks(written, number, chunks)
                if times is not None:
                    write_times(target, number, times)


class FinishedCounts(NamedTuple):
    """How many videos are finished in a folder.

    Attributes:
        published: Videos of each feature file, by its name; None where it cannot be read.
        unpublished: Videos of each file that is not published yet, by its name: those in parts, in
            merged shards, and in shards that no file is over.
    """

    published: Mapping[str, int | None]
    unpublished: Mapping[str, int]


def count_finished(folder: Path) -> FinishedCounts:
    """Count the videos that are finished in a folder.

    Raises:
        MissingInputError: There is no such folder, or nothing of featx in it.
        InputError: It cannot be read.
    """
    staging = folder / STAGING_FOLDER
    try:
        paths = list_feature_files(folder)
    except MissingInputError:
        if not staging.is_dir():
            raise
        paths = []
    published: dict[str, int | None] = {}
    for path in paths:
        published[path.name] = None
        with suppress(InputError, *DAMAGE), open_feature_file(path) as file:
            published[path.name] = len(file["num_frames"])
    found: dict[str, list[Path]] = {}
    for name in (PARTS, MERGED):
        for path in sorted(staging.glob(f"*/*/{name}")):
            found.setdefault(f"{path.parent.parent.name}.h5", []).append(path)
    for place in sorted(folder.glob("*_features*/")):
        if (name := f"{place.name}.h5") not in published:
            found.setdefault(name, []).extend(list_shard_paths(folder / name))
    unpublished = {name: _count_videos(paths) for name, paths in found.items() if paths}
    return FinishedCounts(published, unpublished)


def _count_videos(paths: Iterable[Path]) -> int:
    """Count the videos of several files, each once, by their names."""
    names = set[str]()
    for path in paths:
        with suppress(InputError, *DAMAGE), open_feature_file(path) as file:
            names.update(read_names(file))
    return len(names)
