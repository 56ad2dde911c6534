"""The header of a `processed_data.pt` file: which videos it holds, and where their bytes are."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from featx.archive import Archive, read_archive
from featx.errors import InputError, shorten

FILE_NAME = "processed_data.pt"
DTYPES = (torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""uint8 is raw RGB; a floating dtype means already normalized with ImageNet's mean and std."""

_OFFSET = "_checkpoint_offset"  # of a storage in its file; private to torch, so it may vanish


@dataclass(frozen=True, slots=True)
class Block:
    """Videos of one shape, stored in one tensor.

    Attributes:
        start: Index in the file of the first one.
        count: Number of videos.
        shape: `[T, 3, H, W]` of each.
        stride: Strides of each, in elements.
        dtype: One of `DTYPES`.
        offset: Byte of the file at which the first one begins; None if torch does not report it.
        step: Bytes from one video to the next.
    """

    start: int
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
        blocks: The videos, in order, without those rejected.
        rejected: Index in the file of each video that featx does not accept, and why.
        clips: The name of the clip that each video was made from, if the file has it.
        digest: See `Archive.digest`.
        stats: See `file_stats`.
    """

    blocks: tuple[Block, ...]
    rejected: Mapping[int, InputError]
    clips: tuple[str, ...] | None
    digest: str
    stats: tuple[int, int]

    @property
    def num_videos(self) -> int:
        """Number of videos, without those rejected."""
        return sum(block.count for block in self.blocks)

    @property
    def indices(self) -> list[int]:
        """Index in the file of each video."""
        return [block.start + i for block in self.blocks for i in range(block.count)]

    @property
    def lengths(self) -> list[int]:
        """Number of frames of each video."""
        return [block.shape[0] for block in self.blocks for _ in range(block.count)]


def read_header(path: Path) -> Header:
    """Read and check the header of a `processed_data.pt` file: no pixels.

    Args:
        path: A dict with the key `videos`, or the bare value: a tensor `[N, T, 3, H, W]`, or a
            list or tuple of `[T_i, 3, H, W]`. Of a list, bad videos are rejected one by one.

    Raises:
        InputError: The file is damaged, or holds something else.
    """
    archive = read_archive(path)
    videos, clips = archive.data, None
    if isinstance(videos, dict):
        if "videos" not in videos:
            raise InputError(
                f"{path}: expected a dict with the key 'videos', found the keys "
                f"{shorten([*videos])}. Save it as torch.save({{'videos': videos}}, path)."
            )
        videos, clips = videos["videos"], videos.get("clips")
    blocks: list[Block] = []
    rejected: dict[int, InputError] = {}
    if isinstance(videos, Tensor):
        blocks.append(_check_block(f"{path}: 'videos'", videos, archive))
    elif isinstance(videos, (list, tuple)):
        for number, video in enumerate(videos):
            try:
                where = f"{path}: 'videos'[{number}]"
                blocks.append(_check_block(where, video, archive, number))
            except InputError as error:
                rejected[number] = error
    else:
        raise InputError(
            f"{path}: 'videos': expected a tensor [N, T, 3, H, W] or a list of [T, 3, H, W], found "
            f"{type(videos).__name__}. Save the pixels as tensors."
        )
    count = sum(block.count for block in blocks) + len(rejected)
    if count == 0:
        raise InputError(
            f"{path}: expected one video or more, found none (N = 0). "
            "Fill the file, or remove its folder."
        )
    names = _check_clips(clips, count)
    return Header(tuple(blocks), rejected, names, archive.digest, archive.stats)


def _check_block(where: str, videos: object, archive: Archive, number: int | None = None) -> Block:
    """Check a tensor `[N, T, 3, H, W]`, or the video `[T, 3, H, W]` at a place in a list."""
    if not isinstance(videos, Tensor):
        found = type(videos).__name__
        raise InputError(f"{where}: expected a tensor, found {found}. Save the pixels as tensors.")
    layout, channels = ("[N, T, 3, H, W]", 2) if number is None else ("[T, 3, H, W]", 1)
    shape = list(videos.shape)
    mismatch = f"{where}: expected {layout}, found {shape}."
    if len(shape) != channels + 3:
        raise InputError(f"{mismatch} Add or remove axes.")
    if shape[channels] != 3:
        if 3 not in shape:
            raise InputError(f"{mismatch} Only RGB is accepted: convert the frames.")
        axis = len(shape) - 1 - shape[::-1].index(3)
        way_out = f"videos.movedim({axis}, {channels})"
        raise InputError(f"{mismatch} Move the channels to axis {channels}: {way_out}.")
    if 0 in shape[channels - 1 :]:
        raise InputError(f"{mismatch} Leave out videos without frames or pixels.")
    if videos.dtype not in DTYPES:
        accepted = ", ".join(map(str, DTYPES))
        raise InputError(
            f"{where}: expected one of {accepted}, found {videos.dtype}. Convert the pixels."
        )
    if videos.layout is not torch.strided or videos.device.type != "cpu" or videos.is_neg():
        raise InputError(
            f"{where}: expected a plain tensor, found {videos.layout} on {videos.device}. "
            "Save it as a dense CPU tensor."
        )
    if number is None:
        return _locate(where, videos, archive, 0)
    return _locate(where, videos.unsqueeze(0), archive, number)


def _locate(where: str, videos: Tensor, archive: Archive, start: int) -> Block:
    """Find the bytes of a tensor `[N, T, 3, H, W]`, and check that the file holds them."""
    count, *shape = videos.shape
    step, *stride = videos.stride()
    numel = math.prod(shape)
    extent = 1 + sum((size - 1) * by for size, by in zip(shape, stride, strict=True))
    if extent != numel or (count > 1 and step < numel):
        raise InputError(
            f"{where}: expected the pixels of each video to be contiguous, found shape "
            f"{[*videos.shape]} with strides {[*videos.stride()]}. Save videos.contiguous()."
        )
    size = videos.element_size()
    storage = videos.untyped_storage()
    begin = getattr(storage, _OFFSET, None)
    if begin is not None and count:
        # torch reckons the offset from the sizes of what torch.save writes before it. In an
        # archive that another program has packed it would be of other bytes.
        if archive.members.get(begin) != storage.nbytes():
            raise InputError(
                f"{where}: expected {storage.nbytes()} bytes of pixels at byte {begin}, found "
                "something else. The file is damaged or was packed again: load it, and save its "
                "tensors again."
            )
        end = (videos.storage_offset() + (count - 1) * step + numel) * size
        if end > storage.nbytes():
            raise InputError(
                f"{where}: expected {end} bytes of pixels for {[*videos.shape]}, found "
                f"{storage.nbytes()}. The file is damaged: make it again."
            )
        begin += videos.storage_offset() * size
    return Block(start, count, tuple(shape), tuple(stride), videos.dtype, begin, step * size)


def _check_clips(clips: object, count: int) -> tuple[str, ...] | None:
    """The names of the clips; None if these are no names of videos, whatever else they are."""
    names = tuple(clips) if isinstance(clips, (list, tuple)) else ()
    named = all(isinstance(name, str) and is_name(name) for name in names)
    return names if named and len(names) == len(set(names)) == count else None


def is_name(text: str) -> bool:
    """Whether HDF5 can hold a text: it is UTF-8 without NUL."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text
