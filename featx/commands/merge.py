"""`featx merge`: feature files of the same settings, made anywhere, become one."""

from collections.abc import Sequence
from pathlib import Path

from featx.commands.parser import ConciseParser
from featx.durable import expand
from featx.errors import shorten
from featx.features.merge import merge_files


def main(args: Sequence[str], summary: str) -> int:
    """Run `featx merge`; returns its exit status."""
    parser = ConciseParser(prog="featx merge", description=summary)
    parser.add_argument("files", nargs="+", type=Path, help="feature files of the same settings")
    parser.add_argument("--output", required=True, type=Path, help="the file to make")
    parser.add_argument("--overwrite", action="store_true", help="replace a file that is there")
    given = parser.parse_args(args)
    merged = merge_files(
        [expand(path) for path in given.files], expand(given.output), given.overwrite
    )
    notes = f", {merged.repeated:,} repeated rows left out" if merged.repeated else ""
    print(f"{merged.num_videos:,} videos of {len(given.files)} files in {merged.path}{notes}")
    if merged.renamed:
        print(f"names of several videos, which have a number now: {shorten(merged.renamed)}")
    return 0
