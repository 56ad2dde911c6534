"""Finished rows on their way to a file: parts on disk, and their places in shards.

A part is a small, complete feature file with one more dataset, `rows`. It is built in memory and
written atomically, and its name holds the digest of its bytes, so it either exists in full or not
at all.
"""

import hashlib
import io
import json
import os
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from featx.errors import OutputError, shorten
from featx.features.feature_file import (
    Digests,
    FileLayout,
    create,
    write_row,
    write_times,
)
from featx.features.finished import (
    PART_DAMAGE,
    PART_ROWS,
    Places,
    Source,
    copy_rows,
    open_part,
)
from featx.features.shards import list_shard_paths
from featx.files import remove, replace_file, writing

STAGING_FOLDER = ".featx"

_PLAN_DIGITS = 16
_IMPORTED_AT_ONCE = 64  # rows
GIVEN_UP = "given-up.txt"


class Row(NamedTuple):
    """A finished row on its way to a part.

    Attributes:
        chunks: Its features, compressed.
        made_of: What it was made of.
        times: When its frames are shown, where the layout has that.
        damage: What is missing of its video.
    """

    chunks: list[bytes]
    made_of: str | bytes
    times: NDArray[np.float32] | None = None
    damage: str = ""


class Inputs(NamedTuple):
    """Asks about what the rows of a file are to be made of, where that costs reading it.

    Attributes:
        identify: From the numbers of some rows, to what each row of the file is made of: empty
            where that is still not known. Whether it is enough to look at what may be a copy of
            something known is said beside.
        tells_content: Whether what rows are made of follows from the content of each video alone,
            and not from the file that has it beside others.
    """

    identify: Callable[[Collection[int], bool], Digests]
    tells_content: bool = True


_Mark = tuple[Path, int, int]  # a part, and what tells it from another in its place


class Plan(NamedTuple):
    """What the processes of a run share of a file to be.

    Attributes:
        folder: Where the parts of this run go.
        old_parts: Those in it that earlier runs have written.
        before: What was at paths of shards, whoever has put it there.
    """

    folder: Path
    old_parts: set[_Mark]
    before: set[Path]


class StagedRows:
    """The rows of one feature file that are finished, in parts.

    Args:
        target: Path of the file to publish.
        layout: Its layout.
        inputs: Tells what cannot be known without reading inputs; by default, nothing can.
        rows_per_file: Cut the file into shards of so many rows; by default, it is one.

    Attributes:
        places: Where rows are that earlier runs have finished, by their numbers; see `plan_update`.
        published: The file that is there, if its rows can be told; likewise.
        elsewhere: Tells the keys of what the finished rows of other files are made of; likewise.
        given_up: What rows were made of that somebody has replaced or dropped since; likewise.
        is_stopped: Whether a merge that is under way is to end.
    """

    def __init__(
        self,
        target: Path,
        layout: FileLayout,
        inputs: Inputs | None = None,
        rows_per_file: int | None = None,
    ) -> None:
        self.target = target
        self.layout = layout
        self.rows_per_file = rows_per_file
        self.is_stopped = False
        self._shard_files: set[Path] = set()  # those that earlier runs have written
        self._before: set[Path] = set()  # what was at paths of shards, whoever has put it there
        self.inputs = inputs or Inputs(lambda rows, copies: layout.input_sha256)
        self.places = Places(len(layout.labels))
        self.elsewhere: Callable[[], NDArray[np.uint64]] = lambda: np.zeros(0, np.uint64)
        self.given_up: Collection[str] = ()
        self._old_parts: set[_Mark] = set()
        self.published: Source | None = None
        self._token = uuid.uuid4().hex
        self._laid_out: tuple[tuple[int, int], FileLayout] = ((-1, 0), layout)

    @cached_property
    def folder(self) -> Path:
        """Where the parts of this run go; all of its processes have the same.

        Each plan has its own: the numbers of its rows are no others', not even those of a process
        that outlives its run.
        """
        layout = self.layout
        sizes = (layout.chunk_frames, len(layout.labels), self.rows_per_file)
        settings = (layout.provenance.bindings(), *sizes)
        key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
        for name in layout.video_ids:
            key.update(b"%d " % len(name) + name.encode("utf-8", "surrogateescape"))
        key.update(layout.num_frames.tobytes())
        key.update(layout.input_sha256.tobytes())
        return self._home / key.hexdigest()[:_PLAN_DIGITS]

    @property
    def _home(self) -> Path:
        """The folder of all parts of the file."""
        return self.target.parent / STAGING_FOLDER / self.target.stem

    @property
    def split(self) -> str:
        """What a person calls the file."""
        return self.layout.provenance.split or self.target.stem.partition("_features")[0]

    def begin(
        self, places: Places, inputs: NDArray[np.bytes_], given_up: Collection[str] = ()
    ) -> None:
        """Make the folder for the parts of the rows that are left.

        Args:
            places: Where the other rows are.
            inputs: What each row is made of, as far as it is known by now.
            given_up: What rows were made of that this run replaces or drops: a later one, after
                this one was killed, need not ask again.
        """
        self.layout = replace(self.layout, input_sha256=inputs)
        self.__dict__.pop("folder", None)  # it follows from the inputs
        with writing(self.folder):
            if len(places) < len(self.layout.labels):
                self.folder.mkdir(parents=True, exist_ok=True)
                if {*given_up} != {*self.given_up}:
                    content = "\n".join(sorted(given_up)).encode()
                    replace_file(self._home / GIVEN_UP, content)
            for path in self.folder.glob("skipped-*"):
                remove(path)
        self.given_up = given_up
        self._old_parts = self._list_parts()
        self.places = places

    @property
    def plan(self) -> Plan:
        """What the other processes of the run have to know."""
        return Plan(self.folder, self._old_parts, self._before)

    def follow(self, plan: Plan) -> None:
        """Work by the plan of another process of the run."""
        self.folder, self._old_parts, self._before = plan

    def _list_parts(self, rows: slice | None = None) -> set[_Mark]:
        """The parts in the folder, and what tells one from another that is written in its place.

        Those of a shard have its first row, or one after it, in their names.
        """
        paths = self.folder.glob("part-*.h5")
        if rows:
            paths = (p for p in paths if rows.start <= int(p.name.split("-")[1]) < rows.stop)
        return {(path, (status := path.stat()).st_ino, status.st_mtime_ns) for path in paths}

    def import_rows(self, rows: NDArray[np.int64]) -> None:
        """Copy rows of other files, which may be replaced before this one is published, to parts.

        Returns when they are safe on disk.

        Args:
            rows: Their numbers, in order.
        """
        if not len(rows):
            return
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        for some in self._cut(rows, _IMPORTED_AT_ONCE):
            places = self.places.select(some)
            layout = self._lay_out_part(some, places)

            def fill(file: h5py.File, layout: FileLayout = layout, places: Places = places) -> None:
                copy_rows(places.items(), file, layout)

            damage = [source.damage.get(row, "") for source, row in places.values()]
            path = self._write(layout, some, damage, fill)
            with open_part(path) as part:
                self.places.add(Source.read(part), np.arange(len(some)), some)

    def _lay_out_part(self, rows: NDArray[np.int64], places: Places) -> FileLayout:
        """The layout of a part with rows that are somewhere."""
        inputs, run, runs = places.gather()
        layout = self._select(rows)
        provenance = replace(layout.provenance, runs=runs)
        return replace(layout, input_sha256=inputs, run=run, provenance=provenance)

    def write_part(self, finished: Mapping[int, Row]) -> None:
        """Write finished rows, by their numbers; on return they are safe on disk."""
        for rows in self._cut(np.array([*finished], np.int64), len(finished)):
            self._write_rows(rows, [finished[row] for row in rows.tolist()])

    def _write_rows(self, rows: NDArray[np.int64], finished: Sequence[Row]) -> None:
        """Write finished rows of one shard."""
        layout = self._select(rows)
        layout = replace(
            layout,
            input_sha256=np.array([row.made_of for row in finished], "S64"),
            provenance=replace(layout.provenance, runs=[layout.provenance.last_bits()]),
        )

        def fill(file: h5py.File) -> None:
            for position, row in enumerate(finished):
                write_row(file, position, row.chunks)
                if layout.has_times and row.times is not None:
                    write_times(file, position, row.times)

        self._write(layout, rows, [row.damage for row in finished], fill)

    def _cut(self, rows: NDArray[np.int64], limit: int) -> Iterator[NDArray[np.int64]]:
        """Cut rows, by their numbers, into groups of one shard, with at most so many."""
        bounds = (
            np.flatnonzero(np.diff(rows // (self.rows_per_file or len(self.layout.labels)))) + 1
        )
        for group in np.split(rows, bounds):
            for start in range(0, len(group), limit):
                yield group[start : start + limit]

    def _select(self, rows: NDArray[np.int64]) -> FileLayout:
        """The layout of a part: some rows of a shard, in chunks of the shape that it has."""
        shard = self.lay_out(self.find_shard(int(rows[0])))
        return replace(
            self.layout.select(rows),
            max_frames=shard.max_frames,
            chunk_frames=shard.chunk_frames,
        )

    @property
    def shards(self) -> range:
        """The numbers of the shards; one alone, if the file is not cut."""
        count = len(self.layout.labels)
        return range(-(-count // (self.rows_per_file or count)))

    def find_shard(self, row: int) -> int:
        """The number of the shard that a row is of."""
        return row // self.rows_per_file if self.rows_per_file else 0

    def find_rows(self, shard: int) -> slice:
        """The rows of a shard."""
        count = len(self.layout.labels)
        size = self.rows_per_file or count
        return slice(shard * size, min((shard + 1) * size, count))

    def lay_out(self, shard: int) -> FileLayout:
        """The layout of a shard; of the file, if it is not cut."""
        if not self.rows_per_file:
            return self.layout
        laid_out = self._laid_out  # a thread that merges another shard may replace it
        if laid_out[0] != (shard, id(self.layout)):
            rows = self.find_rows(shard)
            layout = self.layout.select(np.arange(rows.start, rows.stop))
            planned = FileLayout.plan(
                layout.labels,
                layout.num_frames,
                layout.video_ids,
                layout.feature_dim,
                replace(layout.provenance, skipped={}),
                layout.columns,
                layout.has_times,
                layout.input_sha256,
            )
            laid_out = (shard, id(self.layout)), planned
            self._laid_out = laid_out  # rows come shard by shard
        return laid_out[1]

    def _write(
        self,
        layout: FileLayout,
        rows: NDArray[np.int64],
        damage: Sequence[str],
        fill: Callable[[h5py.File], None],
    ) -> Path:
        """Write a part, and return its path.

        Args:
            layout: Its layout.
            rows: Which rows of the file it has.
            damage: What is missing of the video of each.
            fill: Writes their features.
        """
        buffer = io.BytesIO()
        with h5py.File(buffer, "w") as file:
            create(file, layout)
            file.create_dataset(PART_ROWS, data=rows)
            if any(damage):
                file.create_dataset(PART_DAMAGE, data=[*damage], dtype=h5py.string_dtype())
            fill(file)
        content = buffer.getbuffer()
        path = self.folder / f"part-{rows[0]:09d}-{hashlib.sha256(content).hexdigest()}.h5"
        with writing(self.folder):
            replace_file(path, content)
        return path

    def skip(self, row: int, reason: str) -> None:
        """Note on disk that a row is left out of the file, and why."""
        with writing(self.folder), self._journal.open("a", encoding="utf-8") as file:
            file.write(json.dumps([row, reason]) + "\n")
            file.flush()
            os.fsync(file.fileno())

    @property
    def _journal(self) -> Path:
        """What this process notes about rows that are left out; each has its own."""
        return self.folder / f"skipped-{self._token}.jsonl"

    def _skipped(self) -> dict[int, str]:
        """The reasons for rows that are left out, in order; what is cut off has not been said."""
        found = {}
        for path in sorted(self.folder.glob("skipped-*.jsonl")):
            for line in path.read_text("utf-8").split("\n")[:-1]:
                with suppress(ValueError):  # a process has gone on after a write that failed
                    row, reason = json.loads(line)
                    found[row] = reason
        return dict(sorted(found.items()))

    def has_parts(self) -> bool:
        """Whether finished rows are on disk that are not published: in parts, or in shards."""
        shards = () if self.target.exists() else list_shard_paths(self.target)
        return bool(shards) or any(self._home.glob("*/part-*.h5"))

    def _check_bindings(self, path: Path, source: Source) -> None:
        """Refuse a file whose rows are of other settings."""
        made, here = source.provenance, self.layout.provenance
        if not made.has_record:
            found = "one that does not say how it was made"
        elif differences := here.find_differences(made):
            found = f"other ones: {shorten(differences)}"
            if changes := _compare_names(source.names, self.layout.video_ids):
                found += f"; {changes}"
        elif source.feature_dim != self.layout.feature_dim:
            found = f"{source.feature_dim} features a frame instead of {self.layout.feature_dim}"
        else:
            return
        raise OutputError(
            f"{path}: expected a file of the same settings, found {found}. "
            "Set overwrite to true to replace it, or choose another output_dir."
        )


def _compare_names(before: Sequence[str], now: Sequence[str]) -> str:
    """How many videos were added and removed, by their names."""
    added, gone = len({*now} - {*before}), len({*before} - {*now})
    parts = [f"{_count_videos(added)} added"] * bool(added)
    parts += [f"{_count_videos(gone)} removed"] * bool(gone)
    return " and ".join(parts)


def _count_videos(count: int) -> str:
    """So many videos were ..."""
    return f"{count} video was" if count == 1 else f"{count} videos were"
