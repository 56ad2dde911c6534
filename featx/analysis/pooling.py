"""A vector for each video: pure functions of its frames' features."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

PoolName = Literal["mean", "mean+std", "thirds"]

_PARTS = {"mean": 1, "mean+std": 2, "thirds": 3}


def pool_frames(features: NDArray[np.float32], pool: PoolName) -> NDArray[np.float32]:
    """The features of a video's frames, as one vector.

    `mean` is that of all frames, `mean+std` also has their standard deviation, and `thirds` has the
    means of the beginning, the middle and the end, so that the order of the frames counts. Thirds
    share a frame where their number is no multiple of three: third i is from frame `i T // 3` up to
    `ceil((i + 1) T / 3)`.

    Args:
        features: `[num_frames, feature_dim]`, of one frame or more.
        pool: Which of them.

    Returns:
        float32 `[pooled_dim(feature_dim, pool)]`.
    """
    if pool == "mean":
        return _mean(features)
    if pool == "mean+std":
        std = features.std(axis=0, dtype=np.float64).astype(np.float32)
        return np.concatenate([_mean(features), std])
    count = len(features)
    thirds = [features[i * count // 3 : -(-(i + 1) * count // 3)] for i in range(3)]
    return np.concatenate([_mean(third) for third in thirds])


def pooled_dim(feature_dim: int, pool: PoolName) -> int:
    """The length of the vector of a video."""
    return _PARTS[pool] * feature_dim


def _mean(features: NDArray[np.float32]) -> NDArray[np.float32]:
    mean: NDArray[np.float64] = features.mean(axis=0, dtype=np.float64)
    return mean.astype(np.float32)
