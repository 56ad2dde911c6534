"""The rows of several feature files of the same settings, in one file."""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from featx.durable import check_replaceable, publish_file, writing
from featx.errors import InputError, OutputError, UsageError, shorten
from featx.features.feature_file import (
    UNLABELLED,
    FileLayout,
    create,
    find_uncopied,
    open_feature_file,
    read_columns,
)
from featx.features.provenance import Provenance
from featx.features.resume.rows import RowFile, RowLocations, copy_rows
from featx.features.validation import find_problems


@dataclass(frozen=True, slots=True)
class Merged:
    """What a merge has made.

    Attributes:
        path: The file.
        num_videos: Its rows.
        repeated: Rows that stand in more than one of the files, or twice in one: they count once.
        renamed: Names that stood for several videos, and have got a number.
    """

    path: Path
    num_videos: int
    repeated: int
    renamed: Sequence[str]


def merge_files(paths: Sequence[Path], output: Path, overwrite: bool = False) -> Merged:
    """Copy the rows of several feature files into one, as compressed chunks.

    They keep their order, file by file. Labels go by the names of the categories: those on which
    the files agree stay as they are, otherwise all are numbered anew, sorted by name. The same
    video, by its content, counts once.

    Args:
        paths: The files.
        output: The file to make.
        overwrite: Replace a file that is there.

    Raises:
        UsageError: There are none.
        InputError: One is no feature file, is damaged, or is of other settings than the first; or
            the same video has two labels.
        OutputError: The file is there already, or cannot be written.
    """
    if not paths:
        raise UsageError("files: expected one feature file or more, found none.")
    check_replaceable(output)
    if output.exists() and not overwrite:
        raise OutputError(
            f"{output}: expected no file, found one. Set overwrite to replace it, or choose "
            "another name."
        )
    files = [_read(path) for path in paths]
    for file in files[1:]:
        _check_settings(files[0], file)
    locations, repeated = _choose(files)
    layout, renamed = _lay_out(files, locations, output)
    with writing(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        needed = sum(file.num_bytes for file in files)
        if (free := shutil.disk_usage(output.parent).free) < needed:
            raise OutputError(
                f"{output}: expected {needed / 2**20:.0f} MB of free disk space, found "
                f"{free / 2**20:.0f} MB. Free some, and run again."
            )
        temporary = output.with_name(f".{output.name}.{os.getpid()}.tmp")
        try:
            with h5py.File(temporary, "w", locking=False) as file:
                create(file, layout)
                copy_rows(locations.items(), file, layout)
            with h5py.File(temporary, "r", locking=False) as file:
                if problems := find_problems(file, read_features=False):
                    raise OutputError(f"{output}: expected a valid file, found {problems[0]}.")
            publish_file(temporary, output)
        finally:
            temporary.unlink(missing_ok=True)
    return Merged(output, len(locations), repeated, renamed)


def _read(path: Path) -> RowFile:
    with open_feature_file(path) as opened:
        file = RowFile.read(opened)
        if problems := find_problems(opened):  # all of it: damage must not be handed on
            raise InputError(f"{path}: {problems[0]}. Extract its features again.")
        if uncopied := find_uncopied(opened):
            raise InputError(
                f"{path}: expected a file whose rows can be copied, found {shorten(uncopied)}, "
                "which featx merge does not copy yet. Leave this file out."
            )
    if not file.provenance.has_record or not len(file.names) or not len(file.inputs):
        raise InputError(
            f"{path}: expected a file that says how it was made, and names its videos, found one "
            "of another program. Extract its features with featx."
        )
    return file


def _check_settings(first: RowFile, other: RowFile) -> None:
    """Check that rows of two files may stand in one.

    Raises:
        InputError: They may not.
    """
    differences = first.provenance.find_differences(other.provenance)
    if not differences and first.feature_dim != other.feature_dim:
        differences = [f"feature_dim is {first.feature_dim} instead of {other.feature_dim}"]
    if differences:
        raise InputError(
            f"{first.path} and {other.path}: expected files of the same settings, found that in "
            f"the first one {shorten(differences)}. Merge files of the same settings."
        )


def _choose(files: Sequence[RowFile]) -> tuple[RowLocations, int]:
    """The rows to take, and how many others are of the same videos."""
    counts = [len(file.names) for file in files]
    locations = RowLocations(sum(counts), files)
    locations.file = np.repeat(np.arange(len(files), dtype=np.int32), counts)
    locations.row = np.concatenate([np.arange(count) for count in counts])
    inputs = locations.gather()[0]
    _, first, kind = np.unique(inputs, return_index=True, return_inverse=True)
    is_first = first[kind] == np.arange(len(inputs))
    for number in np.flatnonzero(~is_first).tolist():
        pair = locations[int(first[kind[number]])], locations[number]
        labels = [file.categories[row] for file, row in pair]
        if labels[0] != labels[1]:
            (before, before_row), (file, row) = pair
            raise InputError(
                f"{before.path} and {file.path}: expected one label for the same "
                f"video, found {labels[0]} for {before.names[before_row]} and "
                f"{labels[1]} for {file.names[row]}. Fix one of them, and extract it again."
            )
    chosen = np.flatnonzero(is_first)
    return locations.select(chosen), len(inputs) - len(chosen)


def _lay_out(
    files: Sequence[RowFile], locations: RowLocations, output: Path
) -> tuple[FileLayout, list[str]]:
    """The layout of the file, and the names that were not unique."""
    categories = join_categories([file.provenance.categories for file in files])
    labels = np.full(len(locations), UNLABELLED, np.int64)
    num_frames = np.zeros(len(locations), np.int32)
    for file, numbers in locations.by_file():
        rows = locations.row[numbers]
        num_frames[numbers] = file.num_frames[rows]
        kept = file.categories[rows].tolist()
        labels[numbers] = [UNLABELLED if name is None else categories[name] for name in kept]
    names, renamed = _name([file.names[row] for file, row in locations.values()])
    inputs, run, runs = locations.gather()
    damaged = {
        name: text
        for name, (file, row) in zip(names, locations.values(), strict=True)
        if (text := file.damage.get(row, ""))
    }
    skipped: dict[str, str] = {}
    for file in files:
        skipped |= file.provenance.skipped or {}
    taken = {name for name in names if name in skipped}
    first = files[0].provenance
    runs_of_files = [file.provenance.run for file in files]
    settings = {
        name: value
        for name, value in first.run.items()
        if all(name in run and run[name] == value for run in runs_of_files)
    }
    settings.setdefault("split", output.name.partition("_features")[0])
    provenance = Provenance(
        categories,
        first.multi_scale,
        settings,
        skipped={name: text for name, text in skipped.items() if name not in taken},
        damaged_videos=damaged,
        runs=runs,
    )
    layout = FileLayout.plan(
        labels,
        num_frames,
        names,
        files[0].feature_dim,
        provenance,
        _join_columns(locations),
        all(file.has_times for file in files),
        inputs,
    )
    return replace(layout, run=run), renamed


def _join_settings(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The settings that all runs share; those that only some of them have are no difference."""
    joined: dict[str, Any] = {}
    for name in dict.fromkeys(name for run in runs for name in run):
        values = [run[name] for run in runs if name in run]
        if all(isinstance(value, dict) for value in values):
            joined[name] = _join_settings(values)
        elif all(value == values[0] for value in values):
            joined[name] = values[0]
    return joined


def join_categories(mappings: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """One label for each category of several mappings.

    Those on which all agree stay; otherwise, all are numbered anew, sorted by name.
    """
    pairs = {pair for mapping in mappings for pair in mapping.items()}
    joined = dict(pairs)
    if len(joined) == len({*joined.values()}) == len(pairs):
        return dict(sorted(joined.items(), key=lambda item: item[1]))
    return {name: label for label, name in enumerate(sorted(joined))}


def _name(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Names that tell all videos apart, and those that did not."""
    taken, seen = {*names}, set[str]()
    unique, renamed = [], []
    for name in names:
        if name in seen:
            renamed.append(name)
            numbers = (f"{name} ({number})" for number in count(2))
            unique.append(next(new for new in numbers if new not in taken))
            taken.add(unique[-1])
        else:
            seen.add(name)
            unique.append(name)
    return unique, renamed


def _join_columns(locations: RowLocations) -> dict[str, NDArray[Any]]:
    """What tables have said of the rows; where one has not, there is no text, or NaN."""
    by_path: dict[Path, dict[str, NDArray[Any]]] = {}
    for file in locations.files:
        with open_feature_file(file.path) as opened:
            by_path[file.path] = read_columns(opened)
    rows_of = {file.path: rows for file, rows in locations.by_file()}
    joined = {}
    for name in sorted({name for columns in by_path.values() for name in columns}):
        found = {path: by_path[path].get(name) for path in rows_of}
        kinds = [values.dtype for values in found.values() if values is not None]
        if any(kind.kind == "O" for kind in kinds):
            cells = np.full(len(locations), "", object)
        elif len(kinds) < len(found):
            cells = np.full(len(locations), np.nan)
        else:
            cells = np.zeros(len(locations), np.result_type(*kinds))
        for path, rows in rows_of.items():
            if (values := found[path]) is not None:
                chosen = values[locations.row[rows]]
                cells[rows] = [*map(str, chosen)] if cells.dtype == object else chosen
        joined[name] = cells
    return joined
