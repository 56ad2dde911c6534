"""How good the features of some files are, by what probes make of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from featx.analysis.pooling import PoolName
from featx.analysis.probes import PROBES, predict_folds
from featx.analysis.protocol import Fold, Protocol, choose_protocol
from featx.analysis.scores import Interval, Scores, find_interval, score
from featx.analysis.vectors import Videos, find_firsts, gather_vectors
from featx.features.dataset import FeatureDataset
from featx.features.feature_file import UNLABELLED


@dataclass(frozen=True, slots=True)
class Probed:
    """What probes have made of features.

    Attributes:
        protocol: How they were trained and tested.
        labelled: Number of videos that have a label.
        used: Number of those that were read: all, or an even sample.
        unlabelled: Number of videos without a label, which are left out.
        copies: Number of tested videos whose very content was learned from, or chose settings; in
            cross-validation there are none, as copies are left out.
        left_out: Number of copies that were left out.
        unseen: Names of the categories of which videos are tested, but none was learned then.
        ignored: The splits that have no part in it.
        lost: Number of categories of which the sample has no video.
        categories: Names of the categories, in the order of their labels.
        keys: What tells each tested video from the others: its split and name, or else its content;
            empty where neither does.
        truth: Place `[tested]` of its category in `categories`.
        chance: Share that a guess among the categories gets right.
        majority: Share that is got right by always saying the category that is learned most.
        scores: Those of each probe, by its name.
        settings: What each probe chose in each fold.
    """

    protocol: Protocol
    labelled: int
    used: int
    unlabelled: int
    copies: int
    left_out: int
    unseen: list[str]
    ignored: list[str]
    lost: int
    categories: list[str]
    keys: list[str]
    truth: NDArray[np.int64]
    chance: float
    majority: float
    scores: Mapping[str, Scores]
    settings: Mapping[str, list[Mapping[str, Any]]]


def probe(
    datasets: Mapping[str, FeatureDataset],
    pool: PoolName = "mean",
    max_videos: int = 20_000,
    seed: int = 0,
) -> Probed:
    """Train and test every probe on the features of some files.

    Args:
        datasets: Files that belong together, by split.
        pool: How the frames of a video become one vector.
        max_videos: Of more videos, as many are read, evenly spaced.
        seed: Of all that is drawn.

    Raises:
        InputError: A file is damaged, or there is nothing to learn.
    """
    used_splits = {"train", "val", "test"} & datasets.keys()
    ignored = []
    if "train" in used_splits and len(used_splits) > 1:
        ignored = [split for split in datasets if split not in used_splits]
    datasets = {split: file for split, file in datasets.items() if split not in ignored}
    everything = Videos.of(datasets)
    labelled = everything.select(np.flatnonzero(everything.labels != UNLABELLED))
    videos = labelled.select(labelled.sample(max_videos))
    used = len(videos)
    splits = np.array(videos.splits)[videos.split]
    where = next(iter(datasets.values())).path
    where = where.parent if len(datasets) > 1 else where
    protocol = choose_protocol(splits, videos.labels, seed, where)
    left_out = 0
    if protocol.tested == "all":
        originals = _find_originals(videos)
        left_out = used - len(originals)
        videos = videos.select(originals)
        protocol = choose_protocol(splits[originals], videos.labels, seed, where)
    folds = protocol.folds
    tested = np.concatenate([fold.test for fold in folds])
    learned = np.concatenate([fold.train for fold in folds])
    labels, places = np.unique(videos.labels, return_inverse=True)
    truth = places[tested]
    vectors = gather_vectors(datasets, videos, pool)
    scores, settings = {}, {}
    for name in PROBES:
        found, settings[name] = predict_folds(name, vectors, videos.labels, folds, labels)
        scores[name] = score(found, truth, seed)
    categories = videos.name_categories(labels.tolist())
    most = np.bincount(places[learned]).argmax()
    seen = np.concatenate([learned, *(fold.val for fold in folds)])
    known = {videos.contents[i] for i in seen} - {""}
    return Probed(
        protocol,
        labelled=len(labelled),
        used=used,
        unlabelled=len(everything) - len(labelled),
        copies=0 if protocol.tested == "all" else sum(videos.contents[i] in known for i in tested),
        left_out=left_out,
        unseen=[categories[i] for i in _find_unseen(places, folds)],
        ignored=ignored,
        lost=len(np.unique(labelled.labels)) - len(labels),
        categories=categories,
        keys=_find_keys(videos, tested),
        truth=truth,
        chance=1 / len(labels),
        majority=float((truth == most).mean()),
        scores=scores,
        settings=settings,
    )


def _find_keys(videos: Videos, chosen: NDArray[np.int64]) -> list[str]:
    """What tells the chosen videos from each other, also in other files of the same data set."""
    names = [f"{videos.splits[videos.split[i]]}/{videos.names[i]}" for i in chosen]
    if videos.has_names and len({*names}) == len(names):
        return names
    contents = [videos.contents[i] for i in chosen]
    return contents if all(contents) and len({*contents}) == len(contents) else [""] * len(chosen)


def _find_originals(videos: Videos) -> NDArray[np.int64]:
    """Places of videos, without those whose content has been there before.

    Of a content that has two labels, all videos are left out.
    """
    first = np.array(find_firsts(c or place for place, c in enumerate(videos.contents)))
    contradicted = first[videos.labels != videos.labels[first]]
    return np.setdiff1d(first, contradicted)


def _find_unseen(places: NDArray[np.int64], folds: Sequence[Fold]) -> NDArray[np.int64]:
    """The categories of which a fold tests videos, but has learned from none."""
    unseen = [np.setdiff1d(places[fold.test], places[fold.train]) for fold in folds]
    return np.unique(np.concatenate(unseen))


class Weakness(NamedTuple):
    """A category that is often taken for others.

    Attributes:
        category: Its name.
        recall: Share of its videos that are right.
        videos: Number of its videos.
        taken_for: What the wrong ones are taken for most often; None if none is wrong.
    """

    category: str
    recall: float
    videos: int
    taken_for: str | None


class Confusion(NamedTuple):
    """Videos of one category that are taken for another."""

    category: str
    taken_for: str
    videos: int


def find_weaknesses(probed: Probed, name: str) -> tuple[list[Weakness], list[Confusion]]:
    """The categories that a probe gets right, the worst first, and its confusions by frequency."""
    scores, names, truth = probed.scores[name], probed.categories, probed.truth
    sizes = np.bincount(truth, minlength=len(names))
    right = np.bincount(truth, weights=scores.correct, minlength=len(names))
    # Of thousands of categories, only the pairs that there are have a place in memory.
    wrong = np.stack([truth, scores.predicted])[:, ~scores.correct]
    pairs, counts = np.unique(wrong, axis=1, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    confusions = [
        Confusion(names[i], names[j], int(count))
        for (i, j), count in zip(pairs.T[order].tolist(), counts[order], strict=True)
    ]
    taken_for: dict[str, str] = {}
    for confusion in confusions:
        taken_for.setdefault(confusion.category, confusion.taken_for)
    present = np.flatnonzero(sizes)
    weaknesses = [
        Weakness(names[i], float(right[i] / sizes[i]), int(sizes[i]), taken_for.get(names[i]))
        for i in present[np.argsort(right[present] / sizes[present], kind="stable")]
    ]
    return weaknesses, confusions


def confusion_matrix(probed: Probed, name: str) -> NDArray[np.int64]:
    """How many videos of each category `[categories, categories]` a probe takes for each one."""
    count = len(probed.categories)
    pairs = probed.truth * count + probed.scores[name].predicted
    return np.bincount(pairs, minlength=count**2).reshape(count, count)


class Difference(NamedTuple):
    """By how much the accuracy of one set of features is above another's, on the same videos.

    Attributes:
        points: The difference.
        videos: Number of videos that both were tested on.
    """

    points: Interval
    videos: int

    @property
    def is_more_than_chance(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.points.low > 0 or self.points.high < 0


def compare(better: Probed, other: Probed, name: str, seed: int = 0) -> Difference | None:
    """Compare two sets of features by a probe, on the videos that both were tested on.

    The videos are drawn together (paired bootstrap), as what is hard for one is for the other.

    Returns:
        None if there are no two such videos, or if they have other categories there.
    """
    places = {key: place for place, key in enumerate(other.keys) if key}
    pairs = [(i, places[key]) for i, key in enumerate(better.keys) if key in places]
    if len(pairs) < 2:
        return None
    here, there = np.array(pairs).T
    names = zip(better.truth[here], other.truth[there], strict=True)
    if any(better.categories[i] != other.categories[j] for i, j in names):
        return None
    first, second = better.scores[name].correct[here], other.scores[name].correct[there]
    return Difference(find_interval(first.astype(int) - second.astype(int), seed), len(pairs))
