"""The LightningDataModule: streams the videos of a data set to every rank."""

import logging
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
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
from featx.data.manifest import (
    ANALYSIS_FILE,
    Manifest,
    ScanSettings,
    missing_categories,
)
from featx.data.pixels import PIXELS, PixelsName, PixelWatch
from featx.data.preprocessing import (
    IMAGE_SIZE,
    NUM_FRAMES,
    NVDEC,
    DecoderName,
    Preprocessing,
    ResizeName,
)
from featx.data.sampler import BlockSampler, cut_blocks, cut_shares
from featx.data.scan_cache import ScanCache
from featx.data.sources import check_scan, check_source, choose_source
from featx.data.storage import join as join_place
from featx.data.storage import locate, parent_of
from featx.data.video_file import CPU
from featx.errors import InputError, UsageError, check_at_least, check_choice, shorten
from featx.extraction.ranks import Ranks
from featx.extraction.run_folder import find_owner
from featx.files import writing
from featx.parallel import count_cores

_log = logging.getLogger(__name__)

_MANIFEST_SECONDS = 90


def _open_manifest(folder: Path) -> Manifest:
    """Open the manifest that rank 0 has saved.

    A network file system may show it to other machines only after some time.

    Raises:
        OutputError: It does not appear.
    """
    for _ in range(_MANIFEST_SECONDS):
        try:
            return Manifest.open(folder)
        except FileNotFoundError:
            time.sleep(1)
    with writing(folder):
        return Manifest.open(folder)


@dataclass(slots=True)
class Work:
    """The work of one run; the data module makes it, and shares it with the writer.

    Attributes:
        ranks: The ranks of the run.
        manifest: The videos.
        done: Which videos `[num_videos]` earlier runs have finished; None until that is known.
    """

    ranks: Ranks
    manifest: Manifest
    done: NDArray[np.bool_] | None = None

    def take_blocks(self, num_blocks: int) -> Iterator[int]:
        """Yield the numbers of this rank's blocks; the next one is taken when one is done."""
        while (taken := self.ranks.count("blocks", 1)) <= num_blocks:
            yield taken - 1


class VideoDataModule(LightningDataModule):
    """Videos from `ROOT/<split>/<category>/<subcategory>/processed_data.pt`, or from clips.

    Args:
        root: The data set's folder; with a table, what its paths are relative to, by default the
            table's own.
        splits: Which splits; by default, whichever of train, val and test exist, and all of a
            table.
        batch_size: Videos per step; their frames share the forward passes.
        num_workers: Processes per rank that read videos ahead; with 0, a thread does. By default 0
            on a CPU, whose cores the CNN needs, and up to 4 on a GPU, or 16 for clips; but 0 where
            the GPU decodes.
        on_error: Whether a bad input stops the run, or is left out; those left out are listed in
            the log and in the feature file.
        verify_inputs: Read every byte first, and compare it with the files' own checksums.
        source: `processed` for processed_data.pt files; `clips` for video files, which are decoded
            on the way to the same videos that featx preprocess makes of them; `frames` for clips
            that are folders of images. A table says by itself what is what.
        num_frames: Frames per video, sampled uniformly over a clip; 64 unless there is a stride or
            fps.
        image_size: Height and width in pixels to which the frames of clips are resized.
        pixels: What floating pixels of processed_data.pt files are: `normalized` with ImageNet's
            mean and std; `unit`, RGB from 0 to 1; or `raw`, RGB from 0 to 255. uint8 is raw RGB.
        keep_damaged: Keep what decodes of clips that are damaged, or hold less than they declare;
            they are listed in the log and in the feature file. By default they are bad inputs.
        decoder: `pyav`, whose wheel has an FFmpeg; or `torchcodec`, which wants the system's. With
            that, and without workers, a GPU decodes by itself (NVDEC), to pixels that differ
            slightly. On a CPU, both give the same, but torchcodec does not see damage in a frame.
        stride: Take every n-th frame of a clip instead.
        fps: Take so many frames a second instead: those that are shown then.
        frame_rate: Of clips that are folders of images, in frames a second.
        resize: `squash` a frame to a square; or `crop`: resize its shorter side, and cut out its
            middle, as most CNNs were trained.
        layout: `tree`, ROOT/<split>/<category>/[<subcategory>/]; or `flat`, every clip below ROOT,
            in one split `all` and without a category.
        table: A table of videos, a row each: .csv, .tsv, .jsonl, .json, .parquet, or lines of a
            path and a label. Its columns are path, and where there are some split, label, id,
            start and end (in seconds) or start_frame and end_frame, and left, top, right and bottom
            of a box (in pixels); others are kept in the feature file.
        columns: What the table calls these columns, such as {path: video, label: gloss}.
        scan: `full`, every input is opened before the first forward pass, so that a bad one is told
            in the first minutes. Or `lazy`, for millions of clips: those that no earlier run has
            read are opened when their turn comes, and so bad ones are found late, hours into a run
            maybe; one that is not there, too. It is for a table or the source `clips`, with
            num_frames, or with a stride and start_frame and end_frame in every row. A clip that was
            renamed counts as a new one.

    Attributes:
        work: The work of a run; made by `setup`.

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
        super().__init__()
        check_at_least(1, batch_size=batch_size)
        check_at_least(0, num_workers=num_workers)
        if splits is not None and (isinstance(splits, str) or not splits):
            raise UsageError(f"splits: expected a list of one split or more, found {splits!r}.")
        check_choice("on_error", on_error, get_args(OnError))
        check_choice("pixels", pixels, tuple(PIXELS))
        check_source(source, layout, table, columns)
        preprocessing = Preprocessing.choose(
            num_frames,
            stride,
            fps,
            image_size=image_size,
            keep_damaged=keep_damaged,
            decoder=decoder,
            frame_rate=frame_rate,
            resize=resize,
        )
        check_scan(scan, source, table, preprocessing)
        if root is None and table is None:
            raise UsageError(
                "root: expected the data set's folder, found none. Give root or table."
            )
        table = None if table is None else locate(table)
        self.scan_settings = ScanSettings(
            locate(root) if root is not None else parent_of(table),  # type: ignore[arg-type]
            splits,
            on_error,
            verify_inputs,
            preprocessing,
            progress=True,
            pixels=pixels,
            layout=layout,
            table=table,
            columns=columns or {},
            scan=scan,
        )
        self._source = choose_source(source, self.scan_settings)
        if verify_inputs and self._source.are_clips:
            name = "clips" if table else source
            raise UsageError(
                f"verify_inputs: expected false with the source {name}, found true. "
                f"{name.capitalize()} have no checksums: leave it out."
            )
        self.root = self.scan_settings.root
        self.splits = splits
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.on_error = on_error
        self.verify_inputs = verify_inputs
        self.source = source
        self.num_frames = num_frames
        self.image_size = image_size
        self.pixels = pixels
        self.keep_damaged = keep_damaged
        self.decoder = decoder
        self.work: Work
        # A rank without videos is not a mistake: there may be more ranks than videos.
        self.allow_zero_length_dataloader_with_multiple_devices = True

    def setup(self, stage: str) -> None:
        """Scan the data set: every header is read and checked before the first forward pass."""
        self._watch = PixelWatch(self.pixels)
        ranks = Ranks()
        owner = find_owner(self.trainer)
        if owner is None:
            self.work = Work(ranks, ranks.from_first(lambda: self._scan(ScanCache())))
            return
        run = owner.run_folder
        ranks.from_first(run.open)
        folder = ranks.from_first(lambda: run.save_manifest(self._scan(run.load_scan_cache())))
        self.work = Work(ranks, _open_manifest(folder))

    @property
    def manifest(self) -> Manifest:
        """The videos, once they are scanned."""
        return self.work.manifest

    def find_splits(self) -> list[str]:
        """The splits that a run is of.

        Raises:
            MissingInputError: One does not exist.
        """
        return self._source.find_splits(self.scan_settings)

    def settings(self) -> dict[str, Any]:
        """The settings that the features depend on, for their record."""
        return {
            "source": "clips" if self._source.are_clips else "processed",
            "pixels": self.pixels,
            "keep_damaged": self.keep_damaged,
            # On a CPU, all decoders give the same pixels.
            "decoder": "pyav" if self._find_decoding_device() == CPU else NVDEC,
        }

    def _find_decoding_device(self) -> torch.device:
        """Where clips are decoded: not on a GPU in workers, which cannot use it."""
        device = self.trainer.strategy.root_device if self.trainer else CPU
        decodes = self._source.are_clips and self.decoder == "torchcodec" and not self.num_workers
        return device if decodes and device.type == "cuda" else CPU

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
        for line in manifest.summary.to_lines(told=missing) if manifest.summary else ():
            rank_zero_info(f"{self.root}: {line}")
        for split, names in missing.items():
            rank_zero_warn(
                f"{join_place(self.root, split)}: {len(names)} of {len(manifest.categories)} "
                f"categories have no videos: {shorten(names)}"
            )
        return manifest

    def _warn_of_unused(self, manifest: Manifest) -> None:
        """Warn of settings of clips, where they have no effect on files that were made before."""
        if self._source.are_clips:
            return
        given = self.scan_settings.preprocessing
        usual = Preprocessing()
        unused = [
            name
            for name in ("keep_damaged", "decoder", "stride", "fps", "frame_rate", "resize")
            if getattr(given, name) != getattr(usual, name)
        ]
        if (self.num_frames or NUM_FRAMES, self.image_size) != (NUM_FRAMES, IMAGE_SIZE):
            if self.num_frames not in {None, NUM_FRAMES, *manifest.find_values("length")}:
                unused.append("num_frames")
            if self.image_size not in {IMAGE_SIZE, *manifest.find_values("width")}:
                unused.append("image_size")
        for name in unused:
            value = getattr(given, name)
            rank_zero_warn(f"{name}: {value} is a setting of clips, and has no effect here.")

    def predict_dataloader(self) -> DataLoader[VideoBatch]:
        """The videos that are not done, in row order; each rank takes blocks of them as it comes.

        A limit that is a share of all batches is one of a share of the videos that is fixed.
        """
        rank, num_ranks, on_cuda, num_workers = 0, 1, False, self.num_workers or 0
        device = self._find_decoding_device()
        limit: float = 1.0
        if self.trainer:
            rank, num_ranks = self.trainer.global_rank, self.trainer.world_size
            limit = self.trainer.limit_predict_batches
            on_cuda = self.trainer.strategy.root_device.type == "cuda"
            if on_cuda and self.num_workers is None and device == CPU:
                num_cores = count_cores() // self.trainer.num_devices
                num_workers = min(self._source.max_workers, num_cores)
        work = self.work
        owner = find_owner(self.trainer)
        if owner and self.trainer:
            work.done = owner.find_finished(self.trainer)
        else:
            work.done = np.zeros(len(work.manifest), np.bool_)
        pending = np.flatnonzero(~work.done)
        lengths = work.manifest.lengths[pending]
        num_workers = num_workers if len(pending) else 0
        blocks: Iterable[int] = [rank]
        if num_ranks > 1 and (isinstance(limit, int) or limit == 1):
            bounds = cut_blocks(lengths, num_ranks, self.batch_size)
            blocks = work.take_blocks(len(bounds) - 1)
        else:
            bounds = cut_shares(lengths, num_ranks)
        sampler = BlockSampler(pending, bounds, blocks, looks_ahead=num_workers == 0)
        return DataLoader(
            self.make_dataset(() if num_workers else sampler.follow(), device),
            sampler=sampler,
            batch_size=self.batch_size,
            num_workers=num_workers,
            pin_memory=on_cuda,  # then the copy to the device takes no time of the CPU's
            collate_fn=join,
            worker_init_fn=outlive_signals,
        )

    def make_dataset(self, order: Iterable[int] = (), device: torch.device = CPU) -> VideoDataset:
        """The videos by position; see `VideoDataset`."""
        return VideoDataset(self.manifest, order, device)

    def on_before_batch_transfer(self, batch: VideoBatch, dataloader_idx: int) -> VideoBatch:
        """Raise the first error that a worker met, unless it is a bad video to be left out.

        Pixels that look like others than they are taken for are warned of, once in each process.
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
        """Look at what is left of the pixels."""
        if warning := self._watch.judge():
            warnings.warn(warning, stacklevel=2)
