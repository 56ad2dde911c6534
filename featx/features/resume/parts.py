"""A feature file on its way: its shards, and the parts on disk that hold its finished rows.

A part is a small, complete feature file with one more dataset, `rows`. It is built in memory and
written atomically, and its name holds the checksum of its bytes, so that it exists in full or not
at all. All rows of a part are of one shard.
"""

import hashlib
import io
import json
import logging
import os
import time
import uuid
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from featx.durable import replace_file, writing
from featx.errors import FeatureError, FeatxError
from featx.features.feature_file import (
    Digests,
    FileLayout,
    create,
    encode,
    open_feature_file,
    write_row,
    write_times,
)
from featx.features.resume import STAGING_FOLDER
from featx.features.resume.rows import (
    MERGED,
    PART_DAMAGE,
    PART_ROWS,
    PARTS,
    RowFile,
    RowLocations,
    copy_rows,
    open_part,
)
from featx.features.shards import list_shard_paths

_COPIED_AT_ONCE = 64  # rows

_log = logging.getLogger(__name__)


class Row(NamedTuple):
    """A finished row on its way to a part.

    Attributes:
        chunks: Its features, compressed.
        made_of: Its content hash.
        times: When its frames are shown, where the layout has that.
        damage: What is missing of its video.
    """

    chunks: list[bytes]
    made_of: str | bytes
    times: NDArray[np.float32] | None = None
    damage: str = ""


class ContentLookup(NamedTuple):
    """Looks up the content hashes of the rows of a file, where that costs reading inputs.

    Attributes:
        identify: Takes row numbers and a flag, and returns the content hash of every row of the
            file; empty where it is still not known. The flag limits hashing to inputs of the same
            size as an input that is known.
        tells_content: Whether the content hash of a video follows from that video alone, and not
            from the file that holds it beside others.
    """

    identify: Callable[[Collection[int], bool], Digests]
    tells_content: bool = True


class Plan(NamedTuple):
    """What all ranks of a run have to know of a file: rank 0 makes it, the others follow it.

    Attributes:
        folder: The folder of the run.
        settings: What is recorded of the run.
        paths: The files that finished rows are in.
        file: Which of them each row `[rows]` is in; -1 for a row that is to be made. `[0]` if
            there are no paths.
        row: In which row of it `[rows]`; likewise.
    """

    folder: Path
    settings: Mapping[str, Any]
    paths: Sequence[Path]
    file: NDArray[np.int32]
    row: NDArray[np.int64]


class PendingFile:
    """A feature file that is to be published, and its finished rows.

    Args:
        target: Path of the file to publish.
        layout: Its layout.
        lookup: Looks up content hashes that the layout does not have; by default, it has all.
        rows_per_file: Cut the file into shards of so many rows; by default, it is one.

    Attributes:
        folder: The folder of this run; see `begin`.
        locations: Where finished rows are, by their numbers; parts of this run are found on disk.
        published: The file that is there, if there is one whose rows can be kept; set by the plan.
        old_shards: The shards that earlier runs have written; set by the plan.
        find_elsewhere: Returns the numbers of what rows of other files are made of; likewise.
        is_published: Whether this run has published the file.
    """

    def __init__(
        self,
        target: Path,
        layout: FileLayout,
        lookup: ContentLookup | None = None,
        rows_per_file: int | None = None,
    ) -> None:
        self.target = target
        self.layout = layout
        self.lookup = lookup or ContentLookup(lambda rows, same_size: layout.input_sha256)
        self.rows_per_file = rows_per_file
        self.home = target.parent / STAGING_FOLDER / target.stem
        self.folder = self.home / uuid.uuid4().hex
        self.locations = RowLocations(len(layout.labels))
        self.published: RowFile | None = None
        self.old_shards: set[Path] = set()
        self.find_elsewhere: Callable[[], NDArray[np.uint64]] = lambda: np.zeros(0, np.uint64)
        self.is_published = False
        self._run = layout.provenance.last_bits()  # of this process: ranks may have other devices
        self._process = uuid.uuid4().hex
        self._plan: Plan | None = None  # of rank 0, on the other ranks
        self._opened: dict[int, RowFile] = {}  # files of that plan, by their numbers
        self._laid_out: tuple[FileLayout, int, FileLayout] | None = None

    @property
    def split(self) -> str:
        """The split that the file is of."""
        return self.layout.provenance.split or self.target.stem.partition("_features")[0]

    # Shards: one alone, if the file is not cut.

    @property
    def shard_size(self) -> int:
        """The number of rows of a shard."""
        return self.rows_per_file or len(self.layout.labels)

    @property
    def shards(self) -> range:
        """The numbers of the shards."""
        return range(-(-len(self.layout.labels) // self.shard_size))

    def find_rows(self, shard: int) -> slice:
        """Return the rows of a shard."""
        return slice(
            shard * self.shard_size, min((shard + 1) * self.shard_size, len(self.layout.labels))
        )

    def lay_out(self, shard: int) -> FileLayout:
        """Return the layout of a shard; of the file, if it is not cut."""
        if not self.rows_per_file:
            return self.layout
        if (
            self._laid_out is None
            or self._laid_out[0] is not self.layout
            or (self._laid_out[1] != shard)
        ):
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
            self._laid_out = self.layout, shard, planned  # rows come shard by shard
        return self._laid_out[2]

    # The plan of the run.

    def begin(self, locations: RowLocations, inputs: NDArray[np.bytes_]) -> None:
        """Make a folder for the parts of this run.

        Args:
            locations: Where finished rows are.
            inputs: Content hash of each row, as far as it is known by now.
        """
        self.layout = replace(self.layout, input_sha256=inputs)
        self.locations = locations
        self.__dict__.pop("plan", None)  # it follows from the locations
        # Parts of earlier runs never lie in it, nor do those of a process that outlives its run.
        self.folder = self.home / uuid.uuid4().hex
        if len(locations) < len(self.layout.labels):
            with writing(self.folder):
                self.folder.mkdir(parents=True)

    @cached_property
    def plan(self) -> Plan:
        """What the other ranks have to know."""
        used, file = _renumber(self.locations.file)
        paths = [self.locations.files[number].path for number in used]
        row, settings = self.locations.row, self.layout.provenance.run
        if not paths:  # as in every first run: there is nothing to say of each row
            file, row = file[:0], row[:0]
        return Plan(self.folder, settings, paths, file, row)

    def follow(self, plan: Plan) -> None:
        """Work by the plan of rank 0, which may be this one."""
        if plan.folder == self.folder:
            return
        self.folder, self._plan = plan.folder, plan
        made = replace(self.layout.provenance, run=plan.settings)
        self.layout = replace(self.layout, provenance=made)

    def copy_to_parts(self, rows: NDArray[np.int64]) -> None:
        """Copy rows of other feature files to parts; returns when they are safe on disk.

        Args:
            rows: Their numbers, in order.
        """
        if not len(rows):
            return
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        for some in self._cut(rows, _COPIED_AT_ONCE):
            locations = self.locations.select(some)
            inputs, run, runs = locations.gather()
            layout = self._select(some)
            provenance = replace(layout.provenance, runs=runs)
            layout = replace(layout, input_sha256=inputs, run=run, provenance=provenance)

            def fill(
                file: h5py.File, layout: FileLayout = layout, found: RowLocations = locations
            ) -> None:
                copy_rows(found.items(), file, layout)

            damage = [file.damage.get(row, "") for file, row in locations.values()]
            path = self._write(layout, some, damage, fill)
            with open_part(path) as part:
                self.locations.add(RowFile.read(part), np.arange(len(some)), some)

    # Parts.

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
            provenance=replace(layout.provenance, runs=[self._run]),
        )

        def fill(file: h5py.File) -> None:
            for position, row in enumerate(finished):
                write_row(file, position, row.chunks)
                if layout.has_times and row.times is not None:
                    write_times(file, position, row.times)

        self._write(layout, rows, [row.damage for row in finished], fill)

    def _cut(self, rows: NDArray[np.int64], limit: int) -> Iterator[NDArray[np.int64]]:
        """Cut rows, by their numbers, into groups of one shard, with at most so many."""
        bounds = np.flatnonzero(np.diff(rows // self.shard_size)) + 1
        for group in np.split(rows, bounds):
            for start in range(0, len(group), limit):
                yield group[start : start + limit]

    def _select(self, rows: NDArray[np.int64]) -> FileLayout:
        """Return the layout of a part: some rows of a shard, in chunks of the same shape."""
        shard = self.lay_out(int(rows[0]) // self.shard_size)
        return replace(
            self.layout.select(rows),
            max_frames=shard.max_frames,
            chunk_frames=shard.chunk_frames,
        )

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

    def list_parts(self, shard: int | None = None) -> list[Path]:
        """Return the parts of this run, or those of a shard: their names have their first row."""
        parts = sorted(self.folder.glob(PARTS))
        if shard is None:
            return parts
        rows = self.find_rows(shard)
        return [p for p in parts if rows.start <= int(p.name.split("-")[1]) < rows.stop]

    def list_old_parts(self, shard: int) -> list[Path]:
        """Return the parts of earlier runs whose rows are needed for this shard alone."""
        plan = self._plan or self.plan
        numbers = np.flatnonzero(plan.file >= 0)
        file, shards = plan.file[numbers], numbers // self.shard_size
        first = np.full(len(plan.paths), -1, np.int64)
        last = first.copy()
        first[file[::-1]], last[file] = shards[::-1], shards  # numbers are in order
        chosen = np.flatnonzero((first == shard) & (last == shard)).tolist()
        paths = (plan.paths[number] for number in chosen)
        return [p for p in paths if p.parent.parent == self.home and p.match(PARTS)]

    def find_locations(self, shard: int | None = None) -> RowLocations:
        """Find where each row is, also in the parts of this run.

        Args:
            shard: Only for the rows of a shard, which are numbered from its first one.

        Raises:
            IncompleteError: A part is not what was written.
            InputError: A file of earlier rows cannot be read any more.
        """
        rows = slice(0, len(self.layout.labels)) if shard is None else self.find_rows(shard)
        locations = self._select_locations(rows)
        for path in self.list_parts(shard):
            with open_part(path) as part:
                file = RowFile.read(part)
            planned = self.layout.input_sha256[file.numbers]
            numbers = file.numbers - rows.start
            is_new = locations.file[numbers] < 0
            is_new &= (planned == b"") | (planned == file.inputs)
            locations.add(file, np.flatnonzero(is_new), numbers[is_new])
        return locations

    def _select_locations(self, rows: slice) -> RowLocations:
        """Return where finished rows of earlier runs are.

        Ranks that follow a plan read the files of these rows now. They must not read others: other
        ranks may have removed parts of other shards by now.
        """
        if self._plan is None:
            return self.locations.select(rows)
        if not self._plan.paths:
            return RowLocations(rows.stop - rows.start)
        used, file = _renumber(self._plan.file[rows])
        for number in used:
            if number not in self._opened:
                with open_feature_file(self._plan.paths[number]) as opened:
                    self._opened[number] = RowFile.read(opened)
        locations = RowLocations(0, [self._opened[number] for number in used])
        locations.file, locations.row = file, self._plan.row[rows].copy()
        return locations

    def has_parts(self) -> bool:
        """Whether finished rows are on disk that are not published: in parts, or in shards."""
        shards = () if self.target.exists() else list_shard_paths(self.target)
        return bool(shards) or any(any(self.home.glob(f"*/{name}")) for name in (PARTS, MERGED))

    # Rows that are left out.

    def skip(self, row: int, reason: str) -> None:
        """Note on disk that a row is left out of the file, and why."""
        path = self.folder / f"skipped-{self._process}.jsonl"
        with writing(self.folder), path.open("a", encoding="utf-8") as file:
            file.write(json.dumps([row, reason]) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def read_skipped(self) -> dict[int, str]:
        """Return the reasons for rows that all ranks leave out, in order of the rows.

        A line that is cut off does not count: its process has died, or the write has failed.
        """
        found = {}
        for path in sorted(self.folder.glob("skipped-*.jsonl")):
            for line in path.read_text("utf-8").split("\n")[:-1]:
                with suppress(ValueError):
                    row, reason = json.loads(line)
                    found[row] = reason
        return dict(sorted(found.items()))


def _renumber(file: NDArray[np.int32]) -> tuple[list[int], NDArray[np.int32]]:
    """Return the files that rows are in, and which of these each row is in; -1 stays."""
    used, renumbered = np.unique(file, return_inverse=True)
    some_are_nowhere = bool(len(used) and used[0] < 0)
    return used[some_are_nowhere:].tolist(), (renumbered - some_are_nowhere).astype(np.int32)


class PartLimits(NamedTuple):
    """When a part is written.

    Attributes:
        num_bytes: When so many bytes are together.
        seconds: When so many seconds have passed.
        queued: Videos on their way to a part; this also bounds how far ahead of CUDA we run.
    """

    num_bytes: int = 16 * 2**20
    seconds: float = 30.0
    queued: int = 8


USUAL_LIMITS = PartLimits()


class PartWriter:
    """Collects finished rows of a file, compresses them in threads, and writes parts.

    Args:
        file: The file that they are of.
        pool: The threads; zlib releases the GIL.
        skips: Whether rows that are not finite are left out, or are an error.
        limits: When a part is written.
    """

    def __init__(
        self,
        file: PendingFile,
        pool: ThreadPoolExecutor,
        skips: bool = False,
        limits: PartLimits = USUAL_LIMITS,
    ) -> None:
        self._limits = limits
        self._file = file
        self._pool = pool
        self._skips = skips
        self._queue: deque[tuple[int, Future[Row]]] = deque()
        self._finished: dict[int, Row] = {}
        self._bytes = 0
        self._last_write = time.monotonic()

    def add(
        self,
        row: int,
        fetch: Callable[[], NDArray[np.float32]],
        made_of: str = "",
        times: NDArray[np.float32] | None = None,
        damage: str = "",
    ) -> None:
        """Take a row; waits while the queue is full.

        Args:
            row: Its number.
            fetch: Returns its features `[num_frames, feature_dim]`; called in another thread.
            made_of: Its content hash.
            times: When its frames are shown, where the layout has that.
            damage: What is missing of its video.

        Raises:
            FeatureError: This row, or one before it, is not finite.
        """
        if damage:
            _log.warning("Damaged: %s: found %s", self._file.layout.video_ids[row], damage)
        made = Row([], made_of, times, damage)
        layout = self._file.lay_out(row // self._file.shard_size)
        self._queue.append((row, self._pool.submit(self._encode, row, fetch, made, layout)))
        while self._queue and (len(self._queue) > self._limits.queued or self._queue[0][1].done()):
            self._collect()
        waited = time.monotonic() - self._last_write
        if self._bytes >= self._limits.num_bytes or waited > self._limits.seconds:
            self._write()

    def skip(self, row: int, error: FeatxError) -> None:
        """Leave a row out of the file."""
        self._file.skip(row, str(error))

    def flush(self) -> None:
        """Write everything taken so far.

        Raises:
            FeatureError: A row is not finite; the others are written.
        """
        errors = []
        while self._queue:
            try:
                self._collect()
            except FeatureError as error:
                errors.append(error)
        self._write()
        if errors:
            raise errors[0]

    def _encode(
        self, row: int, fetch: Callable[[], NDArray[np.float32]], made: Row, layout: FileLayout
    ) -> Row:
        features = fetch()
        if not np.isfinite(features).all():
            raise FeatureError(
                f"{self._file.layout.video_ids[row]}: expected finite features, "
                "found NaN or infinity. Check the weights, or use a precision with more range: "
                "32-true or bf16-mixed."
            )
        return made._replace(chunks=encode(features, layout))

    def _collect(self) -> None:
        row, future = self._queue.popleft()
        try:
            self._finished[row] = future.result()
        except FeatureError as error:
            if not self._skips:
                raise
            self.skip(row, error)
            _log.warning("Left out: %s", error)
        else:
            self._bytes += sum(map(len, self._finished[row].chunks))

    def _write(self) -> None:
        if self._finished:
            self._file.write_part(self._finished)
            self._finished, self._bytes = {}, 0
        self._last_write = time.monotonic()
