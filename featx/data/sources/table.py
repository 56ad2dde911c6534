"""Scan a table: each row is a video, which is a clip, or a segment or a part of a clip."""

from collections.abc import Generator, Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from featx.data.cells import TEXT, each
from featx.data.columns import NOTHING, Column, from_arrow, shrink
from featx.data.manifest import Manifest, ScanSettings
from featx.data.media.clip import Needs, Opened, is_known, open_clip
from featx.data.media.cut import Cut, find_part
from featx.data.media.preprocessing import Preprocessing
from featx.data.media.timeline import Segment
from featx.data.scan import Rejections, map_inputs, summarize_scan
from featx.data.sources.clip_rows import ClipColumns, ClipFiles
from featx.data.sources.clips import check_decoder
from featx.data.sources.table_rows import Rows, find_cut, is_split, read_rows
from featx.data.storage import check_name_in, join, stat
from featx.data.table import KNOWN, Table, read_table
from featx.data.tree import ALL
from featx.errors import InputError, MissingInputError, UsageError, first_line, shorten
from featx.progress import make_bar

_THREADS = 4
_SEGMENT = ("begin", "end", "first", "stop")


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
    rows = read_rows(table, splits)
    for row, (split, error) in rows.errors.items():
        rejected[split][table.where(row)] = error
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
                    opened, cut = opening.result(), find_cut(rows.cuts, row)
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
    return from_arrow(taken.dictionary_encode() if taken.type == TEXT else taken)


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
        found = [cell for cell in table.columns["split"].unique().to_pylist() if is_split(cell)]
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


class _Opener:
    """Opens the clips of a table, each as far as its rows need it."""

    def __init__(self, settings: ScanSettings, rows: Rows) -> None:
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
