"""The LightningDataModule: streams the videos of a data set to every rank."""

import logging
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from featx.data.batches import VideoBatch, VideoDataset, join, outlive_signals
from featx.data.choices import LayoutName, OnError, ScanName, SourceName
from featx.data.manifest import ANALYSIS_FILE, Manifest, missing_categories
from featx.data.media.pixels import PixelsName, PixelWatch
from featx.data.media.preprocessing import IMAGE_SIZE, NUM_FRAMES, NVDEC, DecoderName, ResizeName
from featx.data.media.video_file import CPU
from featx.data.sampler import BlockSampler, cut_blocks, cut_shares
from featx.data.scan_cache import ScanCache
from featx.data.settings import VideoSettings, documented
from featx.data.sources import choose_source
from featx.data.storage import join as join_place
from featx.errors import InputError, UsageError, check_at_least, check_choice, shorten
from featx.extraction.ranks import Ranks
from featx.extraction.run_folder import find_owner
from featx.parallel import count_cores

_log = logging.getLogger(__name__)


@documented
class VideoDataModule(LightningDataModule):
    """Videos from `ROOT/<split>/<category>/<subcategory>/processed_data.pt`, or from clips.

    Args:
        batch_size: Videos per step; their frames share the forward passes.
        num_workers: Processes per rank that read videos ahead; with 0, a thread does. By default 0
            on a CPU, whose cores the CNN needs, and up to 4 on a GPU, or 16 for clips; but 0 where
            the GPU decodes.
        on_error: Whether a bad input stops the run, or is skipped; skipped inputs are listed in
            the log and in the feature file.
        verify_inputs: Read every byte first, and compare it with the files' own checksums.
        scan: `full`: every input is opened before the first forward pass, so that a bad one is
            reported within minutes. `lazy`, for millions of clips: those that no earlier run has
            read are opened when their turn comes, and bad or missing ones are found then, perhaps
            after hours. It is for a table or the source `clips`, with num_frames, or with a stride
            and start_frame and end_frame in every row. A renamed clip counts as a new one.

    Attributes:
        videos: Which videos, and which of their frames.
        manifest: The videos; set by `setup`.
        ranks: The ranks of the run; set by `setup`.
        done: Which videos `[num_videos]` earlier runs have finished; set with the loader.

    Raises:
        UsageError: A setting is out of its range.
    """

    def __init__(
        self,
        root: Path | str | None = None,
        splits: Sequence[str] | None = None,
        batch_size: int = 1,
        num_workers: int | None = None,
        on_error: OnError = "stop",
        verify_inputs: bool = False,
        source: SourceName = "processed",
        num_frames: int | None = None,
        image_size: int = IMAGE_SIZE,
        pixels: PixelsName = "normalized",
        keep_damaged: bool = False,
        decoder: DecoderName = "pyav",
        stride: int | None = None,
        fps: float | None = None,
        frame_rate: float | None = None,
        resize: ResizeName = "squash",
        layout: LayoutName = "tree",
        table: Path | str | None = None,
        columns: dict[str, str] | None = None,
        scan: ScanName = "full",
    ) -> None:
        given = locals()
        super().__init__()
        check_at_least(1, batch_size=batch_size)
        check_at_least(0, num_workers=num_workers)
        check_choice("on_error", on_error, get_args(OnError))
        self.videos = VideoSettings(
            **{each.name: given[each.name] for each in fields(VideoSettings)}
        )
        self.videos.check_scan(scan)
        if verify_inputs and self.videos.are_clips:
            name = "clips" if table else source
            raise UsageError(
                f"verify_inputs: expected false with the source {name}, found true. "
                f"{name.capitalize()} have no checksums: leave it out."
            )
        self.scan_settings = replace(
            self.videos.to_scan(), on_error=on_error, verify=verify_inputs, progress=True, scan=scan
        )
        self._source = choose_source(source, self.scan_settings)
        self.root = self.scan_settings.root
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.on_error = on_error
        self.manifest: Manifest
        # A rank without videos is not a mistake: there may be more ranks than videos.
        self.allow_zero_length_dataloader_with_multiple_devices = True

    def setup(self, stage: str) -> None:
        """Scan the data set: every header is read and checked before the first forward pass."""
        self._watch = PixelWatch(self.videos.pixels)
        self.ranks, owner = Ranks(), find_owner(self.trainer)
        if owner is None:
            self.manifest = self.ranks.from_first(lambda: self._scan(ScanCache()))
        else:
            run = owner.run_folder
            self.ranks.from_first(run.open)
            folder = self.ranks.from_first(
                lambda: run.save_manifest(self._scan(run.load_scan_cache()))
            )
            self.manifest = run.open_manifest(folder)
        self.done = np.zeros(len(self.manifest), np.bool_)

    def find_splits(self) -> list[str]:
        """Return the splits of a run.

        Raises:
            MissingInputError: One does not exist.
        """
        return self._source.find_splits(self.scan_settings)

    def settings(self) -> dict[str, Any]:
        """Return the settings that the features depend on, for their record."""
        return {
            "source": "clips" if self.videos.are_clips else "processed",
            "pixels": self.videos.pixels,
            "keep_damaged": self.videos.keep_damaged,
            # On a CPU, all decoders give the same pixels.
            "decoder": "pyav" if self._find_decoding_device() == CPU else NVDEC,
        }

    def _find_decoding_device(self) -> torch.device:
        """Return where clips are decoded; never a GPU with workers, because they cannot use it."""
        device = self.trainer.strategy.root_device if self.trainer else CPU
        uses_gpu = self.videos.are_clips and self.videos.decoder == "torchcodec"
        return device if uses_gpu and not self.num_workers and device.type == "cuda" else CPU

    def _scan(self, cache: ScanCache) -> Manifest:
        manifest = self._source.scan(replace(self.scan_settings, scan_cache=cache))
        for errors in manifest.rejected.values():
            for error in errors.values():
                _log.warning("Left out: %s", error)
        for name, value in manifest.untrue.items():
            rank_zero_warn(
                f"{join_place(self.root, ANALYSIS_FILE)}: expected what is true of the videos, "
                f"found {name} {value}, of which some have another. Were all of them made in one "
                "go?"
            )
        self._warn_of_unused(manifest)
        missing = missing_categories(manifest)
        for line in manifest.summary.to_lines(known_empty=missing) if manifest.summary else ():
            rank_zero_info(f"{self.root}: {line}")
        for split, names in missing.items():
            rank_zero_warn(
                f"{join_place(self.root, split)}: {len(names)} of {len(manifest.categories)} "
                f"categories have no videos: {shorten(names)}"
            )
        return manifest

    def _warn_of_unused(self, manifest: Manifest) -> None:
        """Warn of settings of clips that have no effect on processed_data.pt files."""
        if self.videos.are_clips:
            return
        given, usual = self.videos, VideoSettings()
        unused = [
            name
            for name in ("keep_damaged", "decoder", "stride", "fps", "frame_rate", "resize")
            if getattr(given, name) != getattr(usual, name)
        ]
        length, size = given.num_frames or NUM_FRAMES, given.image_size
        if length != NUM_FRAMES and length not in manifest.find_values("length"):
            unused.append("num_frames")
        if size != IMAGE_SIZE and size not in manifest.find_values("width"):
            unused.append("image_size")
        for name in unused:
            value = getattr(given, name)
            rank_zero_warn(f"{name}: {value} is a setting of clips, and has no effect here.")

    def predict_dataloader(self) -> DataLoader[VideoBatch]:
        """Return a loader of the videos that are not finished, in row order."""
        owner = find_owner(self.trainer)
        if owner and self.trainer:
            self.done = owner.find_finished(self.trainer)
        pending = np.flatnonzero(~self.done)
        device = self._find_decoding_device()
        on_cuda = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        num_workers = self._choose_num_workers(on_cuda, device) if len(pending) else 0
        sampler = self._make_sampler(pending, looks_ahead=num_workers == 0)
        return DataLoader(
            self.make_dataset(() if num_workers else sampler.follow(), device),
            sampler=sampler,
            batch_size=self.batch_size,
            num_workers=num_workers,
            pin_memory=on_cuda,  # so that copies to the device are asynchronous
            collate_fn=join,
            worker_init_fn=outlive_signals,
        )

    def _choose_num_workers(self, on_cuda: bool, device: torch.device) -> int:
        """Return the number of workers of this rank."""
        if self.num_workers is not None:
            return self.num_workers
        if self.trainer is None or not on_cuda or device != CPU:
            return 0
        return min(self._source.max_workers, count_cores() // self.trainer.num_devices)

    def _make_sampler(self, pending: NDArray[np.int64], looks_ahead: bool) -> BlockSampler:
        """Return the sampler of this rank: it takes blocks of the pending videos while it works.

        If the Trainer has a limit that is a share of all batches, ranks get fixed shares instead,
        because Lightning must know the number of batches.
        """
        lengths = self.manifest.lengths[pending]
        rank, num_ranks, limit = 0, 1, 1.0
        if self.trainer:
            rank, num_ranks = self.trainer.global_rank, self.trainer.world_size
            limit = self.trainer.limit_predict_batches
        if num_ranks > 1 and (isinstance(limit, int) or limit == 1):
            bounds = cut_blocks(lengths, num_ranks, self.batch_size)
            blocks: Iterable[int] = self._take_blocks(len(bounds) - 1)
        else:
            bounds, blocks = cut_shares(lengths, num_ranks), [rank]
        return BlockSampler(pending, bounds, blocks, looks_ahead)

    def _take_blocks(self, num_blocks: int) -> Iterator[int]:
        """Yield the numbers of this rank's blocks; the next one is taken when one is done."""
        while (taken := self.ranks.count("blocks", 1)) <= num_blocks:
            yield taken - 1

    def make_dataset(self, order: Iterable[int] = (), device: torch.device = CPU) -> VideoDataset:
        """Return the videos by position; see `VideoDataset`."""
        return VideoDataset(self.manifest, order, device)

    def on_before_batch_transfer(self, batch: VideoBatch, dataloader_idx: int) -> VideoBatch:
        """Raise the first error of a batch, unless bad inputs are skipped.

        Also warn, once per process, of pixel values that do not fit the setting `pixels`.
        """
        for error in batch.errors.values():
            if self.on_error == "stop" or not isinstance(error, InputError):
                raise error
            _log.warning("Left out: %s", error)
        for video in batch.videos:
            if video.span:
                file, _ = self.manifest.locate(video.position)
                if warning := self._watch.look(file.path, len(file.shapes), video.span):
                    warnings.warn(warning, stacklevel=2)
        return batch._replace(skips=True)

    def teardown(self, stage: str) -> None:
        """Warn of the pixel values of the whole run, if they do not fit the setting `pixels`."""
        if warning := self._watch.judge():
            warnings.warn(warning, stacklevel=2)
