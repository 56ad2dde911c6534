"""What a DataLoader of videos is made of: the dataset, a rank's share, and how items are joined."""

import os
import signal
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset
from torch.utils.data.distributed import DistributedSampler

from featx.data.manifest import CPU, MadeOf, Manifest
from featx.data.pixels import PIXELS, Span
from featx.errors import FeatxError

_GRACE_SECONDS = 5


class VideoBatch(NamedTuple):
    """Videos on their way to the backbone; the batch itself records which videos it holds.

    Attributes:
        positions: Position of each video in the manifest.
        videos: Pixels `[D, 3, H, W]` of the distinct frames of each video.
        frame_index: Which of them stands at each position of each video, int64 `[T]`;
            none at all means that every frame is distinct. See `drop_repeats`.
        white: The value of white in floating pixels; None if these are normalized with ImageNet's
            mean and std.
        spans: The lowest and the highest pixel of each video, by position, where they are floating
            point.
        damage: What is missing of the videos that are damaged, by position.
        times: When each frame of a video is shown, float32 `[T]`, by position; see `Video`.
        made_of: What each video is made of, by position.
        errors: Positions of the videos that could not be read, and why. An error leaves a
            DataLoader worker as a value, because an exception raised there arrives as the text of
            a traceback.
        skips: Whether these may be left out; by default, they are raised.
    """

    positions: list[int]
    videos: list[Tensor]
    frame_index: list[Tensor] = []  # noqa: RUF012  # a NamedTuple's default; nobody changes it
    white: float | None = None
    spans: Mapping[int, Span] = {}
    damage: Mapping[int, str] = {}
    times: Mapping[int, NDArray[np.float32]] = {}
    made_of: Mapping[int, MadeOf] = {}
    errors: Mapping[int, FeatxError] = {}
    skips: bool = False


class VideoDataset(Dataset[VideoBatch]):
    """Map-style: an item is the video at a position of the manifest, as a batch of one.

    Args:
        manifest: The videos.
        order: The positions in the order in which they will be asked for, if a thread is to read
            each one ahead, while the CNN computes.
        device: Where videos may be decoded; see `VideoFile.read`.
    """

    def __init__(
        self, manifest: Manifest, order: Sequence[int] = (), device: torch.device = CPU
    ) -> None:
        self.manifest = manifest
        self.device = device
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
            video = file.read(index, self.device)
            frames, frame_index = drop_repeats(video.frames)
        except FeatxError as error:
            return VideoBatch([], [], errors={position: error})
        return VideoBatch(
            [position],
            [frames],
            [frame_index],
            PIXELS[file.pixels].white,
            {position: video.span} if video.span else {},
            {position: video.damage} if video.damage else {},
            {} if video.times is None else {position: video.times},
            {position: video.made_of} if video.made_of else {},
        )


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
        [index for batch in batches for index in batch.frame_index],
        next((batch.white for batch in batches if batch.videos), None),
        {position: span for batch in batches for position, span in batch.spans.items()},
        {position: damage for batch in batches for position, damage in batch.damage.items()},
        {position: times for batch in batches for position, times in batch.times.items()},
        {position: made_of for batch in batches for position, made_of in batch.made_of.items()},
        {position: error for batch in batches for position, error in batch.errors.items()},
    )


def drop_repeats(video: Tensor) -> tuple[Tensor, Tensor]:
    """Drop the frames that equal the one before, byte for byte.

    Args:
        video: Pixels `[T, 3, H, W]`, on the CPU.

    Returns:
        The frames that are left, `[D, 3, H, W]`, and which of them stands at each position of the
        video, int64 `[T]`. Without repeats, the first is the video itself.
    """
    numbers = video.view(torch.int16) if video.dtype == torch.bfloat16 else video  # for NumPy
    frames = (frame.tobytes() for frame in numbers.numpy())  # compared until they differ
    is_new = [True, *(frame != before for before, frame in pairwise(frames))]
    index = torch.from_numpy(np.cumsum(is_new) - 1)
    return (video if all(is_new) else video[torch.tensor(is_new)]), index
