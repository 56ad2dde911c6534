"""The table of sources: a scanner for each kind of data set.

A new kind is a scanner in a file beside `processed` and `clips`, its `Files` (the columns of its
videos) in a file beside `processed_rows` and `clip_rows`, and an entry in `SOURCES`.
"""

from collections.abc import Callable
from importlib import import_module
from typing import NamedTuple, cast

from featx.data.choices import SourceName
from featx.data.manifest import Manifest, ScanSettings
from featx.data.sources.processed import find_processed_splits, scan_processed
from featx.data.storage import listed

Scan = Callable[[ScanSettings], Manifest]
FindSplits = Callable[[ScanSettings], list[str]]


class Source(NamedTuple):
    """A kind of source.

    Attributes:
        scan: Lists the videos: from settings to a manifest.
        find_splits: The splits that a scan will be of.
        max_workers: Number of workers per rank by default, where a GPU waits for videos.
    """

    scan: Scan
    find_splits: FindSplits
    max_workers: int


def _of_clips(module: str, scan: str, find_splits: str) -> Source:
    """A source of clips, which needs PyAV: that is optional, and imported when it is used."""

    def scan_late(settings: ScanSettings) -> Manifest:
        return _scan_listed(cast(Scan, getattr(import_module(module), scan)), settings)

    def find_splits_late(settings: ScanSettings) -> list[str]:
        return cast(FindSplits, getattr(import_module(module), find_splits))(settings)

    return Source(scan_late, find_splits_late, max_workers=16)


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
    "processed": Source(_scan_processed, find_processed_splits, max_workers=4),
    "clips": _of_clips("featx.data.sources.clips", "scan_clips", "find_splits"),
    "frames": _of_clips("featx.data.sources.clips", "scan_frames", "find_splits"),
}

TABLE = _of_clips("featx.data.sources.table", "scan_table", "find_table_splits")
"""A table says itself what each of its rows is."""


def choose_source(name: SourceName, settings: ScanSettings) -> Source:
    """Return the source of a table, if there is one, or else the source of this name."""
    return TABLE if settings.table else SOURCES[name]
