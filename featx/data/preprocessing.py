"""How clips become videos: the settings, and what is recorded of them."""

from dataclasses import dataclass
from typing import Any, Literal

NUM_FRAMES, IMAGE_SIZE = 64, 256
"""What clips become, unless something else is asked for: so many frames, so high and wide."""

DecoderName = Literal["pyav", "torchcodec"]
NVDEC = "nvdec"  # what is recorded of a GPU that decoded by itself


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How clips become videos.

    Attributes:
        num_frames: Frames per video, sampled uniformly over a clip.
        image_size: Height and width in pixels.
        keep_damaged: Keep what decodes of damaged clips.
        decoder: What decodes them.
    """

    num_frames: int = NUM_FRAMES
    image_size: int = IMAGE_SIZE
    keep_damaged: bool = False
    decoder: DecoderName = "pyav"

    def describe(self, dtype: str, are_plain: bool = True) -> dict[str, Any]:
        """How the videos were made, as the analysis words it.

        Args:
            dtype: Of the pixels.
            are_plain: Whether all clips were always converted to RGB as they are now; otherwise it
                is recorded that ffmpeg's own way is taken: featx once took a simpler one.
        """
        return {
            "frames_per_video": self.num_frames,
            "image_size": [self.image_size, self.image_size],
            "processing_mode": "cpu",
            "dtype": dtype,
            **({} if are_plain else {"rgb": "ffmpeg"}),
        }
