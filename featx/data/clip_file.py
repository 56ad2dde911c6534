"""One clip: read and written with PyAV, whose wheel contains FFmpeg."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2.functional import resize

from featx.data.manifest import Video, VideoFile
from featx.errors import ChangedInputError, InputError, first_line, require
from featx.files import file_sha256, file_stats

with require("av", "clips"):
    import av


@dataclass(frozen=True, slots=True)
class ClipFile(VideoFile):
    """A clip as a file of one video, which is decoded when asked for.

    Attributes:
        name: Its path below the folder of all clips.
        num_frames: Frames of the video, sampled uniformly over the clip.
        image_size: Height and width of the video in pixels.
        stats: See `file_stats`.
    """

    name: str
    num_frames: int
    image_size: int
    stats: tuple[int, int]

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """`[T, 3, H, W]` of the video."""
        return [(self.num_frames, 3, self.image_size, self.image_size)]

    @property
    def names(self) -> list[str]:
        """Name of the video."""
        return [self.name]

    @property
    def places(self) -> list[str]:
        """The name again: there may be other clips at the same place."""
        return [self.name]

    def read(self, index: int = 0) -> Video:
        """Decode the clip.

        Returns:
            uint8 RGB `[num_frames, 3, image_size, image_size]`.

        Raises:
            InputError: The clip does not decode.
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
            return Video(sample_clip(self.path, self.num_frames, self.image_size))
        except InputError as error:
            # Of the system, not of the clip.
            if isinstance(error.__cause__, (OSError, MemoryError)):
                raise _unreadable(self.path, error.__cause__) from error
            raise


def open_clip(path: Path, place: str, name: str, num_frames: int, image_size: int) -> ClipFile:
    """Check a clip without decoding it, and read all of its bytes once, for its digest.

    Args:
        path: The clip.
        place: Where it is in the data set: split, category and subcategory.
        name: Its path below the folder of all clips.
        num_frames: Frames that the video is to have.
        image_size: Height and width that it is to have.

    Raises:
        InputError: It cannot be opened, or has no video in it.
    """
    try:
        check_clip(path)
        stats = file_stats(path.stat())  # as it was before it was read
        digest = file_sha256(path)
    except OSError as error:
        raise InputError(
            f"{path}: expected a readable clip, found: {first_line(error)}. "
            "Check its permissions, or leave it out."
        ) from error
    return ClipFile(path, place, digest, name, num_frames, image_size, stats)


def sample_clip(
    path: Path, num_frames: int, image_size: int, num_packets: int | None = None
) -> Tensor:
    """Decode a clip to a fixed number of frames.

    Frames are sampled uniformly from the first to the last one (`linspace`, truncated), so a clip
    shorter than `num_frames` repeats frames. Each frame is turned upright, and resized with
    antialiasing as soon as it is decoded, so that few frames of the clip's own size are in memory.

    Args:
        path: The clip.
        num_frames: Frames to sample.
        image_size: Height and width to resize to, in pixels.
        num_packets: Number of packets of the clip, if it is known.

    Returns:
        uint8 RGB `[num_frames, 3, image_size, image_size]`.

    Raises:
        InputError: The clip does not decode, or has no video in it.
    """
    try:
        expected = _count_packets(path) if num_packets is None else num_packets
        video, found = _decode(path, _positions(expected, num_frames), image_size)
        if 0 < found != expected:  # some packets hold no frame, but now the number is known
            video, found = _decode(path, _positions(found, num_frames), image_size)
    except Exception as error:  # a damaged clip can fail anywhere inside of PyAV
        raise _undecodable(path, error) from error
    if found == 0:
        raise InputError(f"{path}: expected frames, found none. Encode it again, or leave it out.")
    return video


def check_clip(path: Path) -> None:
    """Check that a clip can be opened and has video in it; no frame is decoded.

    Raises:
        InputError: It cannot, or has not.
    """
    try:
        with av.open(path) as container:
            _video_stream(container)
    except Exception as error:  # a damaged clip can fail anywhere inside of PyAV
        raise _undecodable(path, error) from error


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


def _positions(count: int, num_frames: int) -> list[int]:
    positions: list[int] = np.linspace(0, max(count - 1, 0), num_frames).astype(np.int64).tolist()
    return positions


def _count_packets(path: Path) -> int:
    """Number of packets of the first video stream: nearly always the number of its frames."""
    with av.open(path) as container:
        return sum(packet.size > 0 for packet in container.demux(_video_stream(container)))


def _decode(path: Path, positions: Sequence[int], image_size: int) -> tuple[Tensor, int]:
    """The frames at `positions` (ascending) of a clip, and its number of frames."""
    video = torch.empty(len(positions), 3, image_size, image_size, dtype=torch.uint8)
    filled = count = 0
    with av.open(path) as container:
        stream = _video_stream(container)
        stream.codec_context.thread_count = 1  # clips are decoded in parallel already
        for frame in container.decode(stream):
            if filled < len(positions) and positions[filled] == count:
                repeats = positions.count(count)
                video[filled : filled + repeats] = _convert(frame, image_size)
                filled += repeats
            count += 1
    return video, count


def _video_stream(container: av.container.InputContainer) -> av.VideoStream:
    """The video stream that FFmpeg takes for the best: not a cover picture, for example."""
    stream = container.streams.best("video")
    if not isinstance(stream, av.VideoStream):
        raise ValueError("no video stream")
    if stream.codec_context is None:
        raise ValueError("a codec that FFmpeg does not know")
    return stream


def _convert(frame: av.VideoFrame, image_size: int) -> Tensor:
    """A decoded frame as uint8 RGB `[3, image_size, image_size]`, upright."""
    image = torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1)
    image = image.rot90(round(frame.rotation / 90), dims=(1, 2))
    resized: Tensor = resize(image, [image_size, image_size], antialias=True)
    return resized
