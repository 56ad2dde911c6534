"""Which videos are there twice: for certain, or nearly."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from featx.analysis.neighbours import Neighbours, find_neighbours
from featx.analysis.vectors import find_firsts

MIN_VIDEOS = 50
"""Of fewer videos, nobody can tell what is unusually near."""

_MIN_DEVIATIONS = 3.0
_NEARER, _FAR_NEARER = 5, 20  # times as near as the last of the neighbours
_MAX_TWINS = 2  # more neighbours that are so near are a small category
_QUARTILE = NormalDist().inv_cdf(0.75)  # in standard deviations
_SMALLEST = 1e-9  # so that distances have logarithms
_EQUAL = 1e-6  # what float32 leaves of the distance of equal vectors


class Pair(NamedTuple):
    """Two videos that are the same, or look it.

    Attributes:
        first: Place of the one that comes first.
        second: Place of the other one.
        cosine: Their similarity.
        is_certain: Whether they were made of the same content.
    """

    first: int
    second: int
    cosine: float
    is_certain: bool


@dataclass(frozen=True, slots=True)
class Duplicates:
    """The videos that are there twice.

    Attributes:
        pairs: Those across splits first, then those for certain, then the nearest.
        threshold: The cosine above which videos are near duplicates; None if there are too few
            videos to tell.
        usual: The cosine of half of the videos to their nearest neighbour is above this.
        twins: Share of the videos that have one or two others twenty times as near as the rest: of
            many, it is for a person to say whether they are copies, or small categories.
    """

    pairs: list[Pair]
    threshold: float | None
    usual: float | None
    twins: float = 0.0

    def split(self, splits: NDArray[np.int64]) -> tuple[list[Pair], list[Pair]]:
        """The pairs across splits, which are leaks, and those within one.

        Args:
            splits: The split `[num_videos]` of each video.
        """
        across = [pair for pair in self.pairs if splits[pair.first] != splits[pair.second]]
        return across, self.pairs[len(across) :]


def find_duplicates(
    points: NDArray[np.float32],
    contents: Sequence[str],
    splits: NDArray[np.int64],
    neighbours: Neighbours | None = None,
) -> Duplicates:
    """Find them by what they were made of, and by the cosine of their vectors.

    A video is paired with the first one of the same content, and with the first one in each split.
    How near is too near for others, the data says. Where videos lie densely, all are near: so a
    near duplicate is five times as near as the twentieth neighbour. Besides, the distances (1 -
    cosine) to the nearest neighbour are taken for log-normal, without one or two that are twenty
    times as near. Median and upper quartile say how wide, and the threshold is where less than one
    video of all would be by chance (at least three standard deviations below the median). A video
    with twenty neighbours within the threshold is one of many copies.

    Args:
        points: Videos `[num_videos, dims]`, around their mean.
        contents: What each was made of; empty where that is not known.
        splits: The split `[num_videos]` of each, as a number.
        neighbours: Their neighbours, if these are known.
    """
    first = np.array(find_firsts(c or place for place, c in enumerate(contents)))
    pairs = _pair_copies(first, splits)
    originals = np.unique(first)
    threshold = usual = None
    twins = 0.0
    if len(originals) >= MIN_VIDEOS:
        if neighbours is None or len(originals) < len(points):
            neighbours = find_neighbours(points[originals])
        distances = np.maximum(1 - neighbours.cosines.astype(np.float64), _SMALLEST)
        limit, median, twins = _find_limit(distances)
        threshold, usual = 1 - limit, 1 - median
        last = distances[:, -1:]
        is_near = (distances <= limit) & ((distances <= last / _NEARER) | (last <= limit))
        rows, columns = np.nonzero(is_near)
        found: dict[tuple[int, int], float] = {}
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
            both = sorted((row, int(neighbours.places[row, column])))
            found.setdefault((both[0], both[1]), float(neighbours.cosines[row, column]))
        pairs += [
            Pair(int(originals[i]), int(originals[j]), cosine, False)
            for (i, j), cosine in found.items()
        ]

    def rank(pair: Pair) -> tuple[bool, bool, float, int, int]:
        within = bool(splits[pair.first] == splits[pair.second])
        return within, not pair.is_certain, -pair.cosine, pair.first, pair.second

    return Duplicates(sorted(pairs, key=rank), threshold, usual, twins)


def _pair_copies(first: NDArray[np.int64], splits: NDArray[np.int64]) -> list[Pair]:
    """Each video with the first one of its content, and with the first one in each split.

    Args:
        first: Place `[num_videos]` of the first video of the same content.
        splits: The split `[num_videos]` of each.
    """
    pairs: set[tuple[int, int]] = set()
    heads: dict[int, dict[int, int]] = {}  # of a content, the first video in each split
    copies = np.isin(first, first[first != np.arange(len(first))])
    for place in np.flatnonzero(copies).tolist():
        known = heads.setdefault(int(first[place]), {})
        split = int(splits[place])
        if split in known:
            pairs |= {(int(first[place]), place), (known[split], place)}
        else:
            pairs |= {(head, place) for head in known.values()}
            known[split] = place
    return [Pair(i, j, 1.0, True) for i, j in pairs]


def _find_limit(distances: NDArray[np.float64]) -> tuple[float, float, float]:
    """The distance of near duplicates, the usual one, and the share of videos that have twins.

    Args:
        distances: Those of the nearest neighbours `[num_videos, count]`, the nearest first.
    """
    is_twin = distances <= distances[:, -1:] / _FAR_NEARER
    is_twin &= is_twin.sum(axis=1, keepdims=True) <= _MAX_TWINS
    nearest = np.where(is_twin, np.inf, distances).min(axis=1)
    median, upper = np.quantile(np.log(nearest), [0.5, 0.75])
    deviations = max(_MIN_DEVIATIONS, -NormalDist().inv_cdf(1 / len(distances)))
    limit = float(np.exp(median - deviations * (upper - median) / _QUARTILE))
    return max(limit, _EQUAL), float(np.exp(median)), float(is_twin.any(axis=1).mean())
