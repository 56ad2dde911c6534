"""The inputs of feature files, opened again with the settings that the files record."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from featx.data.choices import OnError
from featx.data.media.pixels import PIXELS
from featx.data.media.preprocessing import IMAGE_SIZE, NUM_FRAMES, DecoderName
from featx.data.settings import VideoSettings
from featx.features.provenance import Provenance

if TYPE_CHECKING:
    from featx.extraction.datamodule import VideoDataModule


def open_inputs(
    videos: VideoSettings,
    made: Provenance,
    splits: Sequence[str] | None,
    on_error: OnError,
    decoder: DecoderName = "pyav",
) -> "VideoDataModule":
    """List the inputs of a feature file, to be read as when it was made.

    Args:
        videos: Which videos.
        made: The record of the feature file; it says which frames.
        splits: Which splits; by default, all that exist.
        on_error: Whether bad inputs stop the run, or are skipped.
        decoder: The decoder of clips.

    Raises:
        FeatxError: The inputs cannot be listed.
    """
    from featx.extraction.datamodule import VideoDataModule  # Lightning takes seconds to import

    frames = find_frame_settings(made, videos.are_clips)
    videos = replace(videos, splits=splits, decoder=decoder, **frames)
    data = VideoDataModule(**asdict(videos), on_error=on_error)
    data.setup("predict")
    return data


def find_frame_settings(made: Provenance, are_clips: bool) -> dict[str, Any]:
    """Return the frame settings that a feature file records, as fields of `VideoSettings`.

    Args:
        made: The record of the file.
        are_clips: Whether clips are read; otherwise, they were sampled and resized before.
    """
    reading: dict[str, Any] = {
        "num_frames": made.num_frames or NUM_FRAMES,
        "image_size": made.image_size or IMAGE_SIZE,
        "pixels": next((name for name in PIXELS if name == made.pixels), "normalized"),
        "keep_damaged": made.keep_damaged,
    }
    if are_clips:
        reading |= {"num_frames": None, **made.sampling} if made.sampling else {}
        reading |= {"frame_rate": made.frame_rate, "resize": made.resize or "squash"}
    return reading
