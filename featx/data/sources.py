"""What a data set may be made of: a scanner for each kind of source.

A new kind is a scanner in a file beside `processed_source` and `clip_source`, the class of its
files beside `processed_file` and `clip_file`, and here its name and its entry.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

from featx.data.manifest import Manifest, ScanSettings
from featx.data.processed_source import scan_processed

SourceName = Literal["processed", "clips"]


class Source(NamedTuple):
    """A kind of source.

    Attributes:
        scan: Lists the videos: from settings to a manifest.
        max_workers: How many processes per rank are worth while, where a GPU waits for videos.
        has_checksums: Whether its files tell by themselves that a byte has changed.
    """

    scan: Callable[[ScanSettings], Manifest]
    max_workers: int
    has_checksums: bool


def _scan_clips(settings: ScanSettings) -> Manifest:
    from featx.data.clip_source import scan_clips  # it needs PyAV, which is optional

    return scan_clips(settings)


SOURCES: dict[SourceName, Source] = {
    # One process reads some 80 uint8 videos of 64 x 256 x 256 a second, but decodes few clips.
    "processed": Source(scan_processed, max_workers=4, has_checksums=True),
    "clips": Source(_scan_clips, max_workers=16, has_checksums=False),
}
