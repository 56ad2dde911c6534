"""Other frames of a video in each epoch: a crop in time, and jitter."""

import numpy as np
import torch
from numpy.typing import NDArray


def draw_frames(
    num_frames: int, crop_frames: int | None = None, jitter_frames: int = 0
) -> NDArray[np.int64]:
    """Draw frames of a video `[crop_frames]`, in rising order, from torch's generator.

    A DataLoader seeds that generator in each of its workers.

    Args:
        num_frames: Frames of the video.
        crop_frames: So many successive ones from a random place; all, if there are no more.
        jitter_frames: Each is replaced by one of the video that is at most so many frames away.
            Some may be drawn twice, and others not at all.
    """
    length = num_frames if crop_frames is None else min(crop_frames, num_frames)
    start = torch.randint(num_frames - length + 1, ())
    shifts = torch.randint(-jitter_frames, jitter_frames + 1, (length,))
    frames = start + torch.arange(length) + shifts
    drawn: NDArray[np.int64] = frames.clamp(0, num_frames - 1).sort().values.numpy()
    return drawn
