"""Finished rows on disk, in published files and in parts, found by what they were made of."""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from featx.errors import IncompleteError, OutputError, first_line
from featx.features.feature_file import (
    DAMAGE,
    RUN,
    TIMES,
    FileLayout,
    encode,
    find_chunk_frames,
    open_beside_others,
    read_features,
    read_inputs,
    read_row,
    read_times,
    refuse_damage,
    write_row,
    write_times,
)
from featx.features.provenance import Provenance
from featx.files import file_sha256

PART_ROWS, PART_DAMAGE = "rows", "damage"
"""What a part has beside what a feature file has."""


@dataclass(frozen=True, eq=False)
class Source:
    """A file of finished rows.

    Attributes:
        path: The file.
        num_bytes: Its size.
        provenance: How its rows were made.
        names: Name of each row.
        inputs: What each row was made of; empty if the file does not tell.
        num_frames: Frames `[rows]` of each row.
        labels: Label `[rows]` of each row.
        runs: Which run each row was made by, with its settings.
        feature_dim: Number of features per frame.
        chunk_frames: Frames of the chunks of a row; 0 if they are not as featx writes them, so that
            they cannot be copied.
        has_times: Whether it tells when frames are shown.
        damage: What is missing of the videos of some rows.
        numbers: Of a part: the number of each row in the file that it is a part of.
    """

    path: Path
    num_bytes: int
    provenance: Provenance
    names: list[str]
    inputs: list[str]
    num_frames: NDArray[np.int32]
    labels: NDArray[np.int64]
    runs: list[Mapping[str, Any]]
    feature_dim: int
    chunk_frames: int
    has_times: bool
    damage: Mapping[int, str]
    numbers: list[int]

    @classmethod
    def read(cls, file: h5py.File) -> Self:
        """All but the features of an open file.

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
        names = file["video_ids"].asstr()[:].tolist() if "video_ids" in file else []
        rows = {name: row for row, name in enumerate(names)}
        damage = {rows[name]: text for name, text in made.damaged_videos.items() if name in rows}
        if PART_DAMAGE in file:
            texts = file[PART_DAMAGE].asstr()[:].tolist()
            damage |= {row: text for row, text in enumerate(texts) if text}
        # A file of format 1 is of one run.
        runs = [made.runs[run] for run in file[RUN][:]] if RUN in file else []
        path = Path(file.filename)
        return cls(
            path,
            path.stat().st_size,
            made,
            names,
            read_inputs(file),
            file["num_frames"][:],
            file["labels"][:],
            runs or [made.last_bits()] * len(file["num_frames"]),
            file["features"].shape[2],
            find_chunk_frames(file["features"]),
            TIMES in file,
            damage,
            file[PART_ROWS][:].tolist() if PART_ROWS in file else [],
        )

    @cached_property
    def categories(self) -> list[str | None]:
        """The category of each row; None for one that has none."""
        name_of = {label: name for name, label in self.provenance.categories.items()}
        return [name_of.get(label) for label in self.labels.tolist()]


class Place(NamedTuple):
    """Where a finished row is.

    Attributes:
        source: In which file.
        row: In which row of it.
    """

    source: Source
    row: int


@dataclass(slots=True)
class Finished:
    """Finished rows, by what they were made of."""

    _places: dict[str, list[Place]] = field(default_factory=dict)

    def add(self, source: Source) -> None:
        """Take the rows of a file; those that were added first are preferred."""
        for row, made_of in enumerate(source.inputs):
            if made_of:
                self._places.setdefault(made_of, []).append(Place(source, row))

    def find(
        self, made_of: str, name: str, num_frames: int, has_times: bool, keeps_damaged: bool
    ) -> Place | None:
        """The row of a video, if there is one: rather that of its name.

        Args:
            made_of: What the video is made of.
            name: Its name.
            num_frames: Frames that its row is to have.
            has_times: Whether it is to tell when they are shown.
            keeps_damaged: Whether it may be of a damaged clip.
        """
        fit = [
            place
            for place in self._places.get(made_of, ())
            if place.source.num_frames[place.row] == num_frames
            and (place.source.has_times or not has_times)
            and (keeps_damaged or place.row not in place.source.damage)
        ]
        named = (place for place in fit if place.source.names[place.row] == name)
        return next(named, fit[0] if fit else None)


class Unclaimed(NamedTuple):
    """The rows of a file that nobody takes, by their names and what they were made of.

    Attributes:
        replaced: Of videos that have other content now.
        dropped: Of videos that are gone. Where a row has only come to the name of another, that
            other one is gone, too.
    """

    replaced: list[tuple[str, str]]
    dropped: list[tuple[str, str]]


def find_unclaimed(
    source: Source, names: Sequence[str], inputs: Sequence[str], elsewhere: Collection[str]
) -> Unclaimed:
    """Which rows of a file nobody takes.

    Args:
        source: The file.
        names: The names of the videos that it is to be of.
        inputs: What these are made of; empty where that is not known.
        elsewhere: What rows are made of that are no loss, such as those of other files.
    """
    made_of = dict(zip(names, inputs, strict=True))
    left, had = Counter(inputs), {*source.inputs}
    rows = [*zip(source.names, source.inputs, strict=True)]
    # Of several of the same content, those whose names are still there are taken first.
    rows.sort(key=lambda row: made_of.get(row[0]) != row[1])
    found = Unclaimed([], [])
    for name, before in rows:
        if left[before] > 0:
            left[before] -= 1
        elif before not in elsewhere:
            is_new = name in made_of and made_of[name] not in had
            (found.replaced if is_new else found.dropped).append((name, before))
    return found


def open_part(path: Path) -> h5py.File:
    """Open a part, after a check of its bytes against the digest in its name.

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


def copy_rows(places: Iterable[tuple[int, Place]], target: h5py.File, layout: FileLayout) -> None:
    """Copy rows to their places in another file: as compressed chunks, where these are alike.

    Args:
        places: Where each row is, by its number in the other file.
        target: That file.
        layout: Its layout.

    Raises:
        OutputError: One cannot be read.
    """
    for _, group in groupby(places, lambda item: item[1].source.path):
        with ExitStack() as stack:
            file = None
            for number, (source, row) in group:
                try:
                    if file is None:
                        file = stack.enter_context(open_beside_others(source.path))
                    chunks = None
                    if source.chunk_frames == layout.chunk_frames:
                        chunks = read_row(file, row)
                    if chunks is None:
                        chunks = encode(read_features(file, row), layout)
                    times = read_times(file, row) if layout.has_times else None
                except DAMAGE as error:
                    raise OutputError(
                        f"{source.path}: expected a readable row of {source.names[row]}, found: "
                        f"{first_line(error)}. Set overwrite to true to compute it again."
                    ) from error
                write_row(target, number, chunks)
                if times is not None:
                    write_times(target, number, times)


def index_runs(runs: Sequence[Mapping[str, Any]]) -> list[tuple[int, Mapping[str, Any]]]:
    """The number of each row's run, in the order of the first row of each, and the run."""
    numbers: dict[str, int] = {}
    known: dict[int, int] = {}  # rows of a file share what stands for a run
    indexed = []
    for run in runs:
        if id(run) not in known:
            key = json.dumps(run, sort_keys=True)
            known[id(run)] = numbers.setdefault(key, len(numbers))
        indexed.append((known[id(run)], run))
    return indexed


def list_runs(indexed: Sequence[tuple[int, Mapping[str, Any]]]) -> list[Mapping[str, Any]]:
    """The runs, by their numbers."""
    return [run for _, run in sorted({number: run for number, run in indexed}.items())]
