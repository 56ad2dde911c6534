"""The multi-scale maths, against a loop in plain numpy."""

from fractions import Fraction
from math import floor

import numpy as np
import pytest
import reference as definition
import torch
from hypothesis import given
from hypothesis import strategies as st

from featx.extraction.temporal import (
    ScaleAlign,
    ScaleAverage,
    average_scales,
    output_length,
    scale_indices,
    scale_length,
)

SCALES = (1.0, 0.85, 1.15)
CHOICES: list[tuple[ScaleAverage, ScaleAlign]] = [
    ("zeros", "index"),
    ("present", "index"),
    ("zeros", "time"),
    ("present", "time"),
]

some_scales = st.lists(st.floats(0.05, 4.0), min_size=1, max_size=5).map(tuple)


def reference(
    features: np.ndarray,
    scales: tuple[float, ...],
    average: str = "zeros",
    align: str = "index",
) -> np.ndarray:
    """The definition, frame by frame and scale by scale, in float64; moments are fractions."""
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
        found = []
        for row in rows:
            if align == "time":
                moment = Fraction(m, longest - 1) if longest > 1 else Fraction(0)
                found.append(row[floor(moment * (len(row) - 1) + Fraction(1, 2))])
            elif m < len(row):
                found.append(row[m])
        out[m] = np.sum(found, axis=0) / (len(found) if average == "present" else len(scales))
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


@pytest.mark.parametrize(("average", "align"), CHOICES)
@pytest.mark.parametrize("num_frames", [1, 3])
def test_a_single_scale_keeps_the_video(
    num_frames: int, average: ScaleAverage, align: ScaleAlign
) -> None:
    """At the scale 1 alone, features come out as they went in; one frame is one moment."""
    features = torch.randn(num_frames, 4)
    with np.errstate(all="raise"):
        assert torch.equal(average_scales(features, (1.0,), average, align), features)


@pytest.mark.parametrize(("average", "align"), CHOICES)
@given(num_frames=st.integers(1, 200), scales=some_scales)
def test_average_is_the_definition(
    num_frames: int, scales: tuple[float, ...], average: ScaleAverage, align: ScaleAlign
) -> None:
    """Any length and any scales: the average is that of the definition, and as long."""
    features = np.random.default_rng(0).standard_normal((num_frames, 3)).astype(np.float32)
    found = average_scales(torch.from_numpy(features), scales, average, align).numpy()
    expected = reference(features, scales, average, align)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert len(found) == output_length(num_frames, scales)


@pytest.mark.parametrize("num_frames", [1, 3, 7, 64, 150])
def test_by_default_it_is_as_it_was(num_frames: int) -> None:
    """What the old script's loop makes of the same features; in float32, to the last bit."""
    features = torch.randn(num_frames, 3, generator=torch.Generator().manual_seed(0))
    expected = definition.extract_video(torch.nn.Identity(), features, SCALES)
    total = torch.zeros(output_length(num_frames, SCALES), 3)
    for scale in SCALES:
        index = scale_indices(num_frames, scale)
        total[: len(index)] += features[index]
    found = average_scales(features, SCALES)
    assert torch.equal(found, total / 3)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6, atol=1e-7)


def test_the_tail_of_64_frames() -> None:
    """Zeros: two thirds of the norm from row 54 on, one third from 64 on; otherwise, all of it."""
    features = torch.full((64, 2), 6.0)
    steps = [6.0] * 54 + [4.0] * 10 + [2.0] * 9
    assert average_scales(features, SCALES)[:, 0].tolist() == steps
    for choice in CHOICES[1:]:
        assert average_scales(features, SCALES, *choice)[:, 0].tolist() == [6.0] * 73


@given(st.integers(1, 200), some_scales)
def test_what_never_changes_stays_as_it_is(num_frames: int, scales: tuple[float, ...]) -> None:
    """Features that are the same in all frames are the same in all rows, with their norm."""
    features = torch.randn(1, 3, generator=torch.Generator().manual_seed(0)).repeat(num_frames, 1)
    for average, align in CHOICES[1:]:
        found = average_scales(features, scales, average, align)
        torch.testing.assert_close(found, features[:1].expand_as(found))


@given(st.integers(2, 200), some_scales)
def test_rows_are_moments(num_frames: int, scales: tuple[float, ...]) -> None:
    """With `time`, what grows with time does so from its first value to its last.

    No scale is more than half a step of its own off, but for what `scale_indices` truncates, which
    is less than a frame.
    """
    moments = torch.arange(num_frames, dtype=torch.float64)[:, None] / (num_frames - 1)
    found = average_scales(moments, scales, align="time")[:, 0].numpy()
    off = found - np.linspace(0, 1, len(found))
    half_step = np.mean([0.5 / (scale_length(num_frames, scale) - 1) for scale in scales])
    assert off.max() <= half_step + 1e-9
    assert off.min() >= -half_step - 1 / (num_frames - 1) - 1e-9
    assert (found[0], found[-1]) == (pytest.approx(0), pytest.approx(1))
    assert (np.diff(found) >= -1e-9).all()


def test_rows_of_the_same_number_are_not_moments() -> None:
    """With `index`, a row joins moments that are 15 % apart: an eighth of the video off."""
    moments = torch.linspace(0, 1, 64, dtype=torch.float64)[:, None]
    found = average_scales(moments, SCALES, "present", "index")[:, 0].numpy()
    assert 0.12 < np.abs(found - np.linspace(0, 1, 73)).max() < 0.13
    found = average_scales(moments, SCALES, "present", "time")[:, 0].numpy()
    assert np.abs(found - np.linspace(0, 1, 73)).max() < 0.012


@given(st.integers(1, 100), some_scales)
def test_with_time_every_scale_is_present(num_frames: int, scales: tuple[float, ...]) -> None:
    """The two averages are the same, to the last bit."""
    features = torch.randn(num_frames, 3, generator=torch.Generator().manual_seed(0))
    expected = average_scales(features, scales, "zeros", "time")
    assert torch.equal(average_scales(features, scales, "present", "time"), expected)


@given(st.integers(1, 500), st.floats(0.05, 4.0))
def test_indices_are_frames_in_order(num_frames: int, scale: float) -> None:
    """Indices ascend, and none lies outside of the video."""
    indices = scale_indices(num_frames, scale)
    assert len(indices) == scale_length(num_frames, scale)
    assert indices[0] == 0
    assert indices[-1] <= num_frames - 1
    assert (np.diff(indices) >= 0).all()
