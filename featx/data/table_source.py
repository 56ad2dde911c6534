"""The source of a table: a row a video, which is a clip, or a segment or a part of one."""

import math
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from featx.console import make_bar
from featx.data.clip_file import Box, ClipFile, Needs, Opened, open_clip
from featx.data.clip_source import check_decoder
from featx.data.folders import ALL, is_name
from featx.data.manifest import (
    UNLABELLED,
    Home,
    Manifest,
    Rejections,
    ScanSettings,
    VideoFile,
    summarize_scan,
)
from featx.data.preprocessing import to_fraction
from featx.data.table import KNOWN, Cell, Table, is_empty, read_table, to_integer
from featx.data.timeline import Segment
from featx.errors import InputError, MissingInputError, first_line, shorten
from featx.parallel import map_ahead

_THREADS = 4
_SECONDS_OFF = 0.1  # by which a segment may end after its clip: its end was rounded


class Row(NamedTuple):
    """What a row of a table asks for.

    Attributes:
        number: Which row it is.
        home: Its split and category.
        path: The clip.
        name: What its video is called.
        begin: When its segment begins, in seconds.
        end: When it ends.
        first: With which frame it begins.
        stop: Before which frame it ends.
        box: Which part of each frame.
    """

    number: int
    home: Home
    path: str
    name: str
    begin: float | None = None
    end: float | None = None
    first: int | None = None
    stop: int | None = None
    box: Box | None = None

    @property
    def is_timed(self) -> bool:
        """Whether its segment is in seconds."""
        return self.begin is not None or self.end is not None

    @property
    def is_segment(self) -> bool:
        """Whether it is less than its clip."""
        return self.is_timed or self.first is not None or self.stop is not None


def find_table_splits(settings: ScanSettings) -> list[str]:
    """The splits asked for, or all that the table has, in its order.

    Raises:
        MissingInputError: One is not in the table.
    """
    return _choose_splits(settings, _read(settings))


def scan_table(settings: ScanSettings) -> Manifest:
    """List the videos of a table, in its order.

    Every clip is opened once, however many rows are of it.

    Raises:
        MissingInputError: There is no such table, or a split is not in it.
        InputError: It cannot be read, or rows of it are wrong; or a split has no others.
    """
    check_decoder(settings)
    table = _read(settings)
    splits = _choose_splits(settings, table)
    labels = _Labels(table)
    rejected = Rejections(splits)
    for line, error in table.bad.items():
        rejected[splits[0]][table.where_line(line)] = error
    by_path: dict[str, list[Row]] = {}
    for row in _Rows(table, labels, splits, rejected):
        by_path.setdefault(row.path, []).append(row)
    # A table may have a million rows: what has been read of it is not kept twice.
    for name in KNOWN:
        table.columns.pop(name, None)
    needs = {
        path: Needs(
            settings.thorough, any(row.is_segment for row in rows), any(row.box for row in rows)
        )
        for path, rows in by_path.items()
    }
    found: list[ClipFile | None] = [None] * len(table)

    def check_and_open(path: str) -> Opened:
        place = settings.root / path
        try:
            place.stat()
        except FileNotFoundError as error:
            raise MissingInputError(
                f"{place}: expected a clip or a folder of frames, found nothing. Mend the path, "
                "or set root to the folder that paths are relative to."
            ) from error
        except (OSError, ValueError) as error:
            raise InputError(
                f"{shorten([place])}: expected a clip or a folder of frames, found: "
                f"{first_line(error)}. Mend the path, or its permissions."
            ) from error
        return open_clip(place, settings.preprocessing, needs[path], path, settings.known)

    with closing(map_ahead(check_and_open, [*by_path], _THREADS, "scanning")) as ahead:
        bar = make_bar(ahead, "Scanning", len(by_path), "clip", settings.progress)
        for path, opening in bar:
            for row in by_path.pop(path):
                where = table.where(row.number)
                with rejected.collect(row.home.split, where), _telling(where):
                    clip = opening.result()
                    found[row.number] = _take(row, clip)
                    settings.known.note(path, clip.facts)
    ranks = {split: rank for rank, split in enumerate(splits)}
    order = np.fromiter((ranks[file.split] if file else -1 for file in found), np.int64)
    chosen = np.argsort(order, kind="stable")[np.count_nonzero(order < 0) :]
    files: list[VideoFile] = [file for number in chosen if (file := found[number])]
    rejected.check(settings, files)
    columns = {name: cells[chosen] for name, cells in table.find_extra().items()}
    are_plain = all(file.is_plain for file in files)
    return Manifest(
        settings.root,
        labels.categories,
        files,
        rejected,
        settings.preprocessing.describe("uint8", are_plain),
        summarize_scan(settings, files, rejected, (), lambda name: False, ()),
        columns,
        has_times=True,
    )


@contextmanager
def _telling(where: str) -> Iterator[None]:
    """Have an error begin with the row of the table."""
    try:
        yield
    except InputError as error:
        raise type(error)(f"{where}: {error}") from error


def _read(settings: ScanSettings) -> Table:
    assert settings.table is not None
    return read_table(settings.table, settings.columns, settings.root)


def _choose_splits(settings: ScanSettings, table: Table) -> list[str]:
    cells = table.columns.get("split")
    if cells is None:
        found = [ALL]
    else:
        found = [str(cell) for cell in dict.fromkeys(cells) if _is_split(cell)]
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


def _is_split(cell: Cell) -> bool:
    """Whether a cell can be the name of a split: that of a file."""
    text = "" if cell is None else str(cell)
    return bool(text.strip()) and is_name(text) and "/" not in text and not text.startswith(".")


class _Labels:
    """The categories of a table: names, sorted; or the integers that they already are."""

    def __init__(self, table: Table) -> None:
        cells = table.columns.get("label")
        self.categories: dict[str, int] = {}
        self.has_any = cells is not None
        if cells is None:
            return
        given: dict[Cell, int] = {}  # the first row of each
        for row, cell in enumerate(cells):
            if not is_empty(cell):
                given.setdefault(cell, row)
        integers = {cell: to_integer(cell, table.is_text) for cell in given}
        texts = [cell for cell, number in integers.items() if number is None]
        if len(texts) not in (0, len(given)):
            number = next(cell for cell in given if cell not in texts)
            raise InputError(
                f"{table.where(given[texts[0]])}: expected integers as labels, as "
                f"{table.where(given[number])} has, found {str(texts[0])!r}. Make all labels "
                "integers, or all of them names."
            )
        self._integers = integers if not texts else {}
        if texts:
            names = sorted({self._name(cell) for cell in given})
            self.categories = {name: label for label, name in enumerate(names)}
        else:
            labels = sorted({label for label in integers.values() if label is not None})
            self.categories = {str(label): label for label in labels if label >= 0}

    def find(self, cell: Cell, where: str) -> str | None:
        """The category of a row."""
        if not self.has_any:
            return None
        if is_empty(cell):
            raise InputError(f"{where}: expected a label, found none. Fill it in.")
        if (label := self._integers.get(cell)) is not None:
            if label < UNLABELLED:
                raise InputError(
                    f"{where}: expected a label of 0 or more, or {UNLABELLED} for none, found "
                    f"{label}. Mend it."
                )
            return str(label) if label >= 0 else None
        name = self._name(cell)
        if not is_name(name):
            raise InputError(
                f"{where}: expected a label in UTF-8 without NUL, found {name!r}. Mend it."
            )
        return name

    @staticmethod
    def _name(cell: Cell) -> str:
        return unicodedata.normalize("NFC", str(cell).strip())


class _Rows:
    """The rows of the splits that are wanted; what is wrong with others is collected."""

    def __init__(
        self, table: Table, labels: _Labels, splits: Sequence[str], rejected: Rejections
    ) -> None:
        self._table = table
        self._labels = labels
        self._splits = splits
        self._rejected = rejected
        self._homes: dict[Home, Home] = {}
        self._names: dict[str, dict[str, int]] = {split: {} for split in splits}
        self._repeated: Counter[tuple[str, str]] = Counter()

    def __iter__(self) -> Iterator[Row]:
        columns = {name: self._table.columns[name] for name in KNOWN if name in self._table.columns}
        for number in range(len(self._table)):
            cells = {name: column[number] for name, column in columns.items()}
            split = cells.get("split", ALL)
            where = self._table.where(number)
            if not _is_split(split):
                with self._rejected.collect(self._splits[0], where):
                    raise InputError(
                        f"{where}: expected the name of a split, found {split!r}. Mend the row."
                    )
            elif str(split) in self._splits:
                row = None
                with self._rejected.collect(str(split), where):
                    row = self._read(number, str(split), cells, where)
                if row:
                    yield row

    def _read(self, number: int, split: str, cells: Mapping[str, Cell], where: str) -> Row:
        path = cells["path"]
        if is_empty(path):
            raise InputError(f"{where}: expected a path, found none. Fill it in.")
        home = Home(split, self._labels.find(cells.get("label"), where))
        home = self._homes.setdefault(home, home)
        row = Row(
            number,
            home,
            str(path),
            "",
            begin=_to_number(cells.get("start"), "start", where),
            end=_to_number(cells.get("end"), "end", where),
            first=_to_frame(cells.get("start_frame"), "start_frame", where),
            stop=_to_frame(cells.get("end_frame"), "end_frame", where),
            box=_to_box(cells, where),
        )
        if row.is_timed and (row.first is not None or row.stop is not None):
            raise InputError(
                f"{where}: expected a segment in seconds or in frames, found both. Leave one out."
            )
        for name, begin, end in (("end", row.begin, row.end), ("end_frame", row.first, row.stop)):
            if end is not None and end <= (begin or 0):
                raise InputError(
                    f"{where}: expected {name} after {_show(begin or 0)}, where the segment "
                    f"begins, found {_show(end)}. Mend the row."
                )
        return row._replace(name=self._name(row, cells.get("id"), where))

    def _name(self, row: Row, given: Cell, where: str) -> str:
        """What the video is called: its id, or what tells it from others."""
        known = self._names[row.home.split]
        if not is_empty(given):
            name = str(given)
            if name in known:
                raise InputError(
                    f"{where}: expected an id of its own, found {name!r}, which "
                    f"{self._table.where(known[name])} has, too. Mend one of them."
                )
        else:
            name = plain = row.path + _fragment(row)
            while name in known:
                self._repeated[row.home.split, plain] += 1
                name = f"{plain} ({1 + self._repeated[row.home.split, plain]})"
        if not is_name(name):
            raise InputError(
                f"{where}: expected an id in UTF-8 without NUL, found {name!r}. Mend it."
            )
        known[name] = row.number
        return name


def _fragment(row: Row) -> str:
    """What is taken of a clip, as a fragment of its address.

    Source: W3C, Media Fragments URI 1.0, section 4.2; frames are not in it.
    """
    parts = []
    if row.is_timed:
        begin, end = ("" if value is None else _show(value) for value in (row.begin, row.end))
        parts.append(f"t={begin or 0}" + f",{end}" * bool(end))
    elif row.is_segment:
        parts.append(f"frame={row.first or 0}" + (f",{row.stop}" if row.stop is not None else ""))
    if row.box:
        left, top, right, bottom = row.box
        parts.append(f"xywh={left},{top},{right - left},{bottom - top}")
    return f"#{'&'.join(parts)}" * bool(parts)


def _take(row: Row, clip: Opened) -> ClipFile:
    """The video of a row."""
    segment = None
    if row.is_segment:
        segment = _find_segment(row, clip)
    if row.box and clip.found.size:
        height, width = clip.found.size
        left, top, right, bottom = row.box
        if left < 0 or top < 0 or right > width or bottom > height:
            raise InputError(
                f"expected a box in the frame of {width} x {height} pixels, found left {left}, "
                f"top {top}, right {right}, bottom {bottom}. Mend the row."
            )
    return clip.take(row.name, row.name, row.home, segment, row.box)


def _find_segment(row: Row, clip: Opened) -> Segment:
    timeline = clip.found.timeline
    assert timeline is not None
    count = len(timeline)
    if row.is_timed:
        if not timeline.is_timed:
            raise InputError(
                f"expected to know when the frames of {clip.path} are shown, to find a segment in "
                "seconds, found no frame rate. Set frame_rate, or give start_frame and end_frame."
            )
        seconds = timeline.seconds
        latest = seconds + max(_SECONDS_OFF, seconds / count)
        for name, moment, limit in (("start", row.begin, seconds), ("end", row.end, latest)):
            if moment is not None and moment >= limit:
                raise InputError(
                    f"expected {name} within the {_show(seconds)} s of {clip.path}, "
                    f"found {_show(moment)}. Mend the row."
                )
        segment = timeline.cut(_to_fraction(row.begin), _to_fraction(row.end))
        # Only by time does it matter when, in the time of its first frame, a segment begins.
        return segment if clip.preprocessing.fps else Segment(segment.first, segment.stop)
    first, stop = row.first or 0, count if row.stop is None else row.stop
    if first >= count or stop > count:
        name, value = ("start_frame", first) if first >= count else ("end_frame", stop)
        raise InputError(
            f"expected {name} within the {count} frames of {clip.path}, found {value}. "
            "Mend the row."
        )
    return Segment(first, stop)


def _to_number(cell: Cell, name: str, where: str) -> float | None:
    if is_empty(cell):
        return None
    try:
        number = float(str(cell))
    except ValueError:
        number = -1.0
    if not 0 <= number < math.inf:
        raise InputError(
            f"{where}: expected seconds in {name}, 0 or more, found {cell!r}. Mend the row; "
            "without a number, a segment reaches to the clip's own end."
        )
    return number


def _to_frame(cell: Cell, name: str, where: str) -> int | None:
    if is_empty(cell):
        return None
    try:
        number = float(str(cell))  # a column with gaps may have 12.0 for 12
    except ValueError:
        number = -1.0
    if not 0 <= number < math.inf or number != int(number):
        raise InputError(
            f"{where}: expected the number of a frame in {name}, 0 or more, found {cell!r}. "
            "Mend the row; without a number, a segment reaches to the clip's own end."
        )
    return int(number)


def _to_box(cells: Mapping[str, Cell], where: str) -> Box | None:
    names = Box._fields
    given = [name for name in names if not is_empty(cells.get(name))]
    if not given:
        return None
    if len(given) < len(names):
        missing = [name for name in names if name not in given]
        raise InputError(
            f"{where}: expected left, top, right and bottom of a box, found no "
            f"{', '.join(missing)}. Fill it in, or leave all four empty."
        )
    try:
        box = Box(*(round(float(str(cells[name]))) for name in names))
    except (ValueError, OverflowError):
        found = ", ".join(f"{name} {cells[name]!r}" for name in names)
        raise InputError(
            f"{where}: expected pixels of a box, found {found}. Mend the row."
        ) from None
    if box.right <= box.left or box.bottom <= box.top:
        raise InputError(
            f"{where}: expected a box with an inside, found left {box.left}, top {box.top}, right "
            f"{box.right}, bottom {box.bottom}, in pixels. Mend the row."
        )
    return box


def _to_fraction(number: float | None) -> Fraction | None:
    return None if number is None else to_fraction(number)


def _show(number: float) -> str:
    """A number as a person writes it."""
    return f"{number:.6f}".rstrip("0").rstrip(".") if number < 1e9 else f"{number:g}"
