"""The callback that writes the features of all ranks into one file per split."""

import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import (
    BasePredictionWriter,
    RichProgressBar,
    TQDMProgressBar,
)
from lightning.pytorch.utilities import rank_zero_info
from numpy.typing import NDArray
from torch import Tensor

from featx.data.batches import VideoBatch, VideoItem
from featx.data.manifest import ANALYSIS_FILE
from featx.data.media.video_file import MadeOf
from featx.data.scan_cache import format_line
from featx.durable import check_replaceable, expand, writing
from featx.errors import (
    FeatureError,
    IncompleteError,
    OutputError,
    UsageError,
    check_at_least,
)
from featx.extraction.datamodule import VideoDataModule
from featx.extraction.extractor import FeatureExtractor
from featx.extraction.ranks import warn_of_shared_store
from featx.extraction.record import look_up_content, plan_layout, write_analysis
from featx.extraction.run_folder import RunFolder, RunOwner
from featx.extraction.signals import Interruption
from featx.features.feature_file import file_name, open_feature_file
from featx.features.provenance import Provenance
from featx.features.resume.parts import USUAL_LIMITS, PartWriter, PendingFile, Plan
from featx.features.resume.plan import plan_files
from featx.features.resume.publish import MergedShard, merge_share, publish
from featx.progress import Progress, format_speed

_COMPRESSION_THREADS = max(1, min(4, (os.cpu_count() or 1) // 2))  # each takes some 40 MB/s
_NO_POSITIONS: list[int] = []


class FeatureWriter(BasePredictionWriter, RunOwner):
    """Writes one feature file per split, `OUTPUT/<split>_features[_multiscale].h5`.

    A file appears when it is complete; until then, its rows are kept as parts in `OUTPUT/.featx/`.
    A rerun takes what is finished from these and from the files that there are, makes the rest, and
    replaces a file only if something in it changes.

    With `rows_per_file`, the features of a split are in shards beside its file, rows 0 to
    `rows_per_file` - 1 in `<split>_features[_multiscale]/00000.h5`, and so on; the file is read as
    if it had them, and is to be moved together with that folder.

    Args:
        output_dir: Folder for the feature files.
        overwrite: Replace feature files and parts that other settings made or that are damaged;
            drop the rows of videos that are no longer in the data set; replace most videos of a
            file by others of their names. Rows that can be kept are.
        rows_per_file: Cut the features of a split into files of so many videos; by default, they
            are in one.

    Attributes:
        paths: The feature file of each split; set by `setup`.
        part_limits: When finished rows go to disk.
    """

    part_limits = USUAL_LIMITS

    def __init__(
        self,
        output_dir: Path | str = "features",
        overwrite: bool = False,
        rows_per_file: int | None = None,
    ) -> None:
        super().__init__(write_interval="batch")
        check_at_least(1, rows_per_file=rows_per_file)
        self.rows_per_file = rows_per_file
        self.output_dir = expand(output_dir)
        self.overwrite = overwrite
        self.paths: dict[str, Path] = {}
        self.run_folder = RunFolder(self.output_dir)
        self._files: dict[str, PendingFile] = {}
        self._writers: dict[str, PartWriter] = {}
        self._progress: Progress | None = None
        self._is_planned = False  # `find_finished` has read the staging folder
        self._undo = ExitStack()  # what a run changes in its process, and restores at its end

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check the model and the data, and begin the heartbeat of this rank."""
        super().setup(trainer, pl_module, stage)
        data = getattr(trainer, "datamodule", None)
        if not isinstance(pl_module, FeatureExtractor) or not isinstance(data, VideoDataModule):
            raise UsageError(
                "FeatureWriter: expected trainer.predict(FeatureExtractor(...), "
                f"VideoDataModule(...)), found {type(pl_module).__name__} and "
                f"{type(data).__name__}. Pass these two."
            )
        environment = getattr(trainer.strategy, "cluster_environment", None)
        if isinstance(environment, SLURMEnvironment):
            environment.auto_requeue = False  # it would save the backbone, and the parts are enough
        warn_of_shared_store()
        self._data, self._ranks, self._manifest = data, data.ranks, data.manifest
        self.paths = {
            split: self.output_dir / file_name(split, pl_module.multi_scale)
            for split in data.manifest.positions
        }
        self._is_planned = False
        self._heartbeat = self.run_folder.start_heartbeat(trainer.global_rank)
        self._heartbeat.beat.device = str(trainer.strategy.root_device)
        for errors in self._manifest.rejected.values() if trainer.is_global_zero else ():
            for error in errors.values():
                self._heartbeat.skip(str(error))
        self._journal = self.run_folder.make_journal(trainer.global_rank)
        self._undo.enter_context(warnings.catch_warnings())
        # Lightning warns of a run without videos, but all of them may be finished already.
        warnings.filterwarnings("ignore", "Total length of .* across ranks is zero")
        device = trainer.strategy.root_device
        self._pool = ThreadPoolExecutor(
            _COMPRESSION_THREADS,
            "compression",
            # Otherwise a thread that waits for a copy takes memory of the first GPU.
            *((torch.cuda.set_device, (device,)) if device.type == "cuda" else ()),
        )

    def find_finished(self, trainer: Trainer) -> NDArray[np.bool_]:
        """Plan the feature files, and return which videos `[num_videos]` are finished already.

        All ranks call this after `setup`, because Lightning restores a checkpoint in between.
        """
        self._interruption = Interruption(trainer)
        self._interruption.at_once = True
        self._files = self._lay_out(trainer)
        done, plans = self._ranks.from_first(self._plan, self._interruption.check)
        self._is_planned = True
        for split, file in self._files.items():
            file.follow(plans[split])
        self._writers = {
            split: PartWriter(file, self._pool, self._data.on_error == "skip", self.part_limits)
            for split, file in self._files.items()
        }
        return done

    def _lay_out(self, trainer: Trainer) -> dict[str, PendingFile]:
        """Lay out the feature file of each split."""
        manifest, extractor = self._manifest, trainer.lightning_module
        assert isinstance(extractor, FeatureExtractor)  # as `setup` has checked
        run = {
            **extractor.settings(),
            "precision": str(trainer.precision),
            "device": _device_name(trainer.strategy.root_device),
            **self._data.settings(),
        }
        files = {}
        for split, path in self.paths.items():
            run["preprocessing"] = manifest.preprocessing(split)
            dim, is_first = extractor.feature_dim, trainer.is_global_zero
            layout = plan_layout(manifest, split, dim, run, is_first)
            lookup = look_up_content(manifest, split, self.run_folder.scan_cache)
            files[split] = PendingFile(path, layout, lookup, self.rows_per_file)
        return files

    def _plan(self) -> tuple[NDArray[np.bool_], dict[str, Plan]]:
        """Find the finished videos, and create the folders for the parts of the others."""
        check_replaceable(self.output_dir / ANALYSIS_FILE)
        for change in plan_files([*self._files.values()], self.overwrite):
            rank_zero_info(str(change))
        self.run_folder.save_scan_cache()
        done = np.zeros(len(self._manifest), np.bool_)
        for split, file in self._files.items():
            done[self._manifest.positions[split].start + file.locations.numbers()] = True
        return done, {split: file.plan for split, file in self._files.items()}

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the extraction: from now on, a signal or a dead rank ends it between batches."""
        self._interruption.at_once = False
        done, lengths = self._data.done, self._manifest.lengths
        beat = self._heartbeat.beat
        beat.total_videos, beat.found = int((~done).sum()), int(done.sum())
        beat.total_frames = int(lengths.sum() - lengths[done].sum())
        self._heartbeat.enter("extraction")
        bar = trainer.progress_bar_callback
        if isinstance(bar, (TQDMProgressBar, RichProgressBar)) and trainer.is_global_zero:
            bar.disable()  # it counts batches of one rank, without the videos of earlier runs
            self._progress = Progress(beat.total_videos, beat.total_frames, beat.found)
            self._show()

    def _show(self, at_once: bool = False) -> None:
        """Show the progress of all ranks."""
        if self._progress:
            run = self._heartbeat.sum_up(at_once)
            self._progress.show(run.videos, run.frames, format_speed(run.rate, run.seconds_left))

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Sequence[Tensor],
        batch_indices: Sequence[int] | None,
        batch: VideoBatch,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Take the features of a batch, and report the progress."""
        for video, features in zip(batch.videos, prediction, strict=True):
            self._add(video, features)
        for position, error in batch.errors.items():
            split, row = self._manifest.locate_row(position)
            self._writers[split].skip(row, error)
            self._heartbeat.skip(str(error))
        positions = [*batch.positions, *batch.errors]
        lengths = self._manifest.lengths[positions]
        self._heartbeat.advance(len(positions), int(lengths.sum()))
        self._heartbeat.write()
        _drop_positions(trainer, batch_idx)
        self._show()
        self._interruption.check()

    def _add(self, video: VideoItem, features: Tensor) -> None:
        """Add the features of one video to its file."""
        split, row = self._manifest.locate_row(video.position)
        for other, writer in self._writers.items():
            if other != split:  # because rows come in order: the split before it is done
                writer.flush()
        made_of = video.made_of or MadeOf("")
        self._note(video.position, made_of)
        self._writers[split].add(
            row, _copy_to_cpu(features), made_of.sha256, video.times, video.damage
        )

    def _note(self, position: int, made_of: MadeOf) -> None:
        """Note what reading a clip has told about it, for the scans of later runs."""
        line = made_of.line
        entry = self._manifest.locate(position)[0].cache_entry
        if not line and entry and made_of.file_digest:
            name, found = entry
            line = format_line(name, replace(found, digest=made_of.file_digest))
        with writing(self.run_folder.staging):
            self._journal.write(line)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Publish the feature files, once the last rows of all ranks are on disk."""
        if not self._is_planned:  # with a limit of no batches, no loader was made
            self.find_finished(trainer)
        self._flush()
        self._heartbeat.enter("waiting")
        ranks = self._ranks
        ranks.wait(self._wait)
        self._close_progress()
        self._interruption.at_once = True
        self._heartbeat.enter("merging")
        try:
            with self._undo:
                files = [*self._files.values()]
                rank, num_ranks = trainer.global_rank, trainer.world_size
                share = merge_share(files, rank, num_ranks, self._wait)
                ranks.wait(self._wait)
                merged = [shard for share in ranks.gather(share) for shard in share]
                ranks.from_first(lambda: self._publish(merged), self._wait)
                self.run_folder.stop_heartbeat()
                ranks.wait(self._interruption.check)  # then rank 0 can remove the status folder
        finally:
            if trainer.is_global_zero:
                self.run_folder.remove_manifest()
            self.run_folder.close()

    def _wait(self) -> None:
        """Report the progress again and again, while other ranks are still at work."""
        self._heartbeat.write()
        self._show()
        self._interruption.check()

    def _close_progress(self) -> None:
        if self._progress:
            self._show(at_once=True)
            self._progress.close()
            self._progress = None

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Write the rows that are finished; publish nothing."""
        try:
            with self._undo:
                self._close_progress()
                # What ended the run may be an error of writing, or of CUDA (a RuntimeError).
                with suppress(OutputError, FeatureError, RuntimeError):
                    self._flush()
                if self._is_planned and any(each.has_parts() for each in self._files.values()):
                    rank_zero_info(
                        f"Finished videos are safe in {self.run_folder.staging}. "
                        "Run the same command again to go on from there."
                    )
        finally:
            if trainer.world_size == 1:  # otherwise other ranks may still read it
                self.run_folder.remove_manifest()
            self.run_folder.close()

    def _publish(self, merged: Sequence[MergedShard]) -> None:
        """Publish every file that is complete."""
        published: dict[str, Path] = {}
        problems: list[IncompleteError] = []
        for split, file in self._files.items():
            try:
                publish(file, merged, self.overwrite)
                published[split] = file.target
            except IncompleteError as error:  # the other splits may be complete
                problems.append(error)
        self.run_folder.load_scan_cache()  # with the journals of all ranks
        self.run_folder.save_scan_cache()
        if published:
            write_analysis(self.output_dir, published, self._manifest)
        for split, path in published.items():
            with open_feature_file(path) as opened:
                count = opened.attrs["num_videos"]
                made = Provenance.from_attributes(opened.attrs)
            notes = f", {len(made.skipped)} inputs left out" if made.skipped else ""
            notes += f", {len(made.damaged_videos)} damaged" if made.damaged_videos else ""
            rank_zero_info(f"{split}: {count} videos in {path}{notes}")
        if problems:
            raise problems[0]

    def _flush(self) -> None:
        if self._writers:
            with self._pool:
                for writer in self._writers.values():
                    writer.flush()
            self._writers = {}


def _copy_to_cpu(features: Tensor) -> Callable[[], NDArray[np.float32]]:
    """Start to copy features to the CPU; the returned function waits for the copy."""
    if features.device.type != "cuda":
        return features.cpu().numpy
    copy = features.to("cpu", non_blocking=True)  # into pinned memory
    copied = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
    copied.record()

    def fetch() -> NDArray[np.float32]:
        copied.synchronize()
        return copy.numpy()

    return fetch


def _drop_positions(trainer: Trainer, batch_idx: int) -> None:
    """Free Lightning's list of the positions of a batch; the batch itself records them.

    Lightning keeps the lists of all batches: for ten million videos, a gigabyte.
    """
    sampler = getattr(trainer.predict_dataloaders, "batch_sampler", None)
    if seen := getattr(sampler, "seen_batch_indices", None):
        seen[batch_idx] = _NO_POSITIONS


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
