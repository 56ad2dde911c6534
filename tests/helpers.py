"""Tiny seeded data for the tests; nothing binary is committed."""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from lightning.pytorch import Trainer
from numpy.typing import NDArray
from torch import Tensor, nn

from featx import FeatureExtractor, FeatureWriter, VideoDataModule
from featx.backbones.architectures import ARCHITECTURES, Architecture
from featx.data.batches import VideoBatch, VideoItem
from featx.data.choices import OnError
from featx.data.manifest import Manifest, ScanSettings
from featx.data.sources.processed import scan_processed
from featx.features.feature_file import (
    FileLayout,
    create,
    encode,
    open_feature_file,
    write_row,
    write_times,
)
from featx.features.provenance import Provenance
from featx.features.resume.parts import PartLimits, PendingFile, Row
from featx.features.resume.plan import plan_files
from featx.features.resume.publish import merge_share, publish
from featx.features.validation import find_problems

TINY_DIM = 6  # features per frame of the tiny CNN
ROW_DIM = 4  # features per frame of the rows below

Save = Callable[..., Path]


class TinyCNN(nn.Module):
    """A backbone of three layers, for tests in which the backbone is not the point."""

    def __init__(self, dim: int = TINY_DIM) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.conv = nn.Conv2d(3, dim, 3, padding=1, bias=False)
        self.conv.weight.data = torch.randn(self.conv.weight.shape, generator=generator)
        self.bn = nn.BatchNorm2d(dim)
        self.fc: nn.Module = nn.Linear(dim, 4)

    def forward(self, frames: Tensor) -> Tensor:
        """The head's output for frames `[B, 3, H, W]`."""
        out: Tensor = self.fc(self.bn(self.conv(frames)).relu().mean(dim=(2, 3)))
        return out


def build_tiny(weights: None = None, dim: int = TINY_DIM) -> nn.Module:
    """A builder with the signature of torchvision's."""
    return TinyCNN(dim)


TINY = Architecture(build_tiny, ARCHITECTURES["resnet50"].weights, ("fc",), TINY_DIM)
"""Takes the place of ResNet-50 where the backbone is not the point."""

WIDE = TINY._replace(build=partial(build_tiny, dim=2048), feature_dim=2048)
"""The same, with features of the size of ResNet-50's."""


TINY_JOB: dict[str, object] = {
    "backbone": "resnet50",
    "weights": "random",
    "frames_per_forward": 4,
    "accelerator": "cpu",
    "devices": 1,
}
"""Arguments of `featx.extract` for a small job with the tiny CNN."""


def random_video(num_frames: int, seed: int = 0, size: int = 8) -> Tensor:
    """A uint8 video `[num_frames, 3, size, size]`."""
    generator = torch.Generator().manual_seed(seed)
    shape = (num_frames, 3, size, size)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def make_batch(*videos: Tensor) -> VideoBatch:
    """A batch of videos without repeats."""
    return VideoBatch([VideoItem(position, video) for position, video in enumerate(videos)])


def random_videos(count: int, num_frames: int, seed: int = 0, size: int = 8) -> Tensor:
    """uint8 videos `[count, num_frames, 3, size, size]`."""
    return torch.stack([random_video(num_frames, 100 * seed + i, size) for i in range(count)])


def grey_levels(count: int) -> NDArray[np.uint8]:
    """Frames `[count, 64, 96, 3]` of plain grey, each brighter than the one before."""
    levels = np.linspace(20, 235, count).astype(np.uint8)
    return np.broadcast_to(levels[:, None, None, None], (count, 64, 96, 3)).copy()


def plan(lengths: list[int], **settings: object) -> FileLayout:
    """The layout of a feature file with rows of these lengths."""
    count = len(lengths)
    provenance = Provenance({"a": 0, "b": 1}, True, {"root": "somewhere"} | settings)
    return FileLayout.plan(
        np.arange(count) % 2,
        np.array(lengths, np.int32),
        [f"video {i}" for i in range(count)],
        ROW_DIM,
        replace(provenance, runs=[provenance.last_bits()]),
        input_sha256=[sha256(f"video {i}") for i in range(count)],
    )


def sha256(text: str) -> str:
    """What stands for the digest of an input."""
    return hashlib.sha256(text.encode()).hexdigest()


def prepare(staging: PendingFile, overwrite: bool = False) -> set[int]:
    """Prepare one file alone: the rows that are finished."""
    plan_files([staging], overwrite)
    return {*staging.locations}


def complete(file: PendingFile, overwrite: bool = False) -> None:
    """Merge and publish one file alone."""
    publish(file, merge_share([file]), overwrite)


def finish(staging: PendingFile, row: int, features: NDArray[np.float32]) -> Row:
    """A finished row."""
    return Row(encode(features, staging.layout), staging.layout.input_sha256[row])


def finish_in(staging: PendingFile, row: int, features: NDArray[np.float32]) -> Row:
    """A finished row, in chunks of its shard."""
    layout = staging.lay_out(row // staging.shard_size)
    return Row(encode(features, layout), staging.layout.input_sha256[row])


def make_rows(lengths: list[int]) -> list[NDArray[np.float32]]:
    """Random features for rows of these lengths."""
    rng = np.random.default_rng(0)
    return [rng.standard_normal((length, ROW_DIM)).astype(np.float32) for length in lengths]


def write_feature_file(
    path: Path,
    lengths: list[int],
    settings: dict[str, object] | None = None,
    **changes: Any,  # noqa: ANN401
) -> Path:
    """A complete feature file, made with some settings; with times, eight frames are a second."""
    layout = replace(plan(lengths, **(settings or {})), **changes)
    with h5py.File(path, "w") as file:
        create(file, layout)
        for row, features in enumerate(make_rows(lengths)):
            write_row(file, row, encode(features, layout))
            if layout.has_times:
                write_times(file, row, np.arange(len(features), dtype=np.float32) / np.float32(8))
    return path


def problems(path: Path) -> list[str]:
    """What is wrong with a file."""
    with open_feature_file(path) as file:
        return find_problems(file)


def scan(
    root: Path,
    splits: Sequence[str] | None = None,
    on_error: OnError = "stop",
    verify: bool = False,
) -> Manifest:
    """The videos of a data set's `processed_data.pt` files."""
    return scan_processed(ScanSettings(root, splits, on_error, verify))


def is_tidy(out: Path) -> bool:
    """Whether nothing is left of a run beside its files, but what is known of inputs."""
    return {path.name for path in out.glob(".featx/*")} <= {"scan_cache"}


class EagerWriter(FeatureWriter):
    """Puts every video on disk at once."""

    part_limits = PartLimits(0, 0.0, 0)


def extract_eagerly(root: Path, out: Path, **settings: Any) -> dict[str, Path]:  # noqa: ANN401
    """A small job with ResNet-50, or what stands for it, each video a part of its own."""
    writer = EagerWriter(out)
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        callbacks=[writer],
        logger=False,
        enable_checkpointing=False,
    )
    data = VideoDataModule(root, num_workers=0, **settings)
    trainer.predict(FeatureExtractor("resnet50", "random"), data, return_predictions=False)
    return writer.paths


class Evil:
    """An object whose pickle makes a folder when it is loaded carelessly."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        """Run code."""
        return os.mkdir, (str(self.folder),)
