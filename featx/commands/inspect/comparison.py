"""All videos of a folder, or of a file, beside each other: what is there twice, and the page."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from featx.analysis.overview import look_over
from featx.commands.inspect.duplicates import describe_duplicates, format_duplicates
from featx.commands.inspect.page import (
    choose_detailed,
    find_umap,
    measure_similarities,
    write_page,
)
from featx.data.settings import VideoSettings
from featx.features.folder import open_feature_files


def compare_videos(
    path: Path, multi_scale: bool | None, duplicates: bool, html: Path | None, inputs: VideoSettings
) -> tuple[dict[str, Any], list[str], list[str]]:
    """Compare all videos of valid files: a report by option, and lines to print before and after.

    The page, if there is one, is written.
    """
    datasets = open_feature_files(path, multi_scale)
    source = None
    if html is not None and (inputs.root is not None or inputs.table is not None):
        from featx.commands.inspect.strips import open_source  # it needs Lightning

        made = next(iter(datasets.values())).provenance
        source = open_source(inputs, made, [*datasets])  # before the minutes of reading
    overview = look_over(datasets)
    report: dict[str, Any] = {}
    first, last = [], []
    if duplicates:
        report["duplicates"] = describe_duplicates(overview)
        first.append(format_duplicates(report["duplicates"]))
    if html is not None:
        chosen = choose_detailed(overview)
        similarities = measure_similarities(datasets, overview, chosen)
        strips: dict[int, bytes] = {}
        missing = 0
        if source is not None:
            from featx.commands.inspect.strips import find_positions, read_strips

            positions = find_positions(source, overview.videos, chosen)
            missing = len(chosen) - len(positions)
            strips = dict(read_strips(source, overview.videos, positions))
        write_page(html, path.name, overview, similarities, strips, find_umap())
        report["html"] = {
            "path": str(html),
            "detailed": len(chosen),
            "with_frames": len(strips),
            "not_found": missing,
            "not_the_same": len(chosen) - missing - len(strips) if source is not None else 0,
        }
        last.append(_format_page(report["html"], len(overview.videos)))
    return report, first, last


def _format_page(page: Mapping[str, Any], num_videos: int) -> str:
    """What is said of a page that has been written."""
    words = [f"details of {page['detailed']:,} of {num_videos:,} videos"]
    if page["with_frames"] or page["not_found"] or page["not_the_same"]:
        words.append(f"frames of {page['with_frames']:,}")
    if page["not_found"]:
        words.append(f"{page['not_found']:,} not found among the inputs by their names")
    if page["not_the_same"]:
        words.append(f"{page['not_the_same']:,} that cannot be read, or are others by now")
    return f"page: {page['path']} ({', '.join(words)})"
