"""What is finished, what is to be made, and what is refused: the plan of a run.

A row is taken from an earlier file, or from a part, if it was made of the same content with the
same settings: whatever its place, its name and its label were there.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from featx.durable import check_replaceable, remove, writing
from featx.errors import IncompleteError, InputError, OutputError, shorten
from featx.features.feature_file import (
    DAMAGE,
    find_uncopied,
    open_feature_file,
    read_inputs,
    to_digests,
)
from featx.features.resume.parts import PendingFile
from featx.features.resume.rows import (
    MERGED,
    RowFile,
    RowLocations,
    find_keys,
    find_rows,
    join_keys,
    name_labels,
    open_part,
)
from featx.features.shards import list_shard_paths
from featx.features.validation import find_problems, find_row_problems

_FEW = 10  # videos that may all be replaced at once, by somebody who means it
_WAY_OUT = "Set overwrite to true to replace it, or move it away."


@dataclass(frozen=True, slots=True)
class Change:
    """How a feature file differs from what it is to be.

    Attributes:
        target: The file.
        split: The split that it is of.
        total: Rows that it is to have.
        finished: How many of these there are.
        is_published: Whether there is a file; otherwise, there are parts of one.
        labels: How many rows get another label.
        names: How many rows get another name.
        replaced: The videos that have other content than before.
        dropped: The rows of the file that are no longer in the data set.
    """

    target: Path
    split: str
    total: int
    finished: int
    is_published: bool
    labels: int = 0
    names: int = 0
    replaced: Sequence[str] = ()
    dropped: Sequence[str] = ()

    def __str__(self) -> str:
        """One line for a person."""
        where = "are in the file" if self.is_published else "are done already"
        line = f"{self.split}: {self.finished:,} of {self.total:,} videos {where}"
        if todo := self.total - self.finished:
            line += f", {todo:,} to do"
            if replaced := min(len(self.replaced), todo):
                line += f" ({replaced:,} of them with other content than before)"
        changed = [f"{_count(self.labels, 'label')}"] * bool(self.labels)
        changed += [f"{_count(self.names, 'name')}"] * bool(self.names)
        if changed:
            have = "has" if self.labels + self.names == 1 else "have"
            line += f"; {' and '.join(changed)} {have} changed"
        if self.dropped:
            are = "is" if len(self.dropped) == 1 else "are"
            rows = _count(len(self.dropped), "row")
            line += f"; {rows} of the file {are} no longer in the data set"
        return line


def plan_files(files: Sequence[PendingFile], overwrite: bool = False) -> list[Change]:
    """Find the rows that are finished, for all files of a run at once, and tell each of its own.

    A video that has moved from one of them to another is not made again.

    Args:
        files: The files.
        overwrite: Replace what other settings made or what is damaged, drop rows that are no longer
            in the data set, and replace most videos of a file by others of their names.

    Returns:
        What changes in each file of which there is something.

    Raises:
        OutputError: `overwrite` is off, and it would be needed; or something cannot be read or
            written.
    """
    own = {file.target: _read_files(file, overwrite) for file in files}
    others = _read_others(files)
    inputs = _identify(files, own, others)
    wanted = {target: find_keys(digests) for target, digests in inputs.items()}
    kept = join_keys(find_keys(other.inputs) for other in others)
    everything = [found for each in (*own.values(), others) for found in each]
    plans = []
    for file in files:
        mine, target = own[file.target], file.target
        locations = find_rows(everything, replace(file.layout, input_sha256=inputs[target]))
        _drop_unreadable(locations, set() if overwrite else {found.path for found in mine})
        elsewhere = join_keys([kept, *(keys for path, keys in wanted.items() if path != target)])
        lost = find_lost(_choose(file, mine), file.layout.video_ids, wanted[target], elsewhere)
        plans.append((file, locations, _compare(file, mine, locations, lost)))
    if not overwrite:
        for file, _, change in plans:
            _check_losses(file, change)
    for file, locations, _ in plans:
        file.find_elsewhere = partial(_find_elsewhere, file, files, kept)
        file.begin(locations, inputs[file.target])
        paths = {found.path for found in own[file.target]}
        foreign = [rows for found, rows in locations.by_file() if found.path not in paths]
        file.copy_to_parts(np.sort(np.concatenate([np.zeros(0, np.int64), *foreign])))
    return [change for _, _, change in plans if own[change.target]]


# Files of finished rows.


def _read_files(file: PendingFile, overwrite: bool) -> list[RowFile]:
    """Read the published file, its shards, and what earlier runs have left in their folders.

    Damaged parts and temporary files are removed: their rows are made again.

    Args:
        file: The file to be.
        overwrite: Leave out, instead of refusing, what other settings made or what is damaged.

    Raises:
        OutputError: A file is of other settings or damaged, and `overwrite` is off; or something
            cannot be read or written.
    """
    check_replaceable(file.target)
    staged: list[RowFile] = []
    with writing(file.home):
        file.published = _read_complete(file, file.target, overwrite)
        published = [file.published] if file.published else []
        known = {shard.path for found in published for shard in found.shards}
        shards = []
        for path in list_shard_paths(file.target):
            if path not in known:  # the file over it was about to be written, or to be replaced
                is_replaced = file.rows_per_file and int(path.stem) in file.shards
                if found := _read_complete(file, path, overwrite or not is_replaced):
                    shards.append(found)
        file.old_shards = known | {shard.path for shard in shards}
        for path in sorted(file.home.iterdir()) if file.home.exists() else ():
            if path.is_dir():
                staged += _read_run(file, path, overwrite)
            else:
                remove(path)
    # Merged shards come first: they are the work of a run that was about to publish.
    merged = [found for found in staged if found.path.match(MERGED)]
    parts = [found for found in staged if not found.path.match(MERGED)]
    complete = [*shards, *published] if file.rows_per_file else [*published, *shards]
    return [*merged, *complete, *parts]


def _read_complete(file: PendingFile, path: Path, overwrite: bool) -> RowFile | None:
    """Read a feature file in its place; None if there is none."""
    if not path.exists():
        return None
    try:
        with open_feature_file(path) as opened:
            found = RowFile.read(opened)
            _check_bindings(file, found)
            if problems := find_problems(opened, read_features=False):
                raise OutputError(f"{path}: {problems[0]}. {_WAY_OUT}")
            if uncopied := find_uncopied(opened):
                raise OutputError(
                    f"{path}: expected a file whose rows can be copied, found "
                    f"{shorten(uncopied)}, which would be lost. {_WAY_OUT}"
                )
            return found
    except OutputError:
        if not overwrite:
            raise
    except InputError as error:
        if not overwrite:
            raise OutputError(f"{error} {_WAY_OUT}") from error
    return None


def _read_run(file: PendingFile, folder: Path, overwrite: bool) -> list[RowFile]:
    """Read the parts and the merged shards of an earlier run; all else in its folder is removed."""
    files: list[RowFile] = []
    for path in sorted(folder.iterdir()):
        try:
            with open_feature_file(path) if path.match(MERGED) else open_part(path) as opened:
                found = RowFile.read(opened)
                if path.match(MERGED) and find_problems(opened, read_features=False):
                    raise IncompleteError(f"{path}: expected a valid file.")
        except (IncompleteError, InputError):
            remove(path)
            continue
        if files and files[-1].provenance == found.provenance:  # there may be many
            found = replace(found, provenance=files[-1].provenance)
        try:
            _check_bindings(file, found)
        except OutputError:
            if not overwrite:
                raise
            remove(path)
            continue
        files.append(found)
    if not files:
        remove(folder)
    return files


def _check_bindings(file: PendingFile, found: RowFile) -> None:
    """Refuse a file whose rows are of other settings.

    Raises:
        OutputError: They are.
    """
    made, here = found.provenance, file.layout.provenance
    if not made.has_record:
        what = "one that does not say how it was made"
    elif differences := here.find_differences(made):
        what = f"other ones: {shorten(differences)}"
        if changes := _compare_names(found.names, file.layout.video_ids):
            what += f"; {changes}"
    elif found.feature_dim != file.layout.feature_dim:
        what = f"{found.feature_dim} features a frame instead of {file.layout.feature_dim}"
    else:
        return
    raise OutputError(
        f"{found.path}: expected a file of the same settings, found {what}. "
        "Set overwrite to true to replace it, or choose another output_dir."
    )


def _compare_names(before: Sequence[str], now: Sequence[str]) -> str:
    """How many videos were added and removed, by their names."""
    added, gone = len({*now} - {*before}), len({*before} - {*now})
    parts = [
        f"{_count(number, 'video')} {'was' if number == 1 else 'were'} {what}"
        for number, what in ((added, "added"), (gone, "removed"))
        if number
    ]
    return " and ".join(parts)


def _read_others(files: Sequence[PendingFile]) -> list[RowFile]:
    """Read the files of other splits in the folder that are of the same settings."""
    targets = {file.target for file in files}
    found = []
    for folder in {target.parent for target in targets}:
        for path in sorted({*folder.glob("*_features*.h5")} - targets):
            with suppress(InputError, *DAMAGE), open_feature_file(path) as opened:
                other = RowFile.read(opened)
                made = other.provenance
                is_its_name = made.split in (None, path.name.partition("_features")[0])
                differences = files[0].layout.provenance.find_differences(made)
                is_whole = not other.shards or not find_problems(opened, read_features=False)
                is_whole = is_whole and not find_uncopied(opened)
                if is_its_name and made.has_record and not differences and is_whole:
                    found.append(other)
    return found


# The content of rows.


def _identify(
    files: Sequence[PendingFile], own: Mapping[Path, Sequence[RowFile]], others: Sequence[RowFile]
) -> dict[Path, NDArray[np.bytes_]]:
    """Find the content hash of each row of each file.

    Where it is not known without reading inputs, all of these are read only if there is a row
    whose content no input is known to have. Otherwise, only inputs are read that may be copies of
    inputs that have a row.
    """
    inputs = {file.target: file.layout.input_sha256 for file in files}
    if all((digests != b"").all() for digests in inputs.values()):
        return inputs
    known = join_keys(map(find_keys, inputs.values()))
    had = join_keys(find_keys(found.inputs) for each in own.values() for found in each)
    are_known = bool(np.isin(had, known).all())
    for file in files:
        unknown = np.flatnonzero(inputs[file.target] == b"").tolist()
        if unknown and (len(had) or others):
            inputs[file.target] = to_digests(file.lookup.identify(unknown, are_known))
    return inputs


def _drop_unreadable(locations: RowLocations, trusted: Collection[Path]) -> None:
    """Forget where rows are whose features cannot be read, or are not finite.

    Args:
        locations: Where they are.
        trusted: Files whose rows are kept as they are.
    """
    for file, numbers in locations.by_file():
        if file.path in trusted:
            continue
        located = sorted((*file.locate(int(locations.row[n])), int(n)) for n in numbers)
        for path, group in groupby(located, lambda item: item[0]):
            with open_feature_file(path) as opened:
                for _, row, number in group:
                    length, found = int(file.num_frames[locations.row[number]]), ["unreadable"]
                    with suppress(*DAMAGE):
                        found = find_row_problems(opened["features"], row, length)
                    if found:
                        locations.file[number] = -1


# Rows that would be lost.


class Lost(NamedTuple):
    """The finished rows that would be lost, by the names of their videos.

    Attributes:
        replaced: Of videos that have other content now.
        dropped: Of videos that are gone. If another video has only taken over the name of such a
            video, the row is dropped, too.
    """

    replaced: list[str]
    dropped: list[str]


def find_lost(
    files: Sequence[RowFile],
    names: Sequence[str],
    wanted: NDArray[np.uint64],
    elsewhere: NDArray[np.uint64],
) -> Lost:
    """Find the rows of files that are neither wanted nor found elsewhere.

    Args:
        files: The files.
        names: The names of the videos that there are now.
        wanted: What these are made of, as `find_keys` has it; 0 where that is not known.
        elsewhere: What rows of other files are made of.
    """
    had = [find_keys(file.inputs) for file in files]
    rows = [
        (file.names[row], int(keys[row]))
        for file, keys in zip(files, had, strict=True)
        for row in np.flatnonzero(~np.isin(keys, wanted) & ~np.isin(keys, elsewhere)).tolist()
    ]
    if not rows:
        return Lost([], [])
    lost = {name for name, _ in rows}
    now = {name: int(wanted[row]) for row, name in enumerate(names) if name in lost}
    own = {
        (name, int(keys[row]))
        for file, keys in zip(files, had, strict=True)
        for row, name in enumerate(file.names)
        if name in lost
    }
    values = np.array([*now.values()], np.uint64)
    known = {*values[np.isin(values, np.concatenate(had))].tolist()}
    # Content that only rows of other names have has come from there: that is no replacement.
    replaced = {n for n, key in now.items() if key not in known or (n, key) in own}
    names_of = [*dict.fromkeys(name for name, _ in rows)]
    return Lost(
        [name for name in names_of if name in replaced],
        [name for name in names_of if name not in replaced],
    )


def _choose(file: PendingFile, own: Sequence[RowFile]) -> list[RowFile]:
    """The files whose rows may be lost: not shards that the published file no longer needs."""
    left_over = file.target.with_suffix("") if file.published else None
    return [found for found in own if found.path.parent != left_over]


def _find_elsewhere(
    file: PendingFile, files: Sequence[PendingFile], kept: NDArray[np.uint64]
) -> NDArray[np.uint64]:
    """What the finished rows of all other files are made of, now.

    Args:
        file: The file that others are compared with.
        files: All files of the run.
        kept: What the rows of files of other splits are made of.
    """
    found = [kept]
    for other in files:
        if other is file:
            continue
        if not other.is_published:
            found.append(find_keys(other.find_locations().gather()[0]))
        for path in [other.target] if other.is_published else other.folder.glob(MERGED):
            with open_feature_file(path) as opened:
                found.append(find_keys(read_inputs(opened)))
    return join_keys(found)


def _compare(
    file: PendingFile, own: Sequence[RowFile], locations: RowLocations, lost: Lost
) -> Change:
    """Find what changes in a file."""
    layout = file.layout
    paths = {found.path for found in own}
    labels = names = 0
    for found, numbers in locations.by_file():
        if found.path in paths:
            rows = locations.row[numbers]
            wanted = name_labels(layout.labels[numbers], layout.provenance.categories)
            labels += int((found.categories[rows] != wanted).sum())
            pairs = zip(rows.tolist(), numbers.tolist(), strict=True)
            names += sum(found.names[row] != layout.video_ids[number] for row, number in pairs)
    return Change(
        file.target,
        file.split,
        len(layout.labels),
        len(locations),
        file.published is not None,
        labels,
        names,
        *lost,
    )


def _check_losses(file: PendingFile, change: Change) -> None:
    """Refuse to drop rows: the data set may be a wrong one.

    Raises:
        OutputError: Rows would be lost, or most videos have other content.
    """
    what = file.target if change.is_published else f"{file.target}, which is not finished"
    way_out = "Check the data set's folder; or set overwrite to true to"
    if change.dropped:
        raise OutputError(
            f"{what}: expected a good video in the data set for each row, found "
            f"{_count(len(change.dropped), 'row')} without one: {shorten(change.dropped)}. "
            f"{way_out} drop such rows, and keep all others."
        )
    is_other = len(change.replaced) > max(_FEW, change.finished)
    if is_other and file.lookup.tells_content:
        raise OutputError(
            f"{what}: expected a data set that it is of, found one in which "
            f"{len(change.replaced):,} of its videos have other content, and {change.finished:,} "
            f"the same. {way_out} make them again."
        )


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + "s" * (number != 1)
