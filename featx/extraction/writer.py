"""The BasePredictionWriter: gathers the features of all ranks into one file per split."""

import os
import secrets
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

from featx.console import Progress, format_speed
from featx.data.dataset import VideoBatch
from featx.data.known import Journal, Known
from featx.data.manifest import ANALYSIS_FILE, Manifest
from featx.data.video_file import MadeOf
from featx.errors import (
    FeatureError,
    IncompleteError,
    OutputError,
    UsageError,
    check_at_least,
)
from featx.extraction.datamodule import Memory, VideoDataModule
from featx.extraction.extractor import FeatureExtractor
from featx.extraction.merging import ShardPublisher
from featx.extraction.ranks import warn_of_shared_store
from featx.extraction.record import ask_inputs, plan_layout, write_analysis
from featx.extraction.signals import Interruption
from featx.extraction.status import STATUS_FOLDER, Phase, Reporter, Sign
from featx.features.feature_file import file_name, open_feature_file
from featx.features.lock import RunLock
from featx.features.parts import USUAL_LIMITS, PartWriter
from featx.features.provenance import Provenance
from featx.features.staged import STAGING_FOLDER, Plan
from featx.features.staging import Staging
from featx.features.update import plan_update
from featx.files import check_replaceable, expand, remove, writing

_COMPRESSION_THREADS = max(1, min(4, (os.cpu_count() or 1) // 2))  # each takes some 40 MB/s
_NO_POSITIONS: list[int] = []


class FeatureWriter(BasePredictionWriter, Memory):
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
        # torchrun starts a run again under its name, as soon as it has lost a process.
        run = os.environ.get("TORCHELASTIC_RUN_ID", "")
        self._lock = RunLock(self.output_dir / STAGING_FOLDER / "lock", run)
        self._known = Known()
        self._stagings: dict[str, Staging] = {}
        self._writers: dict[str, PartWriter] = {}
        self._progress: Progress | None = None
        self._reporter: Reporter | None = None
        self._publisher: ShardPublisher | None = None
        self._prepared = False  # what is in the staging folders is of this run
        self._undo = ExitStack()  # what a run changes in its process, and takes back at its end

    def open(self) -> None:
        """Take the lock of the folder."""
        if not self.output_dir.exists():
            self._undo.callback(self._remove_if_empty)
        self._undo.callback(self._lock.release)  # also if it is taken, but nothing can be written
        self._lock.acquire()
        status = self.output_dir / STAGING_FOLDER / STATUS_FOLDER
        if status.exists():  # of a run that was killed
            with writing(status):
                remove(status)
        self._report(Sign())

    def recall(self) -> Known:
        """What earlier runs on the folder have found out about inputs."""
        self._known = Known.load(self._known_folder)
        return self._known

    def make_journal(self, rank: int) -> Journal:
        """The file of a process; all of them are joined when what is known is saved."""
        return Journal(self._known_folder / f"{rank}.jsonl")

    def _report(self, sign: Sign) -> None:
        """Tell others how far this process is, from now on."""
        folder = self.output_dir / STAGING_FOLDER / STATUS_FOLDER
        self._reporter = Reporter(folder, sign)
        self._undo.callback(self._stop_reporting)

    def _stop_reporting(self) -> None:
        if self._reporter:
            self._reporter.stop()
            self._reporter = None

    def keep(self, manifest: Manifest) -> Path:
        """Write the videos into a folder of their own; what a killed run has left is removed."""
        with writing(self._manifest_folder):
            self._forget()
            # On a network disk, others may know another folder of the same name.
            folder = self._manifest_folder / secrets.token_hex(8)
            manifest.save(folder)
        return folder

    def _forget(self) -> None:
        """Remove what was kept; what cannot be, the next run removes."""
        with suppress(OSError):
            remove(self._manifest_folder)

    def _remove_if_empty(self) -> None:
        """Remove the folder that a run has made for its lock, if nothing came of it."""
        with suppress(OSError):  # there is something in it
            self.output_dir.rmdir()

    @property
    def _manifest_folder(self) -> Path:
        return self.output_dir / STAGING_FOLDER / "manifest"

    @property
    def _known_folder(self) -> Path:
        return self.output_dir / STAGING_FOLDER / "known"

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check what the writer is given; see `_plan` for what it makes of it."""
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
        self._data, self._work, self._skips = data, data.work, data.on_error == "skip"
        self.paths = {
            split: self.output_dir / file_name(split, pl_module.multi_scale)
            for split in data.manifest.positions
        }
        self._prepared = False
        if not self._reporter:  # the first process has one since the scan
            self._report(Sign(trainer.global_rank))
        if self._reporter:
            self._reporter.sign.num_ranks = trainer.world_size
            self._reporter.sign.device = str(trainer.strategy.root_device)
            if trainer.is_global_zero:
                for errors in data.manifest.rejected.values():
                    for error in errors.values():
                        self._reporter.skip(str(error))
        self._journal = self.make_journal(trainer.global_rank)
        self._work.find_done = lambda: self._plan(trainer, pl_module)
        self._undo.enter_context(warnings.catch_warnings())
        # A run that finds all videos done is no mistake, as Lightning would suspect.
        warnings.filterwarnings("ignore", "Total length of .* across ranks is zero")
        device = trainer.strategy.root_device
        self._pool = ThreadPoolExecutor(
            _COMPRESSION_THREADS,
            "compression",
            # A new thread would take the first GPU, and some of its memory, to wait for a copy.
            *((torch.cuda.set_device, (device,)) if device.type == "cuda" else ()),
        )

    def _plan(self, trainer: Trainer, extractor: FeatureExtractor) -> NDArray[np.bool_]:
        """Lay out the files, and find which videos `[num_videos]` an earlier run has finished.

        Not before the extractor is as it will run: Lightning restores a checkpoint after `setup`.
        """
        self._interruption = Interruption(trainer)
        self._interruption.at_once = True
        manifest = self._work.manifest
        run = {
            **extractor.settings(),
            "precision": str(trainer.precision),
            "device": _device_name(trainer.strategy.root_device),
            **self._data.settings(),
        }
        self._stagings = {}
        for split, path in self.paths.items():
            run["preprocessing"] = manifest.preprocessing(split)
            is_first = trainer.is_global_zero
            layout = plan_layout(manifest, split, extractor.feature_dim, run, is_first)
            inputs = ask_inputs(manifest, split, self._known)
            self._stagings[split] = Staging(path, layout, inputs, self.rows_per_file)
        done, plans = self._work.ranks.from_first(self._prepare, self._interruption.check)
        self._prepared = True
        for split, staging in self._stagings.items():
            staging.follow(plans[split])
        self._writers = {
            split: PartWriter(staging, self._pool, self._skips, self.part_limits)
            for split, staging in self._stagings.items()
        }
        rows = {split: manifest.positions[split] for split in self._stagings}
        pending = {split: ~done[r.start : r.stop] for split, r in rows.items()}
        self._publisher = ShardPublisher(self._work.ranks, self._stagings, pending)
        return done

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From now on, a signal or the end of another process ends the run between batches."""
        self._interruption.at_once = False
        done, lengths = self._work.done, self._work.manifest.lengths
        if done is None or not self._reporter:
            return
        sign = self._reporter.sign
        sign.total_videos, sign.found = int((~done).sum()), int(done.sum())
        sign.total_frames = int(lengths.sum() - lengths[done].sum())
        self._reporter.begin("extraction")
        bar = trainer.progress_bar_callback
        if isinstance(bar, (TQDMProgressBar, RichProgressBar)) and trainer.is_global_zero:
            bar.disable()  # it counts batches, and knows nothing of earlier runs
            self._progress = Progress(sign.total_videos, sign.total_frames, sign.found)
            self._show()

    def _show(self) -> None:
        """Show how far all processes are."""
        if self._progress and self._reporter:
            run = self._reporter.sum_up()
            speed = format_speed(run.rate, run.seconds_left)
            if run.slowest and run.fastest:
                slow, fast = run.slowest, run.fastest
                speed += f", from {slow.rate:,.1f} of process {slow.rank}"
                speed += f" to {fast.rate:,.1f} of process {fast.rank}"
            self._progress.show(run.videos, run.frames, speed)

    def _prepare(self) -> tuple[NDArray[np.bool_], dict[str, Plan]]:
        """Find what is finished, and make the folders for the parts of the rest."""
        check_replaceable(self.output_dir / ANALYSIS_FILE)
        for change in plan_update([*self._stagings.values()], self.overwrite):
            rank_zero_info(str(change))
        self._keep_known()
        done = np.zeros(len(self._work.manifest), np.bool_)
        for split, staging in self._stagings.items():
            done[self._work.manifest.positions[split].start + staging.places.numbers()] = True
        return done, {split: staging.plan for split, staging in self._stagings.items()}

    def _keep_known(self) -> None:
        """Keep what is known of inputs for the next run."""
        with writing(self._known_folder):
            self._known.save(self._known_folder)

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
        """Take the features of a batch."""
        for position, features in zip(batch.positions, prediction, strict=True):
            split, row = self._work.manifest.locate_row(position)
            for other, writer in self._writers.items():
                if other != split:  # with the first row of a split, the one before it is done
                    writer.flush()
            made_of = batch.made_of.get(position, MadeOf(""))
            self._note(position, made_of)
            self._writers[split].add(
                row,
                _copy_to_cpu(features),
                made_of.sha256,
                batch.times.get(position),
                batch.damage.get(position, ""),
            )
        for position, error in batch.errors.items():
            split, row = self._work.manifest.locate_row(position)
            self._writers[split].skip(row, error)
            if self._reporter:
                self._reporter.skip(str(error))
        if self._reporter:
            positions = [*batch.positions, *batch.errors]
            lengths = self._work.manifest.lengths[positions]
            self._reporter.advance(len(positions), int(lengths.sum()))
        _forget(trainer, batch_idx)
        self._settle()
        self._show()
        self._interruption.check()

    def _settle(self) -> None:
        """Have the shards published that this process has finished."""
        if self._publisher:
            for split, writer in self._writers.items():
                self._publisher.settle(split, writer.take_settled())

    def _note(self, position: int, made_of: MadeOf) -> None:
        """Note the digest of a clip, which has been read all the same."""
        if made_of.line:
            with writing(self._known_folder):
                self._journal.write(made_of.line)
            return
        facts = self._work.manifest.locate(position)[0].facts
        if facts and made_of.file_digest:
            name, known = facts
            with writing(self._known_folder):
                self._journal.note(name, replace(known, digest=made_of.file_digest))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Publish, once the last rows of all ranks are on disk."""
        if self._work.find_done and not self._prepared:
            self._work.find_done()  # with a limit of no batches, nobody has asked for videos
        self._flush()
        if self._publisher:
            self._begin("merging")
            self._publisher.finish()
        self._begin("waiting")
        ranks, check = self._work.ranks, self._interruption.check
        ranks.wait(self._wait_a_moment)
        self._close_progress()
        self._interruption.at_once = True
        self._begin("merging")
        with self._undo:
            if trainer.is_global_zero:
                self._undo.callback(self._forget)
            ranks.from_first(self._publish, check)
            self._stop_reporting()
            ranks.wait(check)  # then the folder is empty, and the first process can remove it

    def _wait_a_moment(self) -> None:
        """What there is to do while other processes are still at work."""
        self._show()
        self._interruption.check()

    def _begin(self, phase: Phase) -> None:
        if self._reporter:
            self._reporter.begin(phase)

    def _close_progress(self) -> None:
        if self._progress:
            self._show()
            self._progress.close()
            self._progress = None

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Write the rows that are finished; publish nothing."""
        with self._undo:
            if trainer.world_size == 1:  # other processes may still look at it
                self._undo.callback(self._forget)
            self._close_progress()
            if self._publisher:
                self._publisher.stop()
                self._publisher = None  # the rows to come complete no shard
            # They may be what has ended the run; a RuntimeError is one of CUDA.
            with suppress(OutputError, FeatureError, RuntimeError):
                self._flush()
            if self._prepared and any(staging.has_parts() for staging in self._stagings.values()):
                rank_zero_info(
                    f"Finished videos are safe in {self.output_dir / STAGING_FOLDER}. "
                    "Run the same command again to go on from there."
                )

    def _publish(self) -> None:
        """Publish every file that can be."""
        published: dict[str, Path] = {}
        problems: list[IncompleteError] = []
        for split, staging in self._stagings.items():
            try:
                staging.publish(self.overwrite)
                published[split] = staging.target
            except IncompleteError as error:  # which is no reason to keep the other splits back
                problems.append(error)
        self._known = Known.load(self._known_folder)
        self._keep_known()
        if published:
            write_analysis(self.output_dir, published, self._work.manifest)
        for split, path in published.items():
            with open_feature_file(path) as file:
                count = file.attrs["num_videos"]
                made = Provenance.from_attributes(file.attrs)
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
            self._settle()
            self._writers = {}


def _copy_to_cpu(features: Tensor) -> Callable[[], NDArray[np.float32]]:
    """Start to copy features to the CPU; what is returned waits for the copy, and gives it."""
    if features.device.type != "cuda":
        return features.cpu().numpy
    copy = features.to("cpu", non_blocking=True)  # into pinned memory
    copied = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
    copied.record()

    def fetch() -> NDArray[np.float32]:
        copied.synchronize()
        return copy.numpy()

    return fetch


def _forget(trainer: Trainer, batch_idx: int) -> None:
    """Let go of the positions of a batch, which has them itself.

    Lightning keeps those of all batches: for ten million videos, a gigabyte.
    """
    sampler = getattr(trainer.predict_dataloaders, "batch_sampler", None)
    if seen := getattr(sampler, "seen_batch_indices", None):
        seen[batch_idx] = _NO_POSITIONS


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
