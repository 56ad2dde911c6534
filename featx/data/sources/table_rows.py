"""Read the rows of a table: the split, label, segment, box and name of each video."""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from featx.data.cells import TEXT, Cell, CellColumn, each, to_integer
from featx.data.columns import NOTHING, Column, Texts, constant, shrink
from featx.data.manifest import UNLABELLED
from featx.data.media.clip import Box
from featx.data.media.cut import Cut, show
from featx.data.media.video_file import Home
from featx.data.table import NUMBERS, Table
from featx.data.tree import is_name
from featx.errors import InputError

_FURTHEST = 2**31  # frames and pixels that a table may name
_NUMBERED = re.compile(r"(.*) \(\d+\)", re.DOTALL)  # a name with a number to tell it from others


def is_split(cell: str | None) -> bool:
    """Return True where a cell can be the name of a split, which is that of a file."""
    return cell is not None and is_name(cell) and "/" not in cell and not cell.startswith(".")


@dataclass(frozen=True, slots=True)
class Rows:
    """The videos that the rows of a table ask for, in arrays `[num_rows]`.

    Attributes:
        errors: The errors of bad rows, each with the split that it belongs to; that of a row
            without a split belongs to the first one.
        good: The other rows of the splits, in order. Only these count in what follows.
        categories: The label of each category.
        homes: The splits and categories of these rows.
        codes: The number of the home of each row.
        paths: The paths of the clips, in the order of the table.
        clips: The number of the clip of each row.
        cuts: The segment and the box of each row, by the fields of `Cut` and `Box`.
        names: The name of each video.
        are_paths: Every name is the path of the clip.
    """

    errors: dict[int, tuple[str, InputError]]
    good: NDArray[np.int64]
    categories: dict[str, int]
    homes: list[Home]
    codes: NDArray[np.int64]
    paths: pa.Array
    clips: NDArray[np.int64]
    cuts: dict[str, NDArray[Any]]
    names: pa.Array
    are_paths: bool

    def home(self, row: int) -> Home:
        """Return the split and the category of a row."""
        return self.homes[int(self.codes[row])]

    def group(self) -> Iterator[list[int]]:
        """Yield the rows of each clip, in order."""
        clips = self.clips[self.good]
        order = np.argsort(clips, kind="stable")
        bounds = np.searchsorted(clips[order], np.arange(len(self.paths) + 1))
        return (self.good[order[start:stop]].tolist() for start, stop in pairwise(bounds))

    def sort_by_split(
        self, is_found: NDArray[np.bool_], splits: Sequence[str]
    ) -> NDArray[np.int64]:
        """Return the rows whose videos were found, split after split."""
        rows = np.flatnonzero(is_found)
        ranks = np.array([splits.index(home.split) for home in self.homes], np.int64)
        chosen: NDArray[np.int64] = rows[np.argsort(ranks[self.codes[rows]], kind="stable")]
        return chosen

    def select(self, chosen: NDArray[np.int64]) -> dict[str, Column]:
        """Return the columns of some rows that do not depend on their clips."""
        columns: dict[str, Column] = {"home": shrink(self.codes[chosen])}
        columns |= {name: shrink(values[chosen]) for name, values in self.cuts.items()}
        columns["name"] = Texts(self.names.take(pa.array(chosen)))
        return columns


class _Errors(dict[int, InputError]):
    """The first error of each bad row.

    Attributes:
        table: The table.
        is_good: True for rows of the splits asked for, until there is an error `[num_rows]`.
    """

    def __init__(self, table: Table) -> None:
        super().__init__()
        self.table = table
        self.is_good = np.ones(len(table), bool)

    def note(self, row: int, text: str) -> None:
        """Keep an error of a row, unless there is an earlier one."""
        if self.is_good[row]:
            self.is_good[row] = False
            self[row] = InputError(f"{self.table.where(row)}: {text}")


def read_rows(table: Table, splits: Sequence[str]) -> Rows:
    """Read what each row asks for.

    Args:
        table: The table.
        splits: The splits to read.

    Raises:
        InputError: Some labels are integers, and others are names.
    """
    errors = _Errors(table)
    ranks = np.zeros(len(table), np.int64)
    if "split" in table.columns:
        ranks = _read_splits(table.columns["split"], splits, errors)
        errors.is_good &= ranks >= 0
    paths = table.columns["path"]
    for row in _find_null(paths):
        errors.note(row, "expected a path, found none. Fill it in.")
    categories, labels = _read_labels(table, errors)
    cuts = _read_cuts(table, errors)
    names, are_paths = _find_names(table, ranks, cuts, errors)
    good = np.flatnonzero(errors.is_good)
    names_of_labels = {label: name for name, label in categories.items()}
    numbers: dict[tuple[int, int], int] = {}  # of the pairs of a split and a label
    pairs = zip(ranks[good].tolist(), labels[good].tolist(), strict=True)
    codes = np.full(len(table), NOTHING)
    codes[good] = [numbers.setdefault(pair, len(numbers)) for pair in pairs]
    homes = [Home(splits[rank], names_of_labels.get(label)) for rank, label in numbers]
    encoded = paths.take(pa.array(good)).dictionary_encode()
    clips = np.full(len(table), NOTHING)
    clips[good] = encoded.indices.to_numpy()
    bad = {row: (splits[max(0, ranks[row])], error) for row, error in sorted(errors.items())}
    return Rows(
        bad, good, categories, homes, codes, encoded.dictionary, clips, cuts, names, are_paths
    )


def _encode(column: pa.Array) -> tuple[list[Any], NDArray[np.int64]]:
    """Return the different cells of a column, and the number of the cell of each row, or -1."""
    encoded = column.dictionary_encode()
    codes = encoded.indices.fill_null(-1).to_numpy().astype(np.int64)
    return encoded.dictionary.to_pylist(), codes


def _find_null(column: pa.Array) -> list[int]:
    """Return the rows of empty cells."""
    found: list[int] = np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False)).tolist()
    return found


def _read_splits(column: pa.Array, splits: Sequence[str], errors: _Errors) -> NDArray[np.int64]:
    """Return the rank of the split of each row; -1 where it is not wanted, or bad."""
    cells, codes = _encode(column)
    cells.append(None)
    for row in np.flatnonzero(np.array([not is_split(cell) for cell in cells])[codes]).tolist():
        found = "none" if codes[row] < 0 else repr(cells[codes[row]])
        errors.note(row, f"expected the name of a split, found {found}. Fix the row.")
    ranks = {split: rank for rank, split in enumerate(splits)}
    found_ranks: NDArray[np.int64] = np.array([ranks.get(cell, -1) for cell in cells])[codes]
    return found_ranks


def _read_labels(table: Table, errors: _Errors) -> tuple[dict[str, int], NDArray[np.int64]]:
    """Read the labels: names, which are sorted and numbered, or integers, which are kept.

    Returns:
        The label of each category, and of each row `[num_rows]`.

    Raises:
        InputError: Some labels are integers, and others are names.
    """
    if "label" not in table.columns:
        return {}, np.full(len(table), UNLABELLED)
    for row in _find_null(table.columns["label"]):
        errors.note(row, "expected a label, found none. Fill it in.")
    cells, codes = _encode(table.columns["label"])
    integers = [to_integer(cell, "label" in table.guessed) for cell in cells]
    numbers = [number for number in integers if number is not None]
    if 0 < len(numbers) < len(cells):
        are_names = [number is None for number in integers]
        firsts = are_names.index(True), are_names.index(False)
        where, other = (table.where(int(np.argmax(codes == code))) for code in firsts)
        raise InputError(
            f"{where}: expected integers as labels, as {other} has, found "
            f"{str(cells[firsts[0]])!r}. "
            "Make all labels integers, or all of them names."
        )
    names = [unicodedata.normalize("NFC", str(cell).strip()) for cell in cells]
    if numbers:
        categories = {str(label): label for label in sorted({*numbers}) if label >= 0}
    else:
        categories = {name: label for label, name in enumerate(sorted({*names}))}
        numbers = [categories[name] for name in names]
    are_bad = [
        label < UNLABELLED or not is_name(name) for name, label in zip(names, numbers, strict=True)
    ]
    for row in np.flatnonzero(np.array([*are_bad, False])[codes]).tolist():
        name, label = names[codes[row]], numbers[codes[row]]
        expected = f"a label in UTF-8 without NUL, found {name!r}"
        if label < UNLABELLED:
            expected = f"a label of 0 or more, or {UNLABELLED} for none, found {label}"
        errors.note(row, f"expected {expected}. Fix it.")
    return categories, np.array([*numbers, UNLABELLED])[codes]


def _read_cuts(table: Table, errors: _Errors) -> dict[str, NDArray[Any]]:
    """Read which segment and box each row asks for, by the fields of `Cut` and `Box`."""
    cuts = {
        "begin": _read_numbers(table, "start", _to_seconds, np.nan, errors),
        "end": _read_numbers(table, "end", _to_seconds, np.nan, errors),
        "first": _read_numbers(table, "start_frame", _to_frame, NOTHING, errors),
        "stop": _read_numbers(table, "end_frame", _to_frame, NOTHING, errors),
        **_read_boxes(table, errors),
    }
    are_timed = ~(np.isnan(cuts["begin"]) & np.isnan(cuts["end"]))
    have_frames = (cuts["first"] != NOTHING) | (cuts["stop"] != NOTHING)
    for row in np.flatnonzero(are_timed & have_frames).tolist():
        errors.note(row, "expected a segment in seconds or in frames, found both. Leave one out.")
    begin, first = np.nan_to_num(cuts["begin"]), np.maximum(cuts["first"], 0)
    for name, start, end, has_end in (
        ("end", begin, cuts["end"], ~np.isnan(cuts["end"])),
        ("end_frame", first, cuts["stop"], cuts["stop"] != NOTHING),
    ):
        for row in np.flatnonzero(has_end & (end <= start)).tolist():
            errors.note(
                row,
                f"expected {name} after {show(start[row])}, where the segment begins, found "
                f"{show(end[row])}. Fix the row.",
            )
    return cuts


def find_cut(cuts: dict[str, NDArray[Any]], row: int) -> Cut:
    """Return what a row asks for of its clip."""
    begin, end, first, stop, *sides = (values[row].item() for values in cuts.values())
    box = Box(*sides)
    return Cut(
        None if math.isnan(begin) else begin,
        None if math.isnan(end) else end,
        None if first == NOTHING else first,
        None if stop == NOTHING else stop,
        box if box.right > box.left else None,
    )


def _to_seconds(cell: Cell) -> float:
    number = float(cell or 0)
    if not 0 <= number < math.inf:
        raise ValueError
    return number


def _to_frame(cell: Cell) -> int:
    number = float(cell or 0)  # a column with gaps may have 12.0 for 12
    if not 0 <= number < _FURTHEST or number != int(number):
        raise ValueError
    return int(number)


def _read_numbers(
    table: Table,
    name: str,
    convert: Callable[[Cell], float],
    missing: float,
    errors: _Errors,
) -> NDArray[Any]:
    """Read a column of numbers; `missing` stands for empty cells."""
    if name not in table.columns:
        return constant(missing, len(table))
    values = np.full(len(table), missing)
    expected = "seconds in" if convert is _to_seconds else "the number of a frame in"
    for row, cell in enumerate(each(table.columns[name])):
        if cell is not None:
            try:
                values[row] = convert(cell)
            except ValueError:
                errors.note(
                    row,
                    f"expected {expected} {name}, 0 or more, found {cell!r}. Fix the row; "
                    "without a number, a segment reaches to the clip's own end.",
                )
    return values


def _read_boxes(table: Table, errors: _Errors) -> dict[str, NDArray[Any]]:
    """Read the boxes, by their sides; all sides are 0 where there is no box."""
    names = Box._fields
    if not any(name in table.columns for name in names):
        return {name: constant(0, len(table)) for name in names}
    boxes = np.zeros((len(names), len(table)), np.int64)
    nothing = pa.nulls(len(table), TEXT)
    columns = [each(table.columns.get(name, nothing)) for name in names]
    for row, cells in enumerate(zip(*columns, strict=True)):
        if any(cell is not None for cell in cells):
            try:
                boxes[:, row] = _to_box(cells)
            except InputError as error:
                errors.note(row, str(error))
    return dict(zip(names, boxes, strict=True))


def _to_box(cells: Sequence[Cell]) -> Box:
    named = dict(zip(Box._fields, cells, strict=True))
    if missing := [name for name, cell in named.items() if cell is None]:
        raise InputError(
            f"expected left, top, right and bottom of a box, found no {', '.join(missing)}. "
            "Fill it in, or leave all four empty."
        )
    try:
        box = Box(*(round(float(cell or 0)) for cell in cells))
        if any(abs(side) >= _FURTHEST for side in box):
            raise ValueError
    except (ValueError, OverflowError):
        found = ", ".join(f"{name} {cell!r}" for name, cell in named.items())
        raise InputError(f"expected pixels of a box, found {found}. Fix the row.") from None
    if box.right <= box.left or box.bottom <= box.top:
        raise InputError(
            f"expected a box with an inside, found left {box.left}, top {box.top}, right "
            f"{box.right}, bottom {box.bottom}, in pixels. Fix the row."
        )
    return box


def _find_names(
    table: Table,
    ranks: NDArray[np.int64],
    cuts: dict[str, NDArray[Any]],
    errors: _Errors,
) -> tuple[pa.Array, bool]:
    """Name the video of each good row: by its id, or by its path and what is taken of the clip.

    Returns:
        The names, null for bad rows; and True if all names are paths.
    """
    ids = table.columns.get("id", pa.nulls(len(table), TEXT))
    has_cuts = any(name in table.columns for name in NUMBERS)
    names, hashes = CellColumn(), np.zeros(len(table), np.int64)
    are_paths = True
    rows = zip(each(table.columns["path"]), each(ids), ranks.tolist(), strict=True)
    for row, (path, given, rank) in enumerate(rows):
        name = None
        if errors.is_good[row]:
            name = given or path + (find_cut(cuts, row).to_fragment() if has_cuts else "")
            are_paths = are_paths and name == path
            hashes[row] = hash((rank, name))
            if "\0" in name:
                errors.note(row, f"expected an id in UTF-8 without NUL, found {name!r}. Fix it.")
        names.extend((name,))
    found = names.to_texts()
    renamed = _tell_apart(found, ids, ranks, hashes, errors)
    if renamed:
        changed = CellColumn()
        changed.extend(renamed.get(row, name) for row, name in enumerate(each(found)))
        found = changed.to_texts()
    return found, are_paths and not renamed


def _tell_apart(
    names: pa.Array,
    ids: pa.Array,
    ranks: NDArray[np.int64],
    hashes: NDArray[np.int64],
    errors: _Errors,
) -> dict[int, str]:
    """Number the names that occur several times in a split, and refuse ids that do.

    Returns:
        The new names, by row.
    """
    rows = np.flatnonzero(errors.is_good)
    order = rows[np.argsort(hashes[rows], kind="stable")]
    is_repeated = np.diff(hashes[order]) == 0
    alike = {*order[1:][is_repeated].tolist(), *order[:-1][is_repeated].tolist()}
    if not alike:
        return {}
    repeated = {(ranks[row], names[row].as_py()) for row in alike}
    for row, name in enumerate(each(names)):  # that a numbered name could be the same as
        if name and (found := _NUMBERED.fullmatch(name)) and (ranks[row], found[1]) in repeated:
            alike.add(row)
    taken: dict[tuple[int, str], int] = {}
    counts: Counter[tuple[int, str]] = Counter()
    renamed = {}
    for row in sorted(alike):
        rank, plain = ranks[row], names[row].as_py()
        name = plain
        if ids[row].is_valid:
            if (rank, name) in taken:
                other = errors.table.where(taken[rank, name])
                errors.note(
                    row,
                    f"expected an id of its own, found {name!r}, which {other} has, too. "
                    "Fix one of them.",
                )
        else:
            while (rank, name) in taken:
                counts[rank, plain] += 1
                name = f"{plain} ({1 + counts[rank, plain]})"
            if name != plain:
                renamed[row] = name
        taken.setdefault((rank, name), row)
    return renamed
