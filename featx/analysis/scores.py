"""How good predictions are, and how sure that is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

NUM_RESAMPLES = 2000
TOP = 5
_BATCH = 2**22  # numbers that are drawn at once


class Interval(NamedTuple):
    """A figure, and between what it lies: the 95 % percentile interval of the bootstrap.

    A bootstrap of few videos, or of videos that are nearly all right, is too sure of itself: that
    of a share is at least as wide as Wilson's interval.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Scores:
    """How good predictions are.

    Attributes:
        predicted: Place `[videos]` of the predicted category of each video.
        correct: Whether `[videos]` it is right.
        accuracy: Share of the videos that are right.
        top_5: Share whose category is among the five best; None if there are no more than five.
        balanced: Mean over the categories of the share of their videos that are right.
    """

    predicted: NDArray[np.int64]
    correct: NDArray[np.bool_]
    accuracy: Interval
    top_5: Interval | None
    balanced: Interval


def score(probabilities: NDArray[np.float64], truth: NDArray[np.int64], seed: int = 0) -> Scores:
    """Compare predictions with what is true.

    A category that has got no score is not among the best five, however few have got one. Of equal
    scores, the first category counts as better, as for the prediction itself.

    Args:
        probabilities: The score `[videos, categories]` of each category.
        truth: Place `[videos]` of the true category.
        seed: Of the bootstrap.
    """
    predicted = probabilities.argmax(axis=1)
    correct = predicted == truth
    count = probabilities.shape[1]
    own = np.take_along_axis(probabilities, truth[:, None], axis=1)
    is_better = probabilities > own
    is_better |= (probabilities == own) & (np.arange(count) < truth[:, None])
    top = (own[:, 0] > 0) & (is_better.sum(axis=1) < TOP)

    def balance(correct: NDArray[np.bool_], truth: NDArray[np.int64]) -> float:
        sizes = np.bincount(truth, minlength=count)
        right = np.bincount(truth, weights=correct, minlength=count)
        present = sizes > 0
        return float((right[present] / sizes[present]).mean())

    return Scores(
        predicted,
        correct,
        _widen(find_interval(correct, seed), len(truth)),
        _widen(find_interval(top, seed), len(truth)) if count > TOP else None,
        _widen(
            _bootstrap(balance, (correct, truth), seed, paired=True, vectorized=False), len(truth)
        ),
    )


def find_interval(values: NDArray[Any], seed: int = 0) -> Interval:
    """The mean of values `[videos]`: whether each is right, or how two probes differ on it."""
    return _bootstrap(np.mean, (values.astype(np.float64),), seed)


def _widen(share: Interval, count: int) -> Interval:
    """The interval of a share of so many videos, at least as wide as Wilson's."""
    from scipy.stats import binomtest

    value, low, high = share
    wilson = binomtest(round(value * count), count).proportion_ci(method="wilson")
    return Interval(value, min(low, float(wilson.low)), max(high, float(wilson.high)))


def _bootstrap(
    statistic: Callable[..., Any], data: Sequence[NDArray[Any]], seed: int, **how: bool
) -> Interval:
    from scipy.stats import bootstrap

    value = float(statistic(*data))
    if len(data[0]) < 2:  # one video tells nothing about others
        return Interval(value, value, value)
    found = bootstrap(
        data,
        statistic,
        n_resamples=NUM_RESAMPLES,
        batch=max(1, _BATCH // len(data[0])),
        method="percentile",
        rng=np.random.default_rng(seed),
        **how,
    ).confidence_interval
    return Interval(value, float(found.low), float(found.high))
