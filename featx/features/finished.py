"""Finished rows on disk, in published files and in parts, found by what they were made of."""

import json
from bisect import bisect
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
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
    read_chunks,
    read_features,
    read_inputs,
    read_names,
    read_times,
    refuse_damage,
    to_digests,
    write_chunks,
    write_times,
)
from featx.features.provenance import Provenance
from featx.features.shards import Shard, find_shards, find_size
from featx.files import file_sha256

PART_ROWS, PART_DAMAGE = "rows", "damage"
"""What a part has beside what a feature file has."""

_PAIRS = 2**16  # of a row that is looked for, and one that is there: so many at once


@dataclass(frozen=True, eq=False)
class Source:
    """A file of finished rows.

    Attributes:
        path: The file.
        num_bytes: Its size.
        provenance: How its rows were made.
        names: Name of each row.
        inputs: What each row `[rows]` was made of, S64; `[0]` if the file does not tell.
        num_frames: Frames `[rows]` of each row.
        labels: Label `[rows]` of each row.
        run: Which of the runs each row `[rows]` was made by.
        runs: These, with their settings.
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
            file["features"].shape[2],
            TIMES in file,
            damage,
            file[PART_ROWS][:] if PART_ROWS in file else np.zeros(0, np.int64),
            shards,
        )

    def locate(self, row: int) -> tuple[Path, int]:
        """The file that has the features of a row, and in which row of it."""
        if not self.shards:
            return self.path, row
        path, start, _ = self.shards[bisect(self.shards, row, key=lambda shard: shard.start) - 1]
        return path, row - start

    @cached_property
    def categories(self) -> NDArray[np.object_]:
        """The category of each row `[rows]`; None for one that has none."""
        return name_labels(self.labels, self.provenance.categories)


def name_labels(labels: NDArray[np.int64], categories: Mapping[str, int]) -> NDArray[np.object_]:
    """The category `[rows]` of each label; None for one that has none."""
    name_of = {label: name for name, label in categories.items()}
    return np.array([name_of.get(label) for label in labels.tolist()], object)


def find_keys(digests: NDArray[np.bytes_]) -> NDArray[np.uint64]:
    """A number `[rows]` for each digest, in an eighth of the memory; 0 for an empty one.

    Two digests have the same by a chance that does not count where nothing but an error message
    depends on it; what is to be the same is compared.
    """
    words = np.ascontiguousarray(digests, "S64").view(np.uint64).reshape(-1, 8)
    return words @ _WEIGHTS


_WEIGHTS = np.random.Generator(np.random.PCG64(0)).integers(2**64, size=8, dtype=np.uint64) | 1


class Place(NamedTuple):
    """Where a finished row is.

    Attributes:
        source: In which file.
        row: In which row of it.
    """

    source: Source
    row: int


class Places(Mapping[int, Place]):
    """Where rows of a file are, by their numbers: a mapping, without an object for each.

    Args:
        count: How many rows the file has.
        sources: The files that they are in.

    Attributes:
        sources: These files.
        source: Which of them each row `[rows]` is in; -1 for a row that is nowhere, int32.
        row: In which row of it `[rows]`, int64.
    """

    def __init__(self, count: int, sources: Sequence[Source] = ()) -> None:
        self.sources = [*sources]
        self.source = np.full(count, -1, np.int32)
        self.row = np.zeros(count, np.int64)

    def __getitem__(self, row: int) -> Place:
        if not 0 <= row < len(self.source) or self.source[row] < 0:
            raise KeyError(row)
        return Place(self.sources[self.source[row]], int(self.row[row]))

    def __iter__(self) -> Iterator[int]:
        return iter(self.numbers().tolist())

    def __len__(self) -> int:
        return int(np.count_nonzero(self.source >= 0))

    def __contains__(self, row: object) -> bool:
        return isinstance(row, int) and 0 <= row < len(self.source) and bool(self.source[row] >= 0)

    def numbers(self) -> NDArray[np.int64]:
        """The numbers of the rows that are somewhere, in order."""
        return np.flatnonzero(self.source >= 0)

    def add(self, source: Source, rows: NDArray[np.int64], numbers: NDArray[np.int64]) -> None:
        """Say that rows, by their numbers, are in some rows of a file."""
        self.source[numbers] = len(self.sources)
        self.row[numbers] = rows
        self.sources.append(source)

    def select(self, numbers: slice | NDArray[np.int64]) -> "Places":
        """Those of some rows, which are numbered anew."""
        chosen = Places(0, self.sources)
        chosen.source, chosen.row = self.source[numbers].copy(), self.row[numbers].copy()
        return chosen

    def by_source(self) -> Iterator[tuple[Source, NDArray[np.int64]]]:
        """For each file that has some of the rows: the numbers of these, in order."""
        order = np.argsort(self.source, kind="stable")
        order = order[np.searchsorted(self.source[order], 0) :]
        if not len(order):
            return
        bounds = np.flatnonzero(np.diff(self.source[order])) + 1
        for numbers in np.split(order, bounds):
            yield self.sources[self.source[numbers[0]]], numbers

    def gather(self) -> tuple[NDArray[np.bytes_], NDArray[np.int32], list[Mapping[str, Any]]]:
        """What each row was made of, and by which of some runs; empty and 0 for those nowhere.

        Runs are numbered in the order of the first row of each.
        """
        inputs = np.zeros(len(self.source), "S64")
        run = np.full(len(self.source), -1, np.int32)
        known: dict[str, int] = {}
        runs: list[Mapping[str, Any]] = []
        for source, numbers in self.by_source():
            rows = self.row[numbers]
            if len(source.inputs):
                inputs[numbers] = source.inputs[rows]
            table = np.zeros(len(source.runs), np.int32)
            for number, settings in enumerate(source.runs):
                table[number] = known.setdefault(json.dumps(settings, sort_keys=True), len(runs))
                if table[number] == len(runs):
                    runs.append(settings)
            run[numbers] = table[source.run[rows]]
        used, first = np.unique(run[run >= 0], return_index=True)
        order = used[np.argsort(first)]
        renumber = np.zeros(len(runs) + 1, np.int32)  # the last one is for -1
        renumber[order] = np.arange(len(order), dtype=np.int32)
        return inputs, renumber[run], [runs[number] for number in order]


class Finished:
    """Finished rows, by what they were made of; those of the first files are preferred.

    Args:
        sources: The files.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources
        lengths = [len(source.inputs) for source in sources]
        self._starts = np.cumsum([0, *lengths])
        keys = np.zeros(self._starts[-1], np.uint64)
        self._num_frames = np.zeros(len(keys), np.int32)
        self._damaged = np.zeros(len(keys), bool)
        for source, start, length in zip(sources, self._starts, lengths, strict=False):
            keys[start : start + length] = find_keys(source.inputs)
            self._num_frames[start : start + length] = source.num_frames[:length]
            self._damaged[[start + row for row in source.damage if row < length]] = True
        self._order = np.argsort(keys, kind="stable")
        self._keys = keys[self._order]

    def find(
        self,
        inputs: NDArray[np.bytes_],
        names: Sequence[str],
        num_frames: NDArray[np.int32],
        has_times: bool,
        keeps_damaged: bool,
    ) -> Places:
        """The rows of videos, as far as there are some: rather those of their names.

        Args:
            inputs: What the videos `[rows]` are made of; empty where that is not known.
            names: Their names.
            num_frames: Frames `[rows]` that their rows are to have.
            has_times: Whether these are to tell when they are shown.
            keeps_damaged: Whether they may be of damaged clips.
        """
        places = Places(len(inputs), self._sources)
        keys = find_keys(inputs)
        first, last = (np.searchsorted(self._keys, keys, side) for side in ("left", "right"))
        first[inputs == b""] = last[inputs == b""] = 0
        pairs = np.cumsum(last - first)
        bears = np.array([not has_times or source.has_times for source in self._sources], bool)
        start = 0
        while start < len(inputs):
            before = pairs[start - 1] if start else 0
            stop = max(start + 1, int(np.searchsorted(pairs, before + _PAIRS)))
            counts = (last - first)[start:stop]
            row = np.repeat(np.arange(start, stop), counts)
            offset = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
            found = self._order[first[row] + offset]
            source = np.searchsorted(self._starts, found, "right") - 1
            fit = (self._num_frames[found] == num_frames[row]) & bears[source]
            fit &= keeps_damaged | ~self._damaged[found]
            row, found, source = row[fit], found[fit], source[fit]
            candidates = Places(0, self._sources)
            candidates.source, candidates.row = source, found - self._starts[source]
            fit = candidates.gather()[0] == inputs[row]
            self._choose(places, candidates.select(np.flatnonzero(fit)), row[fit], names)
            start = stop
        return places

    def _choose(
        self, places: Places, found: Places, rows: NDArray[np.int64], names: Sequence[str]
    ) -> None:
        """Of what is found for each row, take that of its name, or else the first."""
        firsts = np.flatnonzero(np.diff(rows, prepend=-1))
        chosen = firsts.copy()
        for place in np.flatnonzero(np.diff(np.append(firsts, len(rows))) > 1):
            stop = firsts[place + 1] if place + 1 < len(firsts) else len(rows)
            name = names[int(rows[firsts[place]])]
            for each in range(firsts[place], stop):
                source, row = found[each]
                if source.names[row] == name:
                    chosen[place] = each
                    break
        places.source[rows[firsts]] = found.source[chosen]
        places.row[rows[firsts]] = found.row[chosen]


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
    source: Source,
    names: Sequence[str],
    inputs: NDArray[np.bytes_],
    elsewhere: NDArray[np.uint64],
) -> Unclaimed:
    """Which rows of a file nobody takes.

    Args:
        source: The file.
        names: The names of the videos that it is to be of.
        inputs: What these are made of; empty where that is not known.
        elsewhere: The keys of what rows are made of that are no loss, such as those of other files.
    """
    wanted, had = find_keys(inputs), find_keys(source.inputs)
    kinds, counts = np.unique(had, return_counts=True)
    asked, numbers = np.unique(wanted, return_counts=True)
    claims = np.zeros(len(kinds), np.int64)
    claims[np.isin(kinds, asked)] = numbers[np.isin(asked, kinds)]
    # Most often, there is none: all else is only for content that more rows have than videos.
    scarce = counts > claims
    left = dict(zip(kinds[scarce].tolist(), claims[scarce].tolist(), strict=True))
    rows = np.flatnonzero(np.isin(had, kinds[scarce])).tolist()
    made_of = pick_inputs(names, inputs, {source.names[row] for row in rows})
    is_elsewhere = dict(zip(rows, np.isin(had[rows], elsewhere).tolist(), strict=True))
    is_new = {name: find_keys(to_digests([made_of[name]]))[0] not in kinds for name in made_of}
    # Of several of the same content, those whose names are still there are taken first.
    rows.sort(key=lambda row: made_of.get(source.names[row]) != source.inputs[row])
    found = Unclaimed([], [])
    for row in rows:
        if left[int(had[row])] > 0:
            left[int(had[row])] -= 1
        elif not is_elsewhere[row]:
            name = source.names[row]
            given = (name, source.inputs[row].decode())
            (found.replaced if is_new.get(name) else found.dropped).append(given)
    return found


def pick_inputs(
    names: Sequence[str], inputs: NDArray[np.bytes_], wanted: Collection[str]
) -> dict[str, np.bytes_]:
    """What the videos of some names are made of, as far as there are videos of these names."""
    if not wanted:
        return {}
    return {name: inputs[row] for row, name in enumerate(names) if name in wanted}


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
    written = target["features"]
    located = (
        (number, *source.locate(row), int(source.num_frames[row]))
        for number, (source, row) in places
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
