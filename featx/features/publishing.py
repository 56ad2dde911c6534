"""From finished rows, wherever they are, to one published file: merged, checked, renamed."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from featx.errors import OutputError
from featx.features.feature_file import (
    TIMES,
    FileLayout,
    create,
    find_chunk_frames,
    open_feature_file,
    read_columns,
    read_names,
)
from featx.features.finished import Place, Places, copy_rows
from featx.features.provenance import Provenance
from featx.features.validation import find_problems

_ROWS_BETWEEN_CHECKS = 64


def merge_rows(
    path: Path, layout: FileLayout, places: Places, check: Callable[[], None] | None = None
) -> None:
    """Write a complete feature file, and check it.

    Args:
        path: Where to.
        layout: Its layout.
        places: Where each of its rows is.
        check: Called now and then; what it raises ends the merge.

    Raises:
        OutputError: There is no room for it, or it is not valid.
    """
    _check_space(path, places)
    with h5py.File(path, "w", locking=False) as file:
        create(file, layout)
        copy_rows(_watch(places, check), file, layout)
    check_merged(path)


def _watch(places: Places, check: Callable[[], None] | None) -> Iterator[tuple[int, Place]]:
    for row, place in places.items():
        if check and not row % _ROWS_BETWEEN_CHECKS:
            check()
        yield row, place


def check_merged(path: Path, folder: Path | None = None) -> None:
    """Check a file that was just made; see `find_problems` for the folder.

    Raises:
        OutputError: It is not valid.
    """
    with h5py.File(path, "r", locking=False) as file:
        problems = find_problems(file, read_features=False, folder=folder)
    if problems:
        raise OutputError(f"{path}: expected a valid file, found {problems[0]}. Run again.")


def is_current(path: Path, layout: FileLayout, places: Places) -> bool:
    """Whether a merge would only copy a file that is there, or one of another run's settings.

    Args:
        path: The file.
        layout: What a merge would make.
        places: Where its rows are: the file was checked if they are in it.
    """
    numbers = np.arange(len(places))
    sources = [source for source, _ in places.by_source()]
    if len(sources) != 1 or not np.array_equal(places.row, numbers + places.row[0]):
        return False
    ends = [sources[0].locate(int(places.row[row])) for row in (0, -1)]
    if ends != [(path, 0), (path, len(places) - 1)]:
        return False
    return is_alike(path, layout)


def is_alike(path: Path, layout: FileLayout) -> bool:
    """Whether a file says all of its rows that a layout does, whatever run has made it."""
    with open_feature_file(path) as file:
        made = Provenance.from_attributes(file.attrs)
        return (
            made.describe() == layout.provenance.describe()
            and (file["features"].is_virtual or _has_chunks(file, layout))
            and (TIMES in file) == layout.has_times
            and read_names(file) == layout.video_ids
            and np.array_equal(file["labels"][:], layout.labels)
            and repr(_to_plain(read_columns(file))) == repr(_to_plain(layout.columns))
        )


def _has_chunks(file: h5py.File, layout: FileLayout) -> bool:
    return find_chunk_frames(file["features"]) == layout.chunk_frames


def _to_plain(columns: Mapping[str, NDArray[Any]]) -> dict[str, object]:
    """Columns for comparison: NaN is NaN then."""
    return {name: values.tolist() for name, values in sorted(columns.items())}


def _check_space(path: Path, places: Places) -> None:
    """Check before the merge, because HDF5 crashes on a full disk."""
    needed = sum(
        source.num_bytes * len(rows) // len(source.num_frames)
        for source, rows in places.by_source()
    )
    free = shutil.disk_usage(path.parent).free
    if free < needed:
        raise OutputError(
            f"{path}: expected {needed / 2**20:.0f} MB of free disk space for the "
            f"merge, found {free / 2**20:.0f} MB. Free some, and run again."
        )
