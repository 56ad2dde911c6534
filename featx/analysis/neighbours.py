"""Which videos are nearest to each one, and which labels these have."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from featx.analysis.probes import NUM_NEIGHBOURS, TEMPERATURE, unit
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
        agreement: Mean share of votes for the own label over all videos that have one: where
            neighbours hardly know labels, doubts mean little.
    """

    listed: list[Doubt]
    agreement: float


def find_doubts(
    neighbours: Neighbours, labels: NDArray[np.int64], contents: NDArray[np.str_]
) -> Doubts:
    """Find videos whose label is likely wrong.

    Neighbours vote as in the kNN probe; copies of the video itself and videos without a label do
    not. A label is in doubt if another one gets more than half of the votes, and nearly as many as
    it gets on average from the neighbours of the videos that have it; this must be half way from
    chance to certainty at least, as neighbours that hardly know a label cannot doubt another.

    Source: the second half of the rule is that of Northcutt et al., Confident Learning, 2021.

    Args:
        neighbours: Those of each video.
        labels: Label `[num_videos]` of each video.
        contents: What it was made of `[num_videos]`; empty where that is not known.
    """
    number = len(labels)
    own, best = np.zeros(number), np.zeros(number)
    suggested = np.full(number, UNLABELLED)
    for start in range(0, number, _BATCH):
        rows = slice(start, start + _BATCH)
        places = neighbours.places[rows]
        theirs, mine = labels[places], labels[rows, None]
        weights = np.exp((neighbours.cosines[rows].astype(np.float64) - 1) / TEMPERATURE)
        weights[theirs == UNLABELLED] = 0
        known = contents[rows, None] != ""
        weights[(contents[places] == contents[rows, None]) & known] = 0
        total = weights.sum(axis=1, keepdims=True)
        shares = np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)
        own[rows] = (shares * (theirs == mine)).sum(axis=1)
        if not places.shape[1]:
            continue
        votes = ((theirs[:, :, None] == theirs[:, None, :]) * shares[:, None, :]).sum(axis=2)
        votes[theirs == mine] = 0
        first = votes.argmax(axis=1)[:, None]
        best[rows] = np.take_along_axis(votes, first, axis=1)[:, 0]
        suggested[rows] = np.take_along_axis(theirs, first, axis=1)[:, 0]
    has_label = labels != UNLABELLED
    known_labels, index = np.unique(labels, return_inverse=True)
    usual = np.bincount(index, weights=own) / np.bincount(index)
    chance = np.bincount(index) / max(int(has_label.sum()), 1)
    is_known = usual - chance >= _KNOWN * (1 - chance)
    other = np.searchsorted(known_labels, suggested).clip(max=len(usual) - 1)
    doubtful = has_label & is_known[other]
    doubtful &= (best > _MAJORITY) & (best >= _NEARLY * usual[other])
    order = np.argsort(own - best, kind="stable")
    listed = [
        Doubt(int(i), int(suggested[i]), float(best[i]), float(own[i]))
        for i in order
        if doubtful[i]
    ]
    return Doubts(listed, float(own[has_label].mean()) if has_label.any() else 0.0)
