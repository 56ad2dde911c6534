"""Scan a table: each row is a video, which is a clip, or a segment or a part of a clip."""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from featx.console import make_bar
from featx.data.cells import TEXT, Cell, CellColumn, each, to_integer
from featx.data.clip_file import Box, Needs, Opened, is_known, open_clip
from featx.data.clip_files import ClipColumns, ClipFiles
from featx.data.clip_source import check_decoder
from featx.data.columns import NOTHING, Column, Texts, constant, shrink
from featx.data.cut import Cut, find_part, show
from featx.data.folders import ALL, is_name
from featx.data.manifest import UNLABELLED, Manifest, ScanSettings
from featx.data.preprocessing import Preprocessing
from featx.data.scan import Rejections, map_inputs, summarize_scan
from featx.data.storage import check_name_in, join, stat
from featx.data.table import KNOWN, NUMBERS, Table, read_table
from featx.data.timeline import Segment
from featx.data.video_file import Home
from featx.errors import InputError, MissingInputError, UsageError, first_line, shorten

_THREADS = 4
_FURTHEST = 2**31  # frames and pixels that a table may name
_SEGMENT = ("begin", "end", "first", "stop")
_NUMBERED = re.compile(r"(.*) \(\d+\)", re.DOTALL)  # a name with a number to tell it from others


def find_table_splits(settings: ScanSettings) -> list[str]:
    """Return the splits asked for, or all splits of the table, in its order.

    Raises:
        MissingInputError: A split is not in the table.
    """
    return _choose_splits(settings, _read(settings))


def scan_table(settings: ScanSettings) -> Manifest:
    """List the videos of a table, in its order.

    Every clip is opened once, even if many rows are segments of it.

    Raises:
        MissingInputError: There is no such table, or a split is not in it.
        InputError: The table cannot be read; or rows are bad, and are not to be skipped, or a split
            has no others.
    """
    check_decoder(settings)
    table = _read(settings)
    splits = _choose_splits(settings, table)
    rejected = Rejections(splits)
    for line, error in table.bad.items():
        rejected[splits[0]][table.where_line(line)] = error
    rows = _read_rows(table, splits, rejected)
    for name in KNOWN:  # the rows have them, and memory matters where there are millions
        table.columns.pop(name, None)
    columns, results = ClipColumns(), _Results(len(table))
    numbers = np.full(len(rows.paths), -1)  # of the clips that could be opened
    opener = _Opener(settings, rows)
    with closing(opener.open_all()) as ahead:
        bar = make_bar(ahead, "Scanning", len(rows.paths), "clip", settings.progress)
        for (clip, opening), of_clip in zip(bar, rows.group(), strict=True):
            for row in of_clip:
                where = table.where(row)
                with rejected.collect(rows.home(row).split, where), _prefix(where):
                    opened, cut = opening.result(), rows.find_cut(row)
                    if opened is None:
                        results.note_lazy(row, _plan_length(settings.preprocessing, cut), cut)
                    else:
                        segment = find_part(cut, opened)
                        results.note(row, opened.count_frames(segment), segment)
                    if numbers[clip] < 0:
                        numbers[clip] = len(columns)
                        _add_clip(columns, settings, rows.paths[clip].as_py(), opened)
    chosen = rows.sort_by_split(results.is_found, splits)
    videos = {**rows.select(chosen), **results.select(chosen)}
    if settings.scan == "lazy":
        videos["lazy"] = shrink(results.is_lazy[chosen])
    if settings.preprocessing.fps is None:
        # The time when a segment begins matters for sampling by fps alone, once a clip is open.
        for name in ("begin", "end"):
            videos[name] = shrink(np.where(results.is_lazy[chosen], videos[name], np.nan))
    clips = numbers[rows.clips[chosen]]
    if not np.array_equal(clips, np.arange(len(columns))):
        videos["clip"] = shrink(clips)
    elif rows.are_paths:
        del videos["name"]
    files = ClipFiles.build(settings.root, settings.preprocessing, columns, rows.homes, videos)
    manifest = Manifest(
        settings.root,
        rows.categories,
        files,
        rejected,
        settings.preprocessing.describe("uint8"),
        columns={name: _take(cells, chosen) for name, cells in table.find_extra().items()},
        has_times=True,
    )
    rejected.check(settings, manifest.positions)
    manifest.summary = summarize_scan(
        settings, manifest, (), lambda name: False, (), files.find_traits()
    )
    return manifest


@contextmanager
def _prefix(where: str) -> Iterator[None]:
    """Let the message of an error begin with the place of its row."""
    try:
        yield
    except InputError as error:
        raise type(error)(f"{where}: {error}") from error


def _take(column: pa.Array, rows: NDArray[np.int64]) -> Column:
    """Return the cells of some rows."""
    taken = column.take(pa.array(rows))
    return Texts.of(each(taken), are_words=True) if taken.type == TEXT else taken.to_numpy()


def _add_clip(
    columns: ClipColumns, settings: ScanSettings, path: str, opened: Opened | None
) -> None:
    if opened is None:
        columns.append_unopened(path)
    else:
        columns.append(opened)
        if opened.is_new:
            settings.scan_cache.note(opened.name, opened.cache_entry)


def _read(settings: ScanSettings) -> Table:
    assert settings.table is not None
    return read_table(settings.table, settings.columns, settings.root)


def _choose_splits(settings: ScanSettings, table: Table) -> list[str]:
    found = [ALL]
    if "split" in table.columns:
        found = [cell for cell in table.columns["split"].unique().to_pylist() if _is_split(cell)]
    if unknown := [split for split in settings.splits or () if split not in found]:
        raise MissingInputError(
            f"{table.path}: expected the split {unknown[0]!r}, found {shorten(found)}. "
            "Choose from these."
        )
    if not found:
        raise MissingInputError(
            f"{table.path}: expected the names of splits in the column split, found none. "
            "Fill it in, or leave the column out."
        )
    return [*dict.fromkeys(settings.splits or found)]


def _is_split(cell: str | None) -> bool:
    """Return True where a cell can be the name of a split, which is that of a file."""
    return cell is not None and is_name(cell) and "/" not in cell and not cell.startswith(".")


@dataclass(frozen=True, slots=True)
class _Rows:
    """What each row of a table asks for `[num_rows]`; bad rows and other splits are left out.

    Attributes:
        good: The rows that are left, in order.
        categories: The label of each category.
        homes: The splits and categories of these rows.
        codes: The number of the home of each row.
        paths: The paths of the clips, in the order of the table.
        clips: The number of the clip of each row.
        cuts: The segment and the box of each row, by the fields of `Cut` and `Box`.
        names: The name of each video.
        are_paths: Every name is the path of the clip.
    """

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

    def find_cut(self, row: int) -> Cut:
        """Return what a row asks for of its clip."""
        return _find_cut(self.cuts, row)

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
        columns["name"] = Texts.of(each(self.names.take(pa.array(chosen))))
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


def _read_rows(table: Table, splits: Sequence[str], rejected: Rejections) -> _Rows:
    """Read the columns that have a meaning, and collect the rows that are wrong."""
    errors = _Errors(table)
    ranks = np.zeros(len(table), np.int64)
    if "split" in table.columns:
        ranks = _read_splits(table.columns["split"], splits, errors)
        errors.is_good &= ranks >= 0
    paths = table.columns["path"]
    for row in _find_null(paths):
        errors.note(row, "expected a path, found none. Fill it in.")
    categories, of_labels, labels = _read_labels(table, errors)
    cuts = _read_cuts(table, errors)
    names, are_paths = _find_names(table, ranks, cuts, errors)
    for row, error in sorted(errors.items()):
        rejected[splits[max(0, ranks[row])]][table.where(row)] = error
    good = np.flatnonzero(errors.is_good)
    homes, codes = _find_homes(good, ranks, splits, labels, of_labels)
    encoded = paths.take(pa.array(good)).dictionary_encode()
    clips = np.full(len(table), NOTHING)
    clips[good] = encoded.indices.to_numpy()
    return _Rows(good, categories, homes, codes, encoded.dictionary, clips, cuts, names, are_paths)


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
    for code, cell in enumerate([*cells, None]):
        if not _is_split(cell):
            found = "none" if cell is None else repr(cell)
            for row in np.flatnonzero(codes == (-1 if cell is None else code)).tolist():
                errors.note(row, f"expected the name of a split, found {found}. Fix the row.")
    ranks = {split: rank for rank, split in enumerate(splits)}
    return np.array([*(ranks.get(cell, -1) for cell in cells), -1])[codes]


def _read_labels(
    table: Table, errors: _Errors
) -> tuple[dict[str, int], list[str | None], NDArray[np.int64]]:
    """Read the labels: names, which are sorted and numbered, or integers, which are kept.

    Returns:
        The label of each category; the categories, None where a label means none; and which of
        these each row has `[num_rows]`.

    Raises:
        InputError: Some labels are integers, and others are names.
    """
    if "label" not in table.columns:
        return {}, [None], np.zeros(len(table), np.int64)
    cells, codes = _encode(table.columns["label"])
    integers = [to_integer(cell, "label" in table.guessed) for cell in cells]
    are_names = [number is None for number in integers]
    if len({*are_names}) == 2:
        name, number = are_names.index(True), are_names.index(False)
        where, other = (table.where(int(np.argmax(codes == code))) for code in (name, number))
        raise InputError(
            f"{where}: expected integers as labels, as {other} has, found {str(cells[name])!r}. "
            "Make all labels integers, or all of them names."
        )
    for row in _find_null(table.columns["label"]):
        errors.note(row, "expected a label, found none. Fill it in.")
    of_cells: list[str | None]
    if all(are_names):
        names = [unicodedata.normalize("NFC", str(cell).strip()) for cell in cells]
        bad = {
            code: f"expected a label in UTF-8 without NUL, found {name!r}. Fix it."
            for code, name in enumerate(names)
            if not is_name(name)
        }
        categories = {name: label for label, name in enumerate(sorted({*names}))}
        of_cells = [*names]
    else:
        labels = [number for number in integers if number is not None]
        bad = {
            code: f"expected a label of 0 or more, or {UNLABELLED} for none, found {label}. Fix it."
            for code, label in enumerate(labels)
            if label < UNLABELLED
        }
        categories = {str(label): label for label in sorted({*labels}) if label >= 0}
        of_cells = [str(label) if label >= 0 else None for label in labels]
    for code, text in bad.items():
        for row in np.flatnonzero(codes == code).tolist():
            errors.note(row, text)
    return categories, of_cells, codes


def _find_homes(
    good: NDArray[np.int64],
    ranks: NDArray[np.int64],
    splits: Sequence[str],
    labels: NDArray[np.int64],
    of_labels: Sequence[str | None],
) -> tuple[list[Home], NDArray[np.int64]]:
    """Return the splits and categories of the good rows, and the number of each row's."""
    pairs = ranks[good] * len(of_labels) + labels[good]
    different, firsts, which = np.unique(pairs, return_index=True, return_inverse=True)
    numbers: dict[Home, int] = {}
    of_pairs = np.zeros(len(different), np.int64)
    for pair in np.argsort(firsts).tolist():
        rank, label = divmod(int(different[pair]), len(of_labels))
        of_pairs[pair] = numbers.setdefault(Home(splits[rank], of_labels[label]), len(numbers))
    codes = np.full(len(ranks), NOTHING)
    codes[good] = of_pairs[which]
    return [*numbers], codes


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


def _find_cut(cuts: dict[str, NDArray[Any]], row: int) -> Cut:
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
            name = given or path + (_find_cut(cuts, row).to_fragment() if has_cuts else "")
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


class _Opener:
    """Opens the clips of a table, each as far as its rows need it."""

    def __init__(self, settings: ScanSettings, rows: _Rows) -> None:
        self._settings, self._paths = settings, rows.paths
        clips = rows.clips[rows.good]
        begin, end, first, stop = (rows.cuts[name][rows.good] for name in _SEGMENT)
        is_segment = ~(np.isnan(begin) & np.isnan(end)) | (first != NOTHING) | (stop != NOTHING)
        has_box = rows.cuts["right"][rows.good] > rows.cuts["left"][rows.good]
        self._have_segments = np.bincount(clips[is_segment], minlength=len(rows.paths)) > 0
        self._have_boxes = np.bincount(clips[has_box], minlength=len(rows.paths)) > 0

    def open_all(self) -> Generator[tuple[int, Future[Opened | None]]]:
        """Yield the number of each clip, with its future."""
        num_unknown = 0
        if self._settings.scan == "full":
            num_unknown = sum(path not in self._settings.scan_cache for path in each(self._paths))
        return map_inputs(self.open, range(len(self._paths)), num_unknown, _THREADS)

    def open(self, clip: int) -> Opened | None:
        """Open a clip.

        Returns:
            The clip; None if it is to be opened when its turn comes.

        Raises:
            InputError: The clip is bad or missing.
        """
        settings, path = self._settings, self._paths[clip].as_py()
        assert settings.table is not None
        check_name_in(settings.table, settings.root, path)
        place = join(settings.root, path)
        has_segments, has_boxes = bool(self._have_segments[clip]), bool(self._have_boxes[clip])
        needs = Needs(settings.thorough, has_segments, has_boxes)
        given, cache = settings.preprocessing, settings.scan_cache
        if settings.scan == "lazy" and not is_known(place, given, needs, path, cache):
            return None
        try:
            stat(place)
        except FileNotFoundError as error:
            raise MissingInputError(
                f"{place}: expected a clip or a folder of frames, found nothing. Fix the path, "
                "or set root to the folder that paths are relative to."
            ) from error
        except (OSError, ValueError) as error:
            raise InputError(
                f"{shorten([place])}: expected a clip or a folder of frames, found: "
                f"{first_line(error)}. Fix the path, or its permissions."
            ) from error
        return open_clip(place, given, needs, path, cache)


class _Results:
    """What the clips say of each row: the length of its video, and the frames of its segment."""

    def __init__(self, count: int) -> None:
        self.is_found, self.is_lazy = np.zeros(count, bool), np.zeros(count, bool)
        self._lengths = np.zeros(count, np.int32)
        self._segments = np.full((2, count), NOTHING, np.int32)
        self._has_any = False

    def note(self, row: int, length: int, segment: Segment | None) -> None:
        """Note the video of a row."""
        self.is_found[row], self._lengths[row] = True, length
        if segment is not None:
            self._segments[:, row] = segment[:2]
            self._has_any = True

    def note_lazy(self, row: int, length: int, cut: Cut) -> None:
        """Note the video of a row whose clip is not opened yet."""
        first, stop = (NOTHING if side is None else side for side in (cut.first, cut.stop))
        self.note(row, length, Segment(first, stop) if cut.is_segment else None)
        self.is_lazy[row] = True

    def select(self, chosen: NDArray[np.int64]) -> dict[str, Column]:
        """Return the columns of some rows."""
        columns: dict[str, Column] = {"length": shrink(self._lengths[chosen])}
        if self._has_any:
            for name, values in zip(("first", "stop"), self._segments, strict=True):
                columns[name] = shrink(values[chosen])
        return columns


def _plan_length(preprocessing: Preprocessing, cut: Cut) -> int:
    """Return the number of frames of a video whose clip is not opened yet.

    Raises:
        UsageError: The number depends on the clip.
    """
    if preprocessing.num_frames is not None:
        return preprocessing.num_frames
    if preprocessing.stride is None or cut.stop is None:
        raise UsageError(
            "scan: expected full where clips have to be opened to tell how long their videos are, "
            "found lazy. Set scan to full; or sample by num_frames, or by stride with start_frame "
            "and end_frame in every row."
        )
    return len(range(cut.first or 0, cut.stop, preprocessing.stride))
