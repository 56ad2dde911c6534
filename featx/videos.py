"""Read one video from a `processed_data.pt` file by its own bytes, without its neighbours.

So memory holds one video at a time, however large the file is.
"""

import os
from bisect import bisect
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path
from typing import IO, NamedTuple

import torch
from torch import Tensor

from featx.archive import file_stats, read_digest
from featx.errors import ChangedInputError, FeatxError, InputError, first_line
from featx.headers import Block, Header


class VideoBatch(NamedTuple):
    """Videos on their way to the backbone; the batch itself records which videos it holds.

    Attributes:
        positions: Position of each video in the manifest.
        videos: Pixels `[D, 3, H, W]` of the distinct frames of each video.
        frames: Which of them stands at each position of the video, int64 `[T]`, for each video;
            none at all means that every frame is distinct. See `drop_repeats`.
        errors: Positions of the videos that could not be read, and why. An error leaves a
            DataLoader worker as a value, because an exception raised there arrives as the text of
            a traceback.
    """

    positions: list[int]
    videos: list[Tensor]
    frames: list[Tensor] = []  # noqa: RUF012  # a NamedTuple's default; nobody changes it
    errors: Mapping[int, FeatxError] = {}


def read_video(path: Path, header: Header, index: int) -> Tensor:
    """Read one video by its own bytes.

    Args:
        path: The file that `header` was read from.
        header: Its header.
        index: Which video of the header's.

    Returns:
        Pixels `[T, 3, H, W]` in memory of their own, with the file's dtype and strides.

    Raises:
        InputError: A pixel is not finite.
        ChangedInputError: The file has changed since, or cannot be read any more.
    """
    ends = list(accumulate(block.count for block in header.blocks))
    number = bisect(ends, index)
    block = header.blocks[number]
    within = index - (ends[number] - block.count)
    try:
        with path.open("rb") as file:
            _check_unchanged(path, file, header)
            if block.offset is None:
                video = _copy_from_map(path, block.start, within)
            else:
                video = _read_bytes(path, file, block, block.offset + within * block.step)
    except OSError as error:
        raise ChangedInputError(
            f"{path}: expected a readable file, found: {first_line(error)}. "
            "It was readable when it was scanned: check the disk, and start again."
        ) from error
    if video.is_floating_point():
        low, high = video.aminmax()  # one pass over the pixels; both are NaN if one pixel is
        if not (low.isfinite() and high.isfinite()):
            frame = int((~video.isfinite()).flatten(1).any(dim=1).nonzero()[0])
            raise InputError(
                f"{path}: expected finite pixels, found NaN or infinity in video "
                f"{block.start + within}, frame {frame}. Preprocess this video again."
            )
    return video


def _check_unchanged(path: Path, file: IO[bytes], header: Header) -> None:
    """Check that a file is the one that was scanned; its copy on another disk is."""
    if file_stats(os.fstat(file.fileno())) == header.stats:
        return
    try:
        unchanged = read_digest(path) == header.digest
    except InputError:
        unchanged = False
    if not unchanged:
        raise ChangedInputError(
            f"{path}: expected the file that was scanned, found another. "
            "It has changed since: start again."
        )


def _read_bytes(path: Path, file: IO[bytes], block: Block, offset: int) -> Tensor:
    video = torch.empty_strided(block.shape, block.stride, dtype=block.dtype)
    flat = video.as_strided((video.numel(),), (1,)).view(torch.uint8).numpy()
    file.seek(offset)
    found = file.readinto(flat.data)  # type: ignore[attr-defined]  # a file of bytes has it
    if found != flat.nbytes:
        raise ChangedInputError(
            f"{path}: expected {flat.nbytes} bytes from byte {offset} on, found {found}. "
            "The file has changed since it was scanned: start again."
        )
    return video


def _copy_from_map(path: Path, number: int, within: int) -> Tensor:
    """Without a byte offset: map the whole file, and copy one video from it."""
    data = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    videos = data["videos"] if isinstance(data, dict) else data
    video: Tensor = videos[within] if isinstance(videos, Tensor) else videos[number]
    return video.clone()
