"""Which rows of feature files are finished already, wherever they are, and which are to be made.

A row is taken from an earlier file, or from a part, if it was made of the same content with the
same settings: whatever its place, its name and its label were there.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from featx.errors import InputError, OutputError, shorten
from featx.features.feature_file import DAMAGE, open_feature_file
from featx.features.finished import Finished, Place, Source
from featx.features.staging import Inputs, Staging
from featx.features.validation import find_row_problems

_FEW = 10  # videos that may all be replaced at once, by somebody who means it


@dataclass(frozen=True, slots=True)
class Change:
    """How a feature file differs from what it is to be.

    Attributes:
        split: What a person calls the file.
        total: Rows that it is to have.
        finished: How many of these there are.
        is_published: Whether there is a file; otherwise, there are parts of one.
        labels: How many rows get another label.
        names: How many rows get another name.
        replaced: The videos that have other content than before.
        dropped: The rows of the file that are no longer in the data set.
    """

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
            if self.replaced:
                line += f" ({len(self.replaced):,} of them with other content than before)"
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
        overwrite: Replace what other settings made or what is damaged, and drop rows that are no
            longer in the data set.

    Returns:
        What changes in each file that there is something of.

    Raises:
        OutputError: `overwrite` is off, and it would be needed; or something cannot be read or
            written.
    """
    own = {staging.target: staging.read_sources(overwrite) for staging in stagings}
    for staging in stagings:
        sources = _adopt_old(staging, own[staging.target], overwrite)
        staging.published = next((s for s in sources if s.path == staging.target), None)
        own[staging.target] = sources
    finished = Finished()
    for sources in own.values():
        for source in sources:
            finished.add(source)
    for source in _read_others(stagings):
        finished.add(source)
    inputs = _identify(stagings, own)
    places = {
        staging.target: _find_places(staging, inputs[staging.target], finished, overwrite)
        for staging in stagings
    }
    claimed = {made_of for each in inputs.values() for made_of in each}
    changes = []
    for staging in stagings:
        target = staging.target
        change = _compare(staging, own[target], places[target], inputs[target], claimed)
        if not overwrite:
            _check_losses(staging, change)
        changes.append(change)
    for staging in stagings:
        mine = {source.path for source in own[staging.target]}
        found = places[staging.target]
        staging.begin(found, inputs[staging.target])
        staging.import_rows({r: p for r, p in found.items() if p.source.path not in mine})
    return [change for change, sources in zip(changes, own.values(), strict=True) if sources]


def _adopt_old(staging: Staging, sources: list[Source], overwrite: bool) -> list[Source]:
    """Say what each row of files of format 1 was made of, where their record proves it.

    It is a digest of all inputs together: it proves nothing once one of them has changed, but for
    inputs that were added.
    """
    names = [*staging.layout.video_ids]
    adopted = []
    for source in sources:
        made = source.provenance
        if not made.is_old:
            adopted.append(source)
        elif _is_proven(staging.inputs, source, names):
            found = staging.inputs.identify(range(len(names)), False)
            made_of = dict(zip(names, found, strict=True))
            damage = {**source.damage, **_read_old_damage(source)}
            inputs = [made_of.get(name, "") for name in source.names]
            adopted.append(replace(source, inputs=inputs, damage=damage))
        elif not overwrite:
            raise OutputError(
                f"{source.path}: expected the inputs that it was made of, found others"
                f"{_say_what(source.names, names)}. It is of an older format, which does not "
                "tell what each row was made of: set overwrite to true to make all of them again, "
                "or choose another output_dir."
            )
    return adopted


def _is_proven(inputs: Inputs, source: Source, names: Sequence[str]) -> bool:
    """Whether the inputs of a file of format 1 are those that there are now."""
    skipped = {*(source.provenance.skipped or {})} & {*names}
    if {*source.names} - {*names}:
        return False
    # What was left out was found bad by the scan, or later.
    choices = [set[str](), skipped]
    added = set() if source.numbers else {*names} - {*source.names} - skipped
    return any(inputs.digest(each, added) == source.provenance.inputs_sha256 for each in choices)


def _say_what(before: Sequence[str], now: Sequence[str]) -> str:
    """What differs, by the names of the videos, if that can be told."""
    added, gone = [*Counter(now) - Counter(before)], [*Counter(before) - Counter(now)]
    told = (("added", added), ("removed", gone))
    parts = [f"{shorten(names)} {what}" for what, names in told if names]
    return f" ({'; '.join(parts)})" * bool(parts)


def _read_old_damage(source: Source) -> dict[int, str]:
    """What is missing of the videos in a part, as format 1 has noted it beside."""
    paths = {row: source.path.parent / f"damaged-{n}.txt" for row, n in enumerate(source.numbers)}
    return {row: path.read_text("utf-8") for row, path in paths.items() if path.exists()}


def _read_others(stagings: Sequence[Staging]) -> list[Source]:
    """The other feature files in the folder that are of the same settings, such as of splits."""
    targets = {staging.target for staging in stagings}
    sources = []
    for folder in {target.parent for target in targets}:
        for path in sorted({*folder.glob("*_features*.h5")} - targets):
            with suppress(InputError, *DAMAGE), open_feature_file(path) as file:
                source = Source.read(file)
                made = source.provenance
                if made.has_record and not stagings[0].layout.provenance.find_differences(made):
                    sources.append(source)
    return sources


def _identify(
    stagings: Sequence[Staging], own: Mapping[Path, Sequence[Source]]
) -> dict[Path, list[str]]:
    """What each row of each file is to be made of.

    Where that is not known without reading inputs, these are read only if there are rows that may
    have been made of them: of which the data set is not known to have the content. Otherwise, what
    may be a copy of an input that has a row is enough.
    """
    inputs = {staging.target: [*staging.layout.input_sha256] for staging in stagings}
    known = {made_of for each in inputs.values() for made_of in each}
    had = {made_of for sources in own.values() for source in sources for made_of in source.inputs}
    for staging in stagings:
        unknown = [row for row, made_of in enumerate(inputs[staging.target]) if not made_of]
        if unknown and had:
            copies = had <= known
            inputs[staging.target] = [*staging.inputs.identify(unknown, copies)]
    return inputs


def _find_places(
    staging: Staging, inputs: Sequence[str], finished: Finished, overwrite: bool
) -> dict[int, Place]:
    """Where the rows of a file are; if it may be overwritten, those that can be read."""
    layout = staging.layout
    keeps_damaged = bool(layout.provenance.keep_damaged)
    places = {}
    for row, (made_of, name) in enumerate(zip(inputs, layout.video_ids, strict=True)):
        length = int(layout.num_frames[row])
        place = finished.find(made_of, name, length, layout.has_times, keeps_damaged)
        if made_of and place:
            places[row] = place
    return _keep_readable(places) if overwrite else places


def _keep_readable(places: Mapping[int, Place]) -> dict[int, Place]:
    """Those of some rows whose features can be read, and are finite."""
    kept = {}
    by_path: dict[Path, list[int]] = {}
    for row, place in places.items():
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


def _compare(
    staging: Staging,
    sources: Sequence[Source],
    places: Mapping[int, Place],
    inputs: Sequence[str],
    claimed: Collection[str],
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
    replaced, dropped = _find_unclaimed(staging, sources, inputs, claimed)
    return Change(
        staging.split,
        len(layout.labels),
        len(places),
        any(source.path == staging.target for source in sources),
        labels,
        names,
        replaced,
        dropped,
    )


def _find_unclaimed(
    staging: Staging, sources: Sequence[Source], inputs: Sequence[str], claimed: Collection[str]
) -> tuple[list[str], list[str]]:
    """Names of rows that nobody takes: of videos with other content now, and of those gone.

    A video has other content now if that is new: where a row has only come to the name of another,
    that other one is gone.
    """
    made_of = dict(zip(staging.layout.video_ids, inputs, strict=True))
    groups: dict[Path, list[Source]] = {}
    for source in sources:  # the parts of a plan together
        key = source.path if source.path == staging.target else source.path.parent
        groups.setdefault(key, []).append(source)
    replaced: dict[str, None] = {}
    dropped: dict[str, None] = {}
    for group in groups.values():
        had = {each for source in group for each in source.inputs}
        for source in group:
            for name, before in zip(source.names, source.inputs, strict=True):
                if before not in claimed:
                    is_new = name in made_of and made_of[name] not in had
                    (replaced if is_new else dropped)[name] = None
    return [*replaced], [name for name in dropped if name not in replaced]


def _check_losses(staging: Staging, change: Change) -> None:
    """Refuse to drop rows: the data set may be a wrong one."""
    what = staging.target if change.is_published else f"{staging.target}, which is not finished"
    way_out = "Check the data set's folder; or set overwrite to true to"
    if change.dropped:
        raise OutputError(
            f"{what}: expected the videos of all of its rows in the data set, found "
            f"{len(change.dropped):,} gone: {shorten(change.dropped)}. {way_out} drop these rows, "
            "and keep all others."
        )
    if not change.finished and len(change.replaced) > _FEW:
        raise OutputError(
            f"{what}: expected a data set that it is of, found one in which all of its "
            f"{len(change.replaced):,} videos have other content. {way_out} make them again."
        )


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + "s" * (number != 1)
