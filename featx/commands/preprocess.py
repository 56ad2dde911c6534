"""Clips to `processed_data.pt` files, decoded in parallel, with a few clips in memory at a time."""

import json
import sys
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing, suppress
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

from torch import Tensor

from featx.backbones.transforms import normalize
from featx.commands.parser import ConciseParser
from featx.data.choices import SourceName
from featx.data.columns import Texts
from featx.data.manifest import ANALYSIS_FILE, UNLABELLED, Manifest
from featx.data.media.clip import ClipFile
from featx.data.media.processed_file import FILE_NAME, save_videos
from featx.data.media.torch_archive import read_archive
from featx.data.settings import VideoSettings
from featx.data.sources import choose_source
from featx.data.sources.clips import FILES, FOLDERS, find_misplaced
from featx.data.storage import locate, resolve
from featx.data.tree import is_hidden, list_entries, list_folders
from featx.durable import expand, replace_file, writing
from featx.errors import (
    FeatxError,
    InputError,
    MissingInputError,
    NetworkError,
    UsageError,
    check_at_least,
    shorten,
)
from featx.parallel import count_cores, map_ahead
from featx.progress import make_bar

DTypeName = Literal["uint8", "float32"]

Decoded = tuple[dict[str, Any], Tensor]
"""Notes about a clip for its file, and its pixels."""

_KINDS = {"clips": FILES, "frames": FOLDERS}

_NO_CATEGORY = "unlabelled"  # the folder of videos without a category


class Job(NamedTuple):
    """A video to be made of a clip: the file that it goes into, and the notes about it there."""

    clip: ClipFile
    target: Path
    notes: dict[str, Any]


def main(args: Sequence[str], summary: str) -> int:
    """Run `featx preprocess`; returns its exit status."""
    parser = ConciseParser(prog="featx preprocess", description=summary)
    skipped: set[str | int] = {"splits", "pixels", "decoder"}
    parser.add_function_arguments(preprocess, as_positional=True, skip=skipped)
    failures = preprocess(**vars(parser.parse_args(args)))
    for number, failure in enumerate(failures, start=1):
        count = f"{number} of {len(failures)} clips left out"
        print(f"featx preprocess: error: {count}: {failure}", file=sys.stderr)
    return 1 if failures else 0


def preprocess(
    raw_dir: str | Path,
    processed_dir: Path,
    *,
    source: SourceName = "clips",
    dtype: DTypeName = "uint8",
    num_workers: int | None = None,
    **inputs: Any,  # noqa: ANN401  # fields of VideoSettings
) -> list[str]:
    """Turn clips into processed_data.pt files.

    Clips are found at RAW_DIR/<split>/<category>/[<subcategory>/], by the suffixes of all
    containers of video; those directly in a category's folder form a subcategory of the same name.
    A file that is up to date is kept. A clip that does not decode is skipped and reported.

    Args:
        raw_dir: Folder of the clips; with a table, what its paths are relative to.
        processed_dir: Folder for the processed_data.pt files, of one tree, folder or table.
        source: clips, or frames for clips that are folders of images.
        dtype: uint8 for raw RGB; float32 for four times the bytes, normalized with ImageNet's
            mean and std.
        num_workers: Clips decoded in parallel; by default, one per core.
        **inputs: Which videos and frames; see `VideoSettings`.

    Returns:
        One line for each clip that was skipped: what is wrong with it.

    Raises:
        UsageError: A setting is out of its range.
        MissingInputError: The folder does not exist, or has no clips.
        InputError: The table cannot be read.
        OutputError: A file cannot be written.
    """
    processed_dir = expand(processed_dir)
    check_at_least(1, num_workers=num_workers)
    if source == "processed":
        raise UsageError("source: expected clips or frames, found processed. It is what is made.")
    videos = VideoSettings(root=raw_dir, source=source, **inputs)
    settings = videos.preprocessing
    manifest, failures = _scan(videos)
    subcategory = None
    if videos.table is not None or videos.layout == "flat":
        origin = Path(resolve(locate(videos.table or raw_dir)))
        subcategory = (origin.stem if videos.table else origin.name).lstrip(".") or "videos"
    groups = _plan(manifest, processed_dir, subcategory, dtype, failures)
    _sort_out(processed_dir, groups.keys(), manifest, subcategory)
    stale = [
        job
        for target, jobs in groups.items()
        if _read(target).get("record") != [job.notes["record"] for job in jobs]
        for job in jobs
    ]

    def decode(job: Job) -> Decoded:
        frames, _, damage, times, _ = job.clip.read()
        if settings.keep_damaged:
            job.notes["damage"] = damage
        if manifest.has_times and times is not None:
            job.notes["times"] = times.tolist()
        return job.notes, normalize(frames) if dtype == "float32" else frames

    threads = num_workers or count_cores()
    with closing(map_ahead(decode, stale, threads, "decoding")) as results:
        bar = make_bar(results, "Preprocessing", len(stale), "clip")
        for target, group in groupby(bar, key=lambda result: result[0].target):
            failures += _save(target, group, as_list=not settings.is_uniform)
    analysis: dict[str, Any] = {
        "preprocessing_info": settings.describe(dtype),
        "scan": manifest.summary and manifest.summary.to_json(),
    }
    if subcategory is not None:  # then labels and splits do not follow from the folders' names
        analysis["categories"] = {_NO_CATEGORY: UNLABELLED, **manifest.categories}
        splits = (split for split in manifest.rejected if (processed_dir / split).is_dir())
        analysis["table_splits"] = [*splits]
    with writing(processed_dir):
        processed_dir.mkdir(parents=True, exist_ok=True)
        replace_file(processed_dir / ANALYSIS_FILE, json.dumps(analysis, indent=2).encode())
    for line in manifest.summary.to_lines() if manifest.summary else ():
        print(f"{manifest.root}: {line}", file=sys.stderr)
    return failures


def _scan(videos: VideoSettings) -> tuple[Manifest, list[str]]:
    """Return the videos to be made, and errors about other inputs."""
    settings = replace(videos.to_scan(), thorough=True, strict=False)
    failures: list[str] = []
    if videos.table is None and videos.layout == "tree":
        settings = replace(settings, splits=list_folders(settings.root))
        top = ((item.name,) for item in list_entries(settings.root))
        misplaced = find_misplaced(settings.root, (), top, _KINDS[videos.source])
        failures += map(str, misplaced.values())
    manifest = choose_source(videos.source, settings).scan(settings)
    for split, errors in manifest.rejected.items():
        for place, error in errors.items():
            if not (place == split and isinstance(error, MissingInputError)):  # it has no clips
                failures.append(str(error))
    return manifest, failures


def _plan(
    manifest: Manifest,
    processed_dir: Path,
    subcategory: str | None,
    dtype: str,
    failures: list[str],
) -> dict[Path, list[Job]]:
    """Return the videos of each file; add errors about the others to `failures`.

    The note `record` of a video has all that it depends on: if it is equal, it is up to date.
    """
    columns = {
        name: [*cells] if isinstance(cells, Texts) else cells.tolist()
        for name, cells in manifest.columns.items()
    }
    groups: dict[Path, list[Job]] = {}
    for position, file in enumerate(manifest.files):
        clip = cast(ClipFile, file)
        place = clip.place
        if subcategory is not None:
            category = _NO_CATEGORY if clip.category is None else clip.category
            if "/" in category or is_hidden(category):
                failures.append(
                    f"{clip.name}: expected a category that a folder can be named after, found "
                    f"{category!r}. Rename it."
                )
                continue
            place = f"{clip.split}/{category}/{subcategory}"
        cells = {name: values[position] for name, values in columns.items()}
        record = {
            **clip.preprocessing.describe(dtype),
            "keep_damaged": clip.preprocessing.keep_damaged,
            "clip": clip.name,
            "stats": clip.stats,
            "shape": clip.shapes[0],
            "segment": clip.segment and [*map(str, clip.segment)],
            "box": clip.box,
            "columns": cells,
        }
        notes: dict[str, Any] = {"clips": clip.name, "record": json.dumps(record)}
        if cells:
            notes["columns"] = cells
        target = processed_dir / place / FILE_NAME
        groups.setdefault(target, []).append(Job(clip, target, notes))
    return groups


def _read(path: Path) -> Mapping[str, Any]:
    """Return what a processed_data.pt file holds; nothing if there is none, or not of featx."""
    with suppress(InputError):
        data = read_archive(path).data
        if isinstance(data, dict) and "record" in data:
            return data
    return {}


def _sort_out(
    processed_dir: Path, wanted: Collection[Path], manifest: Manifest, subcategory: str | None
) -> None:
    """Remove outdated files that are not wanted, and warn of files of other clips, which are kept.

    Outdated are, of a tree, files that have a clip that is bad now; of a table or a flat folder,
    all of its files.
    """
    bad = {name for errors in manifest.rejected.values() for name in errors}
    others, outdated = [], 0
    for path in sorted({*processed_dir.rglob(FILE_NAME)} - {*wanted}):
        clips = {*_read(path).get("clips", ())}
        if not clips or not (path.parent.name == subcategory if subcategory else clips & bad):
            others.append(path)
            continue
        outdated += 1
        with writing(path):
            path.unlink()
        if subcategory:
            with suppress(OSError):  # there are other files in it
                path.parent.rmdir()
                path.parent.parent.rmdir()
    if outdated:
        print(f"{processed_dir}: removed {outdated} outdated files", file=sys.stderr)
    if others:
        warnings.warn(
            f"{processed_dir}: {len(others)} files are of other clips, and were kept: "
            f"{shorten(others)}",
            stacklevel=3,
        )


def _save(target: Path, results: Iterable[tuple[Job, Future[Decoded]]], as_list: bool) -> list[str]:
    """Save the clips that can be decoded; return the errors of the others."""
    failures: list[str] = []

    def decoded() -> Iterator[Decoded]:
        for _, result in results:
            try:
                yield result.result()
            except NetworkError:  # the clip may be good
                raise
            except FeatxError as error:
                failures.append(str(error))

    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        if save_videos(target, decoded(), as_list) == 0:
            target.unlink(missing_ok=True)  # it is outdated: its clips no longer decode
    return failures
