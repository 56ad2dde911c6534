"""One `processed_data.pt` file: what it holds, one video of it at a time, and how it is written."""

import hashlib
import math
import struct
import zipfile
from bisect import bisect
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from featx.data.media.pixels import PixelsName, find_misfit
from featx.data.media.torch_archive import Archive, one_at_a_time, read_archive, read_digest
from featx.data.media.video_file import CPU, MadeOf, Video, VideoFile, changed, unreadable
from featx.data.storage import Place, RangeReader, Status, at_hand, open_file, stat, status_of
from featx.data.tree import is_name
from featx.durable import publish_file
from featx.errors import ChangedInputError, InputError, shorten

FILE_NAME = "processed_data.pt"
DTYPES = (torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""uint8 is raw RGB; what a floating dtype means is a setting: see `PIXELS`."""

_ARCHIVE = "processed_data"  # the folder inside of the archive; torch.save names it after the file
_PIXELS = f"{_ARCHIVE}/data/"  # the members that hold the bytes of tensors, numbered
_ALIGNMENT = 64  # of a tensor's bytes, as torch.save has it
_SHA256_SIZE = 64  # in hexadecimal digits


@dataclass(frozen=True, slots=True)
class Block:
    """Videos of one shape, stored in one tensor."""

    start: int  # index in the file of the first one
    count: int
    shape: tuple[int, ...]  # `[T, 3, H, W]` of each
    stride: tuple[int, ...]  # of each, in elements
    dtype: torch.dtype
    offset: int | None  # byte at which the first one begins; None if torch does not report it
    step: int  # bytes from one video to the next


@dataclass(frozen=True, slots=True)
class ProcessedFile(VideoFile):
    """What a `processed_data.pt` holds: everything but the pixels, which are read when asked for.

    Attributes:
        blocks: The videos, in order, without those rejected.
        rejected: Index in the file of each video that featx does not accept, and why.
        clips: The name of the clip that each video was made from, if the file has it.
        stats: See `file_stats`.
        pixels: What they are, where they are floating point.
        damage: What is missing of each video whose clip is damaged, if the file has notes of it.
        times: When each frame of each video is shown, if the file has notes of it.
        columns: What else a table has said of each video, if the file has notes of it.
        sha256: SHA-256 of the pixels of each video, if the file has notes of it.
    """

    blocks: tuple[Block, ...]
    rejected: Mapping[int, InputError]
    clips: tuple[str, ...] | None
    stats: tuple[int, int]
    pixels: PixelsName = "normalized"
    damage: tuple[str, ...] | None = None
    times: tuple[Sequence[float], ...] | None = None
    columns: tuple[Mapping[str, Any], ...] | None = None
    sha256: tuple[str, ...] | None = None

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """`[T, 3, H, W]` of each video."""
        return [block.shape for block in self.blocks for _ in range(block.count)]

    @property
    def indices(self) -> list[int]:
        """Index in the file of each video."""
        return [block.start + i for block in self.blocks for i in range(block.count)]

    @property
    def places(self) -> list[str]:
        """Place of each video in the data set."""
        return [self.name_place(index) for index in self.indices]

    @property
    def names(self) -> list[str]:
        """Name of each video: its clip's, if the file has it, else its place."""
        return [self.clips[index] for index in self.indices] if self.clips else self.places

    @property
    def identities(self) -> list[str]:
        """What each video is made of."""
        return [self._identify(block, i) for block in self.blocks for i in range(block.count)]

    def _identify(self, block: Block, within: int) -> str:
        """SHA-256 of what a video is made of: its pixels; or the file, and its place in that.

        What the file notes of its times and its damage is part of its row, too.
        """
        number = block.start + within
        content: tuple[object, ...] = (self.digest, number)
        if self.sha256:
            damage = self.damage[number] if self.damage else ""
            times = self.times[number] if self.times else None
            pixels = self.sha256[number], block.shape, block.stride, str(block.dtype)
            content = (*pixels, damage, times)
        return hashlib.sha256(repr(content).encode()).hexdigest()

    def read(self, index: int, device: torch.device = CPU) -> Video:
        """Read one video by its own bytes, without its neighbours.

        So memory holds one video at a time, however large the file is.

        Args:
            index: Which of those in `shapes`.
            device: Not used.

        Returns:
            Pixels in memory of their own, with the file's dtype and strides.

        Raises:
            InputError: A pixel is not finite, or cannot be what it is taken for.
            ChangedInputError: The file has changed since, or cannot be read any more.
        """
        ends = list(accumulate(block.count for block in self.blocks))
        number = bisect(ends, index)
        block = self.blocks[number]
        within = index - (ends[number] - block.count)
        try:
            with open_file(self.path) as file:
                self._check_unchanged(status_of(file))
                if block.offset is None:
                    video = _copy_from_map(self.path, block.start, within)
                else:
                    start = block.offset + within * block.step
                    video = _read_bytes(self.path, file, block, start)
                if isinstance(file, RangeReader):  # whose bytes come one after the other
                    self._check_unchanged(stat(self.path, fresh=True))
        except OSError as error:
            raise unreadable(self.path, error) from error
        number = block.start + within
        damage = self.damage[number] if self.damage else ""
        times = np.array(self.times[number], np.float32) if self.times else None
        made_of = MadeOf(self._identify(block, within))
        if not video.is_floating_point():
            return Video(video, damage=damage, times=times, made_of=made_of)
        # One pass over the pixels; both are NaN if one pixel is.
        low, high = (value.item() for value in video.aminmax())
        if not (math.isfinite(low) and math.isfinite(high)):
            frame = int((~video.isfinite()).flatten(1).any(dim=1).nonzero()[0])
            raise InputError(
                f"{self.path}: expected finite pixels, found NaN or infinity in video "
                f"{number}, frame {frame}. Preprocess this video again."
            )
        if misfit := find_misfit((low, high), self.pixels):
            raise InputError(f"{self.path}: video {number}: {misfit}")
        return Video(video, (low, high), damage, times, made_of)

    def _check_unchanged(self, status: Status) -> None:
        """Check that a file is the one that was scanned; its copy on another disk is."""
        if status.stats == self.stats:
            return
        try:
            unchanged = read_digest(self.path) == self.digest
        except InputError:
            unchanged = False
        if not unchanged:
            raise changed(self.path)


def open_processed_file(
    path: Place, tells_offsets: bool = True, pixels: PixelsName = "normalized"
) -> ProcessedFile:
    """Read and check what a `processed_data.pt` file says of itself: no pixels.

    Args:
        path: A dict with the key `videos`, or the bare value: a tensor `[N, T, 3, H, W]`, or a
            list or tuple of `[T_i, 3, H, W]`. Of a list, bad videos are rejected one by one.
        tells_offsets: Whether torch tells where the bytes of a video are, as all releases so far
            do. Otherwise a video is read by mapping the whole file.
        pixels: What they are, where they are floating point.

    Raises:
        InputError: The file is damaged, or holds something else.
    """
    archive = read_archive(path, tells_offsets)
    with one_at_a_time:
        return _check_archive(path, archive, pixels)


def _check_archive(path: Place, archive: Archive, pixels: PixelsName) -> ProcessedFile:
    """What an archive says of itself; see `open_processed_file`."""
    videos = archive.data
    notes: Mapping[str, Any] = {}
    if isinstance(videos, dict):
        if "videos" not in videos:
            raise InputError(
                f"{path}: expected a dict with the key 'videos', found the keys "
                f"{shorten([*videos])}. Save it as torch.save({{'videos': videos}}, path)."
            )
        notes, videos = videos, videos["videos"]
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
    clips = _check_notes(notes, "clips", count, _is_text)
    damage = _check_notes(notes, "damage", count, _is_text)
    return ProcessedFile(
        str(path),
        "/".join(str(path).split("/")[-4:-1]),
        archive.digest,
        tuple(blocks),
        rejected,
        clips if clips and len({*clips}) == count else None,
        archive.stats,
        pixels,
        damage if damage and any(damage) else None,
        _check_times(notes, blocks, count),
        _check_notes(notes, "columns", count, _is_row),
        _check_sha256(notes, blocks, count, archive),
    )


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
    begin = archive.find_offset(storage)
    if begin is not None and count:
        # torch reckons the offset from the sizes of what torch.save writes before it. In an
        # archive that another program has packed it would be of other bytes.
        member = archive.members.get(begin)
        if member is None or member.file_size != storage.nbytes():
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
        begin += int(videos.storage_offset()) * size
    return Block(start, count, tuple(shape), tuple(stride), videos.dtype, begin, step * size)


def _check_notes(
    notes: Mapping[str, Any], key: str, count: int, fits: Callable[[Any], bool]
) -> tuple[Any, ...] | None:
    """The notes of one kind, one for each video; None if there are others, or none."""
    found = notes.get(key)
    found = tuple(found) if isinstance(found, (list, tuple)) else ()
    return found if len(found) == count and all(map(fits, found)) else None


def _is_text(note: object) -> bool:
    return isinstance(note, str) and is_name(note)


def _is_row(note: object) -> bool:
    """Whether a note is the cells of a row of a table, by the names of columns."""
    return isinstance(note, dict) and all(
        _is_text(name)
        and "/" not in name
        and name not in ("", ".", "..")
        and (isinstance(cell, (int, float)) or _is_text(cell))
        for name, cell in note.items()
    )


def _check_sha256(
    notes: Mapping[str, Any], blocks: Sequence[Block], count: int, archive: Archive
) -> tuple[str, ...] | None:
    """SHA-256 of the pixels of each video; None if it is not noted, or not of these pixels.

    Whoever has changed them, and kept the notes, has not changed the checksums in these.
    """
    digests = _check_notes(
        notes, "sha256", count, lambda note: isinstance(note, str) and len(note) == _SHA256_SIZE
    )
    members = (archive.members.get(block.offset or 0) for block in blocks)
    checksums = [member.CRC if member else None for member in members]
    return digests if notes.get("crc32") == checksums else None


def _check_times(
    notes: Mapping[str, Any], blocks: Sequence[Block], count: int
) -> tuple[Sequence[float], ...] | None:
    """When frames are shown; None if these are no such notes of all videos."""
    times = _check_notes(
        notes,
        "times",
        count,
        lambda note: isinstance(note, list) and all(isinstance(time, float) for time in note),
    )
    lengths = {block.start + i: block.shape[0] for block in blocks for i in range(block.count)}
    fit = times and all(len(times[index]) == length for index, length in lengths.items())
    return times if fit else None


def _read_bytes(path: Place, file: IO[bytes], block: Block, offset: int) -> Tensor:
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


def _copy_from_map(path: Place, number: int, within: int) -> Tensor:
    """Without a byte offset: map the whole file, and copy one video from it."""
    with at_hand(path) as near:
        data = torch.load(near, map_location="cpu", weights_only=True, mmap=True)
        videos = data["videos"] if isinstance(data, dict) else data
        video: Tensor = videos[within] if isinstance(videos, Tensor) else videos[number]
        return video.clone()


def save_videos(
    path: Path, videos: Iterable[tuple[Mapping[str, Any], Tensor]], as_list: bool = False
) -> int:
    """Save videos as torch.save would, with one of them in memory at a time.

    The result is a dict of `videos`, `[N, T, 3, H, W]`, and one list `[N]` for each kind of note;
    `sha256` of the pixels of each video is one, with `crc32` of each tensor, as the archive has it.
    torch.save needs the whole tensor at once, so the pixels are written into the archive first.
    When their number is known, torch.save makes a skeleton (an archive without pixels), and its
    other members are copied. The file appears when it is complete.

    Args:
        path: The file; its folder must exist.
        videos: Notes about a video, and its pixels `[T, 3, H, W]`; all videos must have the same
            notes, dtype and, unless they go into a list, shape.
        as_list: Save a list of `[T_i, 3, H, W]`, for videos that differ in length.

    Returns:
        Number of videos. If there are none, no file is written.
    """
    notes: list[Mapping[str, Any]] = []
    shapes: list[tuple[int, ...]] = []
    digests: list[str] = []
    entries: list[zipfile.ZipInfo] = []
    with TemporaryDirectory(prefix=".featx-", dir=path.parent) as folder:
        temporary = Path(folder) / FILE_NAME
        with zipfile.ZipFile(temporary, "w") as archive:
            with ExitStack() as stack:
                pixels = None
                for note, video in videos:
                    if pixels is None or as_list:
                        stack.close()
                        entry = _pixels_entry(len(notes), archive.start_dir)
                        pixels = stack.enter_context(archive.open(entry, "w", force_zip64=True))
                        entries.append(entry)
                    content = video.contiguous().view(-1).view(torch.uint8).numpy().data
                    pixels.write(content)
                    digests.append(hashlib.sha256(content).hexdigest())
                    notes.append(note)
                    shapes.append(tuple(video.shape))
            if not notes:
                return 0
            data = {key: [note[key] for note in notes] for key in notes[0]}
            data |= {"sha256": digests, "crc32": [entry.CRC for entry in entries]}
            skeleton = _save_skeleton(Path(folder) / "skeleton", data, shapes, video.dtype, as_list)
            with zipfile.ZipFile(skeleton) as source:
                for member in source.infolist():
                    # Where a path is not ASCII, torch.save gives the folder another name.
                    name = f"{_ARCHIVE}/{member.filename.partition('/')[2]}"
                    if not name.startswith(_PIXELS):
                        archive.writestr(zipfile.ZipInfo(name), source.read(member))
        publish_file(temporary, path)
    return len(notes)


def _pixels_entry(number: int, start: int) -> zipfile.ZipInfo:
    """The entry of a tensor at a byte of the archive, such that its data is aligned.

    That comes after 30 bytes of header, the name, padding, and 20 bytes of sizes.
    """
    name = f"{_PIXELS}{number}"
    entry = zipfile.ZipInfo(name)
    padding = -(start + 30 + len(name) + 4 + 20) % _ALIGNMENT
    entry.extra = struct.pack("<2sH", b"FB", padding) + bytes(padding)
    return entry


def _save_skeleton(
    folder: Path,
    notes: Mapping[str, Any],
    shapes: Sequence[tuple[int, ...]],
    dtype: torch.dtype,
    as_list: bool,
) -> Path:
    """What torch.save writes for such videos, as a sparse file without their pixels."""
    folder.mkdir()
    with FakeTensorMode(), torch.serialization.skip_data(materialize_fake_tensors=True):
        if as_list:
            videos: Any = [torch.empty(shape, dtype=dtype) for shape in shapes]
        else:
            videos = torch.empty(len(shapes), *shapes[0], dtype=dtype)
        data = {**notes, "videos": videos}
        torch.save(data, folder / FILE_NAME)
    return folder / FILE_NAME
