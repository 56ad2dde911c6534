"""A clip that is kept as a folder of images, one for each frame; by Pillow."""

import hashlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps
from torch import Tensor

from featx.data.clip_decoder import Choose, Decoded, Make
from featx.data.clip_survey import ClipSurvey
from featx.data.far import scan_folder
from featx.data.folders import is_hidden, natural_key
from featx.data.known import Look
from featx.data.timeline import Timeline
from featx.errors import InputError, first_line, parsing
from featx.files import file_sha256, file_stats, to_int64

FRAMES = "frames"
"""What stands for the name of a container."""

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".tif", ".tiff", ".webp"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".jp2", ".j2k", ".avif"),
)

_TURNED = (5, 6, 7, 8)  # orientations of EXIF whose width is the height


def is_image(name: str) -> bool:
    """Whether a file of this name is an image."""
    return Path(name).suffix.lower() in IMAGE_SUFFIXES and not is_hidden(name)


def list_images(folder: Path) -> list[Path]:
    """The frames of a clip, in natural order: frame_2 before frame_10."""
    entries = scan_folder(folder)
    names = [entry.name for entry in entries if is_image(entry.name) and entry.is_file()]
    return [folder / name for name in sorted(names, key=lambda name: (natural_key(name), name))]


def look_at_frames(folder: Path) -> Look:
    """What the file system says of all frames of a clip: as one file.

    Its stats are the bytes of all of them, and a number that changes when one of them does.
    """
    statuses = {path.name: path.stat() for path in list_images(folder)}
    stats = [(name, *file_stats(status)) for name, status in statuses.items()]
    size = sum(size for _, size, _ in stats)
    inodes = [status.st_ino for status in statuses.values()]
    status_ns = max(status.st_ctime_ns for status in (folder.stat(), *statuses.values()))
    changed_ns = max((status.st_mtime_ns for status in statuses.values()), default=0)
    marks = _digest(inodes), to_int64(status_ns)
    return Look.make((size, _digest(stats)), marks, changed_ns)


def _digest(values: Sequence[object]) -> int:
    """A number that changes when one of some values does."""
    digest = hashlib.sha256(repr(values).encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def frames_sha256(folder: Path) -> str:
    """SHA-256 of the content of all frames, in order, whatever their names."""
    digest = hashlib.sha256()
    for path in list_images(folder):
        digest.update(bytes.fromhex(file_sha256(path)))
    return digest.hexdigest()


def survey_frames(folder: Path, thorough: bool) -> tuple[ClipSurvey, tuple[int, int]]:
    """Read the headers of frames: what there is, and its height and width.

    Args:
        folder: The clip.
        thorough: Read those of all, and not of the first one only.

    Raises:
        InputError: There is none, one is no image, or they differ in size.
    """
    images = list_images(folder)
    if not images:
        raise InputError(f"{folder}: expected images, found none. Leave the folder out.")
    first = _read_size(images[0])
    for path in images[1:] if thorough else ():
        if (size := _read_size(path)) != first:
            raise InputError(
                f"{path}: expected an image of {first[0]} x {first[1]}, as {images[0].name} is, "
                f"found one of {size[0]} x {size[1]}. Make all frames of a clip of one size."
            )
    survey = ClipSurvey(len(images), "", container=FRAMES, is_thorough=thorough)
    return survey, first


def decode_frames(folder: Path, frame_rate: float | None, choose: Choose, make: Make) -> Decoded:
    """Read the frames that are wanted, and make something of each.

    Raises:
        InputError: One is damaged.
    """
    images = list_images(folder)
    timeline = lay_out_frames(len(images), frame_rate)
    frames = {n: make(_read_image(images[n])) for n in dict.fromkeys(choose(timeline))}
    return Decoded(frames, timeline)


def lay_out_frames(num_frames: int, frame_rate: float | None) -> Timeline:
    """When the frames of a clip are shown, at a rate in frames a second, if that is known."""
    return Timeline.count_up(num_frames, Fraction(str(frame_rate)) if frame_rate else None)


def _read_size(path: Path) -> tuple[int, int]:
    """Height and width of an image, upright."""
    with _parsing(path), Image.open(path) as image:
        width, height = image.size
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    return (width, height) if orientation in _TURNED else (height, width)


def _read_image(path: Path) -> Tensor:
    """An image, uint8 RGB `[3, H, W]`, upright."""
    with _parsing(path), Image.open(path) as opened:
        image = ImageOps.exif_transpose(opened)
        image.load()
    if image.mode.startswith("I"):  # 16 bits, of which Pillow would take 256 for white
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode == "F":
        raise _refuse_image(path, "pixels in floating point, whose range is not known")
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def _parsing(path: Path) -> AbstractContextManager[None]:
    """One parse of an image: Pillow raises any error for damaged bytes, a TypeError among them."""
    return parsing(lambda error: _refuse_image(path, error), passes=())


def _refuse_image(path: Path, found: Exception | str) -> Exception:
    if isinstance(found, OSError) and found.errno is not None:
        return found  # of the system
    text = found if isinstance(found, str) else first_line(found)
    return InputError(
        f"{path}: expected an image that decodes, found: {text}. "
        "Make it again, or leave the clip out."
    )
