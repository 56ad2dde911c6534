"""What a data set may be made of: a scanner for each kind of source.

A new kind is a scanner in a file beside `processed_source` and `clip_source`, the class of its
files beside `processed_file` and `clip_file`, and here its name and its entry.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import NamedTuple, cast, get_args

from featx.data.choices import LayoutName, ScanName, SourceName
from featx.data.manifest import Manifest, ScanSettings
from featx.data.preprocessing import Preprocessing
from featx.data.processed_source import find_processed_splits, scan_processed
from featx.data.storage import listed
from featx.errors import UsageError, check_choice

Scan = Callable[[ScanSettings], Manifest]
FindSplits = Callable[[ScanSettings], list[str]]


class Source(NamedTuple):
    """A kind of source.

    Attributes:
        scan: Lists the videos: from settings to a manifest.
        find_splits: The splits that a scan will be of.
        max_workers: How many processes per rank are worth while, where a GPU waits for videos.
        are_clips: Whether it is of clips, which are sampled and resized on the way; otherwise, its
            files tell by themselves that a byte has changed.
    """

    scan: Scan
    find_splits: FindSplits
    max_workers: int
    are_clips: bool


def _of_clips(module: str, scan: str, find_splits: str) -> Source:
    """A source of clips, which needs PyAV: that is optional, and imported when it is used."""

    def scan_late(settings: ScanSettings) -> Manifest:
        return _scan_listed(cast(Scan, getattr(import_module(module), scan)), settings)

    def find_splits_late(settings: ScanSettings) -> list[str]:
        return cast(FindSplits, getattr(import_module(module), find_splits))(settings)

    return Source(scan_late, find_splits_late, max_workers=16, are_clips=True)


def _scan_processed(settings: ScanSettings) -> Manifest:
    return _scan_listed(scan_processed, settings)


def _scan_listed(scan: Scan, settings: ScanSettings) -> Manifest:
    """Scan a folder that is listed once, if it is remote; of a table, the table is the list."""
    if settings.table:
        return scan(settings)
    with listed(settings.root):
        return scan(settings)


SOURCES: dict[SourceName, Source] = {
    # One process reads some 80 uint8 videos of 64 x 256 x 256 a second, but decodes few clips.
    "processed": Source(_scan_processed, find_processed_splits, max_workers=4, are_clips=False),
    "clips": _of_clips("featx.data.clip_source", "scan_clips", "find_splits"),
    "frames": _of_clips("featx.data.clip_source", "scan_frames", "find_splits"),
}

TABLE = _of_clips("featx.data.table_source", "scan_table", "find_table_splits")
"""A table says itself what each of its rows is."""


def check_source(
    name: SourceName,
    layout: LayoutName,
    table: object | None,
    columns: Mapping[str, str] | None,
) -> None:
    """Check that settings of a source fit each other.

    Raises:
        UsageError: They do not.
    """
    check_choice("source", name, tuple(SOURCES))
    check_choice("layout", layout, get_args(LayoutName))
    if layout == "flat" and (name == "processed" or table is not None):
        raise UsageError(
            f"layout: expected tree with {'a table' if table else 'the source processed'}, "
            "found flat. It is for clips in a folder: set source to clips or frames."
        )
    if columns and table is None:
        raise UsageError("columns: expected a table that has them, found none. Give table.")


def check_scan(
    scan: ScanName, source: SourceName, table: object | None, preprocessing: Preprocessing
) -> None:
    """Check that a scan need not open what it is not to open.

    Raises:
        UsageError: It has to.
    """
    check_choice("scan", scan, get_args(ScanName))
    if scan == "full":
        return
    if source != "clips" and table is None:
        raise UsageError(
            f"scan: expected full with the source {source}, found lazy. It is for a table, and for "
            "the source clips."
        )
    if preprocessing.fps is not None or (preprocessing.stride is not None and table is None):
        raise UsageError(
            "scan: expected full where clips have to be opened to tell how long their videos are, "
            "found lazy. Set scan to full; or sample by num_frames, or by stride with a table that "
            "has start_frame and end_frame."
        )


def choose_source(name: SourceName, settings: ScanSettings) -> Source:
    """The source that a person asks for: that of a table, if there is one."""
    return TABLE if settings.table else SOURCES[name]
