"""Clips to `processed_data.pt`, decoded in parallel, with a few clips in memory at a time."""

import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Literal, TypeVar

import torch
from torch import Tensor
from tqdm import tqdm

from featx.analysis import ANALYSIS_FILE
from featx.backbones import normalize
from featx.decoding import sample_clip
from featx.errors import FeatxError, InputError, MissingInputError, UsageError
from featx.manifest import list_folders
from featx.staging import replace_file, writing
from featx.streaming import save_videos
from featx.videos import FILE_NAME, read_header

CLIP_SUFFIXES = (".mp4", ".avi", ".mkv", ".webm", ".mov")

DTypeName = Literal["uint8", "float32"]

_In = TypeVar("_In")
_Out = TypeVar("_Out")


@dataclass(frozen=True, slots=True)
class Clip:
    """A video file, and the `processed_data.pt` that it goes to."""

    path: Path
    name: str
    target: Path


def preprocess(
    raw_dir: Path,
    processed_dir: Path,
    num_frames: int = 64,
    image_size: int = 256,
    dtype: DTypeName = "uint8",
    num_workers: int | None = None,
) -> list[str]:
    """Turn clips into processed_data.pt files.

    Clips lie at RAW_DIR/<split>/<category>/[<subcategory>/]*.{mp4,avi,mkv,webm,mov}; those that
    lie in a category's own folder form a subcategory of the same name. A file that is up to date
    is left alone. A clip that does not decode is named and left out.

    Args:
        raw_dir: Folder of the clips.
        processed_dir: Folder for the processed_data.pt files.
        num_frames: Frames of a video, sampled uniformly over the clip.
        image_size: Height and width in pixels.
        dtype: uint8 for raw RGB; float32 for four times the bytes, normalized with ImageNet's
            mean and std.
        num_workers: Clips decoded at the same time; by default one a core.

    Returns:
        What is wrong with each clip that was left out, a line each.

    Raises:
        UsageError: A number is out of its range.
        MissingInputError: There is no such folder, or no clip in it.
        OutputError: A file cannot be written.
    """
    for name, value in {"num_frames": num_frames, "image_size": image_size}.items():
        if value < 1:
            raise UsageError(f"{name}: expected 1 or more, found {value}.")
    workers = os.cpu_count() or 1 if num_workers is None else num_workers
    if workers < 1:
        raise UsageError(f"num_workers: expected 1 or more, found {workers}.")
    clips = list_clips(raw_dir, processed_dir)
    shape = (num_frames, 3, image_size, image_size)
    stale = [
        clip
        for target, group in groupby(clips, key=lambda clip: clip.target)
        if not _is_current(target, files := [*group], shape, getattr(torch, dtype))
        for clip in files
    ]

    def decode(clip: Clip) -> Tensor | FeatxError:
        try:
            video = sample_clip(clip.path, num_frames, image_size)
        except FeatxError as error:
            return error
        return normalize(video) if dtype == "float32" else video

    failures: list[str] = []

    def decoded(
        results: Iterable[tuple[Clip, Tensor | FeatxError]],
    ) -> Iterator[tuple[str, Tensor]]:
        for clip, video in results:
            if isinstance(video, FeatxError):
                failures.append(str(video))
            else:
                yield clip.name, video

    with ThreadPoolExecutor(workers, "decoding") as pool:
        results = _map_ahead(pool, decode, stale, ahead=workers)
        bar = tqdm(results, total=len(stale), desc="Preprocessing", unit="clip")
        for target, group in groupby(bar, key=lambda result: result[0].target):
            with writing(target):
                target.parent.mkdir(parents=True, exist_ok=True)
                save_videos(target, decoded(group))
    info = {
        "frames_per_video": num_frames,
        "image_size": [image_size, image_size],
        "processing_mode": "cpu",
        "dtype": dtype,
    }
    path = processed_dir / ANALYSIS_FILE
    with writing(path):
        replace_file(path, json.dumps({"preprocessing_info": info}, indent=2).encode())
    return failures


def list_clips(raw_dir: Path, processed_dir: Path) -> list[Clip]:
    """The clips of a folder and where each goes, in the order of the names.

    Raises:
        MissingInputError: There is no such folder, or no clip in it.
    """
    clips: list[Clip] = []
    for split in list_folders(raw_dir):
        for category in list_folders(split):
            # Clips of the category's own folder and of a subcategory of its name share a file.
            homes = {category.name: [category]}
            for folder in list_folders(category):
                homes.setdefault(folder.name, []).append(folder)
            for subcategory, folders in sorted(homes.items()):
                target = processed_dir / split.name / category.name / subcategory / FILE_NAME
                clips += [
                    Clip(path, path.relative_to(raw_dir).as_posix(), target)
                    for folder in folders
                    for path in sorted(folder.iterdir())
                    if path.suffix.lower() in CLIP_SUFFIXES and path.name[0] != "."
                ]
    if not clips:
        raise MissingInputError(
            f"{raw_dir}: expected clips at <split>/<category>/[<subcategory>/]"
            f"*{{{','.join(CLIP_SUFFIXES)}}}, found none. Give the folder above the splits."
        )
    return clips


def _is_current(
    target: Path, clips: Sequence[Clip], shape: tuple[int, ...], dtype: torch.dtype
) -> bool:
    """Whether a file was made from these clips as they are, with these settings."""
    try:
        header = read_header(target)
    except InputError:
        return False
    made = target.stat().st_mtime
    return (
        header.clips == tuple(clip.name for clip in clips)
        and all(block.shape == shape and block.dtype == dtype for block in header.blocks)
        and all(clip.path.stat().st_mtime <= made for clip in clips)
    )


def _map_ahead(
    pool: ThreadPoolExecutor, function: Callable[[_In], _Out], items: Iterable[_In], ahead: int
) -> Iterator[tuple[_In, _Out]]:
    """Like `pool.map`, but never more than `ahead` results wait: memory stays bounded."""
    waiting: deque[tuple[_In, Future[_Out]]] = deque()
    for item in items:
        waiting.append((item, pool.submit(function, item)))
        if len(waiting) > ahead:
            done, future = waiting.popleft()
            yield done, future.result()
    for done, future in waiting:
        yield done, future.result()
