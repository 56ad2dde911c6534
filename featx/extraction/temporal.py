"""Temporal multi-scale on index arrays: pure functions, no disk and no Lightning.

A frozen CNN sees one frame at a time, so the features of every temporal scale are rows of the
same per-frame features: each scale is a gather, and no frame is computed twice.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

DEFAULT_SCALES = (1.0, 0.85, 1.15)
MIN_SCALED_FRAMES = 5

ScaleAverage = Literal["zeros", "present"]
ScaleAlign = Literal["index", "time"]


def scale_length(num_frames: int, scale: float) -> int:
    """Number of frames of a video of `num_frames` frames at a temporal `scale`.

    The scale 1 keeps the video as it is; any other gives `int(num_frames * scale)`, at least 5.
    """
    return num_frames if scale == 1 else max(int(num_frames * scale), MIN_SCALED_FRAMES)


def scale_indices(num_frames: int, scale: float) -> NDArray[np.int64]:
    """Which frame stands at each position of a temporal scale.

    Returns:
        Frame indices `[scale_length(num_frames, scale)]`, uniform over the video, truncated.
    """
    if scale == 1:
        return np.arange(num_frames)
    positions = np.linspace(0, num_frames - 1, scale_length(num_frames, scale))
    return positions.astype(np.int64)


def output_length(num_frames: int, scales: Sequence[float]) -> int:
    """Number of frames of the average over `scales`: that of the longest scale."""
    return max(scale_length(num_frames, scale) for scale in scales)


def average_scales(
    features: Tensor,
    scales: Sequence[float],
    average: ScaleAverage = "zeros",
    align: ScaleAlign = "index",
) -> Tensor:
    """Average the temporal scales of a video, row by row, up to the longest one.

    With `S` scales, `L_s = scale_length(num_frames, s)`, `index_s = scale_indices(num_frames, s)`
    and `M = output_length(num_frames, scales)`, for the rows `m = 0 ... M-1`:

    - `index` and `zeros`: a scale that has ended counts as zeros, so that the norm of the last
      rows falls in steps.
      `out[m] = (1/S) * sum over s of (features[index_s[m]] if m < L_s else 0)`
    - `index` and `present`: a scale that has ended does not count.
      `out[m] = (1/N_m) * sum over s with m < L_s of features[index_s[m]]`,
      where `N_m` is the number of scales with `m < L_s`
    - `time`: row `m` is the moment `m / (M-1)` of the video, and each scale gives the frame of its
      own that is nearest to it, the later one of two. All of them reach every row, so `zeros` and
      `present` are the same.
      `out[m] = (1/S) * sum over s of features[index_s[floor(m * (L_s-1) / (M-1) + 1/2)]]`,
      and `features[0]` if `M = 1`

    Args:
        features: Per-frame features `[num_frames, feature_dim]`.
        scales: Temporal scales, relative to the video's own length.
        average: What the sum of a row is divided by: `zeros` or `present`.
        align: Which frames of the scales stand in one row: `index` or `time`.

    Returns:
        Features `[output_length(num_frames, scales), feature_dim]`, of the same dtype.
    """
    num_frames = len(features)
    total = features.new_zeros(output_length(num_frames, scales), features.shape[1])
    present = np.zeros(len(total), dtype=np.int64)
    for scale in scales:
        indices = scale_indices(num_frames, scale)
        if align == "time":
            indices = indices[_nearest_positions(len(total), len(indices))]
        present[: len(indices)] += 1
        index = torch.from_numpy(indices)
        index = index.to(features.device, non_blocking=True)  # else CUDA waits for the CNN
        total[: len(index)] += features[index]
    if average == "zeros" or align == "time":  # CUDA rounds otherwise by a tensor
        return total / len(scales)
    count = torch.from_numpy(present).to(features.device, non_blocking=True)
    return total / count[:, None]


def _nearest_positions(num_rows: int, length: int) -> NDArray[np.int64]:
    """Which position of a scale of `length` frames is nearest to each row in time.

    Whole numbers only: how floats are rounded may differ from one machine to another.
    """
    last_row = max(num_rows - 1, 1)
    return (2 * np.arange(num_rows) * (length - 1) + last_row) // (2 * last_row)
