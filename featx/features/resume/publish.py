"""From finished rows to the published file: all ranks merge, then rank 0 moves files into place."""

import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from featx.durable import publish_file, remove, sync, writing
from featx.errors import IncompleteError, OutputError, shorten
from featx.features.feature_file import (
    TIMES,
    FileLayout,
    create,
    find_chunk_frames,
    open_feature_file,
    read_columns,
    read_inputs,
    read_names,
)
from featx.features.provenance import Provenance
from featx.features.resume.parts import PendingFile
from featx.features.resume.plan import find_lost
from featx.features.resume.rows import MERGED, RowLocations, copy_rows, find_keys
from featx.features.shards import shard_path, write_over_shards
from featx.features.validation import find_problems


@dataclass(frozen=True, slots=True)
class MergedShard:
    """A shard whose rows are all in one file, or the reason why they are not.

    Attributes:
        target: The feature file that it is a shard of.
        number: Its number.
        path: The file that has its rows, in its place or not yet; None if it has no rows.
        left_out: Why rows are left out, by their numbers in the feature file.
        missing: The numbers of rows that are nowhere.
        problem: Why its rows could not be found; empty if they could.
    """

    target: Path
    number: int
    path: Path | None = None
    left_out: Mapping[int, str] = field(default_factory=dict)
    missing: Sequence[int] = ()
    problem: str = ""


def merge_share(
    files: Sequence[PendingFile],
    rank: int = 0,
    num_ranks: int = 1,
    before_each: Callable[[], None] = lambda: None,
) -> list[MergedShard]:
    """Merge a rank's share of the shards of all files, once the rows of all ranks are on disk.

    Args:
        files: The files.
        rank: The rank.
        num_ranks: The number of ranks.
        before_each: Called before each shard, so that a long merge can report that it goes on.

    Raises:
        OutputError: The disk is full, or a file cannot be written.
    """
    shards = [(file, shard) for file in files for shard in file.shards]
    merged = []
    for file, shard in shards[rank::num_ranks]:
        before_each()
        merged.append(_merge_shard(file, shard))
    return merged


def _merge_shard(file: PendingFile, shard: int) -> MergedShard:
    """Merge the rows of a shard into one file, unless there is one, and remove its parts."""
    rows = file.find_rows(shard)
    try:
        locations = file.find_locations(shard)
    except IncompleteError as error:  # which is no reason to keep other files back
        return MergedShard(file.target, shard, problem=str(error))
    absent = (rows.start + np.flatnonzero(locations.file < 0)).tolist()
    skipped = file.read_skipped() if absent else {}
    left_out = {row: skipped[row] for row in absent if row in skipped}
    missing = [row for row in absent if row not in skipped]
    if missing or not locations:
        return MergedShard(file.target, shard, None, left_out, missing)
    layout = _complete(file.lay_out(shard), locations, left_out, rows.start)
    kept = locations.select(locations.numbers())
    place = shard_path(file.target, shard) if file.rows_per_file else file.target
    path = _find_current(place, file.home, layout, kept)
    if path is None:
        path = file.folder / MERGED.replace("*", f"{shard:05d}")
        with writing(file.folder):
            file.folder.mkdir(parents=True, exist_ok=True)
            temporary = path.with_suffix(".tmp")
            _merge_rows(temporary, layout, kept)
            publish_file(temporary, path)
    with writing(file.folder):
        for part in {*file.list_parts(shard), *file.list_old_parts(shard)}:
            part.unlink()
    return MergedShard(file.target, shard, path, left_out)


def _complete(
    layout: FileLayout, locations: RowLocations, left_out: Mapping[int, str], start: int
) -> FileLayout:
    """Return the layout of a shard with what is known once each of its rows is somewhere."""
    inputs, run, runs = locations.gather()
    damaged = {
        int(row): damage
        for found, numbers in locations.by_file()
        if found.damage
        for row in numbers
        if (damage := found.damage.get(int(locations.row[row]), ""))
    }
    made = replace(layout.provenance, runs=runs)
    layout = replace(layout, input_sha256=inputs, run=run, provenance=made)
    return layout.note_damage(damaged).leave_out({r - start: why for r, why in left_out.items()})


def _merge_rows(path: Path, layout: FileLayout, locations: RowLocations) -> None:
    """Write a complete feature file, and check it.

    Raises:
        OutputError: There is no room for it, or it is not valid.
    """
    _check_space(path, locations)
    with h5py.File(path, "w", locking=False) as file:
        create(file, layout)
        copy_rows(locations.items(), file, layout)
    _check(path)


def _check_space(path: Path, locations: RowLocations) -> None:
    """Check for free space before the merge, because HDF5 crashes on a full disk."""
    needed = sum(
        file.num_bytes * len(rows) // len(file.num_frames) for file, rows in locations.by_file()
    )
    free = shutil.disk_usage(path.parent).free
    if free < needed:
        raise OutputError(
            f"{path}: expected {needed / 2**20:.0f} MB of free disk space for the "
            f"merge, found {free / 2**20:.0f} MB. Free some, and run again."
        )


def _check(path: Path, folder: Path | None = None) -> None:
    """Check a file that was just written; see `find_problems` for the folder."""
    with h5py.File(path, "r", locking=False) as file:
        problems = find_problems(file, read_features=False, folder=folder)
    if problems:
        raise OutputError(f"{path}: expected a valid file, found {problems[0]}. Run again.")


def _find_current(
    place: Path, home: Path, layout: FileLayout, locations: RowLocations
) -> Path | None:
    """Find a file that a merge would only copy: in its place, or merged by an earlier run.

    Args:
        place: Its place.
        home: The folder of the folders of all runs.
        layout: What a merge would make.
        locations: Where its rows are.
    """
    files = [file for file, _ in locations.by_file()]
    rows = np.arange(len(locations))
    if len(files) != 1 or not np.array_equal(locations.row, locations.row[0] + rows):
        return None
    (path, first), (last_path, last) = (files[0].locate(int(locations.row[r])) for r in (0, -1))
    is_waiting = path.parent.parent == home and path.match(MERGED)
    is_whole = path == last_path and (first, last) == (0, len(rows) - 1)
    if not is_whole or not (path == place or is_waiting):
        return None
    with open_feature_file(path) as file:
        is_same = (
            Provenance.from_attributes(file.attrs).describe() == layout.provenance.describe()
            and find_chunk_frames(file["features"]) == layout.chunk_frames
            and (TIMES in file) == layout.has_times
            and read_names(file) == layout.video_ids
            and np.array_equal(file["labels"][:], layout.labels)
            and repr(_to_plain(read_columns(file))) == repr(_to_plain(layout.columns))
        )
    return path if is_same else None


def _to_plain(columns: Mapping[str, NDArray[Any]]) -> dict[str, object]:
    """Columns for comparison: NaN is NaN then."""
    return {name: values.tolist() for name, values in sorted(columns.items())}


def publish(file: PendingFile, merged: Sequence[MergedShard], overwrite: bool = False) -> None:
    """Move the merged shards of a file into place; then remove what is not needed any more.

    Args:
        file: The file.
        merged: The shards of all ranks, also those of other files.
        overwrite: Accept that the file loses rows whose new videos turned out to be bad.

    Raises:
        IncompleteError: A row is missing, or a part was changed; or all rows were left out, or
            rows of the file would be lost.
        OutputError: The disk is full, or a file cannot be written.
    """
    shards = sorted((s for s in merged if s.target == file.target), key=lambda s: s.number)
    left_out = {row: reason for shard in shards for row, reason in shard.left_out.items()}
    _check_complete(file, shards, left_out)
    if file.published and not overwrite:
        _check_losses(file, shards, left_out)
    with writing(file.target):
        places = []
        if file.rows_per_file:
            places = _publish_shards(file, shards, left_out)
        elif shards[0].path and shards[0].path != file.target:
            publish_file(shards[0].path, file.target)
        _clean_up(file, places)
    file.is_published = True


def _check_complete(
    file: PendingFile, shards: Sequence[MergedShard], left_out: Mapping[int, str]
) -> None:
    """Check that every row is somewhere, or left out, and that some are left."""
    for shard in shards:
        if shard.problem:
            raise IncompleteError(shard.problem)
    count = len(file.layout.labels)
    if missing := [row for shard in shards for row in shard.missing]:
        raise IncompleteError(
            f"{file.target}: expected {count} videos, found {count - len(missing)}, "
            f"without {shorten([file.layout.video_ids[row] for row in missing])}. This split is "
            "not published: run again without limit_predict_batches."
        )
    if len(left_out) == count:
        raise IncompleteError(
            f"{file.target}: expected one good video or more, found none: "
            f"{shorten([*left_out.values()], 1)}"
        )


def _check_losses(
    file: PendingFile, shards: Sequence[MergedShard], left_out: Mapping[int, str]
) -> None:
    """Refuse to drop rows of the published file, where videos turned out to be bad."""
    assert file.published
    names, keys = file.layout.video_ids, []
    if left_out:
        names = [name for row, name in enumerate(names) if row not in left_out]
    for shard in shards:
        if shard.path:
            with open_feature_file(shard.path) as opened:
                keys.append(find_keys(read_inputs(opened)))
    wanted = np.concatenate(keys)
    nothing = np.zeros(0, np.uint64)
    if not find_lost([file.published], names, wanted, nothing).dropped:
        return
    if lost := find_lost([file.published], names, wanted, file.find_elsewhere()).dropped:
        raise IncompleteError(
            f"{file.target}: expected to go on with all videos that it has, found that "
            f"{shorten(lost)} would be lost: no good video stands for them now. Fix the "
            "inputs, or set overwrite to true to drop the rows"
            + "".join(f": {reason}" for reason in [*left_out.values()][:1])
        )


def _publish_shards(
    file: PendingFile, shards: Sequence[MergedShard], left_out: Mapping[int, str]
) -> list[Path]:
    """Publish the shards that change, and the file over all shards; return the shards' paths."""
    found = [(s.path, shard_path(file.target, s.number)) for s in shards if s.path]
    places, moved = [place for _, place in found], [each for each in found if each[0] != each[1]]
    made = _describe(file, [path for path, _ in found], left_out)
    before = [shard.path for shard in file.published.shards] if file.published else []
    is_current = file.published and file.published.provenance.describe() == made.describe()
    if is_current and not moved and places == before:
        return places
    is_replaced = not {place for _, place in moved}.isdisjoint(before)
    if is_replaced or (file.target.exists() and not file.published):
        remove(file.target)  # it must not be over shards that it does not know
        sync(file.target.parent)
    for path, place in moved:
        place.parent.mkdir(exist_ok=True)
        publish_file(path, place)
    file.folder.mkdir(parents=True, exist_ok=True)
    over = file.folder / "over.tmp"
    write_over_shards(over, places, made)
    _check(over, file.target.parent)
    publish_file(over, file.target)
    return places


def _describe(file: PendingFile, paths: Sequence[Path], left_out: Mapping[int, str]) -> Provenance:
    """Return how the rows of all shards were made."""
    made, damaged = file.layout.provenance, dict[str, str]()
    for path in paths:
        with open_feature_file(path) as opened:
            damaged |= Provenance.from_attributes(opened.attrs).damaged_videos
    names = file.layout.video_ids
    skipped = {**(made.skipped or {}), **{names[row]: why for row, why in left_out.items()}}
    return replace(made, skipped=skipped, damaged_videos=damaged)


def _clean_up(file: PendingFile, places: Collection[Path]) -> None:
    """Remove shards that are not needed any more, and the folders of all runs.

    Args:
        file: The file.
        places: The shards that it is over.
    """
    for path in file.old_shards - {*places}:
        path.unlink(missing_ok=True)
    with suppress(OSError):  # there is something in it, or there is no such folder
        file.target.with_suffix("").rmdir()
    if file.home.exists():
        remove(file.home)
    with suppress(OSError):  # other files have parts in it, or there is no such folder
        file.home.parent.rmdir()
