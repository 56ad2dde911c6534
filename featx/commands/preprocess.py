"""Clips to `processed_data.pt` files, decoded in parallel, with a few clips in memory at a time."""

import glob
import json
import sys
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing, suppress
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor

from featx.backbones.transforms import normalize
from featx.commands.parser import ConciseParser
from featx.console import make_bar
from featx.data.archive import read_archive
from featx.data.choices import LayoutName, SourceName
from featx.data.clip_file import ClipFile
from featx.data.clip_source import FILES, FOLDERS, Kind, find_misplaced
from featx.data.columns import Texts
from featx.data.far import locate
from featx.data.folders import is_hidden, list_entries, list_folders
from featx.data.manifest import ANALYSIS_FILE, UNLABELLED, Manifest, ScanSettings
from featx.data.preprocessing import IMAGE_SIZE, Preprocessing, ResizeName
from featx.data.processed_file import FILE_NAME, save_videos
from featx.data.sources import check_source, choose_source
from featx.errors import (
    FeatxError,
    InputError,
    MissingInputError,
    NetworkError,
    OutputError,
    UsageError,
    check_at_least,
    shorten,
)
from featx.files import expand, read_json, replace_file, writing
from featx.parallel import count_cores, map_ahead

DTypeName = Literal["uint8", "float32"]

Decoded = tuple[dict[str, Any], Tensor]
"""Notes about a clip for its file, and its pixels."""

_KINDS = {"clips": FILES, "frames": FOLDERS}

_NO_CATEGORY = "unlabelled"  # the folder of videos without a category


class Job(NamedTuple):
    """A video to be made.

    Attributes:
        clip: What it is made of.
        target: The file that it goes into.
        columns: What else a table says of it.
    """

    clip: ClipFile
    target: Path
    columns: Mapping[str, Any]


def main(args: Sequence[str], summary: str) -> int:
    """Run `featx preprocess`; returns its exit status."""
    parser = ConciseParser(prog="featx preprocess", description=summary)
    parser.add_function_arguments(preprocess, as_positional=True)
    failures = preprocess(**vars(parser.parse_args(args)))
    for number, failure in enumerate(failures, start=1):
        count = f"{number} of {len(failures)} clips left out"
        print(f"featx preprocess: error: {count}: {failure}", file=sys.stderr)
    return 1 if failures else 0


def preprocess(
    raw_dir: Path,
    processed_dir: Path,
    num_frames: int | None = None,
    image_size: int = IMAGE_SIZE,
    dtype: DTypeName = "uint8",
    num_workers: int | None = None,
    keep_damaged: bool = False,
    stride: int | None = None,
    fps: float | None = None,
    frame_rate: float | None = None,
    resize: ResizeName = "squash",
    source: SourceName = "clips",
    layout: LayoutName = "tree",
    table: Path | None = None,
    columns: dict[str, str] | None = None,
) -> list[str]:
    """Turn clips into processed_data.pt files.

    Clips are found at RAW_DIR/<split>/<category>/[<subcategory>/], by the suffixes of all
    containers of video; those directly in a category's folder form a subcategory of the same name.
    A file that is up to date is kept. A clip that does not decode is left out and reported.

    Args:
        raw_dir: Folder of the clips; with a table, what its paths are relative to.
        processed_dir: Folder for the processed_data.pt files.
        num_frames: Frames per video, sampled uniformly over the clip; 64 unless there is a stride
            or fps.
        image_size: Height and width in pixels.
        dtype: uint8 for raw RGB; float32 for four times the bytes, normalized with ImageNet's
            mean and std.
        num_workers: Clips decoded in parallel; by default, one per core.
        keep_damaged: Keep what decodes of clips that are damaged, or hold less than they declare;
            they are listed in the files, and in the feature files that are made of these.
        stride: Take every n-th frame of a clip instead.
        fps: Take so many frames a second instead: those that are shown then.
        frame_rate: Of clips that are folders of images, in frames a second.
        resize: squash a frame to a square, or crop: resize its shorter side, and cut out its
            middle.
        source: clips, or frames for clips that are folders of images.
        layout: tree, or flat for clips anywhere in the folder, without splits and categories.
        table: A table of videos; see featx predict.
        columns: What the table calls its columns; see featx predict.

    Returns:
        One line for each clip that was left out: what is wrong with it.

    Raises:
        UsageError: A setting is out of its range.
        MissingInputError: The folder does not exist, or has no clips.
        InputError: The table cannot be read.
        OutputError: A file cannot be written.
    """
    raw_dir, processed_dir = locate(raw_dir), expand(processed_dir)
    check_at_least(1, num_workers=num_workers)
    check_source(source, layout, table, columns)
    if source == "processed":
        raise UsageError("source: expected clips or frames, found processed. It is what is made.")
    settings = Preprocessing.choose(
        num_frames,
        stride,
        fps,
        image_size=image_size,
        keep_damaged=keep_damaged,
        frame_rate=frame_rate,
        resize=resize,
    )
    manifest, failures = _scan(raw_dir, settings, source, layout, table, columns)
    subcategory = None
    origins: dict[str, str] = {}
    if table is not None or layout == "flat":
        origin = (locate(table) if table else raw_dir).resolve()
        subcategory = (origin.stem if table else origin.name).lstrip(".") or "videos"
        _check_claim(processed_dir, subcategory, origin)
        origins[subcategory] = str(origin)
    jobs, misnamed = _plan(manifest, processed_dir, subcategory)
    groups = {target: [*group] for target, group in groupby(jobs, key=lambda job: job.target)}
    _remove_outdated(manifest, processed_dir, groups, subcategory, _KINDS[source])
    categories = _join_categories(processed_dir, manifest)
    stale = [
        job
        for target, group in groups.items()
        if not _is_current(target, group, getattr(torch, dtype))
        for job in group
    ]

    has_recipes = any(_describe(job.clip) is not None for job in jobs)

    def decode(job: Job) -> Decoded:
        frames, _, damage, times, _ = job.clip.read()
        notes: dict[str, Any] = {"clips": job.clip.name, "clip_stats": job.clip.stats}
        if keep_damaged:
            notes["damage"] = damage
        if has_recipes:
            notes["recipe"] = _describe(job.clip)
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
    others = _find_origins(processed_dir)
    made = (path for path in processed_dir.rglob(FILE_NAME) if path.parent.name not in others)
    if strange := sorted({*made} - groups.keys()):
        warnings.warn(
            f"{processed_dir}: {len(strange)} files are of other clips, and were kept: "
            f"{shorten(strange)}",
            stacklevel=2,
        )
    _write_analysis(processed_dir, manifest, settings, dtype, origins, categories)
    if manifest.summary:
        for line in manifest.summary.to_lines():
            print(f"{raw_dir}: {line}", file=sys.stderr)
    return [*failures, *misnamed, *failed.values()]


def _scan(
    raw_dir: Path,
    settings: Preprocessing,
    source: SourceName,
    layout: LayoutName,
    table: Path | None,
    columns: dict[str, str] | None,
) -> tuple[Manifest, list[str]]:
    """The videos to be made, and what is wrong with others."""
    splits = None
    if table is None and layout == "tree":
        splits = [folder.name for folder in list_folders(raw_dir)]
    wanted = ScanSettings(
        raw_dir,
        splits,
        preprocessing=settings,
        thorough=True,
        strict=False,
        layout=layout,
        table=None if table is None else locate(table),
        columns=columns or {},
    )
    manifest = choose_source(source, wanted).scan(wanted)
    misplaced = {}
    if splits is not None:  # what is in none of them
        top = ((path.name,) for path in list_entries(raw_dir))
        misplaced = find_misplaced(raw_dir, (), top, _KINDS[source])
    failures = [*map(str, misplaced.values())] + [
        str(error)
        for split, errors in manifest.rejected.items()
        for place, error in errors.items()
        if not (place == split and isinstance(error, MissingInputError))  # it has no clips
    ]
    return manifest, failures


def _plan(
    manifest: Manifest, processed_dir: Path, subcategory: str | None
) -> tuple[list[Job], list[str]]:
    """Which file each video goes into, those of a file together; and what is wrong with others.

    Args:
        manifest: The videos.
        processed_dir: Folder of the files.
        subcategory: That of all videos; None if each is in a tree already.
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
        jobs.append(Job(clip, processed_dir / place / FILE_NAME, cells))
    order = {target: number for number, target in enumerate(dict.fromkeys(j.target for j in jobs))}
    return sorted(jobs, key=lambda job: order[job.target]), misnamed


def _find_origins(processed_dir: Path) -> dict[str, str]:
    """The tables and flat folders that there are files of, by the names of their subcategories."""
    origins = read_json(processed_dir / ANALYSIS_FILE).get("origins")
    return origins if isinstance(origins, dict) else {}


def _check_claim(processed_dir: Path, subcategory: str, origin: Path) -> None:
    """Refuse to write over the files of another table, or another flat folder, of the same name."""
    found = _find_origins(processed_dir).get(subcategory)
    if found not in (None, str(origin)):
        raise OutputError(
            f"{processed_dir}: expected no videos of another {subcategory!r} than {origin}, found "
            f"those of {found}. Rename one of the two, or choose another folder."
        )


def _remove_outdated(
    manifest: Manifest,
    processed_dir: Path,
    kept: Collection[Path],
    subcategory: str | None,
    kind: Kind,
) -> None:
    """Remove the files all of whose clips are bad now; or of a table, in which they are no more."""
    outdated: list[Path] = []
    if subcategory is None:
        names = (name for errors in manifest.rejected.values() for name in errors)
        clips = (name.split("/") for name in names if kind.is_clip(manifest.root / name))
        outdated = [  # of a clip in its category, or in a subcategory
            processed_dir.joinpath(*parts[:2], parts[-2], FILE_NAME)
            for parts in clips
            if len(parts) in (3, 4)
        ]
    elif subcategory in _find_origins(processed_dir):  # and not of somebody else's making
        outdated = [*processed_dir.glob(f"*/*/{glob.escape(subcategory)}/{FILE_NAME}")]
    for target in {*outdated} - {*kept}:
        with writing(target):
            target.unlink(missing_ok=True)
        if subcategory is not None:
            for folder in (target.parent, target.parent.parent):
                with suppress(OSError):  # there are others in it
                    folder.rmdir()


def _join_categories(processed_dir: Path, manifest: Manifest) -> dict[str, int]:
    """Labels to be recorded: of these videos, and of others that are there; none if as usual.

    Raises:
        OutputError: These have other labels.
    """
    recorded = read_json(processed_dir / ANALYSIS_FILE).get("categories")
    categories = dict(manifest.categories)
    if any(file.category is None for file in manifest.files):
        categories[_NO_CATEGORY] = UNLABELLED
    if isinstance(recorded, dict):
        folders = {path.name for path in processed_dir.glob("*/*")}
        others = {name: label for name, label in recorded.items() if name in folders}
        joined = others | categories
        if others.items() - joined.items() or len({*joined.values()}) < len(joined):
            raise OutputError(
                f"{processed_dir}: expected labels that go with {shorten([*others.items()])}, "
                f"found {shorten([*categories.items()])}. Choose another folder."
            )
        return joined
    if categories == {name: label for label, name in enumerate(sorted(categories))}:
        return {}
    return categories


def _describe(clip: ClipFile) -> str | None:
    """What a video is made of beside the whole clip, and how, if that is not as usual."""
    settings = clip.preprocessing
    recipe: dict[str, Any] = {} if settings.is_uniform else dict(settings.sampling)
    if settings.resize != "squash":
        recipe["resize"] = settings.resize
    if settings.frame_rate is not None:
        recipe["frame_rate"] = settings.frame_rate
    if clip.segment:
        recipe["segment"] = [*map(str, clip.segment)]
    if clip.box:
        recipe["box"] = [*clip.box]
    return json.dumps(recipe) if recipe else None


def _is_current(target: Path, jobs: Sequence[Job], dtype: torch.dtype) -> bool:
    """Whether a file was made from these clips, as they are now, with these settings."""
    try:
        data = read_archive(target).data
        videos, notes = data["videos"], [*zip(data["clips"], data["clip_stats"], strict=True)]
        shapes = [tuple(video.shape) for video in videos]
        dtypes = {video.dtype for video in videos}
        recipes = data.get("recipe", [None] * len(notes))
        columns = data.get("columns", [{}] * len(notes))
    except (InputError, KeyError, TypeError, ValueError, AttributeError):
        return False  # none, damaged, or of another program
    clips = [job.clip for job in jobs]
    return (
        notes == [(clip.name, clip.stats) for clip in clips]
        and shapes == [clip.shapes[0] for clip in clips]
        and dtypes == {dtype}
        and recipes == [_describe(clip) for clip in clips]
        and repr(columns) == repr([dict(job.columns) for job in jobs])  # NaN is NaN
        and ("damage" in data) == clips[0].preprocessing.keep_damaged
    )


def _save(
    target: Path, results: Iterable[tuple[Job, Future[Decoded]]], as_list: bool
) -> dict[str, str]:
    """Save the clips that can be decoded; returns what is wrong with the others, by name."""
    failures: dict[str, str] = {}

    def decoded() -> Iterator[Decoded]:
        for job, result in results:
            try:
                video = result.result()
            except NetworkError:  # no fault of the clip's
                raise
            except FeatxError as error:
                failures[job.clip.name] = str(error)
            else:
                yield video

    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        if save_videos(target, decoded(), as_list) == 0:
            target.unlink(missing_ok=True)  # it is out of date: its clips no longer decode
    return failures


def _write_analysis(
    processed_dir: Path,
    manifest: Manifest,
    settings: Preprocessing,
    dtype: str,
    origins: Mapping[str, str],
    categories: Mapping[str, int],
) -> None:
    """Write what was found, and how videos are made of it, beside the files.

    Args:
        processed_dir: Folder of the files.
        manifest: The videos.
        settings: How they are made.
        dtype: Of the pixels.
        origins: The table, or the flat folder, that they are of, by the name of its subcategory.
        categories: Labels to be recorded.
    """
    path = processed_dir / ANALYSIS_FILE
    recorded = read_json(path)
    analysis: dict[str, Any] = {
        "preprocessing_info": settings.describe(dtype),
        "scan": manifest.summary and manifest.summary.to_json(),
    }
    if origins:
        analysis["origins"] = {**_find_origins(processed_dir), **origins}
        known = recorded.get("table_splits")
        splits = [*(known if isinstance(known, list) else []), *manifest.rejected]
        analysis["table_splits"] = [
            split for split in dict.fromkeys(splits) if (processed_dir / str(split)).is_dir()
        ]
    if categories:
        analysis["categories"] = categories
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, json.dumps(analysis, indent=2).encode())
