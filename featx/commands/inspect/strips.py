"""A few frames of videos, as small pictures, from the inputs of their feature files."""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from featx.analysis.vectors import Videos, evenly
from featx.backbones.transforms import InputTransform
from featx.commands.inputs import open_inputs
from featx.data.batches import VideoItem
from featx.data.settings import VideoSettings
from featx.data.storage import is_folder, join, locate
from featx.features.provenance import Provenance
from featx.parallel import count_cores, map_ahead
from featx.progress import make_bar

if TYPE_CHECKING:
    from featx.extraction.datamodule import VideoDataModule

NUM_FRAMES = 8
_HEIGHT = 64  # pixels
_QUALITY = 60
_TO_RGB = InputTransform(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def open_source(
    inputs: VideoSettings, made: Provenance, splits: Sequence[str]
) -> "VideoDataModule":
    """List the inputs of feature files; of a tree, those of their splits that it has."""
    listed = None
    if inputs.root is not None and inputs.table is None and inputs.layout == "tree":
        root = locate(inputs.root)
        listed = [split for split in splits if is_folder(join(root, split))] or None
    return open_inputs(inputs, made, listed, on_error="skip")


def find_positions(
    source: "VideoDataModule", videos: Videos, chosen: Sequence[int]
) -> dict[int, int]:
    """Positions in the inputs of the chosen videos, by place, as far as their names are there."""
    positions: dict[tuple[str, str], int] = {}
    everywhere: dict[str, list[int]] = {}  # for a file of several splits
    for split, span in source.manifest.positions.items():
        for position, name in zip(span, source.manifest.video_ids(split), strict=True):
            positions[split, name] = position
            everywhere.setdefault(name, []).append(position)
    found = {}
    for place in chosen:
        split, name = videos.splits[videos.split[place]], videos.names[place]
        elsewhere = everywhere.get(name, [])
        if (split, name) in positions:
            found[place] = positions[split, name]
        elif split not in source.manifest.positions and len(elsewhere) == 1:
            found[place] = elsewhere[0]
    return found


def read_strips(
    source: "VideoDataModule", videos: Videos, positions: Mapping[int, int]
) -> Iterator[tuple[int, bytes]]:
    """Places and strips of videos, as JPEG files: frames side by side, evenly spaced.

    Those that cannot be read, or that are made of something else by now, have none.
    """
    dataset = source.make_dataset()

    def draw(place: int) -> bytes | None:
        expected = videos.contents[place]
        for video in dataset[positions[place]].videos:  # one, or none if it cannot be read
            if not expected or not video.made_of or video.made_of.sha256 == expected:
                return _draw(video)
        return None

    with closing(map_ahead(draw, positions, count_cores(), "strips")) as ahead:
        for place, strip in make_bar(ahead, "Drawing", len(positions), "video"):
            if content := strip.result():
                yield place, content


def _draw(video: VideoItem) -> bytes:
    """Draw the strip of a video, as a JPEG."""
    frames, index = video.frames, video.frame_index
    index = torch.arange(len(frames)) if index is None else index
    shown: Tensor = frames[index[torch.from_numpy(evenly(len(index), NUM_FRAMES))]]
    rgb = _TO_RGB(shown, video.white).clamp(0, 1)
    height, width = rgb.shape[-2:]
    size = (_HEIGHT, max(1, round(_HEIGHT * width / height)))
    small = interpolate(rgb, size, mode="bilinear", antialias=True).clamp(0, 1)
    pixels = (255 * small).round().byte().permute(2, 0, 3, 1).flatten(1, 2)  # side by side
    content = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels.numpy())).save(content, "JPEG", quality=_QUALITY)
    return content.getvalue()
