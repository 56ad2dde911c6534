"""What a DataLoader of videos is made of: the dataset, a rank's share, and how items are joined."""

import os
import signal
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset
from torch.utils.data.distributed import DistributedSampler

from featx.errors import FeatxError
from featx.headers import Header
from featx.manifest import Manifest
from featx.temporal import drop_repeats
from featx.videos import VideoBatch, read_video

Reader = Callable[[Path, Header, int], Tensor]

_GRACE_SECONDS = 5


class VideoDataset(Dataset[VideoBatch]):
    """Map-style: an item is the video at a position of the manifest, as a batch of one.

    Args:
        manifest: The videos.
        order: The positions in the order in which they will be asked for, if a thread is to read
            each one ahead, while the CNN computes.
        read: Reads one video of a file.
    """

    def __init__(
        self, manifest: Manifest, order: Sequence[int] = (), read: Reader = read_video
    ) -> None:
        self.manifest = manifest
        self._reader = read
        self._next = dict(pairwise(order))
        self._pool = ThreadPoolExecutor(1, "reading") if order else None  # it cannot be pickled
        self._ahead: dict[int, Future[VideoBatch]] = {}

    def __len__(self) -> int:
        return len(self.manifest)

    def __getitem__(self, position: int) -> VideoBatch:
        ahead = self._ahead.pop(position, None)
        batch = ahead.result() if ahead else self._read(position)
        following = self._next.get(position)
        if self._pool and following is not None:
            self._ahead = {following: self._pool.submit(self._read, following)}
        return batch

    def _read(self, position: int) -> VideoBatch:
        file, index = self.manifest.locate(position)
        try:
            video, frames = drop_repeats(self._reader(file.path, file.header, index))
        except FeatxError as error:
            return VideoBatch([], [], errors={position: error})
        return VideoBatch([position], [video], [frames])


class RankShare(DistributedSampler[int]):
    """A share of the videos, in order, balanced by the number of frames.

    Because it is a DistributedSampler, Lightning does not replace it. No video is repeated to make
    the shares equally long, and a share may be empty.

    Args:
        lengths: Number of frames `[num_videos]` of each video.
        done: Positions of videos to leave out.
        rank: Which rank.
        num_ranks: Number of ranks.
    """

    def __init__(
        self, lengths: NDArray[np.int64], done: Collection[int], rank: int, num_ranks: int
    ) -> None:
        pending = np.setdiff1d(np.arange(len(lengths)), [*done])
        frames = np.concatenate([[0], np.cumsum(lengths[pending])])
        bounds = np.searchsorted(frames, frames[-1] * np.arange(num_ranks + 1) / num_ranks)
        self.share: list[int] = pending[bounds[rank] : bounds[rank + 1]].tolist()

    def __iter__(self) -> Iterator[int]:
        return iter(self.share)

    def __len__(self) -> int:
        return len(self.share)


def outlive_signals(worker: int) -> None:
    """Go on for a moment after a signal to the whole process group.

    The main process then ends the batch at hand and stops its workers. A worker that died of the
    signal would count as an error, and one that ignored it could outlive an interpreter's exit.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda signum, frame: signal.alarm(_GRACE_SECONDS))
    signal.signal(signal.SIGALRM, lambda signum, frame: os._exit(0))


def join(batches: Sequence[VideoBatch]) -> VideoBatch:
    """One batch of several."""
    return VideoBatch(
        [position for batch in batches for position in batch.positions],
        [video for batch in batches for video in batch.videos],
        [frames for batch in batches for frames in batch.frames],
        {position: error for batch in batches for position, error in batch.errors.items()},
    )
