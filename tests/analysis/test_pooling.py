"""A vector for each video."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import adaptive_avg_pool1d

from featx.analysis.pooling import pool_frames, pooled_dim


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(1, 5), st.integers(0, 99))
def test_against_torch(frames: int, dim: int, seed: int) -> None:
    """Thirds are what torch's adaptive pooling to three makes; mean and std are numpy's."""
    features = np.random.default_rng(seed).standard_normal((frames, dim)).astype(np.float32)
    thirds = adaptive_avg_pool1d(torch.from_numpy(features.T.copy())[None], 3)[0].T.flatten()
    assert np.allclose(pool_frames(features, "thirds"), thirds.numpy(), atol=1e-6)
    expected = np.concatenate([features.mean(0), features.std(0)])
    assert np.allclose(pool_frames(features, "mean+std"), expected, atol=1e-6)
    assert np.allclose(pool_frames(features, "mean"), features.mean(0), atol=1e-6)


@pytest.mark.parametrize("pool", ["mean", "mean+std", "thirds"])
def test_length(pool: str) -> None:
    """As long as it is said before."""
    found = pool_frames(np.ones((4, 5), np.float32), pool)  # type: ignore[arg-type]
    assert found.shape == (pooled_dim(5, pool),)  # type: ignore[arg-type]
    assert found.dtype == np.float32
