"""Which videos are there twice: for certain, or nearly."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from featx.analysis.neighbours import Neighbours, find_neighbours
from featx.analysis.probes import NUM_NEIGHBOURS

MIN_VIDEOS = 50
"""Of fewer videos, nobody can tell what is unusually near."""

_MIN_DEVIATIONS = 3.0
_NEARER = 5  # times as near as the last of the neighbours
_QUARTILE = NormalDist().inv_cdf(0.75)  # in standard deviations
_SMALLEST = 1e-7  # what float32 leaves of the distance of equal vectors


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
    """

    pairs: list[Pair]
    threshold: float | None
    usual: float | None


def find_duplicates(
    points: NDArray[np.float32],
    contents: Sequence[str],
    splits: NDArray[np.int64],
    neighbours: Neighbours | None = None,
) -> Duplicates:
    """Find them by what they were made of, and by the cosine of their vectors.

    Of each content, the first video is paired with each other one. How near is too near, the
    data says: the distances (1 - cosine) of videos to their nearest neighbour are taken for
    log-normal. Median and upper quartile say how wide, as duplicates are at the lower end, and the
    threshold is where less than one video of all would be by chance (at least three standard
    deviations below the median). Where videos lie densely, all are near: so a near duplicate is
    also five times as near as the twentieth neighbour, unless even that one is above the threshold,
    as among many copies.

    Args:
        points: Videos `[num_videos, dims]`, around their mean.
        contents: What each was made of; empty where that is not known.
        splits: The split `[num_videos]` of each, as a number.
        neighbours: Their neighbours, if these are known.
    """
    first_of: dict[str, int] = {}
    first = np.array(
        [first_of.setdefault(c, place) if c else place for place, c in enumerate(contents)]
    )
    pairs = [
        Pair(int(first[place]), place, 1.0, True)
        for place in np.flatnonzero(first != np.arange(len(first))).tolist()
    ]
    threshold = usual = None
    originals = np.unique(first)
    if len(originals) >= MIN_VIDEOS:
        neighbours = neighbours or find_neighbours(points)
        theirs = first[neighbours.places[originals]]
        cosines = neighbours.cosines[originals].astype(np.float64)
        distances = np.maximum(1 - cosines, _SMALLEST)
        last = distances[:, -1:].copy()
        distances[theirs == originals[:, None]] = np.inf  # its own copies are no neighbours
        nearest = distances.min(axis=1)
        median, upper = np.quantile(np.log(nearest[np.isfinite(nearest)]), [0.5, 0.75])
        deviations = max(_MIN_DEVIATIONS, -NormalDist().inv_cdf(1 / len(originals)))
        limit = float(np.exp(median - deviations * (upper - median) / _QUARTILE))
        threshold, usual = 1 - limit, 1 - float(np.exp(median))
        is_apart = (distances <= last / _NEARER) | (last <= limit)
        if distances.shape[1] < NUM_NEIGHBOURS:
            is_apart[:] = True
        rows, columns = np.nonzero((distances <= limit) & is_apart)
        found: dict[tuple[int, int], float] = {}
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
            both = sorted((int(originals[row]), int(theirs[row, column])))
            found.setdefault((both[0], both[1]), float(cosines[row, column]))
        pairs += [Pair(i, j, cosine, False) for (i, j), cosine in found.items()]

    def rank(pair: Pair) -> tuple[bool, bool, float, int, int]:
        within = bool(splits[pair.first] == splits[pair.second])
        return within, not pair.is_certain, -pair.cosine, pair.first, pair.second

    return Duplicates(sorted(pairs, key=rank), threshold, usual)
