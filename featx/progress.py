"""Progress over all splits: videos, frames a second, and the time left."""

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm


class Progress:
    """A progress bar that counts frames, so that the time left is right for videos of any length.

    Args:
        lengths: Number of frames `[num_videos]` of each video that this process will take.
        found: Number of videos that an earlier run has finished.
        num_ranks: Number of processes that share the work; each takes as many frames.
    """

    def __init__(self, lengths: NDArray[np.int64], found: int, num_ranks: int) -> None:
        self._num_videos = len(lengths)
        self._count = 0
        self._notes = f", process 1 of {num_ranks}" * (num_ranks > 1)
        self._notes += f", {found} found from an earlier run" * (found > 0)
        self._bar = tqdm(total=int(lengths.sum()), unit="frame", dynamic_ncols=True)
        self.advance(0, 0)

    def advance(self, videos: int, frames: int) -> None:
        """Count videos, and their frames, as done."""
        self._count += videos
        text = f"{self._count}/{self._num_videos} videos{self._notes}"
        self._bar.set_description(text, refresh=False)
        self._bar.update(frames)

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()
