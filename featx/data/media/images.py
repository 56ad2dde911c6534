"""A clip that is kept as a folder of images, one for each frame; by Pillow."""

import hashlib
import io
from collections.abc import Sequence
from contextlib import AbstractContextManager
from fractions import Fraction
from pathlib import Path
from typing import IO

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps
from torch import Tensor

from featx.data.media.decoder import Choose, Decoded, Make
from featx.data.media.survey import ClipSurvey
from featx.data.media.timeline import Timeline
from featx.data.scan_cache import FileStamp
from featx.data.storage import (
    Place,
    Status,
    is_remote,
    join,
    list_folder,
    name_of,
    open_file,
    read_each,
    stat,
)
from featx.data.tree import is_hidden, natural_key
from featx.errors import InputError, first_line, parsing

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


def list_images(folder: Place) -> list[tuple[str, Status | None]]:
    """Return the frames of a clip, in natural order: frame_2 before frame_10.

    Returns:
        The place of each, and its status, if the listing has it.
    """
    found = {item.name: item for item in list_folder(folder)}
    names = [name for name, item in found.items() if is_image(name) and item.is_file]
    names.sort(key=lambda name: (natural_key(name), name))
    return [(join(folder, name), found[name].status) for name in names]


def stamp_frames(folder: Place) -> FileStamp:
    """Return what the file system says of all frames of a clip: as one file.

    Its stats are the bytes of all of them, and a number that changes when one of them does.
    """
    statuses = {name_of(path): status or stat(path) for path, status in list_images(folder)}
    stats = [(name, *status.stats) for name, status in statuses.items()]
    size = sum(size for _, size, _ in stats)
    inodes = [status.inode for status in statuses.values()]
    of_folder = [] if is_remote(folder) else [stat(folder).status_ns]
    status_ns = max([*of_folder, *(status.status_ns for status in statuses.values())], default=0)
    changed_ns = max((status.changed_ns for status in statuses.values()), default=0)
    return FileStamp.make((size, _digest(stats)), (_digest(inodes), status_ns), changed_ns)


def _digest(values: Sequence[object]) -> int:
    """A number that changes when one of some values does."""
    digest = hashlib.sha256(repr(values).encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def frames_sha256(folder: Place) -> str:
    """Return the SHA-256 of the content of all frames, in order, whatever their names."""
    digest = hashlib.sha256()
    for content in read_each(list_images(folder)):
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()


def survey_frames(folder: Place, thorough: bool) -> tuple[ClipSurvey, tuple[int, int]]:
    """Read the headers of frames: what there is, and its height and width.

    Args:
        folder: The clip.
        thorough: Read those of all, and not of the first one only.

    Raises:
        InputError: There is none, one is no image, or they differ in size.
    """
    images = [path for path, _ in list_images(folder)]
    if not images:
        raise InputError(f"{folder}: expected images, found none. Leave the folder out.")
    first = None
    for path in images if thorough else images[:1]:
        with open_file(path) as file:
            first = _check_size(path, file, first)
    assert first
    survey = ClipSurvey(len(images), "", container=FRAMES, is_thorough=thorough)
    return survey, first[1:]


def _check_size(
    path: Place, file: IO[bytes], first: tuple[Place, int, int] | None
) -> tuple[Place, int, int]:
    """Read the height and width of a frame, upright, and compare them with those of the first one.

    Returns:
        The first frame of the clip, and its height and width.

    Raises:
        InputError: It is no image, or of another size.
    """
    with _parsing(path), Image.open(file) as image:
        width, height = image.size
        if image.getexif().get(ExifTags.Base.Orientation) in _TURNED:
            width, height = height, width
    if first and first[1:] != (height, width):
        raise InputError(
            f"{path}: expected an image of {first[1]} x {first[2]}, as {name_of(first[0])} "
            f"is, found one of {height} x {width}. Make all frames of a clip of one size."
        )
    return first or (path, height, width)


def decode_frames(
    folder: Place,
    frame_rate: float | None,
    choose: Choose,
    make: Make,
    digest: str = "",
    checks_sizes: bool = False,
) -> tuple[Decoded, str]:
    """Read the frames that are wanted, and make something of each; each image is read once.

    Args:
        folder: The clip.
        frame_rate: Frames a second, if that is known.
        choose: Tells which frames are wanted.
        make: Makes something of each.
        digest: See `frames_sha256`; where it is not known, all images are read to find it.
        checks_sizes: Read all images, to check that they are of one size.

    Returns:
        The frames, and the digest.

    Raises:
        InputError: An image is damaged.
    """
    images = list_images(folder)
    timeline = lay_out_frames(len(images), frame_rate)
    wanted = dict.fromkeys(choose(timeline))
    numbers = sorted(wanted) if digest and not checks_sizes else [*range(len(images))]
    first = None
    frames: dict[int, Tensor] = {}
    found = hashlib.sha256()
    for number, content in zip(numbers, read_each([images[n] for n in numbers]), strict=True):
        found.update(hashlib.sha256(content).digest())
        if checks_sizes:
            first = _check_size(images[number][0], io.BytesIO(content), first)
        if number in wanted:
            frames[number] = make(_read_image(images[number][0], content))
    decoded = Decoded({number: frames[number] for number in wanted}, timeline)
    return decoded, digest or found.hexdigest()


def lay_out_frames(num_frames: int, frame_rate: float | None) -> Timeline:
    """When the frames of a clip are shown, at a rate in frames a second, if that is known."""
    return Timeline.count_up(num_frames, Fraction(str(frame_rate)) if frame_rate else None)


def _read_image(path: Place, content: bytes) -> Tensor:
    """An image, uint8 RGB `[3, H, W]`, upright."""
    with _parsing(path), Image.open(io.BytesIO(content)) as opened:
        image = ImageOps.exif_transpose(opened)
        image.load()
    if image.mode.startswith("I"):  # 16 bits, of which Pillow would take 256 for white
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode == "F":
        raise _refuse_image(path, "pixels in floating point, whose range is not known")
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)


def _parsing(path: Place) -> AbstractContextManager[None]:
    """One parse of an image: Pillow raises any error for damaged bytes, a TypeError among them."""
    return parsing(lambda error: _refuse_image(path, error), passes=())


def _refuse_image(path: Place, found: Exception | str) -> Exception:
    if isinstance(found, OSError) and found.errno is not None:
        return found  # of the system
    text = found if isinstance(found, str) else first_line(found)
    return InputError(
        f"{path}: expected an image that decodes, found: {text}. "
        "Make it again, or leave the clip out."
    )
