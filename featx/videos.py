"""Read one video from a `processed_data.pt` file by its own bytes, without its neighbours.

So memory holds one video at a time, however large the file is.
"""

from bisect import bisect
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from featx.errors import FeatxError, InputError, first_line
from featx.headers import Block, Header


class VideoBatch(NamedTuple):
    """Videos on their way to the backbone; the batch itself records which videos it holds.

    Attributes:
        positions: Position of each video in the manifest.
        videos: Pixels `[T, 3, H, W]` of each video.
        error: An error met while reading. It leaves a DataLoader worker as a value, because
            an exception raised there arrives as the text of a traceback.
    """

    positions: list[int]
    videos: list[Tensor]
    error: FeatxError | None = None


def read_video(path: Path, header: Header, index: int) -> Tensor:
    """Read one video by its own bytes.

    Args:
        path: The file that `header` was read from.
        header: Its header.
        index: Which video of the file.

    Returns:
        Pixels `[T, 3, H, W]` in memory of their own, with the file's dtype and strides.

    Raises:
        InputError: The file has changed since, or a pixel is not finite.
    """
    ends = list(accumulate(block.count for block in header.blocks))
    number = bisect(ends, index)
    block = header.blocks[number]
    within = index - (ends[number] - block.count)
    if block.offset is None:
        video = _copy_from_map(path, number, within)
    else:
        video = _read_bytes(path, block, block.offset + within * block.step)
    if video.is_floating_point():
        low, high = video.aminmax()  # one pass over the pixels; both are NaN if one pixel is
        if not (low.isfinite() and high.isfinite()):
            frame = int((~video.isfinite()).flatten(1).any(dim=1).nonzero()[0])
            raise InputError(
                f"{path}: expected finite pixels, found NaN or infinity in video {index}, "
                f"frame {frame}. Preprocess this video again."
            )
    return video


def _read_bytes(path: Path, block: Block, offset: int) -> Tensor:
    video = torch.empty_strided(block.shape, block.stride, dtype=block.dtype)
    flat = video.as_strided((video.numel(),), (1,)).view(torch.uint8).numpy()
    try:
        with path.open("rb") as file:
            file.seek(offset)
            found = file.readinto(flat.data)
    except OSError as error:
        raise InputError(
            f"{path}: expected a readable file, found: {first_line(error)}. Check the disk."
        ) from error
    if found != flat.nbytes:
        raise InputError(
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
