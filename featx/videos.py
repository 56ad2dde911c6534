"""Read one video out of a `processed_data.pt`, without reading its neighbours.

A file is first described by its header (shapes, strides, dtypes, byte offsets), and a video is
then read by its own bytes: a scan is quick, and memory holds one video at a time.
"""

import math
from bisect import bisect
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from featx.archive import Archive, describe
from featx.errors import FeatxError, InputError

FILE_NAME = "processed_data.pt"
DTYPES = (torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""uint8 is raw RGB; a floating dtype means already normalized with ImageNet's mean and std."""

_OFFSET = "_checkpoint_offset"  # of a storage in its file: torch's private attribute, so it may go


class VideoBatch(NamedTuple):
    """Videos on their way to the backbone; the batch says itself which videos it holds.

    Attributes:
        positions: Position of each video in the manifest.
        videos: One `[T, 3, H, W]` a video.
        error: The error met while reading them. It leaves a DataLoader worker as a value, because
            raised there it becomes a traceback's text.
    """

    positions: list[int]
    videos: list[Tensor]
    error: FeatxError | None = None


@dataclass(frozen=True, slots=True)
class Block:
    """Videos of one shape that lie in one tensor.

    Attributes:
        count: Number of videos.
        shape: `[T, 3, H, W]` of each.
        stride: Strides of each, in elements.
        dtype: One of `DTYPES`.
        offset: Byte of the file at which the first one begins; None if torch doesn't tell.
        step: Bytes from one video to the next.
    """

    count: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    offset: int | None
    step: int


@dataclass(frozen=True, slots=True)
class Header:
    """What a `processed_data.pt` holds: everything but the pixels.

    Attributes:
        blocks: The videos, in their order.
        clips: Which clip each video was made from, where the file tells.
    """

    blocks: tuple[Block, ...]
    clips: tuple[str, ...] | None

    @property
    def lengths(self) -> list[int]:
        """Number of frames of each video."""
        return [block.shape[0] for block in self.blocks for _ in range(block.count)]


def read_header(path: Path) -> Header:
    """Read what a `processed_data.pt` holds, and check it, without reading a pixel.

    Args:
        path: A dict with the key `videos`, or the bare value: a tensor `[N, T, 3, H, W]`, or a
            list or tuple of `[T_i, 3, H, W]`.

    Raises:
        InputError: The file is damaged, or holds something else.
    """
    archive = describe(path)
    videos, clips = archive.data, None
    if isinstance(videos, dict):
        if "videos" not in videos:
            raise InputError(
                f"{path}: expected a dict with the key 'videos', found the keys "
                f"{[*videos][:10]}. Save it as torch.save({{'videos': videos}}, path)."
            )
        videos, clips = videos["videos"], videos.get("clips")
    if isinstance(videos, Tensor):
        blocks = [_check_block(f"{path}: expected 'videos'", "N, ", videos, archive)]
    elif isinstance(videos, (list, tuple)):
        blocks = [
            _check_block(f"{path}: expected 'videos'[{number}]", "", video, archive)
            for number, video in enumerate(videos)
        ]
    else:
        raise InputError(
            f"{path}: expected 'videos' as a tensor [N, T, 3, H, W] or a list of [T, 3, H, W], "
            f"found {type(videos).__name__}. Save the pixels as tensors."
        )
    count = sum(block.count for block in blocks)
    if count == 0:
        raise InputError(
            f"{path}: expected one video or more, found none (N = 0). "
            "Fill the file, or remove its folder."
        )
    return Header(tuple(blocks), _check_clips(clips, count))


def read_video(path: Path, header: Header, index: int) -> Tensor:
    """Read one video by its own bytes.

    Args:
        path: The file that `header` was read from.
        header: Its header.
        index: Which video of the file.

    Returns:
        The pixels `[T, 3, H, W]`, in memory of their own, with the file's dtype and strides.

    Raises:
        InputError: The file is not what its header said, or a pixel is not finite.
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
        raise InputError(f"{path}: expected a readable file, found: {error.strerror}.") from error
    if found != flat.nbytes:
        raise InputError(
            f"{path}: expected {flat.nbytes} bytes from byte {offset} on, found {found}. "
            "The file has changed since it was scanned: start again."
        )
    return video


def _copy_from_map(path: Path, number: int, within: int) -> Tensor:
    """The way without a byte offset: map the whole file, and copy one video out of it."""
    data = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    videos = data["videos"] if isinstance(data, dict) else data
    video: Tensor = videos[within] if isinstance(videos, Tensor) else videos[number]
    return video.clone()


def _check_block(expected: str, lead: str, videos: object, archive: Archive) -> Block:
    """Check a tensor `[N, T, 3, H, W]` (`lead` is "N, ") or `[T, 3, H, W]` (`lead` is empty)."""
    if not isinstance(videos, Tensor):
        found = type(videos).__name__
        raise InputError(f"{expected} as a tensor, found {found}. Save the pixels as tensors.")
    shape, channels = list(videos.shape), 2 if lead else 1
    expected_shape = f"{expected} as [{lead}T, 3, H, W], found {shape}."
    if len(shape) != channels + 3:
        raise InputError(f"{expected_shape} Add or remove axes.")
    if shape[channels] != 3:
        axis = next((axis for axis, size in reversed([*enumerate(shape)]) if size == 3), None)
        way_out = f"Move the channels to axis {channels}: videos.movedim({axis}, {channels})."
        raise InputError(f"{expected_shape} {way_out if axis else 'Only RGB is accepted.'}")
    if 0 in shape[channels - 1 :]:
        raise InputError(f"{expected_shape} Leave out the videos without a frame or a pixel.")
    if videos.dtype not in DTYPES:
        accepted = ", ".join(str(dtype) for dtype in DTYPES)
        raise InputError(f"{expected} as one of {accepted}, found {videos.dtype}. Convert it.")
    if videos.layout is not torch.strided or videos.device.type != "cpu" or videos.is_neg():
        raise InputError(f"{expected} as a plain tensor, found {videos.layout} on {videos.device}.")
    return _locate(expected, videos if lead else videos.unsqueeze(0), archive)


def _locate(expected: str, videos: Tensor, archive: Archive) -> Block:
    """Note where the bytes of `[N, T, 3, H, W]` lie, and check that they are there."""
    count, *shape = videos.shape
    step, *stride = videos.stride()
    numel = math.prod(shape)
    extent = 1 + sum((size - 1) * by for size, by in zip(shape, stride, strict=True))
    if extent != numel or (count > 1 and step < numel):
        raise InputError(
            f"{expected} with every video in one piece, found shape {[*videos.shape]} with "
            f"strides {[*videos.stride()]}. Save videos.contiguous()."
        )
    size = videos.element_size()
    begin = getattr(videos.untyped_storage(), _OFFSET, None)
    if begin is not None and count:
        end = begin + (videos.storage_offset() + (count - 1) * step + numel) * size
        if not archive.contains(begin, end):
            raise InputError(
                f"{expected} with {end - begin} bytes of pixels for {[*videos.shape]}, found "
                "fewer in the file. It is damaged: make it again."
            )
        begin += videos.storage_offset() * size
    return Block(count, tuple(shape), tuple(stride), videos.dtype, begin, step * size)


def _check_clips(clips: object, count: int) -> tuple[str, ...] | None:
    """The names of the clips, if that is what the key `clips` holds: it is not ours alone."""
    names = tuple(clips) if isinstance(clips, (list, tuple)) else ()
    named = all(isinstance(name, str) for name in names)
    return names if named and len(names) == len(set(names)) == count else None
