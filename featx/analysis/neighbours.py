"""Which videos are nearest to each one, and which labels these have."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from featx.analysis.probes import NUM_NEIGHBOURS, TEMPERATURE, unit
from featx.analysis.vectors import find_firsts
from featx.features.feature_file import UNLABELLED

_BATCH = 4096
_MAJORITY = 0.5
_NEARLY = 0.85  # wrong labels nearby take votes from both sides
_KNOWN = 0.5  # of the way from chance to certainty


class Neighbours(NamedTuple):
    """The nearest other videos of each one, the nearest first.

    Attributes:
        places: int64 `[num_videos, count]`.
        cosines: float32 `[num_videos, count]`.
    """

    places: NDArray[np.int64]
    cosines: NDArray[np.float32]


def find_neighbours(points: NDArray[np.float32], count: int = NUM_NEIGHBOURS) -> Neighbours:
    """Find them by cosine; fewer than asked for where there are not as many other videos.

    Args:
        points: Videos `[num_videos, dims]`, around their mean.
        count: How many for each.
    """
    from sklearn.neighbors import NearestNeighbors

    number = len(points)
    count = min(count, number - 1)
    if count < 1:
        return Neighbours(np.zeros((number, 0), np.int64), np.zeros((number, 0), np.float32))
    vectors = unit(points)
    # Of vectors of length 1, the nearest by distance are those by cosine, which it finds faster.
    model = NearestNeighbors(n_neighbors=count + 1, algorithm="brute").fit(vectors)
    distances, places = model.kneighbors(vectors)
    is_itself = places == np.arange(number)[:, None]
    is_itself[:, -1] |= ~is_itself.any(axis=1)  # behind as many copies of it
    others = ~is_itself
    cosines = (1 - distances**2 / 2).astype(np.float32)
    return Neighbours(places[others].reshape(number, count), cosines[others].reshape(number, count))


class Doubt(NamedTuple):
    """A video whose neighbours do not agree with its label.

    Attributes:
        place: Which video.
        suggested: The label that most of its neighbours have.
        share: Share of their votes for it.
        own: Share of their votes for its own label.
    """

    place: int
    suggested: int
    share: float
    own: float


class Doubts(NamedTuple):
    """Which labels are likely wrong.

    Attributes:
        listed: The videos, the likeliest first.
        agreement: Mean share of votes for the own label: where neighbours hardly know labels,
            doubts mean little.
    """

    listed: list[Doubt]
    agreement: float


def find_doubts(
    points: NDArray[np.float32],
    labels: NDArray[np.int64],
    contents: Sequence[str],
    neighbours: Neighbours | None = None,
) -> Doubts:
    """Find videos whose label is likely wrong.

    Neighbours vote as in the kNN probe. Videos without a label have no part in it, and of those of
    the same content, the first one alone has. A label is in doubt if another one gets more than
    half of the votes, and nearly as many as it gets on average from the neighbours of the videos
    that have it; this must be half way from chance to certainty at least, as neighbours that hardly
    know a label cannot doubt another.

    Source: the second half of the rule is that of Northcutt et al., Confident Learning, 2021.

    Args:
        points: Videos `[num_videos, dims]`, around their mean.
        labels: Label `[num_videos]` of each video.
        contents: What it was made of; empty where that is not known.
        neighbours: The neighbours of all videos, if these are known.
    """
    firsts = np.unique(find_firsts(content or place for place, content in enumerate(contents)))
    chosen = firsts[labels[firsts] != UNLABELLED]
    if neighbours is None or len(chosen) < len(labels):
        neighbours = find_neighbours(points[chosen])
    labels, number = labels[chosen], len(chosen)
    if not neighbours.places.size:
        return Doubts([], 0.0)
    own, best = np.zeros(number), np.zeros(number)
    suggested = np.zeros(number, np.int64)
    for start in range(0, number, _BATCH):
        rows = slice(start, start + _BATCH)
        theirs, mine = labels[neighbours.places[rows]], labels[rows, None]
        shares = np.exp((neighbours.cosines[rows].astype(np.float64) - 1) / TEMPERATURE)
        shares /= shares.sum(axis=1, keepdims=True)
        own[rows] = (shares * (theirs == mine)).sum(axis=1)
        votes = ((theirs[:, :, None] == theirs[:, None, :]) * shares[:, None, :]).sum(axis=2)
        votes[theirs == mine] = 0
        first = votes.argmax(axis=1)[:, None]
        best[rows] = np.take_along_axis(votes, first, axis=1)[:, 0]
        suggested[rows] = np.take_along_axis(theirs, first, axis=1)[:, 0]
    known_labels, index = np.unique(labels, return_inverse=True)
    usual = np.bincount(index, weights=own) / np.bincount(index)
    chance = np.bincount(index) / number
    is_known = usual - chance >= _KNOWN * (1 - chance)
    other = np.searchsorted(known_labels, suggested)
    doubtful = is_known[other] & (best > _MAJORITY) & (best >= _NEARLY * usual[other])
    order = np.argsort(own - best, kind="stable")
    listed = [
        Doubt(int(chosen[i]), int(suggested[i]), float(best[i]), float(own[i]))
        for i in order
        if doubtful[i]
    ]
    return Doubts(listed, float(own.mean()))
