"""Which rows of feature files are finished already, wherever they are, and which are to be made.

A row is taken from an earlier file, or from a part, if it was made of the same content with the
same settings: whatever its place, its name and its label were there.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from featx.errors import InputError, OutputError, shorten
from featx.features.feature_file import DAMAGE, open_feature_file
from featx.features.finished import Finished, Place, Source, Unclaimed, find_unclaimed
from featx.features.format_1 import adopt
from featx.features.staging import Staging
from featx.features.validation import find_row_problems

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
    finished = Finished()
    for staging in stagings:
        sources = adopt(staging, staging.read_sources(overwrite), overwrite)
        staging.published = next((s for s in sources if s.path == staging.target), None)
        own[staging.target] = sources
        for source in sources:
            finished.add(source)
    others = _read_others(stagings)
    for source in others:
        finished.add(source)
    inputs = _identify(stagings, own, others)
    places = {}
    for staging in stagings:
        found = _find_places(staging, inputs[staging.target], finished)
        trusted = set() if overwrite else {source.path for source in own[staging.target]}
        places[staging.target] = _keep_readable(found, trusted)
    kept = {each for source in others for each in source.inputs}
    unclaimed = {
        staging.target: _find_unclaimed(staging, own[staging.target], inputs, kept)
        for staging in stagings
    }
    changes = [
        _compare(staging, own[staging.target], places[staging.target], unclaimed[staging.target])
        for staging in stagings
    ]
    if not overwrite:
        for staging, change in zip(stagings, changes, strict=True):
            _check_losses(staging, change)
    wanted = {each for known in inputs.values() for each in known}
    for staging in stagings:
        target, found = staging.target, places[staging.target]
        staging.elsewhere = partial(_find_finished, staging, stagings, kept)
        given_up = {made_of for rows in unclaimed[target] for _, made_of in rows}
        staging.begin(found, inputs[target], {*staging.given_up, *given_up} - wanted)
        mine = {source.path for source in own[target]}
        staging.import_rows({r: p for r, p in found.items() if p.source.path not in mine})
    return [change for change in changes if own[change.target]]


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
                if is_its_name and made.has_record and not differences:
                    sources.append(source)
    return sources


def _identify(
    stagings: Sequence[Staging], own: Mapping[Path, Sequence[Source]], others: Sequence[Source]
) -> dict[Path, list[str]]:
    """What each row of each file is to be made of.

    Where that is not known without reading inputs, all of these are read only if there are rows
    that may have been made of them: of which the data set is not known to have the content.
    Otherwise, it is enough to look at what may be a copy of an input that has a row.
    """
    inputs = {staging.target: [*staging.layout.input_sha256] for staging in stagings}
    known = {made_of for each in inputs.values() for made_of in each}
    had = {made_of for sources in own.values() for source in sources for made_of in source.inputs}
    for staging in stagings:
        unknown = [row for row, made_of in enumerate(inputs[staging.target]) if not made_of]
        if unknown and (had or others):
            found = staging.inputs.identify(unknown, had <= known)
            inputs[staging.target] = [*found]
    return inputs


def _find_places(staging: Staging, inputs: Sequence[str], finished: Finished) -> dict[int, Place]:
    """Where the rows of a file are."""
    layout = staging.layout
    made = layout.provenance
    # Of files that were made before, damage is only a note.
    keeps_damaged = made.keep_damaged or made.source != "clips"
    places = {}
    for row, (made_of, name) in enumerate(zip(inputs, layout.video_ids, strict=True)):
        length = int(layout.num_frames[row])
        place = finished.find(made_of, name, length, layout.has_times, keeps_damaged)
        if made_of and place:
            places[row] = place
    return places


def _keep_readable(places: Mapping[int, Place], trusted: Collection[Path]) -> dict[int, Place]:
    """Those of some rows whose features can be read, and are finite.

    Args:
        places: Where they are.
        trusted: Files whose rows are kept as they are.
    """
    kept = {}
    by_path: dict[Path, list[int]] = {}
    for row, place in places.items():
        if place.source.path in trusted:
            kept[row] = place
        else:
            by_path.setdefault(place.source.path, []).append(row)
    for path, rows in by_path.items():
        with open_feature_file(path) as file:
            for row in rows:
                source, number = places[row]
                length = int(source.num_frames[number])
                with suppress(*DAMAGE):
                    if not find_row_problems(file["features"], number, length):
                        kept[row] = places[row]
    return dict(sorted(kept.items()))


def _find_unclaimed(
    staging: Staging,
    sources: Sequence[Source],
    inputs: Mapping[Path, Sequence[str]],
    kept: Collection[str],
) -> Unclaimed:
    """The finished rows that nobody takes.

    Args:
        staging: The file that they are of.
        sources: Where they are.
        inputs: What the rows of all files of the run are to be made of.
        kept: What rows are made of that other files have.
    """
    target, names = staging.target, staging.layout.video_ids
    others = {each for path, known in inputs.items() for each in known if path != target}
    others = (others | {*kept, *staging.given_up}) - {""}
    found = Unclaimed([], [])
    if staging.published:
        found = find_unclaimed(staging.published, names, inputs[target], others)
        others |= {*staging.published.inputs}
    made_of = dict(zip(names, inputs[target], strict=True))
    others |= {*inputs[target]}
    folders: dict[Path, list[Source]] = {}
    for source in sources:
        if source is not staging.published:
            folders.setdefault(source.path.parent, []).append(source)
    for parts in folders.values():  # the parts of a plan
        had = {each for part in parts for each in part.inputs}
        for name, before in ((n, i) for p in parts for n, i in zip(p.names, p.inputs, strict=True)):
            if before not in others:
                is_new = name in made_of and made_of[name] not in had
                (found.replaced if is_new else found.dropped).append((name, before))
    return found


def _find_finished(
    staging: Staging, stagings: Sequence[Staging], kept: Collection[str]
) -> set[str]:
    """What the rows are made of that other files have, or have in their parts."""
    finished = {*kept}
    for other in stagings:
        if other is not staging:
            places = other.find_places().values()
            finished |= {place.source.inputs[place.row] for place in places}
    return finished


def _compare(
    staging: Staging,
    sources: Sequence[Source],
    places: Mapping[int, Place],
    unclaimed: Unclaimed,
) -> Change:
    """What changes in a file."""
    layout = staging.layout
    category_of = {label: name for name, label in layout.provenance.categories.items()}
    own = {source.path for source in sources}
    labels = names = 0
    for row, (source, number) in places.items():
        if source.path in own:
            labels += source.categories[number] != category_of.get(int(layout.labels[row]))
            names += source.names[number] != layout.video_ids[row]
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
