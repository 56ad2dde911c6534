"""The BasePredictionWriter: gathers the features of every rank into one file a split."""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

import featx
from featx.analysis import read_preprocessing, write_analysis
from featx.datamodule import VideoDataModule
from featx.errors import FeatxError, UsageError
from featx.extractor import FeatureExtractor
from featx.feature_file import FORMAT_VERSION, Layout, file_name
from featx.manifest import Manifest
from featx.staging import PartWriter, Staging
from featx.temporal import output_length
from featx.videos import VideoBatch

_COMPRESSION_THREADS = 2


class FeatureWriter(BasePredictionWriter):
    """Writes one feature file a split, `OUTPUT/<split>_features[_multiscale].h5`.

    A file appears when it is complete; until then its rows lie as parts in `OUTPUT/.featx/`.

    Args:
        output_dir: Folder for the feature files.
        overwrite: Replace feature files that are there already.

    Attributes:
        paths: The feature file of each split, from `setup` on.
    """

    def __init__(self, output_dir: Path = Path("features"), overwrite: bool = False) -> None:
        super().__init__(write_interval="batch")
        self.output_dir = Path(output_dir).expanduser()
        self.overwrite = overwrite
        self.paths: dict[str, Path] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Lay out the files, and make the folders for their parts."""
        super().setup(trainer, pl_module, stage)
        data = getattr(trainer, "datamodule", None)
        if not isinstance(pl_module, FeatureExtractor) or not isinstance(data, VideoDataModule):
            raise UsageError(
                "FeatureWriter: expected trainer.predict(FeatureExtractor(...), "
                f"VideoDataModule(...)), found {type(pl_module).__name__} and "
                f"{type(data).__name__}. Give these two."
            )
        self._manifest = data.manifest
        self._preprocessing = read_preprocessing(data.manifest)
        self._stagings = {
            split: self._plan(split, data.manifest, trainer, pl_module)
            for split in data.manifest.splits
        }
        self.paths = {split: staging.target for split, staging in self._stagings.items()}
        if trainer.is_global_zero:
            for staging in self._stagings.values():
                staging.prepare(self.overwrite)
        trainer.strategy.barrier("featx: the folders for the parts are there")
        self._pool = ThreadPoolExecutor(_COMPRESSION_THREADS, "compression")
        self._writers = {
            split: PartWriter(staging, self._pool) for split, staging in self._stagings.items()
        }

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
        """Take the features of a batch, which says itself which videos it holds."""
        for position, features in zip(batch.positions, prediction, strict=True):
            split = self._manifest.locate(position)[0].split
            row = position - self._manifest.positions(split).start
            self._writers[split].add(row, self._to_numpy(split, row, features))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Publish, once every rank has its last rows on disk."""
        self._flush()
        trainer.strategy.barrier("featx: every part is on disk")
        if trainer.is_global_zero:
            for staging in self._stagings.values():
                staging.publish()
            write_analysis(self.output_dir, self.paths, self._preprocessing)
            for split, path in self.paths.items():
                rank_zero_info(f"{split}: {len(self._manifest.positions(split))} videos in {path}")

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Put on disk what is finished; nothing is published."""
        if hasattr(self, "_writers"):
            self._flush()

    def _flush(self) -> None:
        with self._pool:
            for writer in self._writers.values():
                writer.flush()

    def _to_numpy(self, split: str, row: int, features: Tensor) -> np.ndarray[Any, Any]:
        values = features.cpu().numpy()
        if not np.isfinite(values).all():
            name = self._stagings[split].layout.video_ids[row]
            raise FeatxError(
                f"{name}: expected finite features, found NaN or infinity. "
                "Check the weights, or use a precision with more range (32-true, bf16-mixed)."
            )
        return values

    def _plan(
        self, split: str, manifest: Manifest, trainer: Trainer, extractor: FeatureExtractor
    ) -> Staging:
        settings = extractor.settings()
        positions = manifest.positions(split)
        lengths = manifest.lengths[positions.start : positions.stop]
        num_frames = [output_length(int(length), extractor.scales) for length in lengths]
        run = {
            "root": str(manifest.root.resolve()),
            "split": split,
            **settings,
            "precision": str(trainer.precision),
            "device": _device_name(trainer.strategy.root_device),
            "preprocessing": self._preprocessing,
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
        }
        attributes = {
            "category_mapping": json.dumps(manifest.categories),
            "multi_scale": extractor.multi_scale,
            "backbone": extractor.backbone_name,
            "weights": extractor.weights,
            "weights_sha256": extractor.weights_sha256,
            "scales": np.array(extractor.scales),
            "featx_version": featx.__version__,
            "format_version": FORMAT_VERSION,
            "config": json.dumps(run),
        }
        layout = Layout.plan(
            manifest.labels(split),
            np.array(num_frames, dtype=np.int32),
            manifest.video_ids(split),
            extractor.feature_dim,
            attributes,
        )
        return Staging(self.output_dir / file_name(split, extractor.multi_scale), layout)


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
