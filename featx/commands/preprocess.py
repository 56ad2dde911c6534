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
from featx.console import make_bar
from featx.data.archive import read_archive
from featx.data.choices import SourceName
from featx.data.clip_file import ClipFile
from featx.data.clip_source import FILES, FOLDERS, find_misplaced
from featx.data.columns import Texts
from featx.data.folders import is_hidden, list_entries, list_folders
from featx.data.manifest import ANALYSIS_FILE, UNLABELLED, Manifest
from featx.data.processed_file import FILE_NAME, save_videos
from featx.data.settings import VideoSettings
from featx.data.sources import choose_source
from featx.data.storage import locate, resolve
from featx.errors import (
    FeatxError,
    InputError,
    MissingInputError,
    NetworkError,
    UsageError,
    check_at_least,
    shorten,
)
from featx.files import expand, replace_file, writing
from featx.parallel import count_cores, map_ahead

DTypeName = Literal["uint8", "float32"]

Decoded = tuple[dict[str, Any], Tensor]
"""Notes about a clip for its file, and its pixels."""

_KINDS = {"clips": FILES, "frames": FOLDERS}

_NO_CATEGORY = "unlabelled"  # the folder of videos without a category


class Job(NamedTuple):
    """A video to be made.

    Attributes:
        clip: The clip, or the part of it.
        target: The file that the video goes into.
        columns: Its cells of a table's other columns.
        record: All that the video depends on; see `_make_record`.
    """

    clip: ClipFile
    target: Path
    columns: Mapping[str, Any]
    record: str


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
    manifest, failures = _scan(videos)
    settings = videos.preprocessing
    subcategory = None
    if videos.table is not None or videos.layout == "flat":
        origin = Path(resolve(locate(videos.table or raw_dir)))
        subcategory = (origin.stem if videos.table else origin.name).lstrip(".") or "videos"
    jobs, misnamed = _plan(manifest, processed_dir, subcategory, dtype)
    groups = {target: [*group] for target, group in groupby(jobs, key=lambda job: job.target)}
    _sort_out(processed_dir, groups.keys(), manifest, subcategory)
    stale = [
        job
        for target, group in groups.items()
        if _read_notes(target).get("record") != [job.record for job in group]
        for job in group
    ]

    def decode(job: Job) -> Decoded:
        frames, _, damage, times, _ = job.clip.read()
        notes: dict[str, Any] = {"clips": job.clip.name, "record": job.record}
        if settings.keep_damaged:
            notes["damage"] = damage
        if manifest.has_times and times is not None:
            notes["times"] = times.tolist()
        if job.columns:
            notes["columns"] = dict(job.columns)
        return notes, normalize(frames) if dtype == "float32" else frames

    failed: dict[str, str] = {}
    threads = num_workers or count_cores()
    with closing(map_ahead(decode, stale, threads, "decoding")) as results:
        bar = make_bar(results, "Preprocessing", len(stale), "clip")
        for target, group in groupby(bar, key=lambda result: result[0].target):
            failed |= _save(target, group, as_list=not settings.is_uniform)
    _write_analysis(processed_dir, manifest, settings.describe(dtype), subcategory is not None)
    if manifest.summary:
        for line in manifest.summary.to_lines():
            print(f"{manifest.root}: {line}", file=sys.stderr)
    return [*failures, *misnamed, *failed.values()]


def _scan(videos: VideoSettings) -> tuple[Manifest, list[str]]:
    """Return the videos to be made, and errors about others."""
    settings = replace(videos.to_scan(), thorough=True, strict=False)
    splits = None
    if videos.table is None and videos.layout == "tree":
        splits = list_folders(settings.root)
        settings = replace(settings, splits=splits)
    manifest = choose_source(videos.source, settings).scan(settings)
    misplaced = {}
    if splits is not None:  # what is in none of them
        top = ((item.name,) for item in list_entries(settings.root))
        misplaced = find_misplaced(settings.root, (), top, _KINDS[videos.source])
    failures = [*map(str, misplaced.values())] + [
        str(error)
        for split, errors in manifest.rejected.items()
        for place, error in errors.items()
        if not (place == split and isinstance(error, MissingInputError))  # it has no clips
    ]
    return manifest, failures


def _plan(
    manifest: Manifest, processed_dir: Path, subcategory: str | None, dtype: str
) -> tuple[list[Job], list[str]]:
    """Return the videos to be made, those of a file together, and errors about the others.

    Args:
        manifest: The videos.
        processed_dir: Folder of the files.
        subcategory: That of all videos; None if each has its place in a tree.
        dtype: Of the pixels.
    """
    columns = {
        name: [*cells] if isinstance(cells, Texts) else cells.tolist()
        for name, cells in manifest.columns.items()
    }
    jobs: list[Job] = []
    misnamed: list[str] = []
    for position, file in enumerate(manifest.files):
        clip = cast(ClipFile, file)
        place = clip.place
        if subcategory is not None:
            category = _NO_CATEGORY if clip.category is None else clip.category
            if "/" in category or is_hidden(category):
                misnamed.append(
                    f"{clip.name}: expected a category that a folder can be named after, found "
                    f"{category!r}. Rename it."
                )
                continue
            place = f"{clip.split}/{category}/{subcategory}"
        cells = {name: values[position] for name, values in columns.items()}
        record = _make_record(clip, cells, dtype)
        jobs.append(Job(clip, processed_dir / place / FILE_NAME, cells, record))
    order = {target: number for number, target in enumerate(dict.fromkeys(j.target for j in jobs))}
    return sorted(jobs, key=lambda job: order[job.target]), misnamed


def _make_record(clip: ClipFile, cells: Mapping[str, Any], dtype: str) -> str:
    """Return all that a video depends on, as JSON; if it is equal, the video is up to date."""
    settings = clip.preprocessing
    return json.dumps(
        {
            **settings.describe(dtype),
            "keep_damaged": settings.keep_damaged,
            "clip": clip.name,
            "stats": clip.stats,
            "shape": clip.shapes[0],
            "segment": clip.segment and [*map(str, clip.segment)],
            "box": clip.box,
            "columns": cells,
        }
    )


def _read_notes(path: Path) -> Mapping[str, Any]:
    """Return what a processed_data.pt file holds; nothing if there is none, or not of featx."""
    try:
        data = read_archive(path).data
    except InputError:
        return {}
    return data if isinstance(data, dict) and "record" in data else {}


def _sort_out(
    processed_dir: Path, wanted: Collection[Path], manifest: Manifest, subcategory: str | None
) -> None:
    """Remove outdated files, and warn of files of other clips, which are kept.

    Outdated are, of a tree, the files without a good clip that have a bad one; of a table or a flat
    folder, its files of categories that it no longer has.

    Args:
        processed_dir: Folder of the files.
        wanted: The files to be made.
        manifest: The videos.
        subcategory: That of all videos; None if each has its place in a tree.
    """
    bad = {name for errors in manifest.rejected.values() for name in errors}
    others = []
    for path in sorted({*processed_dir.rglob(FILE_NAME)} - {*wanted}):
        clips = {*_read_notes(path).get("clips", ())}
        if not clips or not (path.parent.name == subcategory if subcategory else clips & bad):
            others.append(path)
            continue
        with writing(path):
            path.unlink()
        if subcategory:
            for folder in (path.parent, path.parent.parent):
                with suppress(OSError):  # there are other files in it
                    folder.rmdir()
    if others:
        warnings.warn(
            f"{processed_dir}: {len(others)} files are of other clips, and were kept: "
            f"{shorten(others)}",
            stacklevel=3,
        )


def _save(
    target: Path, results: Iterable[tuple[Job, Future[Decoded]]], as_list: bool
) -> dict[str, str]:
    """Save the clips that can be decoded; return the errors of the others, by name."""
    failures: dict[str, str] = {}

    def decoded() -> Iterator[Decoded]:
        for job, result in results:
            try:
                video = result.result()
            except NetworkError:  # the clip may be good
                raise
            except FeatxError as error:
                failures[job.clip.name] = str(error)
            else:
                yield video

    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        if save_videos(target, decoded(), as_list) == 0:
            target.unlink(missing_ok=True)  # it is outdated: its clips no longer decode
    return failures


def _write_analysis(
    processed_dir: Path, manifest: Manifest, info: Mapping[str, Any], has_labels: bool
) -> None:
    """Write the analysis beside the files.

    Args:
        processed_dir: Folder of the files.
        manifest: The videos.
        info: How they are made.
        has_labels: Whether labels and splits do not follow from the names of folders, so that they
            are recorded for the runs that read the files.
    """
    path = processed_dir / ANALYSIS_FILE
    analysis: dict[str, Any] = {
        "preprocessing_info": info,
        "scan": manifest.summary and manifest.summary.to_json(),
    }
    if has_labels:
        analysis["categories"] = {_NO_CATEGORY: UNLABELLED, **manifest.categories}
        analysis["table_splits"] = [
            split for split in manifest.rejected if (processed_dir / split).is_dir()
        ]
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, json.dumps(analysis, indent=2).encode())
