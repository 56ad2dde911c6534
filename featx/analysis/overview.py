"""All videos of some files at once: where they are, who is near, and what looks wrong."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featx.analysis.duplicates import Duplicates, find_duplicates
from featx.analysis.neighbours import Doubts, Neighbours, find_doubts, find_neighbours
from featx.analysis.space import Space, find_space
from featx.analysis.vectors import Videos
from featx.features.dataset import FeatureDataset


@dataclass(frozen=True, slots=True)
class Overview:
    """What there is to see of videos.

    Attributes:
        videos: All videos.
        num_frames: Number of frames `[num_videos]` of each.
        space: Where they are: by the means of their beginnings, middles and ends.
        neighbours: The nearest of each.
        doubts: Those whose label is likely wrong.
        duplicates: Those that are there twice.
    """

    videos: Videos
    num_frames: NDArray[np.int32]
    space: Space
    neighbours: Neighbours
    doubts: Doubts
    duplicates: Duplicates


def look_over(datasets: Mapping[str, FeatureDataset], seed: int = 0) -> Overview:
    """Read the files, and compare all videos with each other.

    Args:
        datasets: Files that belong together, by split.
        seed: Of what is drawn.

    Raises:
        InputError: A file is damaged.
        ChangedInputError: It has been replaced since it was opened.
    """
    videos = Videos.of(datasets)
    space = find_space(datasets, videos, "thirds", seed)
    neighbours = find_neighbours(space.points)
    return Overview(
        videos,
        np.concatenate([dataset.num_frames for dataset in datasets.values()]),
        space,
        neighbours,
        find_doubts(space.points, videos.labels, videos.contents, neighbours),
        find_duplicates(space.points, videos.contents, videos.split, neighbours),
    )
