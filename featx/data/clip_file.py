"""One clip, or a segment of one: checked, and read as a video."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2.functional import center_crop, resize

from featx.data.clip_decoder import Decoded, decode_clip
from featx.data.clip_survey import ClipSurvey, survey_clip
from featx.data.frames_folder import (
    FRAMES,
    decode_frames,
    frames_sha256,
    frames_stats,
    survey_frames,
)
from featx.data.manifest import CPU, Home, Video, VideoFile
from featx.data.preprocessing import SLOWER, Preprocessing
from featx.data.timeline import Segment, Timeline
from featx.errors import ChangedInputError, InputError, first_line, require
from featx.files import file_sha256, file_stats

with require("av", "clips"):
    import av

_FRAMES_OFF = 2  # by which a good clip may have more packets than frames


class Box(NamedTuple):
    """A part of each frame, in pixels of the frame as it is shown."""

    left: int
    top: int
    right: int
    bottom: int


@dataclass(frozen=True, slots=True)
class ClipFile(VideoFile):
    """A clip as a file of one video, which is decoded when asked for.

    Attributes:
        name: What the video is called, such as its path below the folder of all clips.
        preprocessing: How it becomes a video.
        stats: See `file_stats`.
        survey: What it holds, as far as its packets tell.
        home: Its split and category.
        length: Frames of the video.
        segment: Which of its frames; None for all.
        box: Which part of each; None for all.
    """

    name: str
    preprocessing: Preprocessing
    stats: tuple[int, int]
    survey: ClipSurvey
    home: Home
    length: int
    segment: Segment | None = None
    box: Box | None = None

    @property
    def split(self) -> str:
        """The split."""
        return self.home.split

    @property
    def category(self) -> str | None:
        """The category; None if it has none."""
        return self.home.category

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """`[T, 3, H, W]` of the video."""
        size = self.preprocessing.image_size
        return [(self.length, 3, size, size)]

    @property
    def names(self) -> list[str]:
        """Name of the video."""
        return [self.name]

    @property
    def places(self) -> list[str]:
        """The name again: there may be other clips at the same place."""
        return [self.name]

    @property
    def identity(self) -> tuple[object, ...]:
        """What tells it from others: in a tree, its place and its content."""
        content = self.path.name, self.digest
        if self.place != self.name:
            return self.place, *content
        return *self.home, self.name, *content, self.segment, self.box

    @property
    def traits(self) -> tuple[str, ...]:
        """What it is that RGB of 8 bits is not."""
        return self.survey.traits

    @property
    def is_plain(self) -> bool:
        """Whether it was always converted to RGB as it is now."""
        return self.survey.is_plain

    def read(self, index: int = 0, device: torch.device = CPU) -> Video:
        """Decode the frames that are sampled.

        Each is turned upright, and resized with antialiasing as soon as it is decoded, so that few
        frames of the clip's own size are in memory.

        Args:
            index: 0, the only one.
            device: Where torchcodec decodes.

        Returns:
            uint8 RGB `[length, 3, image_size, image_size]`, and when each frame is shown.

        Raises:
            InputError: The clip does not decode, or is damaged.
            ChangedInputError: It has changed since the scan, or cannot be read any more.
        """
        is_folder = self.survey.container == FRAMES
        try:
            stats = frames_stats(self.path) if is_folder else file_stats(self.path.stat())
            unchanged = stats == self.stats or _find_digest(self.path) == self.digest
        except OSError as error:
            raise _unreadable(self.path, error) from error
        if not unchanged:
            raise ChangedInputError(
                f"{self.path}: expected the clip that was scanned, found another. "
                "It has changed since: start again."
            )
        try:
            decoded = self._decode(device)
        except InputError as error:
            # Of the system, not of the clip.
            if isinstance(error.__cause__, (OSError, MemoryError)):
                raise _unreadable(self.path, error.__cause__) from error
            raise
        numbers = self._choose(decoded.timeline)
        frames = torch.stack([decoded.frames[number] for number in numbers])
        times = decoded.timeline.to_seconds(np.array(numbers))
        return Video(frames, damage=self.survey.damage or decoded.damage, times=times)

    def _choose(self, timeline: Timeline) -> list[int]:
        """The numbers of the frames that are taken, of those that there turn out to be."""
        chosen = self.preprocessing.sample(timeline, self.segment or timeline.whole)
        if len(chosen) != self.length:  # a frame or two more, or fewer, than there are packets
            chosen = np.pad(chosen, (0, self.length), mode="edge")[: self.length]
        numbers: list[int] = np.clip(chosen, 0, len(timeline) - 1).tolist()
        return numbers

    def _make(self, image: Tensor) -> Tensor:
        """A frame of the video from one of the clip."""
        if self.box:
            left, top, right, bottom = self.box
            image = image[:, top:bottom, left:right]
        size = self.preprocessing.image_size
        if self.preprocessing.resize == "crop":
            resized: Tensor = center_crop(resize(image, [size], antialias=True), [size, size])
        else:
            resized = resize(image, [size, size], antialias=True)
        return resized

    def _decode(self, device: torch.device) -> Decoded:
        """The frames, and what is damaged, if that is to be kept."""
        decoded = None
        try:
            if self.survey.container == FRAMES:
                rate = self.preprocessing.frame_rate
                decoded = decode_frames(self.path, rate, self._choose, self._make)
            elif self.preprocessing.decoder == "torchcodec":
                from featx.data import torchcodec_decoder  # it is optional

                decoded = torchcodec_decoder.decode_clip(
                    self.path, self.survey, self._choose, self._make, device
                )
            if decoded is None:
                whole = bool(self.survey.damage)
                decoded = decode_clip(self.path, self._choose, self._make, whole)
        except InputError:
            raise
        except Exception as error:  # a damaged clip can fail anywhere inside of PyAV
            raise _undecodable(self.path, error) from error
        if decoded.count == 0:
            raise InputError(
                f"{self.path}: expected frames, found {decoded.damage}. "
                "Encode it again, or leave it out."
            )
        if decoded.damage and not self.preprocessing.keep_damaged:
            raise _damaged(self.path, decoded.damage)
        if not self.preprocessing.keep_damaged and not self._is_uniform_and_whole():
            self._check_count(decoded)
        return decoded

    def _is_uniform_and_whole(self) -> bool:
        return self.preprocessing.is_uniform and self.segment is None

    def _check_count(self, decoded: Decoded) -> None:
        """Check that the frames are those that the sampling was planned for.

        Raises:
            InputError: There are others.
        """
        expected = self.survey.num_frames
        if abs(decoded.count - expected) > _FRAMES_OFF:
            raise InputError(
                f"{self.path}: expected {expected} frames by its packets, found {decoded.count}. "
                "Encode it again, or leave it out."
            )


class Opened(NamedTuple):
    """A clip that was checked: what its videos share.

    Attributes:
        path: The clip.
        digest: SHA-256 of its content; empty if it is not asked for.
        stats: See `file_stats`.
        survey: What it holds.
        timeline: When its frames are shown; None if nobody has asked.
        size: Height and width of its frames as they are shown; None if nobody has asked.
        preprocessing: How it becomes videos.
    """

    path: Path
    digest: str
    stats: tuple[int, int]
    survey: ClipSurvey
    timeline: Timeline | None
    size: tuple[int, int] | None
    preprocessing: Preprocessing

    def take(
        self,
        place: str,
        name: str,
        home: Home,
        segment: Segment | None = None,
        box: Box | None = None,
    ) -> ClipFile:
        """A video of it."""
        length = self.preprocessing.num_frames
        if length is None:
            timeline = cast(Timeline, self.timeline)
            length = len(self.preprocessing.sample(timeline, segment or timeline.whole))
        return ClipFile(
            self.path,
            place,
            self.digest,
            name,
            self.preprocessing,
            self.stats,
            self.survey,
            home,
            length,
            segment,
            box,
        )


def open_clip(
    path: Path,
    preprocessing: Preprocessing,
    has_digest: bool = True,
    has_times: bool = False,
    has_size: bool = False,
) -> Opened:
    """Check a clip, and read all of its bytes once, for its digest.

    It is decoded only where its packets do not tell what is asked for.

    Args:
        path: The clip, or its folder of frames.
        preprocessing: How it is to become a video.
        has_digest: Whether to digest it; without, it cannot be told from others.
        has_times: Whether to find when its frames are shown.
        has_size: Whether to find how large its frames are, as they are shown.

    Raises:
        InputError: It cannot be opened, has no video in it, or holds less than it declares.
    """
    is_folder = path.is_dir()
    has_times = has_times or not preprocessing.is_uniform
    timeline: Timeline | None
    size = None
    try:
        try:
            if is_folder:
                survey, timeline, size = survey_frames(path, preprocessing.frame_rate)
            else:
                survey, timeline = survey_clip(path)
                if has_times and timeline is None:
                    decoded = decode_clip(path, lambda timeline: [], torch.clone, whole=True)
                    timeline = decoded.timeline
                if has_size:
                    first = decode_clip(path, lambda timeline: [0], torch.clone).frames[0]
                    size = first.shape[1], first.shape[2]
        except InputError:
            raise
        except Exception as error:  # a damaged clip can fail anywhere inside of PyAV
            raise _undecodable(path, error) from error
        if survey.damage and not preprocessing.keep_damaged:
            raise _damaged(path, survey.damage)
        if has_times and not (timeline and len(timeline)):
            raise InputError(f"{path}: expected frames, found none. Leave it out.")
        if preprocessing.fps and timeline and not timeline.is_timed:
            raise InputError(
                f"{path}: expected to know when frames are shown, to sample them by fps, found no "
                "frame rate. Set frame_rate, or sample by num_frames or stride."
            )
        survey = survey._replace(num_frames=len(timeline) if timeline else survey.num_packets)
        if timeline and preprocessing.repeats(timeline):
            survey = survey._replace(traits=(*survey.traits, SLOWER))
        # As it was before it was read.
        stats = frames_stats(path) if is_folder else file_stats(path.stat())
        digest = _find_digest(path) if has_digest else ""
    except OSError as error:
        raise InputError(
            f"{path}: expected a readable clip, found: {first_line(error)}. "
            "Check its permissions, or leave it out."
        ) from error
    return Opened(path, digest, stats, survey, timeline, size, preprocessing)


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


def _find_digest(path: Path) -> str:
    return frames_sha256(path) if path.is_dir() else file_sha256(path)


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
