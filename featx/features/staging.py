"""Parts on disk, and their merge into the published file: plain files, no Lightning.

Finished rows go to disk as parts: small, complete feature files with one more dataset, `rows`.
A part is built in memory and written atomically, and its name holds the digest of its bytes, so it
either exists in full or not at all. When every row is in a part, or in a file that was published
before, the compressed chunks are copied into one file, which is renamed into place.
"""

import hashlib
import io
import json
import os
import shutil
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from featx.errors import IncompleteError, InputError, OutputError, shorten
from featx.features.feature_file import (
    Digests,
    FileLayout,
    create,
    open_feature_file,
    read_columns,
    to_digests,
    write_row,
    write_times,
)
from featx.features.finished import (
    PART_DAMAGE,
    PART_ROWS,
    Places,
    Source,
    copy_rows,
    find_keys,
    find_unclaimed,
    open_part,
)
from featx.features.validation import find_problems
from featx.files import check_replaceable, publish_file, remove, replace_file, writing

STAGING_FOLDER = ".featx"

_PLAN_DIGITS = 16
_IMPORTED_AT_ONCE = 64  # rows
_GIVEN_UP = "given-up.txt"


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
        digest: From the names of inputs that count as left out, and of those that count as not
            there, to the digest of all others, as files of format 1 record it.
        tells_content: Whether what rows are made of follows from the content of each video alone,
            and not from the file that has it beside others.
    """

    identify: Callable[[Collection[int], bool], Digests]
    digest: Callable[[Collection[str], Collection[str]], str]
    tells_content: bool = True


class Staging:
    """The rows of one feature file on their way to it.

    Args:
        target: Path of the file to publish.
        layout: Its layout.
        inputs: Tells what cannot be known without reading inputs; by default, nothing can.

    Attributes:
        places: Where rows are that earlier runs have finished, by their numbers; see `plan_update`.
        published: The file that is there, if its rows can be told; likewise.
        elsewhere: Tells the keys of what the finished rows of other files are made of; likewise.
        given_up: What rows were made of that somebody has replaced or dropped since; likewise.
        folder: Where the parts of this run go; all of its processes have the same.
    """

    def __init__(self, target: Path, layout: FileLayout, inputs: Inputs | None = None) -> None:
        self.target = target
        self.layout = layout
        self.inputs = inputs or Inputs(
            lambda rows, copies: layout.input_sha256, lambda left_out, absent: ""
        )
        self.places = Places(len(layout.labels))
        self.elsewhere: Callable[[], NDArray[np.uint64]] = lambda: np.zeros(0, np.uint64)
        self.given_up: Collection[str] = ()
        self._old_parts: set[tuple[Path, int, int]] = set()
        self.published: Source | None = None
        self._token = uuid.uuid4().hex
        self.folder = self._find_folder()

    def _find_folder(self) -> Path:
        """The folder of this run's parts.

        Each plan has its own: the numbers of its rows are no others', not even those of a process
        that outlives its run.
        """
        layout = self.layout
        settings = (layout.provenance.bindings(), layout.chunk_frames, len(layout.labels))
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

    def read_sources(self, overwrite: bool) -> list[Source]:
        """Read what there is of finished rows: the published file, and the parts of earlier runs.

        Damaged parts and temporary files are removed: their rows are made again.

        Args:
            overwrite: Leave out, instead of refusing, what other settings made or is damaged.

        Raises:
            OutputError: The file, or a part, is of other settings or damaged, and `overwrite` is
                off; or something cannot be read or written.
        """
        check_replaceable(self.target)
        sources = []
        with writing(self._home):
            if self.target.exists() and (source := self._read_published(overwrite)):
                sources.append(source)
            for path in sorted(self._home.iterdir()) if self._home.exists() else ():
                if path.is_dir():
                    sources += self._read_parts(path, overwrite)
                elif path.name == _GIVEN_UP:
                    self.given_up = path.read_text("utf-8").split()
                else:  # of a merge that was killed
                    remove(path)
        return sources

    def _read_published(self, overwrite: bool) -> Source | None:
        way_out = "Set overwrite to true to replace it, or move it away."
        try:
            with open_feature_file(self.target) as file:
                source = Source.read(file)
                self._check_bindings(self.target, source)
                if problems := find_problems(file, read_features=False):
                    raise OutputError(f"{self.target}: {problems[0]}. {way_out}")
                return source
        except OutputError:
            if not overwrite:
                raise
        except InputError as error:
            if not overwrite:
                raise OutputError(f"{error} {way_out}") from error
        return None

    def _read_parts(self, folder: Path, overwrite: bool) -> list[Source]:
        """The parts in the folder of a plan; what is no part in it is removed."""
        sources = []
        for path in sorted(folder.iterdir()):
            try:
                with open_part(path) as part:
                    source = Source.read(part)
            except IncompleteError:
                if not path.match("damaged-*.txt"):  # what format 1 has for parts to come
                    remove(path)
                continue
            try:
                self._check_bindings(path, source)
            except OutputError:
                if not overwrite:
                    raise
                remove(folder)
                return []
            sources.append(source)
        return sources

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
        self.folder = self._find_folder()
        with writing(self.folder):
            if len(places) < len(self.layout.labels):
                self.folder.mkdir(parents=True, exist_ok=True)
                if {*given_up} != {*self.given_up}:
                    content = "\n".join(sorted(given_up)).encode()
                    replace_file(self._home / _GIVEN_UP, content)
            for path in self.folder.glob("skipped-*"):
                remove(path)
        self.given_up = given_up
        self._old_parts = self._list_parts()
        self.places = places

    def _list_parts(self) -> set[tuple[Path, int, int]]:
        """The parts in the folder, and what tells one from another that is written in its place."""
        paths = self.folder.glob("part-*.h5")
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
        for start in range(0, len(rows), _IMPORTED_AT_ONCE):
            some = rows[start : start + _IMPORTED_AT_ONCE]
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
        layout = self.layout.select(rows)
        provenance = replace(layout.provenance, runs=runs)
        return replace(layout, input_sha256=inputs, run=run, provenance=provenance)

    def write_part(self, finished: Mapping[int, Row]) -> None:
        """Write finished rows, by their numbers; on return they are safe on disk."""
        rows = np.array([*finished], np.int64)
        layout = self.layout.select(rows)
        layout = replace(
            layout,
            input_sha256=to_digests([row.made_of for row in finished.values()]),  # type: ignore[arg-type]  # text, or as a file has it
            provenance=replace(layout.provenance, runs=[layout.provenance.last_bits()]),
        )

        def fill(file: h5py.File) -> None:
            for position, row in enumerate(finished.values()):
                write_row(file, position, row.chunks)
                if layout.has_times and row.times is not None:
                    write_times(file, position, row.times)

        self._write(layout, rows, [row.damage for row in finished.values()], fill)

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
        """Whether finished rows are on disk."""
        return any(self._home.glob("*/part-*.h5"))

    def publish(self, overwrite: bool = False) -> None:
        """Merge all rows into the published file, unless it has them already; remove the parts.

        Args:
            overwrite: Accept that the file loses rows whose new videos turned out to be bad.

        Raises:
            IncompleteError: A row is missing, or a part was changed; or all rows were skipped, or
                rows of the file would be lost.
            OutputError: The disk is full, or the file cannot be written.
        """
        places = self.find_places()
        skipped = {row: reason for row, reason in self._skipped().items() if row not in places}
        names = self.layout.video_ids
        absent = np.flatnonzero(places.source < 0).tolist()
        missing = [names[row] for row in absent if row not in skipped]
        if missing:
            raise IncompleteError(
                f"{self.target}: expected {len(names)} videos, found {len(names) - len(missing)}, "
                f"without {shorten(missing)}. This split is not published: run again without "
                "limit_predict_batches."
            )
        if not places:
            raise IncompleteError(
                f"{self.target}: expected one good video or more, found none: "
                f"{shorten([*skipped.values()], 1)}"
            )
        layout = self._complete(places, skipped)
        if not overwrite:
            self._check_losses(layout, {names[row]: reason for row, reason in skipped.items()})
        chosen = places.select(places.numbers())
        with writing(self.target):
            if not self._is_current(layout, chosen):
                self._check_space(chosen)
                self._merge(layout, chosen)
            self._remove_folder()

    def find_places(self) -> Places:
        """Where each row is: also in the parts that were written since this run has begun."""
        places = self.places.select(slice(None))
        for path, *_ in sorted(self._list_parts() - self._old_parts):
            with open_part(path) as part:
                source = Source.read(part)
            numbers = source.numbers
            planned = self.layout.input_sha256[numbers]
            is_new = (places.source[numbers] < 0) & ((planned == b"") | (planned == source.inputs))
            places.add(source, np.flatnonzero(is_new), numbers[is_new])
        return places

    def _check_losses(self, layout: FileLayout, skipped: Mapping[str, str]) -> None:
        """Refuse to drop rows of the file, where videos turned out to be bad.

        Args:
            layout: What it is to be.
            skipped: The names of these videos, and what is wrong with each.
        """
        published = self.published
        if not published:
            return
        names, inputs = layout.video_ids, layout.input_sha256

        def find_lost(elsewhere: NDArray[np.uint64]) -> list[str]:
            unclaimed = find_unclaimed(published, names, inputs, elsewhere)
            return [
                name
                for name, made_of in unclaimed.dropped
                if made_of not in self.given_up or name in skipped
            ]

        if find_lost(find_keys(to_digests(()))) and (lost := find_lost(self.elsewhere())):
            raise IncompleteError(
                f"{self.target}: expected to go on with all videos that it has, found that "
                f"{shorten(lost)} would be lost: no good video stands for them now. Mend the "
                "inputs, or set overwrite to true to drop the rows"
                + "".join(f": {reason}" for reason in [*skipped.values()][:1])
            )

    def _complete(self, places: Places, skipped: Mapping[int, str]) -> FileLayout:
        """The layout with all that is known once each row is somewhere."""
        inputs, run, runs = places.gather()
        damaged = {
            int(row): damage
            for source, rows in places.by_source()
            if source.damage
            for row in rows
            if (damage := source.damage.get(int(places.row[row]), ""))
        }
        layout = replace(
            self.layout,
            input_sha256=inputs,
            run=run,
            provenance=replace(self.layout.provenance, runs=runs),
        )
        return layout.note_damage(damaged).leave_out(skipped)

    def _is_current(self, layout: FileLayout, places: Places) -> bool:
        """Whether the published file is what a merge would make, or of another run's settings."""
        before = self.published
        if not before or before.provenance.is_old or len(before.names) != len(places):
            return False
        rows = np.arange(len(places))
        is_elsewhere = any(source is not before for source, _ in places.by_source())
        if is_elsewhere or not np.array_equal(places.row, rows):
            return False
        made, here = before.provenance, layout.provenance
        with open_feature_file(self.target) as file:
            return (
                made.describe() == here.describe()
                and before.chunk_frames == layout.chunk_frames
                and before.has_times == layout.has_times
                and before.names == layout.video_ids
                and np.array_equal(before.labels, layout.labels)
                and repr(_to_plain(read_columns(file))) == repr(_to_plain(layout.columns))
            )

    def _merge(self, layout: FileLayout, places: Places) -> None:
        merged = self._home / "merged.h5"
        merged.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(merged, "w", locking=False) as file:
            create(file, layout)
            copy_rows(places.items(), file, layout)
        with h5py.File(merged, "r", locking=False) as file:
            problems = find_problems(file, read_features=False)
        if problems:
            raise OutputError(f"{merged}: expected a valid file, found {problems[0]}. Run again.")
        publish_file(merged, self.target)

    def _remove_folder(self) -> None:
        if self._home.exists():
            remove(self._home)
        with suppress(OSError):  # there are other parts in it, or there is no such folder
            self._home.parent.rmdir()

    def _check_space(self, places: Places) -> None:
        """Check before the merge, because HDF5 crashes on a full disk."""
        needed = sum(
            source.num_bytes * len(rows) // len(source.num_frames)
            for source, rows in places.by_source()
        )
        free = shutil.disk_usage(self.target.parent).free
        if free < needed:
            raise OutputError(
                f"{self.target}: expected {needed / 2**20:.0f} MB of free disk space for the "
                f"merge, found {free / 2**20:.0f} MB. Free some, and run again."
            )


def _to_plain(columns: Mapping[str, NDArray[Any]]) -> dict[str, object]:
    """Columns for comparison: NaN is NaN then."""
    return {name: values.tolist() for name, values in sorted(columns.items())}


def _compare_names(before: Sequence[str], now: Sequence[str]) -> str:
    """How many videos were added and removed, by their names."""
    added, gone = len({*now} - {*before}), len({*before} - {*now})
    parts = [f"{_count_videos(added)} added"] * bool(added)
    parts += [f"{_count_videos(gone)} removed"] * bool(gone)
    return " and ".join(parts)


def _count_videos(count: int) -> str:
    """So many videos were ..."""
    return f"{count} video was" if count == 1 else f"{count} videos were"
