"""`featx scan`: what a data set's folder holds, without weights and without decoding a frame."""

import json
from collections.abc import Sequence
from pathlib import Path

from featx.commands.parser import ConciseParser
from featx.data.choices import LayoutName, SourceName
from featx.data.folders import walk_files
from featx.data.manifest import Manifest, ScanSettings
from featx.data.preprocessing import Preprocessing
from featx.data.processed_file import FILE_NAME
from featx.data.sources import choose_source
from featx.data.storage import listed, locate


def main(args: Sequence[str], summary: str) -> int:
    """Run `featx scan`; returns its exit status."""
    parser = ConciseParser(prog="featx scan", description=summary)
    parser.add_function_arguments(scan, as_positional=True, skip={"as_json"})
    parser.add_argument("--json", dest="as_json", action="store_true", help="print one JSON object")
    return 0 if scan(**vars(parser.parse_args(args))) else 1


def scan(
    root: Path,
    source: SourceName | None = None,
    splits: list[str] | None = None,
    as_json: bool = False,
    layout: LayoutName = "tree",
    table: Path | None = None,
    columns: dict[str, str] | None = None,
    frame_rate: float | None = None,
) -> bool:
    """Print what featx predict would take of a folder, and what it would leave out.

    Every header, and every packet of a clip, is read and checked.

    Args:
        root: The data set's folder; with a table, what its paths are relative to.
        source: What to look for: processed (processed_data.pt files), clips, or frames (folders of
            images). By default clips, if there is no processed_data.pt.
        splits: Which splits; by default, whichever of train, val and test exist.
        as_json: Print one JSON object.
        layout: How clips lie in the folder: tree or flat.
        table: A table of videos; see featx predict.
        columns: What the table calls its columns; see featx predict.
        frame_rate: Of clips that are folders of images, in frames a second.

    Returns:
        Whether featx predict would begin: there are videos in each split, and no bad inputs.

    Raises:
        MissingInputError: The folder or a split does not exist.
    """
    place = locate(root)
    if source is None and (table or layout == "flat"):
        source = "clips"
    if source is None:
        with listed(place):
            processed = any(parts[-1] == FILE_NAME for parts in walk_files(place))
        source = "processed" if processed else "clips"
    settings = ScanSettings(
        place,
        splits,
        preprocessing=Preprocessing.choose(None, None, None, frame_rate=frame_rate),
        thorough=True,
        strict=False,
        progress=True,
        layout=layout,
        table=None if table is None else locate(table),
        columns=columns or {},
    )
    manifest = choose_source(source, settings).scan(settings)
    bad = [str(error) for errors in manifest.rejected.values() for error in errors.values()]
    if as_json:
        found = manifest.summary.to_json() if manifest.summary else {}
        print(json.dumps({"source": source, **found, "bad_inputs": bad}, indent=2))
    else:
        print(_format(manifest, source, bad))
    return not bad and len(manifest) > 0


def _format(manifest: Manifest, source: SourceName, bad: Sequence[str]) -> str:
    lines = [f"{manifest.root}, source {source}", ""]
    lines += [f"  {line}" for line in (manifest.summary.to_lines() if manifest.summary else ())]
    lines += [f"  bad: {line}" for error in bad for line in error.splitlines()]
    return "\n".join(lines)
