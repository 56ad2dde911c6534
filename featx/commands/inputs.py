"""The inputs of feature files, found again: where a person says, and as the files say."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from featx.data.choices import LayoutName, OnError, SourceName
from featx.data.pixels import PIXELS
from featx.data.preprocessing import IMAGE_SIZE, NUM_FRAMES, DecoderName
from featx.features.provenance import Provenance

if TYPE_CHECKING:
    from featx.extraction.datamodule import VideoDataModule


class Inputs(NamedTuple):
    """Where a person says that inputs are: arguments of `VideoDataModule`."""

    root: Path | str | None
    source: SourceName = "processed"
    layout: LayoutName = "tree"
    table: Path | None = None
    columns: dict[str, str] | None = None


def open_inputs(
    inputs: Inputs,
    made: Provenance,
    splits: Sequence[str] | None,
    on_error: OnError,
    decoder: DecoderName = "pyav",
) -> "VideoDataModule":
    """List what features were made of, to be read as it was.

    Args:
        inputs: Where they are.
        made: What a feature file records.
        splits: Which splits; by default, those that there are.
        on_error: What becomes of bad ones.
        decoder: What decodes clips.

    Raises:
        FeatxError: The inputs cannot be listed.
    """
    from featx.extraction.datamodule import VideoDataModule  # Lightning takes seconds to import

    are_clips = inputs.source != "processed" or inputs.table is not None
    data = VideoDataModule(
        splits=splits,
        on_error=on_error,
        decoder=decoder,
        **inputs._asdict(),
        **find_reading(made, are_clips),
    )
    data.setup("predict")
    return data


def find_reading(made: Provenance, are_clips: bool) -> dict[str, Any]:
    """Arguments of `VideoDataModule`, so that it reads what the features were made of.

    Args:
        made: What the file records.
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
