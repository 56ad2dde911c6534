"""The videos of feature files, and their vectors."""

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featx.analysis.pooling import PoolName, pool_frames, pooled_dim
from featx.errors import InputError
from featx.features.dataset import FeatureDataset
from featx.features.feature_file import UNLABELLED
from featx.progress import make_bar


@dataclass(frozen=True, slots=True)
class Videos:
    """Videos of one split or more, one after the other.

    Attributes:
        splits: The splits, in order.
        split: Which of them each video `[num_videos]` is of, as a place in `splits`.
        row: Its row `[num_videos]` in the file of the split.
        labels: Its label `[num_videos]`; -1 for none.
        names: Its name.
        contents: What it was made of; empty where the file does not tell.
        categories: Label of each category.
        has_names: Whether the files tell their names; otherwise, these are the rows.
    """

    splits: Sequence[str]
    split: NDArray[np.int64]
    row: NDArray[np.int64]
    labels: NDArray[np.int64]
    names: Sequence[str]
    contents: Sequence[str]
    categories: Mapping[str, int]
    has_names: bool = True

    def __len__(self) -> int:
        return len(self.row)

    @classmethod
    def of(cls, datasets: Mapping[str, FeatureDataset]) -> "Videos":
        """All videos of some files that belong together."""
        files = [*datasets.values()]
        return cls(
            [*datasets],
            np.repeat(np.arange(len(files)), [len(file) for file in files]),
            np.concatenate([np.arange(len(file)) for file in files]),
            np.concatenate([file.labels for file in files]),
            [name for file in files for name in file.video_ids],
            [content for file in files for content in file.input_sha256 or [""] * len(file)],
            files[0].categories,
            all(file.has_names for file in files),
        )

    def select(self, chosen: NDArray[np.int64]) -> "Videos":
        """Some of the videos, by their places."""
        return Videos(
            self.splits,
            self.split[chosen],
            self.row[chosen],
            self.labels[chosen],
            [self.names[i] for i in chosen],
            [self.contents[i] for i in chosen],
            self.categories,
            self.has_names,
        )

    def sample(self, limit: int) -> NDArray[np.int64]:
        """Places of at most so many videos, in order: each split and label keeps its share.

        Those of a split and a label are evenly spaced.
        """
        order = np.lexsort((self.row, self.labels, self.split))
        return np.sort(order[evenly(len(self), limit)])

    def name_categories(self, labels: Sequence[int]) -> list[str]:
        """What a person calls labels: their categories, or else the numbers."""
        name_of = {label: name for name, label in self.categories.items()}
        name_of.setdefault(UNLABELLED, "(no category)")
        return [name_of.get(label, str(label)) for label in labels]


def find_firsts(keys: Iterable[Hashable]) -> list[int]:
    """The place of the first of those that are equal to each."""
    first_of: dict[Hashable, int] = {}
    return [first_of.setdefault(key, place) for place, key in enumerate(keys)]


def evenly(count: int, limit: int) -> NDArray[np.int64]:
    """At most `limit` of the numbers below `count`, evenly spaced, the first one included."""
    kept = min(count, limit)
    return np.arange(kept, dtype=np.int64) * count // max(kept, 1)


def read_vectors(
    datasets: Mapping[str, FeatureDataset], videos: Videos, pool: PoolName
) -> Iterator[NDArray[np.float32]]:
    """The vectors `[pooled_dim]` of videos, one after the other.

    Args:
        datasets: The files of their splits.
        videos: In the order of their splits.
        pool: How the frames of a video become one vector.

    Raises:
        InputError: A file is damaged, or has features that are NaN or infinite.
        ChangedInputError: It has been replaced since it was opened.
    """
    for number, split in enumerate(videos.splits):
        rows = videos.row[videos.split == number].tolist()
        found = datasets[split].map_rows(lambda features: pool_frames(features, pool), rows)
        for row, vector in zip(rows, found, strict=True):
            if not np.isfinite(vector).all():
                raise InputError(
                    f"{datasets[split].path}: expected finite features, found NaN or infinity in "
                    f"row {row}. Extract them again."
                )
            yield vector


def gather_vectors(
    datasets: Mapping[str, FeatureDataset], videos: Videos, pool: PoolName
) -> NDArray[np.float32]:
    """The vectors `[num_videos, pooled_dim]` of videos.

    Raises:
        InputError: A file is damaged, or has features that are NaN or infinite.
        ChangedInputError: It has been replaced since it was opened.
    """
    dim = pooled_dim(next(iter(datasets.values())).feature_dim, pool)
    vectors = np.empty((len(videos), dim), np.float32)
    found = make_bar(read_vectors(datasets, videos, pool), "Reading", len(videos), "video")
    for place, vector in enumerate(found):
        vectors[place] = vector
    return vectors
