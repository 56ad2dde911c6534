"""Which rows of feature files are finished already, wherever they are, and which are to be made.

A row is taken from an earlier file, or from a part, if it was made of the same content with the
same settings: whatever its place, its name and its label were there.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featx.errors import InputError, OutputError, shorten
from featx.features.feature_file import DAMAGE, find_uncopied, open_feature_file, to_digests
from featx.features.finished import (
    Finished,
    Places,
    Source,
    Unclaimed,
    find_keys,
    find_unclaimed,
    name_labels,
    pick_inputs,
)
from featx.features.staging import Staging
from featx.features.validation import find_problems, find_row_problems

_FEW = 10  # videos that may all be replaced at once, by somebody who means it


@dataclass(frozen=True, slots=True)
class Change:
    """How a feature file differs from what it is to be.

    Attributes:
        target: The file.
        split: What a person calls it.
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


def plan_update(stagings: Sequence[Staging], overwrite: bool = False) -> list[Change]:
    """Find the rows that are finished, for all files of a run at once, and tell each about its own.

    A video that has moved from one of them to another is not made again.

    Args:
        stagings: The files.
        overwrite: Replace what other settings made or what is damaged, drop rows that are no longer
            in the data set, and replace most videos of a file by others of their names.

    Returns:
        What changes in each file that there is something of.

    Raises:
        OutputError: `overwrite` is off, and it would be needed; or something cannot be read or
            written.
    """
    own: dict[Path, list[Source]] = {}
    for staging in stagings:
        sources = staging.read_sources(overwrite)
        staging.published = next((s for s in sources if s.path == staging.target), None)
        own[staging.target] = sources
    others = _read_others(stagings)
    finished = Finished([source for sources in (*own.values(), others) for source in sources])
    inputs = _identify(stagings, own, others)
    keys = {target: find_keys(digests) for target, digests in inputs.items()}
    places = {}
    for staging in stagings:
        found = _find_places(staging, inputs[staging.target], finished)
        trusted = set() if overwrite else {source.path for source in own[staging.target]}
        _drop_unreadable(found, trusted)
        places[staging.target] = found
    del finished
    kept = _join_keys(find_keys(source.inputs) for source in others)
    unclaimed = {}
    for staging in stagings:
        target = staging.target
        elsewhere = _join_keys([kept, *(k for path, k in keys.items() if path != target)])
        unclaimed[target] = _find_unclaimed(staging, own[target], inputs[target], elsewhere)
    changes = [
        _compare(staging, own[staging.target], places[staging.target], unclaimed[staging.target])
        for staging in stagings
    ]
    if not overwrite:
        for staging, change in zip(stagings, changes, strict=True):
            _check_losses(staging, change)
    wanted = _join_keys(keys.values())
    for staging in stagings:
        target, found = staging.target, places[staging.target]
        staging.elsewhere = partial(_find_finished, staging, stagings, kept)
        given_up = {*staging.given_up, *(made_of for r in unclaimed[target] for _, made_of in r)}
        is_wanted = np.isin(find_keys(to_digests(chosen := sorted(given_up))), wanted)
        left = [made_of for made_of, needed in zip(chosen, is_wanted, strict=True) if not needed]
        staging.begin(found, inputs[target], {*left})
        mine = {source.path for source in own[target]}
        foreign = [rows for source, rows in found.by_source() if source.path not in mine]
        staging.import_rows(np.sort(np.concatenate([np.zeros(0, np.int64), *foreign])))
    return [change for change in changes if own[change.target]]


def _join_keys(keys: Iterable[NDArray[np.uint64]]) -> NDArray[np.uint64]:
    """The keys of several files, each once, but for that of what is not known."""
    joined = np.unique(np.concatenate([np.zeros(0, np.uint64), *keys]))
    known: NDArray[np.uint64] = joined[joined != 0]
    return known


def _read_others(stagings: Sequence[Staging]) -> list[Source]:
    """The files of other splits in the folder that are of the same settings."""
    targets = {staging.target for staging in stagings}
    sources = []
    for folder in {target.parent for target in targets}:
        for path in sorted({*folder.glob("*_features*.h5")} - targets):
            with suppress(InputError, *DAMAGE), open_feature_file(path) as file:
                source = Source.read(file)
                made = source.provenance
                is_its_name = made.split in (None, path.name.partition("_features")[0])
                differences = stagings[0].layout.provenance.find_differences(made)
                is_whole = not source.shards or not find_problems(file, read_features=False)
                is_whole = is_whole and not find_uncopied(file)
                if is_its_name and made.has_record and not differences and is_whole:
                    sources.append(source)
    return sources


def _identify(
    stagings: Sequence[Staging], own: Mapping[Path, Sequence[Source]], others: Sequence[Source]
) -> dict[Path, NDArray[np.bytes_]]:
    """What each row of each file is to be made of.

    Where that is not known without reading inputs, all of these are read only if there are rows
    that may have been made of them: of which the data set is not known to have the content.
    Otherwise, it is enough to look at what may be a copy of an input that has a row.
    """
    inputs = {staging.target: staging.layout.input_sha256 for staging in stagings}
    if all((digests != b"").all() for digests in inputs.values()):
        return inputs
    known = _join_keys(map(find_keys, inputs.values()))
    had = _join_keys(find_keys(each.inputs) for sources in own.values() for each in sources)
    are_known = bool(np.isin(had, known).all())
    for staging in stagings:
        unknown = np.flatnonzero(inputs[staging.target] == b"").tolist()
        if unknown and (len(had) or others):
            inputs[staging.target] = to_digests(staging.inputs.identify(unknown, are_known))
    return inputs


def _find_places(staging: Staging, inputs: NDArray[np.bytes_], finished: Finished) -> Places:
    """Where the rows of a file are."""
    layout = staging.layout
    made = layout.provenance
    # Of files that were made before, damage is only a note.
    keeps_damaged = made.keep_damaged or made.source != "clips"
    return finished.find(
        inputs, layout.video_ids, layout.num_frames, layout.has_times, keeps_damaged
    )


def _drop_unreadable(places: Places, trusted: Collection[Path]) -> None:
    """Forget where rows are whose features cannot be read, or are not finite.

    Args:
        places: Where they are.
        trusted: Files whose rows are kept as they are.
    """
    for source, numbers in places.by_source():
        if source.path in trusted:
            continue
        located = sorted((*source.locate(int(places.row[n])), int(n)) for n in numbers)
        for path, group in groupby(located, lambda item: item[0]):
            with open_feature_file(path) as file:
                for _, row, number in group:
                    length, found = int(source.num_frames[places.row[number]]), ["unreadable"]
                    with suppress(*DAMAGE):
                        found = find_row_problems(file["features"], row, length)
                    if found:
                        places.source[number] = -1


def _find_unclaimed(
    staging: Staging,
    sources: Sequence[Source],
    inputs: NDArray[np.bytes_],
    elsewhere: NDArray[np.uint64],
) -> Unclaimed:
    """The finished rows that nobody takes.

    Args:
        staging: The file that they are of.
        sources: Where they are.
        inputs: What the rows of the file are to be made of.
        elsewhere: The keys of what other files have, or are to be made of.
    """
    names = staging.layout.video_ids
    others = _join_keys([elsewhere, find_keys(to_digests([*staging.given_up]))])
    found = Unclaimed([], [])
    if staging.published:
        found = find_unclaimed(staging.published, names, inputs, others)
        others = np.append(others, find_keys(staging.published.inputs))
    others = np.unique(np.append(others, find_keys(inputs)))
    folders: dict[Path, list[Source]] = {}
    left_over = staging.target.with_suffix("") if staging.published else None
    for source in sources:
        if source is not staging.published and source.path.parent != left_over:
            folders.setdefault(source.path.parent, []).append(source)
    for parts in folders.values():  # the parts of a plan
        lost = [
            (part.names[row], part.inputs[row])
            for part in parts
            for row in np.flatnonzero(~np.isin(find_keys(part.inputs), others)).tolist()
        ]
        made_of = pick_inputs(names, inputs, {name for name, _ in lost})
        had = {each for part in parts for each in part.inputs.tolist()} if lost else set()
        for name, before in lost:
            is_new = name in made_of and made_of[name] not in had
            (found.replaced if is_new else found.dropped).append((name, before.decode()))
    return found


def _find_finished(
    staging: Staging, stagings: Sequence[Staging], kept: NDArray[np.uint64]
) -> NDArray[np.uint64]:
    """The keys of what the rows are made of that other files have, or have in their parts."""
    others = (other.find_places() for other in stagings if other is not staging)
    return _join_keys([kept, *(find_keys(places.gather()[0]) for places in others)])


def _compare(
    staging: Staging, sources: Sequence[Source], places: Places, unclaimed: Unclaimed
) -> Change:
    """What changes in a file."""
    layout = staging.layout
    own = {source.path for source in sources}
    labels = names = 0
    for source, numbers in places.by_source():
        if source.path in own:
            rows = places.row[numbers]
            wanted = name_labels(layout.labels[numbers], layout.provenance.categories)
            labels += int((source.categories[rows] != wanted).sum())
            pairs = zip(rows.tolist(), numbers.tolist(), strict=True)
            names += sum(source.names[row] != layout.video_ids[number] for row, number in pairs)
    replaced, dropped = ([*dict.fromkeys(name for name, _ in rows)] for rows in unclaimed)
    return Change(
        staging.target,
        staging.split,
        len(layout.labels),
        len(places),
        staging.published is not None,
        labels,
        names,
        replaced,
        dropped,
    )


def _check_losses(staging: Staging, change: Change) -> None:
    """Refuse to drop rows: the data set may be a wrong one."""
    what = staging.target if change.is_published else f"{staging.target}, which is not finished"
    way_out = "Check the data set's folder; or set overwrite to true to"
    if change.dropped:
        raise OutputError(
            f"{what}: expected a good video in the data set for each row, found "
            f"{_count(len(change.dropped), 'row')} without one: {shorten(change.dropped)}. "
            f"{way_out} drop such rows, and keep all others."
        )
    is_other = len(change.replaced) > max(_FEW, change.finished)
    if is_other and staging.inputs.tells_content:
        raise OutputError(
            f"{what}: expected a data set that it is of, found one in which "
            f"{len(change.replaced):,} of its videos have other content, and {change.finished:,} "
            f"the same. {way_out} make them again."
        )


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + "s" * (number != 1)
