"""`featx scan`: what a data set's folder holds, without weights and without decoding a frame."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from featx.commands.parser import ConciseParser
from featx.data.choices import SourceName
from featx.data.manifest import Manifest
from featx.data.media.processed_file import FILE_NAME
from featx.data.settings import VideoSettings
from featx.data.sources import choose_source
from featx.data.storage import listed, locate
from featx.data.tree import walk_files


def main(args: Sequence[str], summary: str) -> int:
    """Run `featx scan`; returns its exit status."""
    parser = ConciseParser(prog="featx scan", description=summary)
    parser.add_function_arguments(scan, as_positional=True, skip={"as_json"})
    parser.add_argument("--json", dest="as_json", action="store_true", help="print one JSON object")
    return 0 if scan(**vars(parser.parse_args(args))) else 1


def scan(
    root: str | Path,
    source: SourceName | None = None,
    as_json: bool = False,
    **inputs: Any,  # noqa: ANN401  # fields of VideoSettings
) -> bool:
    """Print what featx predict would take of a folder, and what it would skip.

    Every header, and every packet of a clip, is read and checked.

    Args:
        root: The data set's folder; with a table, what its paths are relative to.
        source: What to look for: processed (processed_data.pt files), clips, or frames (folders of
            images). By default clips, if there is no processed_data.pt.
        as_json: Print one JSON object.
        **inputs: Which videos and frames; see `VideoSettings`.

    Returns:
        Whether featx predict would begin: there are videos in each split, and no bad inputs.

    Raises:
        MissingInputError: The folder or a split does not exist.
    """
    if source is None:
        has_clips = inputs.get("table") is not None or inputs.get("layout") == "flat"
        source = "clips" if has_clips or not _has_processed_files(root) else "processed"
    videos = VideoSettings(root=root, source=source, **inputs)
    settings = replace(videos.to_scan(), thorough=True, strict=False, progress=True)
    manifest = choose_source(source, settings).scan(settings)
    bad = [str(error) for errors in manifest.rejected.values() for error in errors.values()]
    if as_json:
        found = manifest.summary.to_json() if manifest.summary else {}
        print(json.dumps({"source": source, **found, "bad_inputs": bad}, indent=2))
    else:
        print(_format(manifest, source, bad))
    return not bad and len(manifest) > 0


def _has_processed_files(root: str | Path) -> bool:
    place = locate(root)
    with listed(place):
        return any(parts[-1] == FILE_NAME for parts in walk_files(place))


def _format(manifest: Manifest, source: SourceName, bad: Sequence[str]) -> str:
    lines = [f"{manifest.root}, source {source}", ""]
    lines += [f"  {line}" for line in (manifest.summary.to_lines() if manifest.summary else ())]
    lines += [f"  bad: {line}" for error in bad for line in error.splitlines()]
    return "\n".join(lines)
