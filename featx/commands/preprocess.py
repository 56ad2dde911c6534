"""Clips to `processed_data.pt` files, decoded in parallel, with a few clips in memory at a time."""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
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
from featx.data.clip_file import sample_clip
from featx.data.clip_source import Clip, find_misplaced, list_clips, warn_of_others
from featx.data.folders import check_name
from featx.data.manifest import ANALYSIS_FILE, IMAGE_SIZE, NUM_FRAMES, describe_preprocessing
from featx.data.processed_file import save_videos
from featx.errors import FeatxError, InputError, check_at_least
from featx.files import replace_file, writing
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
) -> list[str]:
    """Turn clips into processed_data.pt files.

    Clips are found at RAW_DIR/<split>/<category>/[<subcategory>/]*.{mp4,avi,mkv,webm,mov}; those
    directly in a category's folder form a subcategory of the same name. A file that is up to date
    is kept. A clip that does not decode is left out and reported.

    Args:
        raw_dir: Folder of the clips.
        processed_dir: Folder for the processed_data.pt files.
        num_frames: Frames per video, sampled uniformly over the clip.
        image_size: Height and width in pixels.
        dtype: uint8 for raw RGB; float32 for four times the bytes, normalized with ImageNet's
            mean and std.
        num_workers: Clips decoded in parallel; by default, one per core.

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

    def decode(clip: Clip) -> Decoded | FeatxError:
        try:
            check_name(clip.path, clip.name)
            notes = {"clips": clip.name, "clip_stats": clip.stats}  # as it was before it was read
            video = sample_clip(clip.path, num_frames, image_size)
        except FeatxError as error:
            return error
        return notes, normalize(video) if dtype == "float32" else video

    unreadable: dict[Path, InputError] = {}
    clips = list_clips(raw_dir, processed_dir, unreadable)
    shape = (num_frames, 3, image_size, image_size)
    stale = _list_stale(clips, shape, getattr(torch, dtype))
    lost = unreadable | find_misplaced(raw_dir, clips)
    failures = [*map(str, lost.values())]
    with closing(map_ahead(decode, stale, num_workers, "decoding")) as results:
        bar = make_bar(results, "Preprocessing", len(stale), "clip")
        for target, group in groupby(bar, key=lambda result: result[0].target):
            failures += _save(target, group)
    warn_of_others(processed_dir, clips)
    info = describe_preprocessing(num_frames, image_size, dtype)
    path = processed_dir / ANALYSIS_FILE
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, json.dumps({"preprocessing_info": info}, indent=2).encode())
    return failures


def _list_stale(clips: Sequence[Clip], shape: tuple[int, ...], dtype: torch.dtype) -> list[Clip]:
    """The clips of those files that do not exist, or are not up to date."""
    stale = []
    for target, group in groupby(clips, key=lambda clip: clip.target):
        members = [*group]
        if not _is_current(target, members, shape, dtype):
            stale += members
    return stale


def _is_current(
    target: Path, clips: Sequence[Clip], shape: tuple[int, ...], dtype: torch.dtype
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
    )


def _save(target: Path, results: Iterable[tuple[Clip, Decoded | FeatxError]]) -> list[str]:
    """Save the clips that were decoded; returns what is wrong with the others."""
    failures = []

    def decoded() -> Iterator[Decoded]:
        for _, result in results:
            if isinstance(result, FeatxError):
                failures.append(str(result))
            else:
                yield result

    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        if save_videos(target, decoded()) == 0:
            target.unlink(missing_ok=True)  # it is out of date: its clips no longer decode
    return failures
