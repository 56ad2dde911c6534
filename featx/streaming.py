"""Write a `processed_data.pt` file video by video, so that it may be larger than memory."""

import struct
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from featx.disk import publish_file
from featx.headers import FILE_NAME

_PIXELS = "processed_data/data/0"  # the member of the archive that holds the tensor's bytes
_ALIGNMENT = 64  # of a tensor's bytes, as torch.save has it


def save_videos(path: Path, videos: Iterable[tuple[Mapping[str, Any], Tensor]]) -> int:
    """Save videos as torch.save would, with one of them in memory at a time.

    The result is a dict of `videos`, `[N, T, 3, H, W]`, and one list `[N]` for each kind of note.
    torch.save needs the whole tensor at once, so the pixels are written into the archive first.
    When their number is known, torch.save makes a skeleton (an archive without pixels), and its
    other members are copied. The file appears when it is complete.

    Args:
        path: The file; its folder must exist.
        videos: Notes about a video, and its pixels `[T, 3, H, W]`; all videos must have the same
            notes, shape and dtype.

    Returns:
        Number of videos. If there are none, no file is written.
    """
    notes = []
    with TemporaryDirectory(prefix=".featx-", dir=path.parent) as folder:
        temporary = Path(folder) / FILE_NAME
        with zipfile.ZipFile(temporary, "w") as archive:
            with archive.open(_pixels_entry(), "w", force_zip64=True) as pixels:
                for note, video in videos:
                    pixels.write(video.contiguous().view(-1).view(torch.uint8).numpy().data)
                    notes.append(note)
            if not notes:
                return 0
            skeleton = _save_skeleton(Path(folder) / "skeleton", notes, video)
            with zipfile.ZipFile(skeleton) as source:
                for member in source.infolist():
                    if member.filename != _PIXELS:
                        archive.writestr(zipfile.ZipInfo(member.filename), source.read(member))
        publish_file(temporary, path)
    return len(notes)


def _pixels_entry() -> zipfile.ZipInfo:
    """An entry whose data is aligned: after 30 bytes of header, the name, padding, 20 of sizes."""
    entry = zipfile.ZipInfo(_PIXELS)
    padding = -(30 + len(_PIXELS) + 4 + 20) % _ALIGNMENT
    entry.extra = struct.pack("<2sH", b"FB", padding) + bytes(padding)
    return entry


def _save_skeleton(folder: Path, notes: Sequence[Mapping[str, Any]], video: Tensor) -> Path:
    """What torch.save writes for videos like this one, as a sparse file without their pixels."""
    folder.mkdir()
    with FakeTensorMode(), torch.serialization.skip_data(materialize_fake_tensors=True):
        data: dict[str, Any] = {key: [note[key] for note in notes] for key in notes[0]}
        data["videos"] = torch.empty(len(notes), *video.shape, dtype=video.dtype)
        torch.save(data, folder / FILE_NAME)
    return folder / FILE_NAME
