"""The source of a table: a row a video, which is a clip, or a segment or a part of one."""

import math
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from featx.console import make_bar
from featx.data.cells import Cell, is_empty, to_integer
from featx.data.clip_file import Box, Needs, Opened, is_known, open_clip
from featx.data.clip_files import ClipColumns, ClipFiles
from featx.data.clip_source import check_decoder
from featx.data.columns import (
    NOTHING,
    Column,
    Index,
    NumberColumn,
    TextColumn,
    Texts,
    shrink,
)
from featx.data.cut import Cut, find_part, show
from featx.data.folders import ALL, is_name
from featx.data.manifest import UNLABELLED, Manifest, ScanSettings
from featx.data.preprocessing import Preprocessing
from featx.data.scan import Rejections, map_inputs, summarize_scan
from featx.data.storage import check_name_in, join, stat
from featx.data.table import KNOWN, Table, read_table
from featx.data.timeline import Segment
from featx.data.video_file import Home
from featx.errors import InputError, MissingInputError, UsageError, first_line, shorten

_THREADS = 4
_FURTHEST = 2**31  # frames and pixels that a table may name


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
    rows = _Rows(table, labels, settings, splits, rejected)
    # A table may have a million rows: what has been read of it is not kept twice.
    for name in KNOWN:
        table.columns.pop(name, None)
    columns, made = ClipColumns(), _Results(len(rows.names))
    numbers = np.zeros(len(rows.paths), np.int64)  # of the clips that could be opened
    num_unknown = 0
    if settings.scan == "full":
        num_unknown = sum(path not in settings.scan_cache for path in rows.paths)
    clip_numbers = range(len(rows.paths))
    with closing(map_inputs(rows.open, clip_numbers, num_unknown, _THREADS)) as ahead:
        bar = make_bar(ahead, "Scanning", len(rows.paths), "clip", settings.progress)
        for (clip, opening), of_clip in zip(bar, rows.group(), strict=True):
            numbers[clip] = len(columns)
            for row in of_clip:
                where = table.where(rows.lines[row])
                with rejected.collect(rows.homes[rows.codes[row]].split, where), _telling(where):
                    opened, cut = opening.result(), rows.find_cut(row)
                    if opened is None:
                        made.note_lazy(row, _plan_length(settings.preprocessing, cut), cut)
                        if numbers[clip] == len(columns):
                            columns.append_unopened(rows.paths[clip])
                        continue
                    segment = find_part(cut, opened)
                    made.note(row, opened.count_frames(segment), segment)
                    if numbers[clip] == len(columns):
                        columns.append(opened)
                        if opened.is_new:
                            settings.scan_cache.note(opened.name, opened.cache_entry)
    chosen = rows.choose(made.is_found)
    videos = {**rows.select(chosen), **made.select(chosen)}
    if settings.scan == "lazy":
        videos["lazy"] = shrink(made.is_lazy[chosen])
    if settings.preprocessing.fps is None:
        # Of what is found, only by time does it matter when a segment begins.
        for name in ("begin", "end"):
            videos[name] = shrink(np.where(made.is_lazy[chosen], videos[name], np.nan))
    clips = numbers[rows.clips[chosen]]
    if not np.array_equal(clips, np.arange(len(columns))):
        videos["clip"] = shrink(clips)
    elif rows.are_paths:
        del videos["name"]
    files = ClipFiles.build(settings.root, settings.preprocessing, columns, rows.homes, videos)
    lines = rows.lines[chosen]
    manifest = Manifest(
        settings.root,
        labels.categories,
        files,
        rejected,
        settings.preprocessing.describe("uint8"),
        columns={
            name: cells.take(lines) if isinstance(cells, Texts) else cells[lines]
            for name, cells in table.find_extra().items()
        },
        has_times=True,
    )
    rejected.check(settings, manifest.positions)
    manifest.summary = summarize_scan(
        settings, manifest, (), lambda name: False, (), files.find_traits()
    )
    return manifest


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
    """The rows of the splits that are wanted, in columns; what is wrong with others is collected.

    Attributes:
        homes: The splits and categories that there are.
        codes: Which of these each row is of.
        lines: Which row of the table each is.
        paths: The clips, in the order of the table.
        clips: Which of these each row is of.
        names: What the video of each is called.
        are_paths: Whether all names are the paths of clips.
    """

    def __init__(
        self,
        table: Table,
        labels: "_Labels",
        settings: ScanSettings,
        splits: Sequence[str],
        rejected: Rejections,
    ) -> None:
        self._settings = settings
        self._splits = splits
        self._rejected = rejected
        self._lines, self._codes, self._clips = NumberColumn(), NumberColumn(), NumberColumn()
        self._homes: dict[Home, int] = {}
        self.paths = TextColumn()
        self._by_path = Index(self.paths)
        self._cuts = {name: NumberColumn(np.nan, "d") for name in ("begin", "end")}
        self._cuts |= {name: NumberColumn() for name in ("first", "stop")}
        self._cuts |= {name: NumberColumn(0) for name in Box._fields}  # where it has no inside
        self._have_segments, self._have_boxes = bytearray(), bytearray()
        self.names = TextColumn()
        self.are_paths = True
        self._by_name = {split: Index(self.names) for split in splits}
        self._repeated: Counter[tuple[str, str]] = Counter()
        self._read(table, labels)
        self.homes = [*self._homes]
        self.lines, self.codes = self._lines.freeze(), self._codes.freeze()
        self.clips = self._clips.freeze()
        # What has been read is found by its number from now on.
        del self._by_name, self._by_path, self._repeated

    def _read(self, table: Table, labels: "_Labels") -> None:
        known = [name for name in KNOWN if name in table.columns]
        for line, values in enumerate(zip(*(table.columns[name] for name in known), strict=True)):
            cells = dict(zip(known, values, strict=True))
            split = cells.get("split", ALL)
            if not _is_split(split):
                where = table.where(line)
                with self._rejected.collect(self._splits[0], where):
                    raise InputError(
                        f"{where}: expected the name of a split, found {split!r}. Mend the row."
                    )
            elif str(split) in self._splits:
                where = table.where(line)
                with self._rejected.collect(str(split), where):
                    self._add(table, line, labels, str(split), cells, where)

    def _add(
        self,
        table: Table,
        line: int,
        labels: "_Labels",
        split: str,
        cells: Mapping[str, Cell],
        where: str,
    ) -> None:
        if is_empty(cells["path"]):
            raise InputError(f"{where}: expected a path, found none. Fill it in.")
        path = str(cells["path"])
        home = Home(split, labels.find(cells.get("label"), where))
        cut = _read_cut(cells, where)
        name = self._find_name(split, path, cut, cells.get("id"), where, table)
        row = len(self.names)
        self.names.append(name)
        self._by_name[split].add(name, row)
        self.are_paths = self.are_paths and name == path
        clip = self._by_path.find(path)
        if clip is None:
            clip = len(self.paths)
            self.paths.append(path)
            self._by_path.add(path, clip)
            self._have_segments.append(0)
            self._have_boxes.append(0)
        self._have_segments[clip] |= cut.is_segment
        self._have_boxes[clip] |= cut.box is not None
        self._lines.append(line)
        self._clips.append(clip)
        self._codes.append(self._homes.setdefault(home, len(self._homes)))
        values = (*cut[:4], *(cut.box or (None,) * len(Box._fields)))
        for column, value in zip(self._cuts.values(), values, strict=True):
            column.append(value)

    def _find_name(
        self, split: str, path: str, cut: Cut, given: Cell, where: str, table: Table
    ) -> str:
        """What the video is called: its id, or what tells it from others."""
        known = self._by_name[split]
        if not is_empty(given):
            name = str(given)
            if (other := known.find(name)) is not None:
                raise InputError(
                    f"{where}: expected an id of its own, found {name!r}, which "
                    f"{table.where(self._lines[other])} has, too. Mend one of them."
                )
        else:
            name = plain = path + cut.to_fragment()
            while name in known:
                self._repeated[split, plain] += 1
                name = f"{plain} ({1 + self._repeated[split, plain]})"
        if not is_name(name):
            raise InputError(
                f"{where}: expected an id in UTF-8 without NUL, found {name!r}. Mend it."
            )
        return name

    def open(self, clip: int) -> Opened | None:
        """Check one of the clips, as far as its rows need it.

        Returns:
            What it says of itself; None if it is to be opened when its turn comes.

        Raises:
            InputError: It is not good, or there is none.
        """
        settings, path = self._settings, self.paths[clip]
        assert settings.table is not None
        check_name_in(settings.table, settings.root, path)
        place = join(settings.root, path)
        needs = Needs(
            settings.thorough, bool(self._have_segments[clip]), bool(self._have_boxes[clip])
        )
        given, known = settings.preprocessing, settings.scan_cache
        if settings.scan == "lazy" and not is_known(place, given, needs, path, known):
            return None
        try:
            stat(place)
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
        return open_clip(place, given, needs, path, known)

    def group(self) -> Iterator[list[int]]:
        """The rows of each clip, in order."""
        order = np.argsort(self.clips, kind="stable")
        bounds = np.searchsorted(self.clips[order], np.arange(len(self.paths) + 1))
        return (order[start:stop].tolist() for start, stop in pairwise(bounds))

    def find_cut(self, row: int) -> Cut:
        """What is to be taken of the clip of a row."""
        begin, end = (self._cuts[name][row] for name in ("begin", "end"))
        first, stop = (self._cuts[name][row] for name in ("first", "stop"))
        box = Box(*(self._cuts[name][row] for name in Box._fields))
        return Cut(
            None if math.isnan(begin) else begin,
            None if math.isnan(end) else end,
            None if first == NOTHING else first,
            None if stop == NOTHING else stop,
            box if box.right > box.left else None,
        )

    def choose(self, is_found: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Those of all rows whose videos there are, split after split."""
        ranks = {split: rank for rank, split in enumerate(self._splits)}
        of_homes = np.array([ranks[home.split] for home in self.homes], np.int64)
        order = of_homes[self.codes]
        rows = np.flatnonzero(is_found)
        chosen: NDArray[np.int64] = rows[np.argsort(order[rows], kind="stable")]
        return chosen

    def select(self, chosen: NDArray[np.int64]) -> dict[str, Column]:
        """The columns of some rows that do not depend on their clips."""
        columns: dict[str, Column] = {"home": shrink(self.codes[chosen])}
        for name, column in self._cuts.items():
            columns[name] = shrink(column.freeze()[chosen])
        columns["name"] = self.names.freeze().take(chosen)
        return columns


class _Results:
    """What has become of rows: how long their videos are, and which frames they are of."""

    def __init__(self, count: int) -> None:
        self.is_found, self.is_lazy = np.zeros(count, bool), np.zeros(count, bool)
        self._lengths = np.zeros(count, np.int32)
        self._segments = np.full((2, count), NOTHING, np.int32)
        self._has_any = False

    def note(self, row: int, length: int, segment: Segment | None) -> None:
        """Note what there is of a row."""
        self.is_found[row], self._lengths[row] = True, length
        if segment is not None:
            self._segments[:, row] = segment[:2]
            self._has_any = True

    def note_lazy(self, row: int, length: int, cut: Cut) -> None:
        """Note what there will be of a row whose clip is not opened yet."""
        first, stop = (NOTHING if side is None else side for side in (cut.first, cut.stop))
        self.note(row, length, Segment(first, stop) if cut.is_segment else None)
        self.is_lazy[row] = True

    def select(self, chosen: NDArray[np.int64]) -> dict[str, Column]:
        """The columns of some rows."""
        columns: dict[str, Column] = {"length": shrink(self._lengths[chosen])}
        if self._has_any:
            for name, values in zip(("first", "stop"), self._segments, strict=True):
                columns[name] = shrink(values[chosen])
        return columns


def _plan_length(preprocessing: Preprocessing, cut: Cut) -> int:
    """Frames of a video of a clip that is not opened yet.

    Raises:
        UsageError: That does not follow.
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


def _read_cut(cells: Mapping[str, Cell], where: str) -> Cut:
    """What a row asks for of its clip."""
    cut = Cut(
        begin=_to_number(cells.get("start"), "start", where),
        end=_to_number(cells.get("end"), "end", where),
        first=_to_frame(cells.get("start_frame"), "start_frame", where),
        stop=_to_frame(cells.get("end_frame"), "end_frame", where),
        box=_to_box(cells, where),
    )
    if cut.is_timed and (cut.first is not None or cut.stop is not None):
        raise InputError(
            f"{where}: expected a segment in seconds or in frames, found both. Leave one out."
        )
    for name, begin, end in (("end", cut.begin, cut.end), ("end_frame", cut.first, cut.stop)):
        if end is not None and end <= (begin or 0):
            raise InputError(
                f"{where}: expected {name} after {show(begin or 0)}, where the segment "
                f"begins, found {show(end)}. Mend the row."
            )
    return cut


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
    if not 0 <= number < _FURTHEST or number != int(number):
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
        if any(abs(side) >= _FURTHEST for side in box):
            raise ValueError
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
