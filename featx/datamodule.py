"""The LightningDataModule: streams the videos of a data set to every rank."""

import logging
import os
import signal
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import get_args

import numpy as np
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_warn
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.distributed import DistributedSampler

from featx.errors import FeatxError, InputError, UsageError, shorten
from featx.manifest import Manifest, missing_categories
from featx.ranks import Ranks
from featx.scan import OnError, scan
from featx.temporal import drop_repeats
from featx.videos import VideoBatch, read_video

_log = logging.getLogger(__name__)

_GRACE_SECONDS = 5
_MAX_WORKERS = 4  # each reads some 80 uint8 videos of 64 x 256 x 256 a second


class VideoDataModule(LightningDataModule):
    """Videos from `ROOT/<split>/<category>/<subcategory>/processed_data.pt`.

    Args:
        root: The data set's folder.
        splits: Which splits; by default, whichever of train, val and test exist.
        batch_size: Videos per step; their frames share the forward passes.
        num_workers: Processes per rank that read videos ahead; with 0, a thread does. By default 0
            on a CPU, whose cores the CNN needs, and up to 4 on a GPU.
        on_error: Whether a bad input stops the run, or is left out; those left out are listed in
            the log and in the feature file.
        verify_inputs: Read every byte first, and compare it with the files' own checksums.

    Attributes:
        ranks: The processes of the run; set by `setup`.
        manifest: The videos; set by `setup`.
        done: Positions of the videos that an earlier run has finished.
        share: Positions of the videos that this process takes; set by `predict_dataloader`.

    Raises:
        UsageError: A setting is out of its range.
    """

    def __init__(
        self,
        root: Path | str,
        splits: Sequence[str] | None = None,
        batch_size: int = 1,
        num_workers: int | None = None,
        on_error: OnError = "stop",
        verify_inputs: bool = False,
    ) -> None:
        super().__init__()
        if batch_size < 1:
            raise UsageError(f"batch_size: expected 1 or more, found {batch_size}.")
        if num_workers is not None and num_workers < 0:
            raise UsageError(f"num_workers: expected 0 or more, found {num_workers}.")
        if splits is not None and (isinstance(splits, str) or not splits):
            raise UsageError(f"splits: expected a list of one split or more, found {splits!r}.")
        if on_error not in get_args(OnError):
            raise UsageError(f"on_error: expected stop or skip, found {on_error!r}.")
        self.root = Path(root).expanduser()
        self.splits = splits
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.on_error = on_error
        self.verify_inputs = verify_inputs
        self.ranks: Ranks
        self.manifest: Manifest
        self.done: set[int] = set()
        self.share: list[int] = []
        # A rank without videos is not a mistake: there may be more ranks than videos.
        self.allow_zero_length_dataloader_with_multiple_devices = True

    def setup(self, stage: str) -> None:
        """Scan the data set: every header is read and checked before the first forward pass."""
        self.ranks = Ranks()
        self.manifest = self.ranks.from_first(self._scan)

    def _scan(self) -> Manifest:
        manifest = scan(
            self.root, self.splits, self.on_error, verify=self.verify_inputs, progress=True
        )
        for errors in manifest.rejected.values():
            for error in errors.values():
                _log.warning("Left out: %s", error)
        for split, names in missing_categories(manifest).items():
            rank_zero_warn(
                f"{self.root / split}: {len(names)} of {len(manifest.categories)} "
                f"categories have no videos: {shorten(names)}"
            )
        return manifest

    def predict_dataloader(self) -> DataLoader[VideoBatch]:
        """This rank's share of the videos that are not done, in row order."""
        rank, num_ranks, on_cuda, num_workers = 0, 1, False, self.num_workers or 0
        if self.trainer:
            rank, num_ranks = self.trainer.global_rank, self.trainer.world_size
            on_cuda = self.trainer.strategy.root_device.type == "cuda"
            if on_cuda and self.num_workers is None:
                num_cores = os.cpu_count() or 1
                num_workers = min(_MAX_WORKERS, num_cores // self.trainer.num_devices)
        share = RankShare(self.manifest.lengths, self.done, rank, num_ranks)
        self.share = share.share
        num_workers = num_workers if len(share) else 0
        return DataLoader(
            VideoDataset(self.manifest, order=[] if num_workers else self.share),
            sampler=share,
            batch_size=self.batch_size,
            num_workers=num_workers,
            pin_memory=on_cuda,  # then the copy to the device takes no time of the CPU's
            collate_fn=_join,
            worker_init_fn=_outlive_signals,
        )

    def on_before_batch_transfer(self, batch: VideoBatch, dataloader_idx: int) -> VideoBatch:
        """Raise the first error that a worker met, unless it is a bad video to be left out."""
        for error in batch.errors.values():
            if self.on_error == "stop" or not isinstance(error, InputError):
                raise error
        return batch


class VideoDataset(Dataset[VideoBatch]):
    """Map-style: an item is the video at a position of the manifest, as a batch of one.

    Args:
        manifest: The videos.
        order: The positions in the order in which they will be asked for, if a thread is to read
            each one ahead, while the CNN computes.
    """

    def __init__(self, manifest: Manifest, order: Sequence[int] = ()) -> None:
        self.manifest = manifest
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
            video, frames = drop_repeats(read_video(file.path, file.header, index))
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


def _outlive_signals(worker: int) -> None:
    """Go on for a moment after a signal to the whole process group.

    The main process then ends the batch at hand and stops its workers. A worker that died of the
    signal would count as an error, and one that ignored it could outlive an interpreter's exit.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda signum, frame: signal.alarm(_GRACE_SECONDS))
    signal.signal(signal.SIGALRM, lambda signum, frame: os._exit(0))


def _join(batches: Sequence[VideoBatch]) -> VideoBatch:
    return VideoBatch(
        [position for batch in batches for position in batch.positions],
        [video for batch in batches for video in batch.videos],
        [frames for batch in batches for frames in batch.frames],
        {position: error for batch in batches for position, error in batch.errors.items()},
    )
