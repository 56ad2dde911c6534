"""Probes: simple classifiers that show what can be read off frozen features."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featx.analysis.protocol import Fold
from featx.progress import make_bar

NUM_NEIGHBOURS = 20
TEMPERATURE = 0.07
STRENGTHS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Inverse strengths of the regularization of which one is chosen, as scikit-learn has them."""

_MAX_ITERATIONS = 100  # for each strength, from where the one before has ended
_MIDDLE = 1e-2  # where nothing chooses
_SMALLEST = 1e-12  # share of a category, so that it has a logarithm

Floats = NDArray[np.float32]
Labels = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Fitted:
    """A probe that has learned.

    Attributes:
        predict: From vectors `[videos, dim]` to a score `[videos, categories]` for each category
            that it has seen.
        categories: The labels of these.
        settings: What was chosen.
    """

    predict: Callable[[Floats], NDArray[np.float64]]
    categories: Labels
    settings: Mapping[str, Any]


def fit_neighbours(train: Floats, labels: Labels, val: Floats, val_labels: Labels) -> Fitted:
    """The votes of the nearest neighbours by cosine, weighted by `exp(cosine / 0.07)`.

    Nothing is chosen: 20 neighbours and the temperature are those of DINO. As its features are
    normalized by their last layer, and a CNN's are not, the mean of train is taken away first.

    Source: Wu et al., Unsupervised Feature Learning via Non-Parametric Instance Discrimination,
    2018; Caron et al., Emerging Properties in Self-Supervised Vision Transformers, 2021.
    """
    from sklearn.neighbors import KNeighborsClassifier

    mean = train.mean(axis=0, dtype=np.float64).astype(np.float32)

    def prepare(vectors: Floats) -> Floats:
        centred: Floats = vectors - mean
        centred /= lengths(centred)  # in place: there may be gigabytes
        return centred

    def weigh(distances: NDArray[np.float64]) -> NDArray[np.float64]:
        cosines = 1 - distances**2 / 2
        weights: NDArray[np.float64] = np.exp((cosines - 1) / TEMPERATURE)
        return weights

    # Of vectors of length 1, the nearest by distance are those by cosine, which it finds faster.
    model = KNeighborsClassifier(
        min(NUM_NEIGHBOURS, len(train)), weights=weigh, algorithm="brute"
    ).fit(prepare(train), labels)
    return Fitted(lambda vectors: model.predict_proba(prepare(vectors)), model.classes_, {})


def fit_linear(train: Floats, labels: Labels, val: Floats, val_labels: Labels) -> Fitted:
    """Logistic regression on standardized vectors; val chooses how much it is regularized.

    The strength is that of the best accuracy on val; of equally good ones, that of the smallest
    cross-entropy. Each starts from the one before. Where there is one category to learn, it is
    always that; where there is no video to choose by, the strength is in the middle.
    """
    from sklearn.dummy import DummyClassifier
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    if len(np.unique(labels)) < 2:
        constant = DummyClassifier(strategy="most_frequent").fit(train, labels)
        return Fitted(constant.predict_proba, constant.classes_, {})
    scaler = StandardScaler().fit(train)
    train = scaler.transform(train)
    known = np.isin(val_labels, labels)
    truth = np.searchsorted(np.unique(labels), val_labels[known])
    strengths: Sequence[float] = (_MIDDLE,)
    if known.any():
        val, strengths = scaler.transform(val[known]), STRENGTHS
    model = LogisticRegression(max_iter=_MAX_ITERATIONS, warm_start=True)
    best, chosen = (-1.0, 0.0), strengths[0]
    kept: dict[str, Any] = {}
    with warnings.catch_warnings():  # stopped early, it is regularized a little more
        warnings.simplefilter("ignore", ConvergenceWarning)
        for strength in strengths:
            model.set_params(C=strength).fit(train, labels)
            if len(strengths) == 1:
                continue  # there is nothing to choose
            shares = model.predict_proba(val)
            own = np.maximum(shares[np.arange(len(truth)), truth], _SMALLEST)
            found = float((shares.argmax(axis=1) == truth).mean()), float(np.log(own).mean())
            if found > best:
                best, chosen = found, strength
                kept = {"coef_": model.coef_.copy(), "intercept_": model.intercept_.copy()}
    vars(model).update(kept)
    return Fitted(
        lambda vectors: model.predict_proba(scaler.transform(vectors)),
        model.classes_,
        {"C": chosen},
    )


PROBES: dict[str, Callable[[Floats, Labels, Floats, Labels], Fitted]] = {
    "kNN": fit_neighbours,
    "linear": fit_linear,
}
"""By name: from the vectors and labels to learn from, and those that choose, to a fitted probe."""


def unit(vectors: Floats) -> Floats:
    """Vectors `[videos, dim]` of length 1; those of length 0 as they are."""
    return vectors / lengths(vectors)


def lengths(vectors: Floats) -> Floats:
    """The length `[videos, 1]` of each vector, to divide by: 1 for those that are zero."""
    squares = np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64)
    found: Floats = np.sqrt(np.where(squares > 0, squares, 1.0)).astype(np.float32)[:, None]
    return found


def predict_folds(
    name: str, vectors: Floats, labels: Labels, folds: list[Fold], categories: Labels
) -> tuple[NDArray[np.float64], list[Mapping[str, Any]]]:
    """Fit a probe in each fold, and have it tell about the videos that are tested.

    Args:
        name: One of `PROBES`.
        vectors: `[num_videos, dim]`.
        labels: Label `[num_videos]` of each video.
        folds: Which videos are for what.
        categories: The labels, sorted.

    Returns:
        The scores `[tested, categories]` of the videos of all folds, one after the other; 0 for a
        category that a fold has not learned. And what was chosen in each fold.
    """
    scores, settings = [], []
    for fold in make_bar(folds, f"Training {name}", len(folds), "fold"):
        fitted = PROBES[name](
            vectors[fold.train], labels[fold.train], vectors[fold.val], labels[fold.val]
        )
        found = np.zeros((len(fold.test), len(categories)))
        found[:, np.searchsorted(categories, fitted.categories)] = fitted.predict(
            vectors[fold.test]
        )
        scores.append(found)
        settings.append(fitted.settings)
    return np.concatenate(scores), settings
