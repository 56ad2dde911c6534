"""The numbers behind the figures of a feature file, gathered video by video."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from featx.analysis.vectors import evenly
from featx.features.dataset import FeatureDataset, average_vectors
from featx.features.feature_file import UNLABELLED

MAX_VIDEOS = 2000  # whose features are read; their mean features take 30 MB at most
MAX_TIMES = 512  # frame numbers at which norms are kept, and frames of a similarity
MAX_SIMILARITIES = 4
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


class Similarity(NamedTuple):
    """How much the frames of a video resemble each other.

    `cosines` is `[frames, frames]`, of at most `MAX_TIMES` frames, evenly spaced; NaN for a frame
    whose features are all zero.
    """

    category: int  # a place among the categories
    video_id: str
    num_frames: int
    cosines: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Survey:
    """What the figures of a feature file show.

    The features of a sample are read: of all videos, or of `MAX_VIDEOS` evenly spaced ones.
    """

    file: str
    feature_dim: int
    categories: list[str]  # by label
    counts: NDArray[np.int64]  # videos of each category
    num_frames: NDArray[np.int32]  # of all videos
    sampled: NDArray[np.int64]  # [sample], places in categories
    times: NDArray[np.int64]  # frame numbers from 0
    norms: NDArray[np.float64]  # [quantiles, times], over the videos that are as long
    places: NDArray[np.float64]  # [sample, 2], principal components of the mean features
    shares: tuple[float, float] | None  # of the variance; None if all means are the same
    similarities: list[Similarity]  # of different categories where there are as many


def survey(
    dataset: FeatureDataset, max_videos: int = MAX_VIDEOS, max_times: int = MAX_TIMES
) -> Survey:
    """Gather what the figures show, in memory that does not grow with the number of videos.

    Args:
        dataset: A valid feature file with one video or more.
        max_videos: How many videos have their features read.
        max_times: At how many frame numbers norms are kept, and frames compared.

    Raises:
        InputError: The file is damaged.
    """
    names = sorted(dataset.categories, key=dataset.categories.__getitem__)
    labels = np.array([dataset.categories[name] for name in names], np.int64)
    if (dataset.labels == UNLABELLED).any():
        names, labels = ["(no category)", *names], np.insert(labels, 0, UNLABELLED)
    categories = np.searchsorted(labels, dataset.labels)
    rows = evenly(len(dataset), max_videos)
    times = evenly(int(dataset.num_frames[rows].max()), max_times)
    norms = np.full((len(rows), len(times)), np.nan)
    means = np.zeros((len(rows), dataset.feature_dim))
    for number, row in enumerate(rows.tolist()):
        features = average_vectors(dataset[row].features.numpy())
        reached = times[times < len(features)]
        norms[number, : len(reached)] = np.linalg.norm(features[reached].astype(np.float64), axis=1)
        means[number] = features.mean(axis=0, dtype=np.float64)
    places, shares = project(means)
    return Survey(
        dataset.path.name,
        dataset.feature_dim,
        names,
        np.bincount(categories, minlength=len(names)),
        dataset.num_frames,
        categories[rows],
        times,
        np.stack([np.quantile(column[~np.isnan(column)], QUANTILES) for column in norms.T], axis=1),
        places,
        shares,
        [
            _compare(dataset, row, int(categories[row]), max_times)
            for row in choose(categories, MAX_SIMILARITIES)
        ],
    )


def project(
    means: NDArray[np.float64],
) -> tuple[NDArray[np.float64], tuple[float, float] | None]:
    """The first two principal components `[points, 2]`, and their shares of the variance, if any.

    The sign of a component is such that its farthest point is on the positive side.
    """
    centred = means - means.mean(axis=0)
    places = np.zeros((len(means), 2))
    # What rounding leaves of equal points is no variance.
    if np.abs(centred).max() <= 1e-12 * np.abs(means).max():
        return places, None
    left, singular, _ = np.linalg.svd(centred, full_matrices=False)
    kept = min(2, len(singular))
    places[:, :kept] = left[:, :kept] * singular[:kept]
    farthest = np.take_along_axis(places, np.abs(places).argmax(axis=0)[None], axis=0)
    variances = np.append(singular**2, 0.0)
    first, second = (variances[:2] / variances.sum()).tolist()
    return places * np.where(farthest < 0, -1.0, 1.0), (first, second)


def choose(categories: NDArray[np.int64], count: int) -> list[int]:
    """A few rows, evenly spaced over the categories.

    Where there are fewer categories than asked for, more rows of these, evenly spaced too.
    """
    firsts = np.unique(categories, return_index=True)[1]
    chosen: list[int] = firsts[evenly(len(firsts), count)].tolist()
    spread = [row for row in evenly(len(categories), 2 * count).tolist() if row not in chosen]
    return sorted(chosen + [spread[i] for i in evenly(len(spread), count - len(chosen))])


def _compare(dataset: FeatureDataset, row: int, category: int, max_times: int) -> Similarity:
    item = dataset[row]
    features = average_vectors(item.features.numpy())
    frames = features[evenly(item.num_frames, max_times)].astype(np.float64)
    norms = np.linalg.norm(frames, axis=1, keepdims=True)
    unit = np.divide(frames, norms, out=np.full_like(frames, np.nan), where=norms > 0)
    return Similarity(category, item.video_id, item.num_frames, np.clip(unit @ unit.T, -1, 1))
