"""Temporal multi-scale on index arrays: pure functions, no disk and no Lightning.

A frozen CNN sees one frame at a time, so the features of every temporal scale are rows of the
same per-frame features: each scale is a gather, and no frame is computed twice.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

DEFAULT_SCALES = (1.0, 0.85, 1.15)
MIN_SCALED_FRAMES = 5


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


def average_scales(features: Tensor, scales: Sequence[float]) -> Tensor:
    """Average the temporal scales of a video, each padded with zeros to the longest one.

    `out[m] = (1/S) * sum over s of (features[index_s[m]] if m < L_s else 0)`

    Args:
        features: Per-frame features `[num_frames, feature_dim]`.
        scales: Temporal scales, relative to the video's own length.

    Returns:
        Features `[output_length(num_frames, scales), feature_dim]`, of the same dtype.
    """
    num_frames = len(features)
    total = features.new_zeros(output_length(num_frames, scales), features.shape[1])
    for scale in scales:
        index = torch.from_numpy(scale_indices(num_frames, scale))
        index = index.to(features.device, non_blocking=True)  # else CUDA waits for the CNN
        total[: len(index)] += features[index]
    return total / len(scales)
