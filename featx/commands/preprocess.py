"""Clips to `processed_data.pt` files, decoded in parallel, with a few clips in memory at a time."""

import json
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from featx.backbones.transforms import normalize
from featx.commands.parser import ConciseParser
from featx.console import make_bar
from featx.data.archive import read_archive
from featx.data.clip_file import open_clip
from featx.data.clip_source import Clip, find_misplaced, is_clip, list_clips
from featx.data.folders import check_name, walk_files
from featx.data.manifest import ANALYSIS_FILE
from featx.data.preprocessing import IMAGE_SIZE, NUM_FRAMES, Preprocessing
from featx.data.processed_file import FILE_NAME, save_videos
from featx.data.summary import Some, Used, describe_traits, summarize
from featx.errors import FeatxError, InputError, check_at_least, shorten
from featx.files import read_json, replace_file, writing
from featx.parallel import count_cores, map_ahead

DTypeName = Literal["uint8", "float32"]

Decoded = tuple[dict[str, Any], Tensor]
"""Notes about a clip for its file, and its pixels."""


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
    num_frames: int = NUM_FRAMES,
    image_size: int = IMAGE_SIZE,
    dtype: DTypeName = "uint8",
    num_workers: int | None = None,
    keep_damaged: bool = False,
) -> list[str]:
    """Turn clips into processed_data.pt files.

    Clips are found at RAW_DIR/<split>/<category>/[<subcategory>/], by the suffixes of all
    containers of video; those directly in a category's folder form a subcategory of the same name.
    A file that is up to date is kept. A clip that does not decode is left out and reported.

    Args:
        raw_dir: Folder of the clips.
        processed_dir: Folder for the processed_data.pt files.
        num_frames: Frames per video, sampled uniformly over the clip.
        image_size: Height and width in pixels.
        dtype: uint8 for raw RGB; float32 for four times the bytes, normalized with ImageNet's
            mean and std.
        num_workers: Clips decoded in parallel; by default, one per core.
        keep_damaged: Keep what decodes of clips that are damaged, or hold less than they declare;
            they are listed in the files, and in the feature files that are made of these.

    Returns:
        One line for each clip that was left out: what is wrong with it.

    Raises:
        UsageError: A number is out of range.
        MissingInputError: The folder does not exist, or has no clips.
        OutputError: A file cannot be written.
    """
    raw_dir, processed_dir = Path(raw_dir).expanduser(), Path(processed_dir).expanduser()
    if num_workers is None:
        num_workers = count_cores()
    check_at_least(1, num_frames=num_frames, image_size=image_size, num_workers=num_workers)

    settings = Preprocessing(num_frames, image_size, keep_damaged)

    def decode(clip: Clip) -> Decoded:
        check_name(clip.path, clip.name)
        notes: dict[str, Any] = {"clips": clip.name, "clip_stats": clip.stats}  # before it is read
        file = open_clip(clip.path, clip.place, clip.name, settings, has_digest=False)
        frames, _, damage = file.read()
        if keep_damaged:
            notes["damage"] = damage
        if not file.is_plain:
            others.append(clip.name)
        for trait in file.traits:
            traits.setdefault(trait, Some()).note(clip.name)
        return notes, normalize(frames) if dtype == "float32" else frames

    traits: dict[str, Some] = {}
    others: list[str] = []  # clips whose RGB is not what it once was
    unreadable: dict[Path, InputError] = {}
    clips = list_clips(raw_dir, unreadable)
    files = {
        processed_dir / place / FILE_NAME: [*members]
        for place, members in groupby(clips, key=lambda clip: clip.place)
    }
    shape = (num_frames, 3, image_size, image_size)
    stale = [
        clip
        for target, members in files.items()
        if not _is_current(target, members, shape, getattr(torch, dtype), keep_damaged)
        for clip in members
    ]
    found = [*walk_files(raw_dir)]
    lost = unreadable | find_misplaced(raw_dir, clips, found)
    failed: dict[Clip, str] = {}
    with closing(map_ahead(decode, stale, num_workers, "decoding")) as results:
        bar = make_bar(results, "Preprocessing", len(stale), "clip")
        for place, group in groupby(bar, key=lambda result: result[0].place):
            failed |= _save(processed_dir / place / FILE_NAME, group)
    if strange := sorted(path for path in processed_dir.rglob(FILE_NAME) if path not in files):
        warnings.warn(
            f"{processed_dir}: {len(strange)} files are of other clips, and were kept: "
            f"{shorten(strange)}",
            stacklevel=2,
        )
    splits = [*dict.fromkeys(clip.split for clip in clips)]
    summary = summarize(
        raw_dir,
        splits,
        (Used(clip.path, clip.split, clip.category, 1) for clip in clips if clip not in failed),
        {split: [clip.name for clip in failed if clip.split == split] for split in splits},
        {clip.path for clip in clips} | lost.keys(),
        is_clip,
        found,
    )
    for line in summary.to_lines() + describe_traits(traits):
        print(f"{raw_dir}: {line}", file=sys.stderr)
    path = processed_dir / ANALYSIS_FILE
    before = read_json(path).get("preprocessing_info")
    are_plain = not others and not (isinstance(before, dict) and "rgb" in before)
    info = settings.describe(dtype, are_plain)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        analysis = {"preprocessing_info": info, "scan": summary.to_json()}
        replace_file(path, json.dumps(analysis, indent=2).encode())
    return [*map(str, lost.values()), *failed.values()]


def _is_current(
    target: Path,
    clips: Sequence[Clip],
    shape: tuple[int, ...],
    dtype: torch.dtype,
    keep_damaged: bool,
) -> bool:
    """Whether a file was made from these clips, as they are now, with these settings."""
    try:
        data = read_archive(target).data
        videos, notes = data["videos"], [*zip(data["clips"], data["clip_stats"], strict=True)]
    except (InputError, KeyError, TypeError, ValueError):
        return False  # none, damaged, or of another program
    return (
        notes == [(clip.name, clip.stats) for clip in clips]
        and videos.shape == (len(clips), *shape)
        and videos.dtype == dtype
        and ("damage" in data) == keep_damaged
    )


def _save(target: Path, results: Iterable[tuple[Clip, Future[Decoded]]]) -> dict[Clip, str]:
    """Save the clips that can be decoded; returns what is wrong with the others."""
    failures: dict[Clip, str] = {}

    def decoded() -> Iterator[Decoded]:
        for clip, result in results:
            try:
                video = result.result()
            except FeatxError as error:
                failures[clip] = str(error)
            else:
                yield video

    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        if save_videos(target, decoded()) == 0:
            target.unlink(missing_ok=True)  # it is out of date: its clips no longer decode
    return failures
