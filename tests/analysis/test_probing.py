"""Probes on data sets of which the answer is known."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from analysis import known
from featx.analysis.pooling import PoolName
from featx.analysis.probes import STRENGTHS, fit_linear, fit_neighbours, predict_folds
from featx.analysis.probing import Probed, compare, confusion_matrix, find_weaknesses, probe
from featx.analysis.protocol import choose_protocol
from featx.analysis.scores import find_interval, score
from featx.errors import InputError
from featx.features.folder import open_feature_files

pytestmark = pytest.mark.usefixtures("one_thread")

Kind = Callable[..., known.Videos]
SPLITS = {"train": 90, "val": 30, "test": 60}


def make(folder: Path, kind: Kind, categories: int = 6, **splits: int) -> Path:
    """A data set, with as many videos of each category in turn."""
    rng = np.random.default_rng(5)
    for split, count in (splits or SPLITS).items():
        labels = [i % categories for i in range(count)]
        known.write(folder, split, kind(rng, labels), labels)
    return folder


def run(folder: Path, pool: PoolName = "mean", **settings: Any) -> Probed:  # noqa: ANN401
    """Probe a folder."""
    return probe(open_feature_files(folder), pool, **settings)


def test_separable(tmp_path: Path) -> None:
    """Both probes are right nearly always, and say on what they were told."""
    found = run(make(tmp_path, known.separable))
    assert found.protocol.summary == (
        "trained on train (90 videos), chosen on val (30), told on test (60)"
    )
    for scores in found.scores.values():
        assert scores.accuracy.value >= 0.98
        assert scores.balanced.value >= 0.98
        assert scores.top_5 is not None
        assert scores.top_5.value == 1
    assert found.chance == pytest.approx(1 / 6)
    assert found.majority == pytest.approx(1 / 6)


@pytest.mark.slow
def test_noise_is_at_chance() -> None:
    """Of 40 seeds, the interval holds chance in 34 or more, as 95 of 100 do."""
    held = {"kNN": 0, "linear": 0}
    splits = np.repeat(["train", "val", "test"], [60, 30, 120])
    for seed in range(40):
        rng = np.random.default_rng(seed)
        vectors = rng.standard_normal((210, 12)).astype(np.float32)
        labels = rng.permutation(210) % 3
        folds = choose_protocol(splits, labels, seed).folds
        for name in held:
            found, _ = predict_folds(name, vectors, labels, folds, np.arange(3))
            interval = score(found, labels[folds[0].test], seed).accuracy
            held[name] += interval.low <= 1 / 3 <= interval.high
    assert min(held.values()) >= 34  # P(fewer) is below 1 % for each


def test_only_thirds_see_the_order(tmp_path: Path) -> None:
    """Where a category is another one's reverse, the mean is at chance, and thirds are right."""
    make(tmp_path, known.ordered)
    mean, thirds = run(tmp_path), run(tmp_path, "thirds")
    for name in ("kNN", "linear"):
        assert mean.scores[name].accuracy.low <= 1 / 6 + 0.02
        assert thirds.scores[name].accuracy.value >= 0.95
    difference = compare(thirds, mean, "linear")
    assert difference is not None
    assert difference.is_more_than_chance
    assert difference.videos == 60


@pytest.mark.parametrize(
    ("splits", "summary"),
    [
        (
            {"train": 50, "test": 20},
            "trained on train (40 videos), chosen on more of it (10)",
        ),
        ({"train": 50, "val": 20}, "trained on train (40 videos), chosen on more of it (10)"),
        ({"test": 50}, "cross-validated in 5 folds (50 videos)"),
        ({"dev": 30, "eval": 20}, "cross-validated in 5 folds (50 videos)"),
    ],
)
def test_other_splits(tmp_path: Path, splits: dict[str, int], summary: str) -> None:
    """Whatever splits there are, no video is both learned and tested in a fold."""
    found = run(make(tmp_path, known.separable, categories=2, **splits))
    assert found.protocol.summary.startswith(summary)
    assert found.scores["linear"].accuracy.value >= 0.95
    tested = [place for fold in found.protocol.folds for place in fold.test.tolist()]
    assert len(tested) == len({*tested})
    for fold in found.protocol.folds:
        parts = [{*part.tolist()} for part in (fold.train, fold.val, fold.test)]
        assert len(set.union(*parts)) == sum(map(len, parts))
        assert all(parts)


def test_copies(tmp_path: Path) -> None:
    """Tested videos that were learned are counted; cross-validation leaves copies out."""
    rng = np.random.default_rng(0)
    labels = [i % 2 for i in range(20)]
    for split in ("train", "test"):
        contents = [f"{split}{i}" for i in range(20)]
        contents[:3] = [f"both{i}" for i in range(3)]
        known.write(tmp_path, split, known.noise(rng, labels), labels, contents=contents)
    assert run(tmp_path).copies == 3
    contents = [f"{i % 10}" for i in range(20)]
    known.write(tmp_path / "one", "all", known.noise(rng, labels), labels, contents=contents)
    found = run(tmp_path / "one")
    assert (found.left_out, found.copies, len(found.truth)) == (10, 0, 10)


def test_labels_that_are_missing_or_new(tmp_path: Path) -> None:
    """Videos without a label are left out; a category that is not learned is always wrong."""
    rng = np.random.default_rng(0)
    categories = {"a": 0, "b": 1, "c": 2}
    labels = [0, 1] * 10
    known.write(tmp_path, "train", known.separable(rng, labels), labels, categories=categories)
    tested = [0, 1, 2, -1]
    videos = known.separable(rng, [0, 1, 2, 0])
    known.write(tmp_path, "test", videos, tested, categories=categories)
    found = run(tmp_path)
    assert found.unlabelled == 1
    assert found.unseen == ["c"]
    assert found.scores["linear"].correct.tolist() == [True, True, False]
    worst, confusions = find_weaknesses(found, "linear")
    assert (worst[0].category, worst[0].recall, worst[0].videos) == ("c", 0.0, 1)
    assert [(each.category, each.videos) for each in confusions] == [("c", 1)]
    assert confusion_matrix(found, "linear").sum() == 3


def test_an_even_sample(tmp_path: Path) -> None:
    """Of more videos than asked for, each split keeps its share; seeds make it repeatable."""
    make(tmp_path, known.noise)
    found = run(tmp_path, max_videos=90)
    assert (found.used, found.labelled) == (90, 180)
    assert len(found.truth) == 30
    again = run(tmp_path, max_videos=90)
    assert again.scores["linear"].accuracy == found.scores["linear"].accuracy
    assert np.array_equal(again.scores["kNN"].predicted, found.scores["kNN"].predicted)


def test_nothing_to_learn(tmp_path: Path) -> None:
    """One category, none, or one video of each: a line that names the folder or the file."""
    rng = np.random.default_rng(0)
    for labels, words in (
        ([0, 0, 0], "two categories or more to learn from, found one"),
        ([-1, -1], "two categories or more to learn from, found none"),
        ([0, 1, 2], "two videos or more of a category"),
    ):
        path = known.write(tmp_path, "all", known.noise(rng, labels), labels, categories={"a": 0})
        with pytest.raises(InputError, match=rf"all_features_multiscale.h5: expected .*{words}"):
            run(path)


def test_intervals() -> None:
    """The bootstrap's are about as wide as the normal approximation, and repeatable."""
    values = np.arange(400) % 4 == 0
    found = find_interval(values, 3)
    assert found.value == 0.25
    assert found.low == pytest.approx(0.25 - 1.96 * (0.25 * 0.75 / 400) ** 0.5, abs=0.006)
    assert found.high == pytest.approx(0.25 + 1.96 * (0.25 * 0.75 / 400) ** 0.5, abs=0.006)
    assert found == find_interval(values, 3)
    assert find_interval(values[:1]) == (1.0, 1.0, 1.0)


def test_top_5_and_balance() -> None:
    """A category without a score is in no top five; balance counts each category alike."""
    truth = np.array([0, 0, 0, 1, 6])
    scores = np.zeros((5, 7))
    scores[:3, 0] = 1
    scores[3, [2, 3, 4, 5, 1]] = [5, 4, 3, 2, 1]
    scores[4, 0] = 1
    found = score(scores, truth)
    assert found.correct.tolist() == [True, True, True, False, False]
    assert found.balanced.value == pytest.approx(1 / 3)
    assert found.top_5 is not None
    assert found.top_5.value == pytest.approx(4 / 5)
    assert score(scores[:, :5], np.array([0, 0, 0, 1, 2])).top_5 is None


def test_which_chance_may_explain(tmp_path: Path) -> None:
    """Two sets of noise do not differ; sets with other videos cannot be compared."""
    first = run(make(tmp_path / "a", known.noise))
    rng = np.random.default_rng(77)
    for split, count in SPLITS.items():
        labels = [i % 6 for i in range(count)]
        known.write(tmp_path / "b", split, known.noise(rng, labels), labels)
        names = [f"other {i}" for i in range(count)]
        known.write(tmp_path / "c", split, known.noise(rng, labels), labels, names)
    found = compare(first, run(tmp_path / "b"), "linear")
    assert found is not None
    assert not found.is_more_than_chance
    assert compare(first, run(tmp_path / "c"), "linear") is None


@pytest.mark.parametrize("labels", [[0, 0, 0, 1], [0, 1, 2, 0], [0, 0, 1, 2, 3, 4, 5]])
def test_few_videos(tmp_path: Path, labels: list[int]) -> None:
    """Of two videos of a category and one of others, all are learned from, or all tested once."""
    rng = np.random.default_rng(0)
    known.write(tmp_path, "train", known.separable(rng, labels), labels)
    found = run(tmp_path)
    assert len(found.truth) == len(labels)
    categories = {f"category {i:02}": i for i in range(max(labels) + 1)}
    test = known.separable(rng, [0, 1])
    known.write(tmp_path, "test", test, [0, 1], categories=categories)
    found = run(tmp_path)
    assert {*labels} == {labels[place] for place in found.protocol.folds[0].train.tolist()}
    assert len(found.truth) == 2


def test_an_imbalanced_data_set(tmp_path: Path) -> None:
    """The rare category is learned: no strength is chosen that always says the frequent one."""
    rng = np.random.default_rng(0)
    for split in SPLITS:
        labels = [int(i % 10 == 0) for i in range(100)]
        known.write(tmp_path, split, known.separable(rng, labels), labels)
    found = run(tmp_path)
    assert found.majority == 0.9
    assert found.scores["linear"].balanced.value >= 0.95
    assert found.scores["kNN"].balanced.value >= 0.95


def test_val_chooses_the_strength() -> None:
    """As well as if each had been fitted by itself, and the weights are those of the chosen one."""
    rng = np.random.default_rng(0)
    labels = np.arange(400) % 4
    vectors = rng.standard_normal((400, 60)).astype(np.float32)
    vectors[:, :4] += 1.2 * np.eye(4)[labels]
    vectors[:, 4:] *= 10 ** rng.uniform(-2, 2, 56)
    train, val = np.arange(100), np.arange(100, 400)
    accuracies = {}
    for strength in STRENGTHS:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=1000))
        model.fit(vectors[train], labels[train])
        accuracies[strength] = (model.predict(vectors[val]) == labels[val]).mean()
    fitted = fit_linear(vectors[train], labels[train], vectors[val], labels[val])
    found = (fitted.predict(vectors[val]).argmax(axis=1) == labels[val]).mean()
    best = max(accuracies.values())
    assert best - min(accuracies.values()) > 0.05
    assert abs(accuracies[fitted.settings["C"]] - best) < 0.02
    assert abs(found - best) < 0.02


def test_neighbours_are_twenty_around_the_mean() -> None:
    """A common part of all vectors does not count, and more than one neighbour does."""
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 2
    vectors = 0.3 * rng.standard_normal((200, 8)).astype(np.float32)
    vectors[:, 0] += labels
    fitted = fit_neighbours(vectors + 100, labels, vectors[:0], labels[:0])
    assert (fitted.predict(vectors + 100).argmax(axis=1) == labels).mean() >= 0.93
    alone = fit_neighbours(vectors[:2], labels[:2], vectors[:0], labels[:0])
    assert alone.predict(vectors[:2]).shape == (2, 2)
    # A vector between its own kind and a single other one: the many outvote the nearest.
    many = np.array([[1, 0.3 + 0.001 * i] for i in range(19)] + [[1, 0.1]], np.float32)
    both = np.concatenate([many, -many])
    fitted = fit_neighbours(both, np.array([0] * 19 + [1] + [2] * 20), both[:0], labels[:0])
    assert fitted.predict(np.array([[1, 0.12]], np.float32)).argmax() == 0


def test_equal_scores() -> None:
    """Of ten categories that score the same, five are among the best five, as chance has it."""
    found = score(np.full((100, 10), 0.1), np.arange(100) % 10)
    assert found.top_5 is not None
    assert found.top_5.value == 0.5
    assert found.accuracy.value == 0.1


def test_the_interval_of_balanced_accuracy() -> None:
    """Videos are drawn with their categories: few videos of one make it wide."""
    truth = np.array([0] * 300 + [1] * 4)
    scores = np.zeros((304, 2))
    scores[np.arange(304), truth] = 1
    scores[300:302] = [1, 0]
    found = score(scores, truth)
    assert found.balanced.value == 0.75
    assert found.balanced.high - found.balanced.low > 0.3
    assert found.accuracy.high - found.accuracy.low < 0.05


def test_samples_keep_every_category(tmp_path: Path) -> None:
    """Also where labels alternate with the period of the sample."""
    rng = np.random.default_rng(0)
    labels = [i % 2 for i in range(200)]
    known.write(tmp_path, "all", known.separable(rng, labels), labels)
    found = run(tmp_path, max_videos=100)
    assert np.bincount(found.truth).tolist() == [50, 50]


def test_videos_that_cannot_be_paired(tmp_path: Path) -> None:
    """Names that are not unique, rows without names, and other categories are not compared."""
    rng = np.random.default_rng(0)
    labels = [i % 2 for i in range(30)]

    def make_one(name: str, **settings: Any) -> Probed:  # noqa: ANN401
        settings.setdefault("names", [f"{i}" for i in range(30)])
        known.write(tmp_path / name, "all", known.separable(rng, labels), labels, **settings)
        return run(tmp_path / name)

    first = make_one("a")
    assert compare(first, make_one("b"), "linear") is not None
    assert compare(first, make_one("c", names=["x"] * 30), "linear") is None
    assert compare(first, make_one("d", categories={"p": 0, "q": 1}), "linear") is None
    path = tmp_path / "b/all_features_multiscale.h5"
    with h5py.File(path, "r+") as file:
        del file["video_ids"]
    nameless = run(path)
    assert compare(first, nameless, "linear") is None
    assert compare(nameless, nameless, "linear") is None
    contents = [f"{i}" for i in range(30)]
    one, other = (make_one(n, names=["x"] * 30, contents=contents) for n in ("e", "f"))
    assert compare(one, other, "linear") is not None


def test_contents_that_nobody_knows(tmp_path: Path) -> None:
    """They are no copies of each other."""
    assert run(make(tmp_path, known.noise)).copies == 0


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_not_finite(tmp_path: Path, value: float) -> None:
    """The file and the row are told."""
    rng = np.random.default_rng(0)
    videos = known.noise(rng, [0, 1] * 5)
    videos[3][2, 1] = value
    path = known.write(tmp_path, "all", videos, [0, 1] * 5)
    with pytest.raises(InputError, match=r"all_features.*found NaN or infinity in row 3"):
        run(path)


def test_splits_that_have_no_part(tmp_path: Path) -> None:
    """Beside train and test, others neither change the chance nor use up the sample."""
    make(tmp_path, known.separable, categories=2, train=20, test=10)
    rng = np.random.default_rng(0)
    labels = [i % 2 for i in range(50)]
    known.write(tmp_path, "extra", known.noise(rng, labels), labels)
    found = run(tmp_path)
    assert found.ignored == ["extra"]
    assert (found.used, found.labelled) == (30, 30)


def test_categories_that_a_fold_never_learns(tmp_path: Path) -> None:
    """They are told in cross-validation as well; and so are those that a sample lacks."""
    rng = np.random.default_rng(0)
    labels = [0] * 20 + [1] * 20 + [2]
    path = known.write(tmp_path, "all", known.separable(rng, labels), labels)
    assert run(path).unseen == ["category 02"]
    assert run(path, max_videos=20).lost == 1


def test_one_category_in_train(tmp_path: Path) -> None:
    """It is an error, whether there is a val or not."""
    rng = np.random.default_rng(0)
    names = {"a": 0, "b": 1}
    for split, labels in {"train": [0] * 6, "test": [0, 1], "val": [0, 1]}.items():
        known.write(tmp_path, split, known.noise(rng, labels), labels, categories=names)
        if split != "train":
            with pytest.raises(InputError, match="two categories or more to learn from, found one"):
                run(tmp_path)


def test_content_under_two_labels(tmp_path: Path) -> None:
    """Cross-validation leaves out all of its videos: nobody knows which label is right."""
    rng = np.random.default_rng(0)
    labels = [0, 1] * 10
    contents = [f"{i}" for i in range(20)]
    contents[1] = contents[0]
    contents[3] = contents[5]
    path = known.write(tmp_path, "all", known.noise(rng, labels), labels, contents=contents)
    found = run(path)
    assert (found.left_out, len(found.truth)) == (3, 17)


def test_what_tells_videos_apart(tmp_path: Path) -> None:
    """The split and the name together; contents only where each is there once."""
    rng = np.random.default_rng(0)
    labels = [i % 2 for i in range(20)]
    names = [f"{i}" for i in range(20)]
    for split in ("dev", "eval"):
        known.write(tmp_path / "a", split, known.noise(rng, labels), labels, names)
    assert len({*run(tmp_path / "a").keys}) == 40
    for split in ("train", "test"):
        contents = [f"{split} {i // 2}" for i in range(20)]
        videos = known.noise(rng, labels)
        known.write(tmp_path / "b", split, videos, labels, ["x"] * 20, contents)
    assert {*run(tmp_path / "b").keys} == {""}


def test_videos_are_drawn_with_their_categories() -> None:
    """Whatever is drawn, one category is right and the other wrong."""
    truth = np.repeat([0, 1], [900, 100])
    found = score(np.tile([1.0, 0.0], (1000, 1)), truth).balanced
    assert found.value == 0.5
    assert 0.45 < found.low < found.high < 0.55


def test_majority_is_what_train_says(tmp_path: Path) -> None:
    """The category that is learned most, however rare it is in test."""
    rng = np.random.default_rng(0)
    for split, labels in {"train": [0] * 6 + [1] * 4, "test": [0] * 2 + [1] * 8}.items():
        known.write(tmp_path, split, known.noise(rng, labels), labels)
    assert run(tmp_path).majority == 0.2


def test_the_seed_draws_the_folds() -> None:
    """Another one draws others, and the same one the same."""
    splits, labels = np.repeat("all", 40), np.arange(40) % 2
    drawn = [choose_protocol(splits, labels, seed).folds[0].test.tolist() for seed in (0, 1, 0)]
    assert drawn[0] == drawn[2] != drawn[1]
