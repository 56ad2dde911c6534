"""One clip: read and written with PyAV, whose wheel contains FFmpeg."""

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2.functional import resize

from featx.data.clip_decoder import decode_clip
from featx.data.clip_survey import ClipSurvey, survey_clip
from featx.data.manifest import CPU, Video, VideoFile
from featx.data.preprocessing import Preprocessing
from featx.errors import ChangedInputError, InputError, first_line, require
from featx.files import file_sha256, file_stats

with require("av", "clips"):
    import av


@dataclass(frozen=True, slots=True)
class ClipFile(VideoFile):
    """A clip as a file of one video, which is decoded when asked for.

    Attributes:
        name: Its path below the folder of all clips.
        preprocessing: How it becomes a video.
        stats: See `file_stats`.
        survey: What it holds, as far as its packets tell.
    """

    name: str
    preprocessing: Preprocessing
    stats: tuple[int, int]
    survey: ClipSurvey

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """`[T, 3, H, W]` of the video."""
        size = self.preprocessing.image_size
        return [(self.preprocessing.num_frames, 3, size, size)]

    @property
    def names(self) -> list[str]:
        """Name of the video."""
        return [self.name]

    @property
    def places(self) -> list[str]:
        """The name again: there may be other clips at the same place."""
        return [self.name]

    @property
    def traits(self) -> tuple[str, ...]:
        """What it is that RGB of 8 bits is not."""
        return self.survey.traits

    @property
    def is_plain(self) -> bool:
        """Whether it was always converted to RGB as it is now."""
        return self.survey.is_plain

    def read(self, index: int = 0, device: torch.device = CPU) -> Video:
        """Decode the clip to its number of frames.

        Frames are sampled uniformly from the first to the last one (`linspace`, truncated), so a
        shorter clip repeats frames. Each is turned upright, and resized with antialiasing as soon
        as it is decoded, so that few frames of the clip's own size are in memory.

        Args:
            index: 0, the only one.
            device: Where torchcodec decodes.

        Returns:
            uint8 RGB `[num_frames, 3, image_size, image_size]`.

        Raises:
            InputError: The clip does not decode, or is damaged.
            ChangedInputError: It has changed since the scan, or cannot be read any more.
        """
        try:
            stats = file_stats(self.path.stat())
            unchanged = stats == self.stats or file_sha256(self.path) == self.digest
        except OSError as error:
            raise _unreadable(self.path, error) from error
        if not unchanged:
            raise ChangedInputError(
                f"{self.path}: expected the clip that was scanned, found another. "
                "It has changed since: start again."
            )
        try:
            frames, damage = _sample(self.path, self.survey, self.preprocessing, device)
        except InputError as error:
            # Of the system, not of the clip.
            if isinstance(error.__cause__, (OSError, MemoryError)):
                raise _unreadable(self.path, error.__cause__) from error
            raise
        return Video(frames, damage=self.survey.damage or damage)


def open_clip(
    path: Path,
    place: str,
    name: str,
    preprocessing: Preprocessing,
    has_digest: bool = True,
) -> ClipFile:
    """Check a clip without decoding it, and read all of its bytes once, for its digest.

    Args:
        path: The clip.
        place: Where it is in the data set: split, category and subcategory.
        name: Its path below the folder of all clips.
        preprocessing: How it is to become a video.
        has_digest: Whether to digest it; without, it cannot be told from others.

    Raises:
        InputError: It cannot be opened, has no video in it, or holds less than it declares.
    """
    try:
        survey = _survey(path)
        if survey.damage and not preprocessing.keep_damaged:
            raise _damaged(path, survey.damage)
        stats = file_stats(path.stat())  # as it was before it was read
        digest = file_sha256(path) if has_digest else ""
    except OSError as error:
        raise InputError(
            f"{path}: expected a readable clip, found: {first_line(error)}. "
            "Check its permissions, or leave it out."
        ) from error
    return ClipFile(path, place, digest, name, preprocessing, stats, survey)


def write_clip(
    path: Path, frames: NDArray[np.uint8], codec: str = "libx264", rate: int = 24
) -> None:
    """Encode a clip.

    Args:
        path: The clip; its suffix decides the container.
        frames: RGB `[num_frames, height, width, 3]`, of even height and width.
        codec: FFmpeg's name of the codec.
        rate: Frames per second.
    """
    with av.open(path, "w") as container:
        stream = cast(av.VideoStream, container.add_stream(codec, rate=rate))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt, stream.bit_rate = "yuv420p", 2_000_000
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def _unreadable(path: Path, error: BaseException) -> ChangedInputError:
    return ChangedInputError(
        f"{path}: expected a readable clip, found: {first_line(error)}. "
        "It was readable when it was scanned: check the disk, and start again."
    )


def _undecodable(path: Path, error: Exception) -> InputError:
    return InputError(
        f"{path}: expected a clip that decodes, found: {first_line(error)}. "
        "Encode it again, or leave it out."
    )


def _damaged(path: Path, damage: str) -> InputError:
    return InputError(
        f"{path}: expected a whole clip, found {damage.rstrip('.')}. Get it again, leave it out, "
        "or set keep_damaged to true to keep what decodes."
    )


def _survey(path: Path) -> ClipSurvey:
    try:
        return survey_clip(path)
    except Exception as error:  # a damaged clip can fail anywhere inside of PyAV
        raise _undecodable(path, error) from error


def _sample(
    path: Path, survey: ClipSurvey, preprocessing: Preprocessing, device: torch.device
) -> tuple[Tensor, str]:
    """Frames of a clip, see `ClipFile.read`; and what is damaged, if that is to be kept."""

    def choose(count: int) -> list[int]:
        return _positions(count, preprocessing.num_frames)

    def make(image: Tensor) -> Tensor:
        resized: Tensor = resize(image, [preprocessing.image_size] * 2, antialias=True)
        return resized

    try:
        decoded = None
        if preprocessing.decoder == "torchcodec":
            from featx.data import torchcodec_decoder  # it is optional

            decoded = torchcodec_decoder.decode_clip(path, survey, choose, make, device)
        if decoded is None:
            decoded = decode_clip(path, choose, make, whole=bool(survey.damage))
    except Exception as error:  # a damaged clip can fail anywhere inside of PyAV
        raise _undecodable(path, error) from error
    if decoded.count == 0:
        raise InputError(
            f"{path}: expected frames, found {decoded.damage}. Encode it again, or leave it out."
        )
    if decoded.damage and not preprocessing.keep_damaged:
        raise _damaged(path, decoded.damage)
    frames = [decoded.frames[number] for number in choose(decoded.count)]
    return torch.stack(frames), decoded.damage


def _positions(count: int, num_frames: int) -> list[int]:
    positions: list[int] = np.linspace(0, max(count - 1, 0), num_frames).astype(np.int64).tolist()
    return positions
