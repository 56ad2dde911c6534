"""The multi-scale maths, against a loop in plain numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from featx.extraction.temporal import (
    average_scales,
    output_length,
    scale_indices,
    scale_length,
)

SCALES = (1.0, 0.85, 1.15)


def reference(features: np.ndarray, scales: tuple[float, ...]) -> np.ndarray:
    """The definition, frame by frame and scale by scale, in float64."""
    num_frames = len(features)
    rows = []
    for scale in scales:
        if scale == 1:
            rows.append([features[i] for i in range(num_frames)])
        else:
            length = max(int(num_frames * scale), 5)
            positions = np.linspace(0, num_frames - 1, length)
            rows.append([features[int(position)] for position in positions])
    longest = max(map(len, rows))
    out = np.zeros((longest, features.shape[1]))
    for m in range(longest):
        for row in rows:
            if m < len(row):
                out[m] += row[m] / len(scales)
    return out


def test_lengths_of_64_frames() -> None:
    """64 frames give 64, 54 and 73 at the standard scales, and 73 in all."""
    assert [scale_length(64, scale) for scale in SCALES] == [64, 54, 73]
    assert output_length(64, SCALES) == 73


@pytest.mark.parametrize(("num_frames", "expected"), [(1, 5), (3, 5), (5, 5), (7, 8)])
def test_short_videos_have_at_least_five_frames_at_other_scales(
    num_frames: int, expected: int
) -> None:
    """A scale other than 1 has five frames or more, so the output has too."""
    assert output_length(num_frames, SCALES) == expected


def test_a_single_scale_keeps_the_video() -> None:
    """At the scale 1 alone, features come out as they went in."""
    features = torch.randn(3, 4)
    assert torch.equal(average_scales(features, (1.0,)), features)


@given(
    st.integers(1, 200),
    st.lists(st.floats(0.05, 4.0), min_size=1, max_size=5).map(tuple),
)
def test_average_is_the_definition(num_frames: int, scales: tuple[float, ...]) -> None:
    """Any length and any scales: the average is that of the definition."""
    features = np.random.default_rng(0).standard_normal((num_frames, 3)).astype(np.float32)
    found = average_scales(torch.from_numpy(features), scales).numpy()
    np.testing.assert_allclose(found, reference(features, scales), rtol=1e-5, atol=1e-6)


@given(st.integers(1, 500), st.floats(0.05, 4.0))
def test_indices_are_frames_in_order(num_frames: int, scale: float) -> None:
    """Indices ascend, and none lies outside of the video."""
    indices = scale_indices(num_frames, scale)
    assert len(indices) == scale_length(num_frames, scale)
    assert indices[0] == 0
    assert indices[-1] <= num_frames - 1
    assert (np.diff(indices) >= 0).all()
