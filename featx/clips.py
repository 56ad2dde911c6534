"""Read and write clips with PyAV, whose wheel contains FFmpeg."""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2.functional import resize

from featx.errors import InputError, MissingDependencyError, first_line

try:
    import av
except ModuleNotFoundError as error:
    raise MissingDependencyError(
        "clips: expected the package av (PyAV), found none. Install it: pip install av."
    ) from error


def sample_clip(path: Path, num_frames: int, image_size: int) -> Tensor:
    """Decode a clip to a fixed number of frames.

    Frames are sampled uniformly from the first to the last one (`linspace`, truncated), so a clip
    shorter than `num_frames` repeats frames. Each frame is turned upright, and resized with
    antialiasing as soon as it is decoded, so that few frames of the clip's own size are in memory.

    Args:
        path: The clip.
        num_frames: Frames to sample.
        image_size: Height and width to resize to, in pixels.

    Returns:
        uint8 RGB `[num_frames, 3, image_size, image_size]`.

    Raises:
        InputError: The clip does not decode, or has no video in it.
    """
    try:
        expected = _count_packets(path)
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
