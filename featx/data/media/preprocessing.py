"""How clips become videos: the settings, and what is recorded of them."""

from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from featx.data.media.timeline import Segment, Timeline
from featx.errors import UsageError, check_at_least, check_choice

NUM_FRAMES, IMAGE_SIZE = 64, 256
"""What clips become, unless something else is asked for: so many frames, so high and wide."""

DecoderName = Literal["pyav", "torchcodec"]
NVDEC = "nvdec"  # what is recorded of a GPU that decoded by itself

SLOWER = "of a lower frame rate than fps"
"""A trait of clips."""

_SURELY_MORE = Fraction(21, 20)

ResizeName = Literal["squash", "crop"]


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How clips become videos.

    Attributes:
        num_frames: Frames per video, sampled uniformly; None if frames are sampled otherwise.
        image_size: Height and width in pixels.
        keep_damaged: Keep what decodes of damaged clips.
        decoder: What decodes them.
        stride: Take every n-th frame.
        fps: Take so many frames a second: those that are shown then.
        frame_rate: Of clips that are folders of frames, in frames a second.
        resize: Whether frames are squashed to a square, or its middle is cut out.
    """

    num_frames: int | None = NUM_FRAMES
    image_size: int = IMAGE_SIZE
    keep_damaged: bool = False
    decoder: DecoderName = "pyav"
    stride: int | None = None
    fps: float | None = None
    frame_rate: float | None = None
    resize: ResizeName = "squash"

    @classmethod
    def choose(
        cls,
        num_frames: int | None,
        stride: int | None,
        fps: float | None,
        frame_rate: float | None = None,
        **settings: Any,  # noqa: ANN401  # the others
    ) -> "Preprocessing":
        """Settings as a person gives them: one way of sampling, or none for the usual one.

        Raises:
            UsageError: There are two, or one is out of its range.
        """
        ways = {"num_frames": num_frames, "stride": stride, "fps": fps}
        given = [name for name, value in ways.items() if value is not None]
        if len(given) > 1:
            raise UsageError(
                f"{' and '.join(given)}: expected one way of sampling, found {len(given)}. "
                "Set num_frames, stride or fps."
            )
        if not given:
            num_frames = NUM_FRAMES
        made = cls(
            num_frames=num_frames,
            stride=stride,
            fps=None if fps is None else float(fps),
            frame_rate=None if frame_rate is None else float(frame_rate),
            **settings,
        )
        check_at_least(
            1, num_frames=made.num_frames, stride=made.stride, image_size=made.image_size
        )
        for name, rate in (("fps", made.fps), ("frame_rate", made.frame_rate)):
            if rate is not None and not 0 < rate < float("inf"):
                raise UsageError(f"{name}: expected a number above 0, found {rate}.")
        check_choice("decoder", made.decoder, get_args(DecoderName))
        check_choice("resize", made.resize, get_args(ResizeName))
        return made

    @property
    def is_uniform(self) -> bool:
        """Whether every clip becomes as many frames."""
        return self.num_frames is not None

    @property
    def sampling(self) -> dict[str, float]:
        """The way in which frames are sampled, by its name."""
        if self.stride is not None:
            return {"stride": self.stride}
        if self.fps is not None:
            return {"fps": self.fps}
        return {"num_frames": self.num_frames or NUM_FRAMES}

    def sample(self, timeline: Timeline, segment: Segment) -> NDArray[np.int64]:
        """The numbers of the frames that are taken of a segment of a clip.

        Uniformly, from the first to the last one: `linspace`, truncated, so that a shorter clip
        repeats frames.
        """
        if self.stride is not None:
            return np.arange(segment.first, segment.stop, self.stride)
        if self.fps is not None:
            return timeline.sample(segment, to_fraction(self.fps))
        first, last = segment.first, max(segment.stop - 1, segment.first)
        return np.linspace(first, last, self.num_frames or NUM_FRAMES).astype(np.int64)

    def repeats(self, timeline: Timeline) -> bool:
        """Whether frames of a clip are taken more than once, as it has fewer than `fps`."""
        if self.fps is None or not timeline.is_timed:
            return False
        return to_fraction(self.fps) * timeline.duration > _SURELY_MORE * len(timeline)

    def describe(self, dtype: str) -> dict[str, Any]:
        """How the videos are made, for their record: every setting, also at its default.

        Args:
            dtype: Of the pixels.
        """
        return {
            "frames_per_video": self.num_frames,
            "image_size": [self.image_size, self.image_size],
            "processing_mode": "cpu",
            "dtype": dtype,
            "stride": self.stride,
            "fps": self.fps,
            "frame_rate": self.frame_rate,
            "resize": self.resize,
        }


def to_fraction(number: float) -> Fraction:
    """A number as it was written: 0.1 is a tenth."""
    return Fraction(*Decimal(repr(number)).as_integer_ratio())
