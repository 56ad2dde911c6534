"""Write a `processed_data.pt` video by video: the file may be larger than memory."""

import struct
import zipfile
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from featx.staging import sync
from featx.videos import FILE_NAME

_PIXELS = "processed_data/data/0"  # the one tensor's place in an archive of torch.save
_ALIGNMENT = 64  # of a tensor's bytes in such an archive


def save_videos(path: Path, videos: Iterable[tuple[str, Tensor]]) -> int:
    """Save videos as torch.save would, holding one at a time.

    The result is `{"videos": [N, T, 3, H, W], "clips": [N names]}`. The pixels go into the archive
    first; when their number is known, torch.save makes an archive without pixels, and all its other
    members are taken from there. The file appears when it is complete.

    Args:
        path: The file; its folder must exist.
        videos: Pairs of a clip's name and its pixels `[T, 3, H, W]`, all of one shape and dtype.

    Returns:
        Number of videos; with none, no file is written.
    """
    names = []
    with TemporaryDirectory(prefix=".featx-", dir=path.parent) as folder:
        temporary = Path(folder) / FILE_NAME
        with zipfile.ZipFile(temporary, "w") as archive:
            with archive.open(_pixels_entry(), "w", force_zip64=True) as pixels:
                for name, video in videos:
                    pixels.write(video.contiguous().view(-1).view(torch.uint8).numpy().data)
                    names.append(name)
            if not names:
                return 0
            _copy_frame(archive, Path(folder), names, video)
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    return len(names)


def _pixels_entry() -> zipfile.ZipInfo:
    """An entry whose data begins aligned: 30 bytes of header, name, padding, 20 bytes of sizes."""
    entry = zipfile.ZipInfo(_PIXELS)
    padding = -(30 + len(_PIXELS) + 4 + 20) % _ALIGNMENT
    entry.extra = struct.pack("<2sH", b"FB", padding) + bytes(padding)
    return entry


def _copy_frame(archive: zipfile.ZipFile, folder: Path, names: list[str], video: Tensor) -> None:
    """Add what torch.save writes beside the pixels of so many videos like this one."""
    frame = folder / "frame" / FILE_NAME
    frame.parent.mkdir()
    with FakeTensorMode(), torch.serialization.skip_data(materialize_fake_tensors=True):
        videos = torch.empty(len(names), *video.shape, dtype=video.dtype)
        torch.save({"videos": videos, "clips": names}, frame)  # sparse: no byte of a pixel
    with zipfile.ZipFile(frame) as source:
        for member in source.infolist():
            if member.filename != _PIXELS:
                archive.writestr(zipfile.ZipInfo(member.filename), source.read(member))
