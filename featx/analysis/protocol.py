"""Which videos a probe learns from, which choose its settings, and which it is told on."""

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featx.errors import InputError

NUM_FOLDS = 5


@dataclass(frozen=True, slots=True)
class Fold:
    """Places of videos.

    Attributes:
        train: A probe learns from these.
        val: These choose its settings.
        test: These tell how good it is.
    """

    train: NDArray[np.int64]
    val: NDArray[np.int64]
    test: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Protocol:
    """How probes are trained and tested.

    Attributes:
        folds: No video is tested in two of them.
        summary: The same in words.
        tested: What the videos are that it is told on: a split, or `all`.
    """

    folds: list[Fold]
    summary: str
    tested: str


def choose_protocol(
    splits: NDArray[np.str_], labels: NDArray[np.int64], seed: int = 0, where: object = "labels"
) -> Protocol:
    """Train on train, choose on val, tell on test, as far as there are such splits.

    Where one of val and test is missing, the other tells, and a fifth of train, set apart, chooses.
    Where train is missing, or alone, all videos are cross-validated in five folds.

    Args:
        splits: The split `[num_videos]` of each video.
        labels: Its label `[num_videos]`.
        seed: Of what is drawn.
        where: What an error is about.

    Raises:
        InputError: There is nothing to learn.
    """
    train, val, test = (np.flatnonzero(splits == name) for name in ("train", "val", "test"))
    if not len(train) or not len(val) + len(test):
        return _cross_validate(labels, seed, where)
    _check_categories(labels[train], where)
    chosen_on = "val"
    if not len(val) or not len(test):
        test, told = (val, "val") if len(val) else (test, "test")
        train, val = (train[places] for places in _hold_out(labels[train], seed, where))
        chosen_on = "more of it"
    else:
        told = "test"
    return Protocol(
        [Fold(train, val, test)],
        f"trained on train ({len(train):,} videos), chosen on {chosen_on} ({len(val):,}), "
        f"told on {told} ({len(test):,})",
        told,
    )


def _cross_validate(labels: NDArray[np.int64], seed: int, where: object) -> Protocol:
    folds = []
    for rest, test in _split(labels, seed, where):
        kept, held = _hold_out(labels[rest], seed, where)
        folds.append(Fold(rest[kept], rest[held], test))
    return Protocol(folds, f"cross-validated in {len(folds)} folds ({len(labels):,} videos)", "all")


def _hold_out(
    labels: NDArray[np.int64], seed: int, where: object
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Places to learn from, of every category, and about a fifth, set apart."""
    if len(np.unique(labels)) < 2 or np.unique(labels, return_counts=True)[1].max() < 2:
        return np.arange(len(labels)), np.arange(0)
    kept, held = _split(labels, seed, where)[0]
    lost = ~np.isin(labels[held], labels[kept])
    return np.sort(np.concatenate([kept, held[lost]])), held[~lost]


def _split(
    labels: NDArray[np.int64], seed: int, where: object
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Folds that have the same shares of categories: the rest, and the fold itself."""
    from sklearn.model_selection import StratifiedKFold

    _check_categories(labels, where)
    largest = int(np.unique(labels, return_counts=True)[1].max())
    if largest < 2:
        raise InputError(
            f"{where}: expected two videos or more of a category, so that one can tell about the "
            "other, found one of each. Give more videos, or set max_videos higher."
        )
    folder = StratifiedKFold(min(NUM_FOLDS, largest), shuffle=True, random_state=seed)
    with warnings.catch_warnings():  # of a small category, not every fold has a video
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        return [*folder.split(labels, labels)]


def _check_categories(labels: NDArray[np.int64], where: object) -> None:
    count = len(np.unique(labels))
    if count < 2:
        raise InputError(
            f"{where}: expected videos of two categories or more to learn from, found "
            f"{'one' if count else 'none'}. Give a data set with labels."
        )
