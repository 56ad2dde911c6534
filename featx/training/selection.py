"""`Selection`: some videos of a feature file, with labels and frames of their own."""

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from featx.features.dataset import FeatureDataset, FeatureItem
from featx.features.feature_file import UNLABELLED


class Selection(Dataset[FeatureItem]):
    """Map-style; an item is a `FeatureItem`.

    Args:
        dataset: All videos of a feature file.
        rows: Which of them `[num_videos]`, int64.
        labels: The label of each `[num_videos]`, int64.
        draw_frames: Which frames to read of a video of so many; by default, all.
    """

    def __init__(
        self,
        dataset: FeatureDataset,
        rows: NDArray[np.int64],
        labels: NDArray[np.int64],
        draw_frames: Callable[[int], NDArray[np.int64]] | None = None,
    ) -> None:
        self.dataset = dataset
        self.rows = rows
        self.labels = labels
        self.draw_frames = draw_frames

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> FeatureItem:
        """Read a video.

        Raises:
            IndexError: There is no such video.
            InputError: The file is damaged.
            ChangedInputError: It is another than at first.
        """
        row = int(self.rows[index])
        frames = None
        if self.draw_frames:
            frames = self.draw_frames(int(self.dataset.num_frames[row]))
        read = self.dataset.read(row, frames)
        return replace(read, label=int(self.labels[index]))


def number_anew(labels: NDArray[np.int64], kept: Collection[int]) -> NDArray[np.int64]:
    """Labels `[num_videos]` without holes: from 0, in the order of those that are kept.

    All others become -1.
    """
    ordered = np.unique([*kept])
    anew = np.searchsorted(ordered, labels)
    return np.where(np.isin(labels, ordered), anew, UNLABELLED)


def find_values(column: NDArray[Any], values: Collection[str | float]) -> NDArray[np.bool_]:
    """Which cells of a column `[num_videos]` are among some values."""
    wanted = {*values}
    return np.fromiter((cell in wanted for cell in column.tolist()), np.bool_, len(column))


def cap(labels: NDArray[np.int64], limit: int) -> NDArray[np.bool_]:
    """Which videos `[num_videos]` to keep, so that no label has more than a limit.

    Those of a label are evenly spaced over its rows. Videos without a label are all kept.
    """
    kept: NDArray[np.bool_] = labels == UNLABELLED
    for label in np.unique(labels[~kept]):
        rows = np.flatnonzero(labels == label)
        count = min(limit, len(rows))
        kept[rows[np.arange(count) * len(rows) // count]] = True
    return kept


def balance(labels: NDArray[np.int64], num_labels: int) -> NDArray[np.float32]:
    """Weight `[num_labels]` of each label, float32, so that all labels count the same.

    That is n / (K * count), with n the number of labelled videos, and K that of labels which have
    any; 0 for those that have none. The mean weight of a video is 1.
    """
    counts = np.bincount(labels[labels != UNLABELLED], minlength=num_labels)
    weights = np.zeros(len(counts), np.float32)
    given = counts > 0
    weights[given] = counts.sum() / (given.sum() * counts[given])
    return weights
