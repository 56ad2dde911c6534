"""What there is of a file's rows on disk, and their merge into it: plain files, no Lightning.

When every row is in a part, or in a file that was published before, the compressed chunks are
copied into one file, or into shards and one over them, which is renamed into place.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from featx.errors import IncompleteError, InputError, OutputError, shorten
from featx.features.feature_file import (
    FileLayout,
    find_uncopied,
    open_feature_file,
    to_digests,
)
from featx.features.finished import (
    Places,
    Source,
    find_keys,
    find_unclaimed,
    open_part,
)
from featx.features.publishing import check_merged, is_alike, is_current, merge_rows
from featx.features.shards import list_shard_paths, shard_path, write_over_shards
from featx.features.staged import GIVEN_UP, StagedRows
from featx.features.validation import find_problems
from featx.files import check_replaceable, publish_file, remove, sync, writing

_MERGED = "merged-"  # folders of shards that wait to be published


class _Ready(NamedTuple):
    """What is known of the rows of a shard, which are numbered from its first one.

    Attributes:
        places: Where they are.
        inputs: What each was made of.
        left_out: Why rows are left out.
        damaged: What is missing of the videos of some.
        missing: The names of those that are nowhere.
    """

    places: Places
    inputs: NDArray[np.bytes_]
    left_out: Mapping[int, str]
    damaged: Mapping[int, str]
    missing: Sequence[str]


class Staging(StagedRows):
    """The rows of one feature file, from what earlier runs have left to the published file."""

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
        merged: list[Source] = []  # preferred: it is the work of a run that was about to publish
        parts: list[Source] = []
        with writing(self._home):
            files = [self.target] if self.target.exists() else []
            published = [s for path in files if (s := self._read_file(path, overwrite))]
            shards = self._read_shards(published, overwrite)
            for path in sorted(self._home.iterdir()) if self._home.exists() else ():
                if path.is_dir() and path.name.startswith(_MERGED):
                    files = [each for each in sorted(path.iterdir()) if _is_sound(each)]
                    merged += [s for path in files if (s := self._read_file(path, overwrite))]
                elif path.is_dir():
                    parts += self._read_parts(path, overwrite)
                elif path.name == GIVEN_UP:
                    self.given_up = path.read_text("utf-8").split()
                else:  # of a merge that was killed
                    remove(path)
        wanted = [*shards, *published] if self.rows_per_file else [*published, *shards]
        return [*merged, *wanted, *parts]

    def _read_shards(self, published: Sequence[Source], overwrite: bool) -> list[Source]:
        """The shards that no file is over: it was about to be written, or to be replaced."""
        known = {shard.path for source in published for shard in source.shards}
        self._shard_files = known
        sources = []
        self._before = {*list_shard_paths(self.target)}
        for path in sorted(self._before):
            if path not in known:
                is_replaced = self.rows_per_file and int(path.stem) in self.shards
                if source := self._read_file(path, overwrite or not is_replaced):
                    sources.append(source)
        self._shard_files = known | {source.path for source in sources}
        return sources

    def _read_file(self, path: Path, overwrite: bool) -> Source | None:
        """A complete file of finished rows."""
        way_out = "Set overwrite to true to replace it, or move it away."
        try:
            with open_feature_file(path) as file:
                source = Source.read(file)
                self._check_bindings(path, source)
                if problems := find_problems(file, read_features=False):
                    raise OutputError(f"{path}: {problems[0]}. {way_out}")
                if uncopied := find_uncopied(file):
                    raise OutputError(
                        f"{path}: expected a file whose rows can be copied, found "
                        f"{shorten(uncopied)}, which would be lost. {way_out}"
                    )
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
        sources: list[Source] = []
        for path in sorted(folder.iterdir()):
            try:
                with open_part(path) as part:
                    source = Source.read(part)
                if sources and sources[-1].provenance == source.provenance:  # there may be many
                    source = replace(source, provenance=sources[-1].provenance)
            except IncompleteError:
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

    def publish(self, overwrite: bool = False) -> None:
        """Merge all rows into the published file, unless it has them already; remove the parts.

        Args:
            overwrite: Accept that the file loses rows whose new videos turned out to be bad.

        Raises:
            IncompleteError: A row is missing, or a part was changed; or all rows were skipped, or
                rows of the file would be lost.
            OutputError: The disk is full, or the file cannot be written.
        """
        known, left_out, last = self._survey()
        if not overwrite:
            self._check_losses(known, left_out)
        with writing(self.target):
            if self.rows_per_file:
                self._remove_stale(self._publish_shards(known))
            else:
                self._publish_whole(last)
                self._remove_stale(())
            self._remove_folder()

    def _survey(self) -> tuple[FileLayout, dict[str, str], _Ready]:
        """The layout of all rows, once each of them is somewhere or left out, and why these are.

        What is known of the last shard stands beside.

        Raises:
            IncompleteError: One is not, or all are left out.
        """
        missing: list[str] = []
        inputs, left_out, damaged = [], dict[int, str](), dict[int, str]()
        for shard in self.shards:
            ready, first = self._gather(shard), self.find_rows(shard).start
            missing += ready.missing
            left_out |= {first + row: reason for row, reason in ready.left_out.items()}
            damaged |= {first + row: damage for row, damage in ready.damaged.items()}
            inputs.append(ready.inputs)
        count, names = len(self.layout.labels), self.layout.video_ids
        if missing:
            raise IncompleteError(
                f"{self.target}: expected {count} videos, found {count - len(missing)}, "
                f"without {shorten(missing)}. This split is not published: run again without "
                "limit_predict_batches."
            )
        if len(left_out) == count:
            raise IncompleteError(
                f"{self.target}: expected one good video or more, found none: "
                f"{shorten([*left_out.values()], 1)}"
            )
        layout = replace(self.layout, input_sha256=np.concatenate(inputs))
        layout = layout.note_damage(damaged).leave_out(left_out)
        return layout, {names[row]: reason for row, reason in left_out.items()}, ready

    def merge(self, shard: int) -> Path | None:
        """Merge the rows of a shard into a file that waits to be published, unless there is one.

        Raises:
            IncompleteError: A row is missing, or a part was changed.
            OutputError: The disk is full, or the file cannot be written.

        Returns:
            The file; None if all rows are left out.
        """
        path = shard_path(self.target, shard)
        ready = self._gather(shard)
        if ready.missing:
            raise IncompleteError(
                f"{path}: expected all of its rows, found none of {shorten(ready.missing)}. "
                "Run again."
            )
        if not ready.places:
            return None
        layout, places = self._complete(shard, ready)
        sources = {source.path for source, _ in places.by_source()}
        for there in (path, *(each for each in sources if each.name == path.name)):
            if is_current(there, layout, places):
                return there
        with writing(self._home):
            folder = self._merged_folder
            folder.mkdir(parents=True, exist_ok=True)
            temporary = folder.with_suffix(".h5")
            merge_rows(temporary, layout, places, self._check_going)
            publish_file(temporary, folder / path.name)
        return folder / path.name

    @property
    def _merged_folder(self) -> Path:
        """Where shards wait that this process has merged."""
        return self._home / f"{_MERGED}{self._token}"

    def publish_shard(self, shard: int) -> None:
        """Publish a shard before all others are finished, and remove the parts that it is made of.

        Not where there is one already, or a file over all: these have rows of earlier runs, and are
        replaced when every row has its place.

        Raises:
            IncompleteError: A row is missing, or a part was changed.
            OutputError: The disk is full, or the file cannot be written.
        """
        path = shard_path(self.target, shard)
        if self.target.exists() or path.exists():
            return
        parts = self._list_parts(self.find_rows(shard)) - self._old_parts
        merged = self.merge(shard)
        # Rows of others may be taken from what earlier runs have merged, but not from these parts.
        if merged and merged.parent == self._merged_folder:
            self._move_shard(merged, path)
            with writing(self.folder):
                for part, *_ in parts:
                    part.unlink()

    def _check_going(self) -> None:
        """Check that nobody has stopped a merge.

        Raises:
            IncompleteError: Somebody has.
        """
        if self.is_stopped:
            raise IncompleteError(f"{self.target}: expected to merge it, found the run's end.")

    def _move_shard(self, merged: Path, path: Path) -> None:
        with writing(path):
            path.parent.mkdir(exist_ok=True)
            publish_file(merged, path)

    def _publish_whole(self, ready: _Ready) -> None:
        """Merge all rows into one file, unless it has them already."""
        layout, places = self._complete(0, ready)
        if not is_current(self.target, layout, places):
            merged = self._home / "merged.h5"
            merged.parent.mkdir(parents=True, exist_ok=True)
            merge_rows(merged, layout, places)
            publish_file(merged, self.target)

    def _publish_shards(self, known: FileLayout) -> list[Path]:
        """Publish the shards that change, and the file over all shards; these are returned."""
        files: list[Path] = []
        moved: list[tuple[Path, Path]] = []
        for shard in self.shards:
            self.publish_shard(shard)
            merged = self.merge(shard)
            if merged is None:
                continue
            path = shard_path(self.target, shard)
            files.append(path)
            if merged != path:
                moved.append((merged, path))
        before = [shard.path for shard in self.published.shards] if self.published else []
        is_same = not moved and files == before and is_alike(self.target, known)
        if is_same:
            return files
        if {path for _, path in moved} & {*before} or (self.target.exists() and not self.published):
            remove(self.target)  # it must not be over shards that it does not know
            sync(self.target.parent)
        for merged, path in moved:
            self._move_shard(merged, path)
        over = self._home / "over.h5"
        over.parent.mkdir(parents=True, exist_ok=True)
        write_over_shards(over, files, known.provenance)
        check_merged(over, self.target.parent)
        publish_file(over, self.target)
        return files

    def _remove_stale(self, files: Collection[Path]) -> None:
        """Remove the shards that the published file does not need any more, and nothing else."""
        for path in self._shard_files - {*files}:
            path.unlink(missing_ok=True)
        with suppress(OSError):  # there is something in it, or there is no such folder
            self.target.with_suffix("").rmdir()

    def _gather(self, shard: int) -> _Ready:
        """What is known of the rows of a shard."""
        rows, names = self.find_rows(shard), self.layout.video_ids
        places = self.find_places(shard)
        absent = np.flatnonzero(places.source < 0).tolist()
        skipped = self._skipped()
        left_out = {row: skipped[r] for row in absent if (r := rows.start + row) in skipped}
        missing = [names[rows.start + row] for row in absent if row not in left_out]
        damaged = {
            int(row): damage
            for source, numbers in places.by_source()
            if source.damage
            for row in numbers
            if (damage := source.damage.get(int(places.row[row]), ""))
        }
        return _Ready(places, places.gather()[0], left_out, damaged, missing)

    def _complete(self, shard: int, ready: _Ready) -> tuple[FileLayout, Places]:
        """The layout of a shard, with all that is known once each row is somewhere."""
        inputs, run, runs = ready.places.gather()
        layout = self.lay_out(shard)
        layout = replace(
            layout,
            input_sha256=inputs,
            run=run,
            provenance=replace(layout.provenance, runs=runs),
        )
        kept = ready.places.select(ready.places.numbers())
        return layout.note_damage(ready.damaged).leave_out(ready.left_out), kept

    def find_places(self, shard: int | None = None) -> Places:
        """Where each row is: also in the parts that were written since this run has begun.

        Args:
            shard: Tell it of the rows of one shard alone.
        """
        rows = slice(0, len(self.layout.labels)) if shard is None else self.find_rows(shard)
        places = self.places.select(rows)
        for each in self.shards if self.rows_per_file else ():
            if shard in (None, each):
                self._add_published(places, each, rows.start)
        for path, *_ in sorted(self._list_parts(rows) - self._old_parts):
            with open_part(path) as part:
                source = Source.read(part)
            planned = self.layout.input_sha256[source.numbers]
            numbers = source.numbers - rows.start
            is_new = (places.source[numbers] < 0) & ((planned == b"") | (planned == source.inputs))
            places.add(source, np.flatnonzero(is_new), numbers[is_new])
        return places

    def _add_published(self, places: Places, shard: int, start: int) -> None:
        """Add the rows of a shard that was published since this run has begun, by any process.

        Args:
            places: Where rows are, from a first one on.
            shard: Which shard.
            start: The first one.
        """
        path = shard_path(self.target, shard)
        if self.target.exists() or path in self._before or not path.exists():
            return
        with open_feature_file(path) as file:
            source = Source.read(file)
        self._check_bindings(path, source)
        rows, names = self.find_rows(shard), self.layout.video_ids
        left_out = source.provenance.skipped or {}
        kept = [row for row in range(rows.start, rows.stop) if names[row] not in left_out]
        numbers = np.array(kept, np.int64)
        planned = self.layout.input_sha256[numbers]
        if [*source.names] != [self.layout.video_ids[number] for number in numbers] or not (
            (planned == b"") | (planned == source.inputs)
        ).all():
            raise IncompleteError(
                f"{path}: expected the rows that this run has put there, found others. Run again."
            )
        places.add(source, np.arange(len(numbers)), numbers - start)

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

    def _remove_folder(self) -> None:
        if self._home.exists():
            remove(self._home)
        with suppress(OSError):  # there are other parts in it, or there is no such folder
            self._home.parent.rmdir()


def _is_sound(path: Path) -> bool:
    """Whether a merged file is as it was written; what else there is, is removed."""
    try:
        with open_feature_file(path) as file:
            if not find_problems(file, read_features=False):
                return True
    except InputError:
        pass
    remove(path)
    return False
