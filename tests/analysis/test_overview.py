"""Neighbours, duplicates and doubtful labels of videos of which the answer is known."""

from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from analysis import known
from featx.analysis.duplicates import (
    MIN_VIDEOS,
    _find_limit,
    _pair_copies,
    find_duplicates,
)
from featx.analysis.neighbours import find_doubts, find_neighbours
from featx.analysis.overview import Overview, look_over
from featx.analysis.space import find_space
from featx.analysis.vectors import Videos, find_firsts, gather_vectors
from featx.features.folder import open_feature_files

pytestmark = pytest.mark.usefixtures("one_thread")


def look(folder: Path) -> Overview:
    """What there is to see of a folder."""
    return look_over(open_feature_files(folder))


def draw(count: int, dims: int = 20, seed: int = 0) -> NDArray[np.float32]:
    """Points at random."""
    return np.random.default_rng(seed).standard_normal((count, dims)).astype(np.float32)


@settings(deadline=None)
@given(st.integers(0, 12), st.integers(1, 6), st.integers(0, 9))
def test_neighbours_against_a_loop(number: int, count: int, seed: int) -> None:
    """The nearest others by cosine, the nearest first; also among copies of a point."""
    points = draw(number, 3, seed)
    points[number // 2 :] = points[: number - number // 2]  # each is there twice, or nearly all
    found = find_neighbours(points, count)
    kept = max(0, min(count, number - 1))
    assert found.places.shape == found.cosines.shape == (number, kept)
    for i in range(number):
        lengths = np.linalg.norm(points, axis=1)
        cosines = [
            float(points[i] @ points[j] / lengths[i] / lengths[j]) for j in range(number) if j != i
        ]
        assert i not in found.places[i]
        assert len({*found.places[i].tolist()}) == kept
        assert np.allclose(found.cosines[i], sorted(cosines, reverse=True)[:kept], atol=1e-5)


def test_the_space_is_that_of_the_vectors(tmp_path: Path) -> None:
    """Distances of points are those of the vectors, and the first axes have most variance."""
    rng = np.random.default_rng(0)
    for split, count in {"train": 12, "test": 7}.items():
        labels = [i % 3 for i in range(count)]
        known.write(tmp_path, split, known.separable(rng, labels), labels)
    datasets = open_feature_files(tmp_path)
    videos = Videos.of(datasets)
    vectors = gather_vectors(datasets, videos, "thirds")
    points, shares = find_space(datasets, videos)
    assert len(videos) == len(points) == 19
    centred = vectors - vectors.mean(0)
    assert np.allclose(points @ points.T, centred @ centred.T, atol=1e-3)
    assert np.allclose(shares, points.var(0) / vectors.var(0).sum(), atol=1e-5)
    assert (np.diff(shares) <= 1e-6).all()
    assert [videos.splits[s] for s in videos.split] == ["train"] * 12 + ["test"] * 7


def test_more_videos_than_the_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The components are those of a sample, and every video has its point, in order."""
    monkeypatch.setattr("featx.analysis.space._SAMPLE", 30)
    monkeypatch.setattr("featx.analysis.space._BATCH", 7)
    rng = np.random.default_rng(0)
    labels = [i % 3 for i in range(60)]
    known.write(tmp_path, "train", known.separable(rng, labels), labels)
    datasets = open_feature_files(tmp_path)
    videos = Videos.of(datasets)
    vectors = gather_vectors(datasets, videos, "thirds")
    sample = vectors[videos.sample(30)]
    points, _ = find_space(datasets, videos)
    centred = sample - sample.mean(0)
    expected = (vectors - sample.mean(0)) @ np.linalg.svd(centred)[2].T
    assert points.shape == (60, 30)  # the last of them is rounding, of 30 points around their mean
    assert np.allclose(np.abs(points[:, :29]), np.abs(expected[:, :29]), atol=1e-3)


def test_videos_that_are_all_alike(tmp_path: Path) -> None:
    """They have a place, and nothing that divides by zero."""
    for count in (1, 30):
        folder = tmp_path / f"{count}"
        known.write(folder, "train", [np.ones((3, 4), np.float32)] * count, [0] * count)
        found = look(folder)
        assert not found.space.points.any()
        assert not found.doubts.listed


def test_planted_leaks_are_found(tmp_path: Path) -> None:
    """Copies for certain, nearly equal ones by the data's own threshold, and nothing else."""
    rng = np.random.default_rng(3)
    labels = [i % 4 for i in range(200)]
    train, test = known.separable(rng, labels, 9), known.separable(rng, labels[:80], 9)
    for i in range(4):
        test[i] = train[10 + i]
        noise = 0.03 * rng.standard_normal(test[i].shape)
        test[10 + i] = (train[30 + i] + noise).astype(np.float32)
    contents = [f"test {i}" if i >= 4 else f"train {10 + i}" for i in range(80)]
    known.write(tmp_path, "train", train, labels, contents=[f"train {i}" for i in range(200)])
    known.write(tmp_path, "test", test, labels[:80], contents=contents)
    found = look(tmp_path).duplicates
    assert [pair[:2] for pair in found.pairs if pair.is_certain] == [
        (10 + i, 200 + i) for i in range(4)
    ]
    near = {pair[:2] for pair in found.pairs if not pair.is_certain}
    assert near == {(30 + i, 210 + i) for i in range(4)}
    assert found.threshold is not None
    assert found.usual is not None
    assert 0 < found.usual < found.threshold < 1
    assert [pair.is_certain for pair in found.pairs] == [True] * 4 + [False] * 4


def test_a_category_that_is_there_twice(tmp_path: Path) -> None:
    """All of its videos, under another label, within the split; across splits come first."""
    rng = np.random.default_rng(3)
    labels = [i // 20 for i in range(100)]
    videos = known.separable(rng, labels, 9)
    names = {f"{i}": i for i in range(6)}
    known.write(tmp_path, "train", videos + videos[20:40], [*labels, *[5] * 20], categories=names)
    known.write(tmp_path, "val", [videos[50], *known.noise(rng, [0], 9)], [2, 0], categories=names)
    pairs = look(tmp_path).duplicates.pairs
    assert pairs[0][:2] == (50, 120)
    assert {pair[:2] for pair in pairs[1:]} == {(20 + i, 100 + i) for i in range(20)}


def test_points_without_duplicates() -> None:
    """Less than one video in a data set is near by chance."""
    counts = [
        len(find_duplicates(draw(300, 64, seed), [""] * 300, np.zeros(300, int)).pairs)
        for seed in range(20)
    ]
    assert sum(counts) <= 5


def test_too_few_to_tell() -> None:
    """Near duplicates are looked for from a number of videos on; content counts always."""
    points = draw(MIN_VIDEOS, 8)
    points[1] = points[0]
    splits = np.zeros(MIN_VIDEOS, int)
    assert [pair[:2] for pair in find_duplicates(points, [""] * MIN_VIDEOS, splits).pairs] == [
        (0, 1)
    ]
    few = find_duplicates(points[1:], [*"abb"] + [""] * (MIN_VIDEOS - 4), splits[1:])
    assert few.threshold is None
    assert [pair[:2] for pair in few.pairs] == [(1, 2)]


def test_planted_labels_are_found() -> None:
    """5 % wrong ones among categories that overlap a little: most are found, few are false."""
    rng = np.random.default_rng(0)
    labels = np.arange(600) % 6
    points = (draw(6, 12, 9)[labels] * 2 + draw(600, 12)).astype(np.float32)
    wrong = rng.permutation(600)[:30]
    planted = labels.copy()
    planted[wrong] = (labels[wrong] + rng.integers(1, 6, 30)) % 6
    doubts = find_doubts(points, planted, [""] * 600)
    found = {doubt.place for doubt in doubts.listed}
    right = found & {*wrong.tolist()}
    assert len(right) >= 28
    assert len(right) >= 0.9 * len(found)
    assert all(d.suggested == labels[d.place] for d in doubts.listed if d.place in right)
    margins = [doubt.share - doubt.own for doubt in doubts.listed]
    assert margins == sorted(margins, reverse=True)
    assert doubts.agreement > 0.8


def test_who_does_not_vote() -> None:
    """Copies of a video do not confirm its wrong label, and videos without a label say nothing."""
    labels = np.array([0] * 30 + [1] * 30)
    points = draw(60, 4, 1) * 0.1
    points[labels == 0, 0] += 3
    points[labels == 1, 0] -= 3
    points[20:30] = points[20]
    planted = labels.copy()
    planted[20:30] = 1
    alone = [f"{i}" for i in range(60)]
    copied = alone[:20] + ["copies"] * 10 + alone[30:]
    assert not {doubt.place for doubt in find_doubts(points, planted, alone).listed} & {20}
    found = {doubt.place for doubt in find_doubts(points, planted, copied).listed}
    assert found == {20}
    planted[:20] = -1
    assert not find_doubts(points, planted, copied).listed


def test_mostly_unlabelled_videos() -> None:
    """Those with a label are compared with each other alone."""
    rng = np.random.default_rng(0)
    truth = np.arange(2000) % 5
    points = draw(5, 16, 9)[truth] * 3 + draw(2000, 16)
    labels = np.where(rng.random(2000) < 0.1, truth, -1)
    labelled = np.flatnonzero(labels >= 0)
    wrong = labelled[::20]
    labels[wrong] = (labels[wrong] + 1) % 5
    doubts = find_doubts(points.astype(np.float32), labels, [""] * 2000)
    assert {doubt.place for doubt in doubts.listed} == {*wrong.tolist()}
    assert doubts.agreement > 0.85


@pytest.mark.parametrize("copies", [3, 25])
def test_content_that_is_there_often_hides_no_leak(copies: int) -> None:
    """Nor do as many copies as there are neighbours make the search fail."""
    points = draw(100, 64)
    contents = [f"{i}" for i in range(100)] * copies + [f"test {i}" for i in range(100)]
    both = [*[points] * copies, points + 0.05 * draw(100, 64, 1)]
    splits = np.repeat([0, 1], [100 * copies, 100])
    found = find_duplicates(np.concatenate(both), contents, splits)
    leaks, within = found.split(splits)
    assert {pair[:2] for pair in leaks} == {(i, 100 * copies + i) for i in range(100)}
    assert len(within) == 100 * (copies - 1)
    assert found.twins == 1


def test_content_in_three_splits() -> None:
    """Each two of them are told."""
    found = find_duplicates(draw(3), ["x"] * 3, np.arange(3))
    assert [pair[:2] for pair in found.pairs] == [(0, 1), (0, 2), (1, 2)]


def test_equal_videos() -> None:
    """Twenty-five of them, and sixty that are all there is."""
    points = draw(300, 64)
    points[:25] = points[0]
    found = find_duplicates(points, [""] * 300, np.zeros(300, int))
    assert {place for pair in found.pairs for place in pair[:2]} == {*range(25)}
    alike = find_duplicates(np.ones((60, 4), np.float32), [""] * 60, np.zeros(60, int))
    assert {place for pair in alike.pairs for place in pair[:2]} == {*range(60)}


@pytest.mark.parametrize("copies", [3, 20, 40])
@pytest.mark.parametrize("is_known", [True, False])
def test_many_copies(copies: int, is_known: bool) -> None:
    """All of them are found, whether the files tell what they are or not, and nothing else."""
    points = draw(200 + copies, 64)
    points[200:] = points[0] + 1e-3 * draw(copies, 64, 1) * (not is_known)
    contents = [f"{place}" if place < 200 else "0" for place in range(200 + copies)]
    splits = (np.arange(200 + copies) >= 200).astype(int)
    found = find_duplicates(points, contents if is_known else [""] * len(contents), splits)
    assert {place for pair in found.pairs for place in pair[:2]} == {0, *range(200, 200 + copies)}
    assert {pair.is_certain for pair in found.pairs} == {is_known}
    assert len({pair[:2] for pair in found.pairs}) == len(found.pairs)


@pytest.mark.parametrize("noise", [0, 0.001, 0.05])
@pytest.mark.parametrize("share", [0.4, 1.0])
def test_twins_do_not_hide_each_other(noise: float, share: float) -> None:
    """Also where most videos, or all, stand in both splits."""
    points, count = draw(200, 64), int(200 * share)
    other = draw(200, 64, 2)
    other[:count] = points[:count] + noise * draw(count, 64, 1)
    splits = np.repeat([0, 1], 200)
    found = find_duplicates(np.concatenate([points, other]), [""] * 400, splits)
    assert {pair[:2] for pair in found.pairs} == {(i, 200 + i) for i in range(count)}


def test_a_small_category_is_no_group_of_copies() -> None:
    """Ten videos of each of thirty categories that lie far apart."""
    points = draw(30, 64, 9)[np.arange(300) % 30] * 5 + 0.5 * draw(300, 64, 4)
    found = find_duplicates(points.astype(np.float32), [""] * 300, np.zeros(300, int))
    assert len(found.pairs) <= 2


def test_content_in_a_split_twice_and_in_another() -> None:
    """It is a leak each time, and a duplicate besides."""
    contents = ["x", "a", "x", "x", "b"]
    found = find_duplicates(draw(5), contents, np.array([0, 0, 1, 1, 1]))
    leaks, within = found.split(np.array([0, 0, 1, 1, 1]))
    assert [pair[:2] for pair in leaks] == [(0, 2), (0, 3)]
    assert [pair[:2] for pair in within] == [(2, 3)]


@pytest.mark.parametrize("categories", [2, 3, 10])
def test_noise_raises_no_doubts(categories: int) -> None:
    """Neighbours that hardly know the labels cannot doubt one."""
    labels = np.arange(400) % categories
    doubts = find_doubts(draw(400, 16), labels, [""] * 400)
    assert doubts.listed == []
    assert doubts.agreement == pytest.approx(1 / categories, abs=0.1)


def test_all_of_a_large_data_set_twice() -> None:
    """Pairs of contents are made per content: there are as many as copies, at once."""
    contents = [f"{i}" for i in range(30_000)] * 2
    splits = np.repeat([0, 1], 30_000)
    first = np.array(find_firsts(contents))
    assert len(_pair_copies(first, splits)) == 30_000


@pytest.mark.parametrize("noise", [0.0, 0.03])
def test_many_near_copies(noise: float) -> None:
    """More than there are neighbours in view: all are named, though none is apart from the rest."""
    points = draw(400, 64)
    points[:40] = points[0] + noise * draw(40, 64, 1)
    found = find_duplicates(points, [""] * 400, np.zeros(400, int))
    assert {place for pair in found.pairs for place in pair[:2]} == {*range(40)}


def test_three_versions_of_every_video() -> None:
    """Two others that are far nearer than the rest do not hide each other, either."""
    points = draw(100, 64)
    versions = [points + 0.02 * draw(100, 64, seed) for seed in (1, 2, 3)]
    found = find_duplicates(np.concatenate(versions), [""] * 300, np.repeat([0, 1, 2], 100))
    assert len(found.pairs) == 300
    assert {(pair.first - pair.second) % 100 for pair in found.pairs} == {0}
    assert found.twins == 1


def test_equal_but_for_rounding() -> None:
    """What float32 leaves of the distance of equal videos is near, whatever is usual."""
    points = 1 + 1e-4 * draw(60, 64)
    found = find_duplicates(points.astype(np.float32), [""] * 60, np.zeros(60, int))
    assert {place for pair in found.pairs for place in pair[:2]} == {*range(60)}


def test_copies_do_not_count_as_videos() -> None:
    """Thirty contents are too few to tell what is near, however often each is there."""
    contents = [f"{i}" for i in range(30)] * 2
    found = find_duplicates(np.tile(draw(30, 64), (2, 1)), contents, np.zeros(60, int))
    assert found.threshold is None
    assert len(found.pairs) == 30


@pytest.mark.parametrize(("count", "deviations"), [(101, 3.0), (10_001, 3.719)])
def test_the_limit(count: int, deviations: float) -> None:
    """Of log-normal distances: three deviations, or where one of all is expected."""
    normal = NormalDist(-2, 0.5)
    nearest = [normal.inv_cdf((i + 0.5) / count) for i in range(count)]
    distances = np.exp(np.stack([nearest] * 3 + [np.ones(count)], axis=1))
    limit, usual, twins = _find_limit(distances)
    assert np.log(limit) == pytest.approx(-2 - deviations * 0.5, abs=0.03)
    assert np.log(usual) == pytest.approx(-2, abs=0.01)
    assert twins == 0  # three that are so near are no twins
