"""Which rank extracts which videos: blocks that idle ranks take, or fixed shares."""

from collections.abc import Iterable, Iterator, Sized
from itertools import tee

import numpy as np
from numpy.typing import NDArray
from torch.utils.data.distributed import DistributedSampler

_MAX_VIDEOS = 256  # per block, so that ranks stay close to each other and rows fill in order
_BLOCKS_LEFT = 4  # each rank could take this many more blocks of the current size


class BlockSampler(DistributedSampler[int]):
    """Yields the pending videos of one rank in order, block after block.

    It is a DistributedSampler, so that Lightning does not replace it. No video is repeated to give
    all ranks the same number, and a rank may get none.

    Args:
        pending: Positions `[num_pending]` of the pending videos, in order.
        bounds: Where each block begins in `pending`, and where the last one ends
            `[num_blocks + 1]`.
        blocks: The numbers of this rank's blocks; an iterator that takes each block from a shared
            counter has no known length.
        looks_ahead: Whether `follow` will be used.
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
            for first in range(start, stop, _MAX_VIDEOS):  # never a list of all
                yield from self._pending[first : min(first + _MAX_VIDEOS, stop)].tolist()

    def follow(self) -> Iterator[int]:
        """Yield the same positions once more, independently of the iteration."""
        yield from self._ahead

    def __len__(self) -> int:
        """The number of videos.

        Raises:
            TypeError: It is not known. Python and Lightning expect this error then.
        """
        if not isinstance(self._blocks, Sized):
            raise TypeError("expected a fixed list of blocks, found a shared counter")
        blocks = [*self._blocks]
        return int((self._bounds[1:] - self._bounds[:-1])[blocks].sum())


def cut_blocks(lengths: NDArray[np.int64], num_ranks: int, batch_size: int) -> NDArray[np.int64]:
    """Cut videos into blocks for guided self-scheduling: an idle rank takes the next block.

    Blocks are large at first, so that a rank seldom has to ask for one. Their size is proportional
    to the frames that are left, so that even a slow rank does not end long after the others.

    Args:
        lengths: Number of frames `[num_videos]` of each video.
        num_ranks: Number of ranks.
        batch_size: Videos per batch; only the last block may be smaller.

    Returns:
        Where each block begins, and where the last one ends, int64 `[num_blocks + 1]`.

    Source: C. D. Polychronopoulos and D. J. Kuck, Guided self-scheduling, IEEE Trans. Comput. 1987.
    """
    total = len(lengths)
    frames = np.cumsum(lengths)
    bounds, done = [0], 0
    while (start := bounds[-1]) < total:
        due = (frames[-1] - done) // (_BLOCKS_LEFT * num_ranks)
        count = min(int(np.searchsorted(frames, done + due, "right")) - start, _MAX_VIDEOS)
        stop = min(start + max(count // batch_size, 1) * batch_size, total)
        bounds.append(stop)
        done = frames[stop - 1]
    return np.array(bounds, np.int64)


def cut_shares(lengths: NDArray[np.int64], num_ranks: int) -> NDArray[np.int64]:
    """Cut videos into one fixed share per rank, balanced by the number of frames.

    Args:
        lengths: Number of frames `[num_videos]` of each video.
        num_ranks: Number of ranks.

    Returns:
        Where each share begins, and where the last one ends, int64 `[num_ranks + 1]`.
    """
    frames = np.concatenate([[0], np.cumsum(lengths)])
    bounds = np.searchsorted(frames, frames[-1] * np.arange(num_ranks + 1) / num_ranks)
    return np.asarray(bounds, np.int64)
