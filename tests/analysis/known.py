"""Feature files of which the answer is known: what a probe can find in them, and what not."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from featx.features.feature_file import FileLayout, create, encode, file_name, write_row
from featx.features.provenance import Provenance

DIM = 16

Videos = list[NDArray[np.float32]]


def noise(rng: np.random.Generator, labels: Sequence[int], frames: int = 6) -> Videos:
    """Nothing in them tells the label."""
    return [rng.standard_normal((frames, DIM)).astype(np.float32) for _ in labels]


def separable(rng: np.random.Generator, labels: Sequence[int], frames: int = 6) -> Videos:
    """The mean of a video tells it."""
    centres = 2 * np.random.default_rng(0).standard_normal((100, DIM))
    return [
        video + centres[label].astype(np.float32)
        for video, label in zip(noise(rng, labels, frames), labels, strict=True)
    ]


def ordered(rng: np.random.Generator, labels: Sequence[int], frames: int = 6) -> Videos:
    """Only the order of the frames tells it: two categories are each other's reverse."""
    ramp = np.linspace(-2, 2, frames)[:, None]
    ways = np.random.default_rng(1).standard_normal((50, DIM))
    videos = []
    for video, label in zip(noise(rng, labels, frames), labels, strict=True):
        video -= video.mean(axis=0)
        way = ways[label // 2] * (-1) ** label
        videos.append((video + ramp * way).astype(np.float32))
    return videos


def write(
    folder: Path,
    split: str,
    videos: Videos,
    labels: Sequence[int],
    names: Sequence[str] | None = None,
    contents: Sequence[str] = (),
    categories: Mapping[str, int] | None = None,
    multi_scale: bool = True,
) -> Path:
    """A feature file of such videos."""
    if categories is None:
        categories = {f"category {i:02}": i for i in range(max(labels) + 1)}
    made = Provenance(categories, multi_scale, {"backbone": "resnet50", "split": split})
    layout = FileLayout.plan(
        np.array(labels, np.int64),
        np.array([len(video) for video in videos], np.int32),
        names or [f"{split} {i}" for i in range(len(videos))],
        videos[0].shape[1],
        replace(made, runs=[made.last_bits()]),
        input_sha256=contents,
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / file_name(split, multi_scale)
    with h5py.File(path, "w") as file:
        create(file, layout)
        for row, video in enumerate(videos):
            write_row(file, row, encode(video, layout))
    return path
