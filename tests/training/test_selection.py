"""Some videos of a feature file, with labels and frames of their own."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import make_rows, write_feature_file
from hypothesis import given
from hypothesis import strategies as st

from featx import FeatureDataset
from featx.training.selection import Selection, balance, cap, find_values, number_anew

LENGTHS = [3, 1, 5, 2]
LABELS = st.lists(st.integers(-1, 5), min_size=1, max_size=40)


def test_items(tmp_path: Path) -> None:
    """The rows in the order given, with new labels and all else that the file tells of them."""
    columns = {"signer": np.array([7, 8, 7, 9])}
    path = write_feature_file(tmp_path / "a.h5", LENGTHS, columns=columns, has_times=True)
    dataset = FeatureDataset(path)
    selection = Selection(dataset, np.array([2, 0]), np.array([5, -1]))
    rows = make_rows(LENGTHS)
    assert len(selection) == 2
    for item, row, label in zip(map(selection.__getitem__, (0, 1)), (2, 0), (5, -1), strict=True):
        assert torch.equal(item.features, torch.from_numpy(rows[row]))
        assert (item.label, item.num_frames) == (label, LENGTHS[row])
        assert item.video_id == f"video {row}"
        assert item.columns == {"signer": 7}
        assert item.times is not None
        assert item.times.tolist() == [i / 8 for i in range(LENGTHS[row])]
    with pytest.raises(IndexError):
        selection[2]


def test_drawn_frames(tmp_path: Path) -> None:
    """They are drawn for the length of the video itself, and times follow them."""
    dataset = FeatureDataset(write_feature_file(tmp_path / "a.h5", LENGTHS, has_times=True))
    selection = Selection(
        dataset, np.array([0, 2]), np.array([0, 1]), lambda count: np.array([count - 2, count - 1])
    )
    item = selection[1]
    assert torch.equal(item.features, torch.from_numpy(make_rows(LENGTHS)[2][3:]))
    assert item.num_frames == 2
    assert item.times is not None
    assert item.times.tolist() == [3 / 8, 4 / 8]


def test_new_numbers() -> None:
    """Without holes, in the order of the old ones; whatever is left out has none."""
    labels = np.array([4, 1, -1, 0, 7, 4])
    assert number_anew(labels, [7, 1, 4]).tolist() == [1, 0, -1, -1, 2, 1]
    assert number_anew(labels, []).tolist() == [-1] * 6


@pytest.mark.parametrize(
    ("column", "values", "expected"),
    [
        (np.array([7, 8, 7]), [7], [True, False, True]),
        (np.array([7, 8, 7]), np.array([8, 9]), [False, True, False]),
        (np.array([7, 8, 7]), ["7"], [False, False, False]),
        (np.array([0.5, np.nan, 2.0]), {2, 0.5}, [True, False, True]),
        (np.array(["a", "ab", ""], object), ["a", ""], [True, False, True]),
    ],
    ids=str,
)
def test_values_of_a_column(column: object, values: object, expected: list[bool]) -> None:
    """Numbers and text are told apart, and text is compared as a whole."""
    assert find_values(column, values).tolist() == expected  # type: ignore[arg-type]


def test_evenly_spaced() -> None:
    """Of ten rows of a category five are every second one, wherever they are."""
    labels = np.array([0, 1] * 10)
    assert np.flatnonzero(cap(labels, 5)).tolist() == [0, 1, 4, 5, 8, 9, 12, 13, 16, 17]


@given(LABELS, st.integers(1, 9))
def test_a_cap(found: list[int], limit: int) -> None:
    """Each category has as many videos as it may, and those without a label are all kept."""
    labels = np.array(found)
    expected = {
        label: number if label == -1 else min(number, limit)
        for label, number in Counter(found).items()
    }
    assert Counter(labels[cap(labels, limit)].tolist()) == expected


@given(LABELS)
def test_balanced_weights(found: list[int]) -> None:
    """As scikit-learn has them: the mean is 1, each category has the same sum, others have 0."""
    weights = balance(np.array(found), 8)
    assert weights.dtype == np.float32
    assert len(weights) == 8
    counts = Counter(label for label in found if label >= 0)
    for label in range(8):
        expected = 0.0
        if label in counts:
            expected = counts.total() / (len(counts) * counts[label])
        assert weights[label] == pytest.approx(expected)
