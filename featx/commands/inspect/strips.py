"""A few frames of videos, as small pictures, from the inputs of their feature files."""

import io
from collections.abc import Iterator, Sequence
from contextlib import closing

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from featx.analysis.vectors import Videos, evenly
from featx.backbones.transforms import InputTransform
from featx.commands.inputs import Inputs, open_inputs
from featx.console import make_bar
from featx.data.dataset import VideoBatch
from featx.features.provenance import Provenance
from featx.parallel import count_cores, map_ahead

NUM_FRAMES = 8
_HEIGHT = 64  # pixels
_QUALITY = 60
_TO_RGB = InputTransform(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def read_strips(
    videos: Videos,
    chosen: Sequence[int],
    made: Provenance,
    inputs: Inputs,
) -> Iterator[tuple[int, bytes]]:
    """Strips of videos that are found by name, as JPEG files: frames side by side, evenly spaced.

    Those that are not found, or cannot be read, have none.

    Args:
        videos: All videos.
        chosen: Places of those that are to have a strip.
        made: How their features were made.
        inputs: Where the videos are.

    Yields:
        The place of a video, and its strip.

    Raises:
        FeatxError: The inputs cannot be listed.
    """
    splits = None
    if inputs.root is not None and inputs.table is None and inputs.layout == "tree":
        splits = [split for split in videos.splits if (inputs.root / split).is_dir()] or None
    data = open_inputs(inputs, made, splits, on_error="skip")
    manifest = data.manifest
    positions: dict[tuple[str, str], int] = {}
    for split, span in manifest.positions.items():
        for position, name in zip(span, manifest.video_ids(split), strict=True):
            positions[split, name] = position
            positions.setdefault(("", name), position)  # in a file of several splits
    found = {}
    for place in chosen:
        for split in (videos.splits[videos.split[place]], ""):
            if (split, videos.names[place]) in positions:
                found[place] = positions[split, videos.names[place]]
                break
    dataset = data.make_dataset()

    def draw(place: int) -> bytes | None:
        return _draw(dataset[found[place]])

    with closing(map_ahead(draw, found, count_cores(), "strips")) as ahead:
        for place, strip in make_bar(ahead, "Drawing", len(found), "video"):
            if content := strip.result():
                yield place, content


def _draw(batch: VideoBatch) -> bytes | None:
    """The strip of the video of a batch; None if it could not be read."""
    if not batch.videos:
        return None
    frames = batch.videos[0]
    index = batch.frame_index[0] if batch.frame_index else torch.arange(len(frames))
    shown: Tensor = frames[index[torch.from_numpy(evenly(len(index), NUM_FRAMES))]]
    rgb = _TO_RGB(shown, batch.white).clamp(0, 1)
    height, width = rgb.shape[-2:]
    size = (_HEIGHT, max(1, round(_HEIGHT * width / height)))
    small = interpolate(rgb, size, mode="bilinear", antialias=True).clamp(0, 1)
    pixels = (255 * small).round().byte().permute(2, 0, 3, 1).flatten(1, 2)  # side by side
    content = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels.numpy())).save(content, "JPEG", quality=_QUALITY)
    return content.getvalue()
