"""Batches of videos: what a DataLoader's dataset reads, and how batches are joined."""

import os
import signal
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from featx.data.manifest import Manifest
from featx.data.media.pixels import PIXELS, Span
from featx.data.media.video_file import CPU, MadeOf
from featx.errors import FeatxError, NetworkError

_GRACE_SECONDS = 5


class VideoItem(NamedTuple):
    """One video of a batch.

    A NamedTuple, because Lightning and the DataLoader move its tensors to the device by themselves.

    Attributes:
        position: Its position in the manifest.
        frames: Pixels `[D, 3, H, W]` of its distinct frames.
        frame_index: Which of them stands at each position of the video, int64 `[T]`; None means
            that every frame is distinct. See `drop_repeats`.
        white: The value of white in floating pixels; None if they are normalized with ImageNet's
            mean and std.
        span: The lowest and the highest pixel, if pixels are floating point.
        damage: What is missing or damaged; empty for nearly all videos.
        times: When each frame is shown, float32 `[T]`, in seconds; see `Video`.
        made_of: What the video was made of.
    """

    position: int
    frames: Tensor
    frame_index: Tensor | None = None
    white: float | None = None
    span: Span | None = None
    damage: str = ""
    times: NDArray[np.float32] | None = None
    made_of: MadeOf | None = None


class VideoBatch(NamedTuple):
    """Videos on their way to the backbone; the batch itself records which videos it holds.

    Attributes:
        videos: The videos that were read.
        errors: For the position of each video that could not be read, the error. Errors leave a
            DataLoader worker as values, because a raised exception arrives only as text.
        skips: Whether videos with errors may be skipped; otherwise the first error is raised.
    """

    videos: list[VideoItem]
    errors: Mapping[int, FeatxError] = {}
    skips: bool = False

    @property
    def positions(self) -> list[int]:
        """Positions of the videos that were read."""
        return [video.position for video in self.videos]


class VideoDataset(Dataset[VideoBatch]):
    """Map-style: an item is the video at a position of the manifest, as a batch of one.

    Args:
        manifest: The videos.
        order: The positions in the order in which they will be asked for. With an order, a thread
            reads the next video while the CNN computes.
        device: Where videos may be decoded; see `VideoFile.read`.
    """

    def __init__(
        self, manifest: Manifest, order: Iterable[int] = (), device: torch.device = CPU
    ) -> None:
        self.manifest = manifest
        self.device = device
        # None without an order, because neither can be pickled for workers.
        self._pool = ThreadPoolExecutor(1, "reading") if order else None
        self._pairs = pairwise(order) if order else None
        self._ahead: dict[int, Future[VideoBatch]] = {}

    def __len__(self) -> int:
        return len(self.manifest)

    def __getitem__(self, position: int) -> VideoBatch:
        ahead = self._ahead.pop(position, None)
        batch = ahead.result() if ahead else self._read(position)
        # After a network error the run ends, and must not wait for the retries of another read.
        gives_up = any(isinstance(error, NetworkError) for error in batch.errors.values())
        if self._pool and self._pairs and not gives_up:
            following = next((after for before, after in self._pairs if before == position), None)
            if following is not None:
                self._ahead = {following: self._pool.submit(self._read, following)}
        return batch

    def _read(self, position: int) -> VideoBatch:
        file, index = self.manifest.locate(position)
        try:
            video = file.read(index, self.device)
            frames, frame_index = drop_repeats(video.frames)
        except FeatxError as error:
            return VideoBatch([], {position: error})
        item = VideoItem(
            position,
            frames,
            frame_index,
            PIXELS[file.pixels].white,
            video.span,
            video.damage,
            video.times,
            video.made_of,
        )
        return VideoBatch([item])


def outlive_signals(worker: int) -> None:
    """Let a DataLoader worker live for some seconds after a signal to the whole process group.

    The main process finishes its batch and then stops its workers. A worker that died of the
    signal would count as an error, and one that ignored it could outlive the main process.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda signum, frame: signal.alarm(_GRACE_SECONDS))
    signal.signal(signal.SIGALRM, lambda signum, frame: os._exit(0))


def join(batches: Sequence[VideoBatch]) -> VideoBatch:
    """Join several batches into one."""
    return VideoBatch(
        [video for batch in batches for video in batch.videos],
        {position: error for batch in batches for position, error in batch.errors.items()},
    )


def drop_repeats(video: Tensor) -> tuple[Tensor, Tensor]:
    """Drop the frames that equal the one before, byte for byte.

    Args:
        video: Pixels `[T, 3, H, W]`, on the CPU.

    Returns:
        The distinct frames `[D, 3, H, W]`, and which of them stands at each position of the video,
        int64 `[T]`. Without repeats, the former is the video itself.
    """
    numbers = video.view(torch.int16) if video.dtype == torch.bfloat16 else video  # for NumPy
    frames = (frame.tobytes() for frame in numbers.numpy())  # compared until they differ
    is_new = [True, *(frame != before for before, frame in pairwise(frames))]
    index = torch.from_numpy(np.cumsum(is_new) - 1)
    return (video if all(is_new) else video[torch.tensor(is_new)]), index
