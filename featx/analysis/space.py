"""The space in which videos are compared: principal components of their vectors."""

from collections.abc import Mapping
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from featx.analysis.pooling import PoolName
from featx.analysis.vectors import Videos, gather_vectors, read_vectors
from featx.features.dataset import FeatureDataset
from featx.progress import make_bar

DIMS = 256
_SAMPLE = 4096  # videos by which the components are found
_BATCH = 1024


class Space(NamedTuple):
    """Videos as points.

    Attributes:
        points: float32 `[num_videos, dims]`, at most `DIMS` of them, around the mean of the videos.
        shares: Share `[dims]` of the variance that each principal component has.
    """

    points: NDArray[np.float32]
    shares: NDArray[np.float32]


def find_space(
    datasets: Mapping[str, FeatureDataset], videos: Videos, pool: PoolName = "thirds", seed: int = 0
) -> Space:
    """Read videos, and reduce their vectors to principal components.

    Of many videos, an even sample says what the components are; memory holds these vectors, and the
    points of all.

    Args:
        datasets: The files of their splits.
        videos: In the order of their splits.
        pool: How the frames of a video become one vector.
        seed: Of the decomposition.

    Raises:
        InputError: A file is damaged.
        ChangedInputError: It has been replaced since it was opened.
    """
    from sklearn.decomposition import PCA

    sample = videos.sample(_SAMPLE)
    vectors = gather_vectors(datasets, videos.select(sample), pool)
    if len(vectors) < 2 or not np.ptp(vectors, axis=0).any():
        return Space(np.zeros((len(videos), 1), np.float32), np.zeros(1, np.float32))
    pca = PCA(min(DIMS, *vectors.shape), random_state=seed).fit(vectors)
    shares = pca.explained_variance_ratio_.astype(np.float32)
    if len(sample) == len(videos):
        return Space(pca.transform(vectors).astype(np.float32), shares)
    del vectors
    points = np.empty((len(videos), pca.n_components_), np.float32)
    found = iter(make_bar(read_vectors(datasets, videos, pool), "Reading", len(videos), "video"))
    for start in range(0, len(videos), _BATCH):
        batch = np.stack([*islice(found, _BATCH)])
        points[start : start + len(batch)] = pca.transform(batch)
    return Space(points, shares)
