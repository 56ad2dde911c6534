"""What a DataLoader of videos is made of: the dataset, its order, and how items are joined."""

import os
import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise, tee
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset
from torch.utils.data.distributed import DistributedSampler

from featx.data.manifest import Manifest
from featx.data.pixels import PIXELS, Span
from featx.data.video_file import CPU, MadeOf
from featx.errors import FeatxError, NetworkError

_GRACE_SECONDS = 5
_MOST_VIDEOS = 256  # of a block: so the ranks are never far from each other, and rows fill in order
_BLOCKS_LEFT = 4  # each rank could take so many more blocks of the size of the one at hand


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
            each one ahead, while the CNN computes. No more of them are asked for than that takes.
        device: Where videos may be decoded; see `VideoFile.read`.
    """

    def __init__(
        self, manifest: Manifest, order: Iterable[int] = (), device: torch.device = CPU
    ) -> None:
        self.manifest = manifest
        self.device = device
        # Without an order, for neither can be pickled.
        self._pool = ThreadPoolExecutor(1, "reading") if order else None
        self._pairs = pairwise(order) if order else None
        self._ahead: dict[int, Future[VideoBatch]] = {}

    def __len__(self) -> int:
        return len(self.manifest)

    def __getitem__(self, position: int) -> VideoBatch:
        ahead = self._ahead.pop(position, None)
        batch = ahead.result() if ahead else self._read(position)
        # Where the network is at fault the run ends, and must not wait for another one's patience.
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


class BlockSampler(DistributedSampler[int]):
    """The videos that are left, in order, a block after the other.

    Because it is a DistributedSampler, Lightning does not replace it. No video is repeated to give
    all ranks as many, and a rank may get none.

    Args:
        pending: Positions `[num_pending]` of the videos that are left, in order.
        bounds: Where the blocks begin in these `[num_blocks + 1]`, and where the last one ends.
        blocks: The numbers of the blocks that this rank takes; they may be found out one by one,
            and then nobody knows how many there will be.
        looks_ahead: Whether `follow` is going to be used.
    """

    def __init__(
        self,
        pending: NDArray[np.int64],
        bounds: NDArray[np.int64],
        blocks: Iterable[int],
        looks_ahead: bool = False,
    ) -> None:
        self._pending = pending
        self._bounds = bounds
        self._blocks = blocks
        self._looks_ahead = looks_ahead
        self._ahead: Iterator[int] = iter(())

    def __iter__(self) -> Iterator[int]:
        positions = self._list_positions()
        if self._looks_ahead:
            positions, self._ahead = tee(positions)
        return positions

    def _list_positions(self) -> Iterator[int]:
        for block in self._blocks:
            start, stop = self._bounds[block : block + 2].tolist()
            for first in range(start, stop, _MOST_VIDEOS):  # never a list of all
                yield from self._pending[first : min(first + _MOST_VIDEOS, stop)].tolist()

    def follow(self) -> Iterator[int]:
        """The same positions once more, which may be ahead of those of the iteration."""
        yield from self._ahead

    def __len__(self) -> int:
        """The number of videos.

        Raises:
            TypeError: It is not known; so Python and Lightning have it.
        """
        if not isinstance(self._blocks, Sized):
            raise TypeError("expected blocks that are known, found some to be found out")
        blocks = [*self._blocks]
        return int((self._bounds[1:] - self._bounds[:-1])[blocks].sum())


def cut_blocks(lengths: NDArray[np.int64], num_ranks: int, batch_size: int) -> NDArray[np.int64]:
    """Cut videos into blocks, each for the rank that is free when its turn comes.

    They are large at first, so that a rank seldom has to ask for one, and smaller towards the end,
    in proportion to the frames that are left, so that even a slow rank does not end long after the
    others.

    Args:
        lengths: Number of frames `[num_videos]` of each video.
        num_ranks: Number of ranks.
        batch_size: Videos of a batch; there are no smaller blocks but the last one.

    Returns:
        Where each block begins, and where the last one ends, int64 `[num_blocks + 1]`.

    Source: C. D. Polychronopoulos and D. J. Kuck, Guided self-scheduling, IEEE Trans. Comput. 1987.
    """
    total = len(lengths)
    frames = np.cumsum(lengths)
    bounds, done = [0], 0
    while (start := bounds[-1]) < total:
        due = (frames[-1] - done) // (_BLOCKS_LEFT * num_ranks)
        count = min(int(np.searchsorted(frames, done + due, "right")) - start, _MOST_VIDEOS)
        stop = min(start + max(count // batch_size, 1) * batch_size, total)
        bounds.append(stop)
        done = frames[stop - 1]
    return np.array(bounds, np.int64)


def cut_shares(lengths: NDArray[np.int64], num_ranks: int) -> NDArray[np.int64]:
    """Cut videos into one share for each rank, balanced by the number of frames.

    Args:
        lengths: Number of frames `[num_videos]` of each video.
        num_ranks: Number of ranks.

    Returns:
        Where each share begins, and where the last one ends, int64 `[num_ranks + 1]`.
    """
    frames = np.concatenate([[0], np.cumsum(lengths)])
    bounds = np.searchsorted(frames, frames[-1] * np.arange(num_ranks + 1) / num_ranks)
    return np.asarray(bounds, np.int64)


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
