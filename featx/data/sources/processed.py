"""The source `processed`: the `processed_data.pt` files of a folder; no pixels are read."""

import json
import os
from collections.abc import Container, Generator, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing, suppress
from typing import Any, NamedTuple

from featx.data.cells import TEXT, CellColumn, to_column
from featx.data.columns import Column, from_arrow
from featx.data.manifest import ANALYSIS_FILE, Manifest, ScanSettings
from featx.data.media.processed_file import FILE_NAME, open_processed_file
from featx.data.media.torch_archive import verify_checksums
from featx.data.scan import Rejections, map_inputs, may_fork, summarize_scan
from featx.data.scan_cache import CacheEntry, FileStamp, ScanCache, stamp_file
from featx.data.sources.processed_rows import Header, ProcessedColumns
from featx.data.storage import Place, is_remote, join, read_bytes, stat
from featx.data.tree import (
    STANDARD_SPLITS,
    check_name,
    choose_splits,
    has_file,
    list_folders,
    normalize_name,
    walk_files,
)
from featx.errors import InputError, MissingInputError, shorten
from featx.parallel import map_ahead
from featx.progress import make_bar

Prepared = Generator[tuple[str, Future[Any]]]

_READ_AHEAD_THREADS = 4
_READ_AHEAD = 64  # files for each thread, which hide the latency of a network disk
_END_BYTES = 2**14


def find_processed_splits(settings: ScanSettings) -> list[str]:
    """The splits asked for; or those of the table that the files were made of; or the usual ones.

    Raises:
        MissingInputError: One does not exist.
    """
    recorded = _read_analysis(settings.root).get("table_splits")
    splits = settings.splits
    if splits is None and isinstance(recorded, list) and all(isinstance(s, str) for s in recorded):
        splits = recorded
    return choose_splits(settings.root, splits)


def scan_processed(settings: ScanSettings) -> Manifest:
    """List the videos under `ROOT/<split>/<category>/<subcategory>/processed_data.pt`.

    Every header is read and checked. Folders whose name begins with a dot are ignored: editors and
    file systems make them.

    Raises:
        MissingInputError: The folder or a split does not exist, or a split has no videos.
        InputError: Files are damaged, or not what featx accepts; or a split has no others.
    """
    root = settings.root
    splits = find_processed_splits(settings)
    analysis = _read_analysis(root)
    categories = _list_categories(root, splits, analysis.get("categories"))
    rejected = Rejections(splits)
    places = [place for split in splits for place in _list_split(root, split, rejected)]
    files, notes = ProcessedColumns(), _Notes()

    def recall(place: str) -> ScannedFile | None:
        return None if settings.verify else _recall(root, place, settings.scan_cache)

    def prepare(place: str) -> ScannedFile | None:
        """Have what takes time done: threads read ahead, but one alone interprets what they read.

        Several would only contend for the interpreter.
        """
        path = _join(root, place)
        found = recall(place)
        if found is None:
            verify_checksums(path) if settings.verify else _read_ends(path)
        return found or (_inspect(root, place) if is_remote(root) else None)

    def inspect(place: str) -> ScannedFile:
        return prepare(place) or _inspect(root, place)

    num_unknown = (
        len(places) if settings.verify else sum(p not in settings.scan_cache for p in places)
    )
    if may_fork(num_unknown):
        ahead: Prepared = map_inputs(inspect, places, num_unknown, _READ_AHEAD_THREADS)
    else:
        ahead_of_each = 2 if settings.verify else _READ_AHEAD
        ahead = map_ahead(prepare, places, _READ_AHEAD_THREADS, "read-ahead", ahead_of_each)
    with closing(ahead):
        for place, prepared in make_bar(ahead, "Scanning", len(places), "file", settings.progress):
            split = place.split("/")[0]
            with rejected.collect(split, place):
                found = prepared.result() or _inspect(root, place)
                header = found.header
                rejected[split] |= {f"{place}/{i}": bad for i, bad in header.rejected.items()}
                if header.videos:
                    files.append(place, header)
                    notes.append(header)
                if found.is_new:
                    settings.scan_cache.note(place, found.cache_entry)
    listed = files.freeze(root, settings.pixels)
    recorded = analysis.get("preprocessing_info")
    manifest = Manifest(
        categories,
        listed,
        rejected,
        recorded if isinstance(recorded, dict) else None,
        columns=notes.freeze(),
        has_times=listed.have_times,
    )
    rejected.check(settings, manifest.positions)
    inputs = _ListedPaths({*places})
    manifest.summary = summarize_scan(settings, manifest, inputs, _is_input, walk_files(root))
    return manifest


class ScannedFile(NamedTuple):
    """A file that a scan has read, or has found in the scan cache.

    Attributes:
        stamp: Its size, times and inode.
        header: Its header.
        is_new: False if it was in the scan cache.
    """

    stamp: FileStamp
    header: Header
    is_new: bool

    @property
    def cache_entry(self) -> CacheEntry:
        """The entry of the file for the scan cache."""
        header, (stats, file, is_settled) = self.header, self.stamp
        is_settled = is_settled and stats == header.stats and not header.rejected
        return CacheEntry(stats, header.digest, header.to_json(), file, is_settled)


def _recall(root: Place, place: str, cache: ScanCache) -> ScannedFile | None:
    """Return a file from the scan cache; None if it is not there, or has changed since."""
    if place not in cache:
        return None
    try:
        stamp = stamp_file(_join(root, place))
    except OSError:  # which is told when it is opened
        return None
    entry = cache.find(place, stamp.stats, stamp.file)
    header = Header.from_json(entry.survey, entry.digest, entry.stats) if entry else None
    return ScannedFile(stamp, header, is_new=False) if header else None


def _inspect(root: Place, place: str) -> ScannedFile:
    """Read the header of a file.

    Raises:
        InputError: It is damaged, or holds something else.
    """
    path = _join(root, place)
    check_name(path, f"{place}/{FILE_NAME}")
    try:
        stamp = stamp_file(path)  # as it is before it is read
    except OSError:
        stamp = FileStamp((0, 0), (0, 0), is_settled=False)
    return ScannedFile(stamp, Header.of(open_processed_file(path)), is_new=True)


class _ListedPaths:
    """The paths of the files that the scan uses or rejects."""

    def __init__(self, places: Container[str]) -> None:
        self._places = places

    def __contains__(self, name: object) -> bool:
        place, _, file = str(name).rpartition("/")
        return name == ANALYSIS_FILE or (file == FILE_NAME and place in self._places)


class _Notes:
    """The notes of all videos, a column a name; a cell is empty where a video has no such note."""

    def __init__(self) -> None:
        self._count = 0
        self._columns: dict[str, CellColumn] = {}

    def append(self, header: Header) -> None:
        """Add the notes of a file."""
        of_videos = header.columns or ()
        for name in {name: None for cells in of_videos for name in cells}:
            if name not in self._columns:
                self._columns[name] = CellColumn()
                self._columns[name].extend([None] * self._count)
        for name, column in self._columns.items():
            for cells in of_videos:
                column.append(cells.get(name))
            column.extend([None] * (len(header.videos) - len(of_videos)))
        self._count += len(header.videos)

    def freeze(self) -> dict[str, Column]:
        """Return the columns, sorted."""
        columns = {
            name: to_column(c.to_array(), False) for name, c in sorted(self._columns.items())
        }
        return {
            name: from_arrow(cells.dictionary_encode() if cells.type == TEXT else cells)
            for name, cells in columns.items()
        }


def _join(root: Place, place: str) -> str:
    return join(root, f"{place}/{FILE_NAME}")


def _read_analysis(root: Place) -> dict[str, Any]:
    """Return what is noted beside the files; an empty dict if that cannot be read."""
    try:
        content = json.loads(read_bytes(join(root, ANALYSIS_FILE)))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _is_input(name: str) -> bool:
    return name == FILE_NAME


def _list_categories(root: Place, splits: Sequence[str], recorded: object) -> dict[str, int]:
    """Label of each category of the standard splits and of others: one mapping for all of them.

    Where labels are not those of sorted names, the record beside the files says which they are.

    Raises:
        InputError: It does not say it of all.
    """
    mapped = [name for name in list_folders(root) if name in {*STANDARD_SPLITS, *splits}]
    names = {normalize_name(name) for split in mapped for name in list_folders(join(root, split))}
    if isinstance(recorded, dict):
        if unknown := sorted(names - recorded.keys()):
            raise InputError(
                f"{join(root, ANALYSIS_FILE)}: expected the label of each category, found none of "
                f"{shorten(unknown)}. Run featx preprocess again, or remove their folders."
            )
        labels = {name: label for name, label in recorded.items() if isinstance(label, int)}
        return {name: label for name, label in labels.items() if label >= 0}
    return {name: label for label, name in enumerate(sorted(names))}


def _list_split(root: Place, split: str, rejected: Rejections) -> Iterator[str]:
    """Places of the files of one split, in row order; what is wrong with its folders is added."""
    is_empty = True
    for category in list_folders(join(root, split)):
        inside = f"{split}/{category}"
        folder = join(root, inside)
        with rejected.collect(split, inside):
            for subcategory in list_folders(folder):
                with rejected.collect(split, f"{inside}/{subcategory}"):
                    if has_file(join(folder, subcategory), FILE_NAME):
                        is_empty = False
                        yield f"{inside}/{subcategory}"
            if has_file(folder, FILE_NAME):
                raise InputError(
                    f"{join(folder, FILE_NAME)}: expected "
                    f"{root}/<split>/<category>/<subcategory>/{FILE_NAME}, "
                    "found it in the category's own folder. Move it into a subcategory's."
                )
    if is_empty and not rejected[split]:
        rejected[split][split] = MissingInputError(
            f"{join(root, split)}: expected videos at <category>/<subcategory>/{FILE_NAME}, found "
            "none. Make them from clips with: featx preprocess RAW_DIR PROCESSED_DIR; or set "
            "source to clips or frames."
        )


def _read_ends(path: Place) -> None:
    """Have the system cache the two ends of a file, which describe what is in it."""
    if is_remote(path):
        return
    with suppress(OSError):  # it comes again when the file is read
        if (status := stat(path)).is_file:  # and not a pipe, which would wait
            with open(path, "rb", buffering=0) as file:
                file.read(_END_BYTES)
                file.seek(-min(_END_BYTES, status.size), os.SEEK_END)
                file.read(_END_BYTES)
