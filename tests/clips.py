"""Small clips of any container and codec, for the tests."""

import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from torch import Tensor

from featx.data.media.clip import ClipFile, Needs, open_clip
from featx.data.media.decoder import Choose, Decoded, Make, decode
from featx.data.media.preprocessing import Preprocessing
from featx.data.media.survey import ClipSurvey, demux_clip, survey_packets
from featx.data.media.timeline import Timeline
from featx.data.media.video_file import Home

NUM_FRAMES = 36


def moving_frames(count: int, height: int, width: int) -> list[np.ndarray[Any, np.dtype[np.uint8]]]:
    """Frames with detail that moves, so that each takes some bytes."""
    noise = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    image = noise.repeat(8, axis=0).repeat(8, axis=1)
    return [np.roll(image, 3 * number, axis=1) for number in range(count)]


def encode(
    path: Path,
    codec: str,
    container: str | None = None,
    options: dict[str, str] | None = None,
    muxer: dict[str, str] | None = None,
    pixels: str = "yuv420p",
    size: tuple[int, int] = (48, 64),
    rate: int | Fraction = 25,
    count: int = NUM_FRAMES,
    b_frames: int | None = None,
    start: int = 0,
    times: list[int] | None = None,
    sound: tuple[str, float] | None = None,
) -> Path:
    """Write a clip.

    Args:
        path: The clip.
        codec: FFmpeg's name of the encoder.
        container: FFmpeg's name of the container, where the suffix does not tell it.
        options: Of the encoder.
        muxer: Options of the container.
        pixels: Format of the pixels.
        size: Height and width.
        rate: Frames per second.
        count: Number of frames.
        b_frames: How many there may be in a row.
        start: When the clip begins, in frames.
        times: When each frame is shown, in frames.
        sound: The encoder of a sound track, and its length in seconds.
    """
    with av.open(path, "w", format=container, options=muxer or {}) as output:
        stream: Any = output.add_stream(codec, rate=rate, options=options or {})
        stream.height, stream.width, stream.pix_fmt = *size, pixels
        stream.codec_context.gop_size = 12
        if b_frames is not None:
            stream.codec_context.max_b_frames = b_frames
        track: Any = output.add_stream(sound[0], rate=44100) if sound else None
        for number, image in enumerate(moving_frames(count, *size)):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = start + (times or range(count))[number], 1 / Fraction(rate)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
        for number in range(int(sound[1] * 44100 / 1024) if sound else 0):
            samples = np.zeros((1, 1024), np.float32)
            silence = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            silence.sample_rate, silence.pts = 44100, 1024 * number
            silence.time_base = Fraction(1, 44100)
            output.mux(track.encode(silence))
        if track:
            output.mux(track.encode())
    return path


def turn(path: Path, a: float, b: float, c: float, d: float) -> None:
    """Write a display matrix over that of an mp4 file."""
    upright = (65536, 0, 0, 0, 65536)
    turned = (round(65536 * a), round(65536 * b), 0, round(65536 * c), round(65536 * d))
    before, after = (struct.pack(">9i", *matrix, 0, 0, 0, 1 << 30) for matrix in (upright, turned))
    content = path.read_bytes()
    place = content.index(before, content.index(b"tkhd"))
    path.write_bytes(content[:place] + after + content[place + len(after) :])


def sample_clip(path: Path, num_frames: int, image_size: int) -> Tensor:
    """Frames of a clip, uint8 RGB `[num_frames, 3, image_size, image_size]`."""
    return open_video(path, Preprocessing(num_frames, image_size)).read().frames


def open_video(path: Path, preprocessing: Preprocessing) -> ClipFile:
    """A clip, as a video of a training set."""
    clip = open_clip(path, preprocessing, Needs(thorough=True))
    return clip.take("train/a/a", path.name, Home("train", "a"))


def survey_clip(path: Path) -> tuple[ClipSurvey, Timeline | None]:
    """What the packets of a clip tell; see `survey_packets`."""
    with demux_clip(path) as clip:
        return survey_packets(clip)


def decode_clip(path: Path, choose: Choose, make: Make, whole: bool = False) -> Decoded:
    """The frames of a clip that are wanted; see `decode`."""
    with demux_clip(path) as clip:
        return decode(clip, choose, make, whole)
