"""What `featx bench` measures, each to be called in a process of its own."""

import logging
import multiprocessing
import os
import platform
import resource
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from featx.backbones.architectures import ARCHITECTURES, BackboneName
from featx.backbones.build import remove_head
from featx.backbones.runtime import float32_precision, frozen
from featx.backbones.weights import build_random
from featx.commands.bench.plain_loop import extract_plainly
from featx.errors import UsageError
from featx.extraction.datamodule import VideoDataModule
from featx.extraction.extractor import FeatureExtractor
from featx.extraction.temporal import DEFAULT_SCALES
from featx.extraction.writer import FeatureWriter

_MATRIX_SIZES = {"cpu": 4096, "cuda": 8192}
_PASSES = {"cpu": (8, 16, 32, 64), "cuda": (16, 32, 64, 128, 256)}
_LEAST_SECONDS = 0.2  # of what is timed as one; a GPU does a pass in milliseconds


@dataclass(frozen=True, slots=True)
class Workload:
    """What contenders are measured with."""

    num_frames: int = 64
    height: int = 256
    width: int = 256
    matrix_size: int | None = None  # by default, as many rows as the device is fast at
    num_workers: tuple[int, ...] = (0, 1, 2, 4)


FULL_SIZE = Workload()


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of `featx predict` to measure."""

    backbone: BackboneName
    precision: str
    compile: bool
    allow_tf32: bool
    frames_per_forward: int
    batch_size: int
    num_workers: int | None
    accelerator: str
    workload: Workload = FULL_SIZE


def prepare_process(log: Path) -> None:
    """Make this process like one that a shell starts, but for what it prints: a file takes that."""
    multiprocessing.set_start_method(None, force=True)  # of the DataLoader's, as anywhere else
    file = log.open("a", buffering=1)
    os.dup2(file.fileno(), sys.stdout.fileno())
    os.dup2(file.fileno(), sys.stderr.fileno())
    logging.captureWarnings(True)
    warnings.simplefilter("ignore")


def run_plain_loop(
    backbone: BackboneName, accelerator: str, folder: Path, target: Path, exact: bool = False
) -> float:
    """Seconds of the plain loop over a split of normalized videos.

    It runs as torch comes, which rounds float32 convolutions to TF32 on CUDA, unless it is to be
    exact.
    """
    device = find_device(accelerator)
    cnn = _plain_cnn(backbone).to(device)
    start = time.perf_counter()
    with float32_precision(False) if exact else nullcontext():
        extract_plainly(cnn, folder, target, DEFAULT_SCALES, device)
    return time.perf_counter() - start


def run_featx(settings: Settings, root: Path, split: str, output_dir: Path) -> float:
    """Seconds of `featx predict` from the making of the Trainer to the published file."""
    extractor = _extractor(settings)
    start = time.perf_counter()
    data = VideoDataModule(
        root, [split], batch_size=settings.batch_size, num_workers=settings.num_workers
    )
    trainer = _make_trainer(settings, FeatureWriter(output_dir))
    trainer.predict(extractor, datamodule=data, return_predictions=False)
    return time.perf_counter() - start


def run_backbone(settings: Settings, num_frames: int) -> float:
    """Seconds of the bare backbone for frames that are in memory, in passes of the same shape."""
    with _ready(settings) as (extractor, device):
        frames = _make_frames(extractor, settings.frames_per_forward, settings.workload, device)
        passes = -(-num_frames // settings.frames_per_forward)  # as many as featx does
        seconds = _time(partial(extractor.backbone, frames), device, passes)
    return seconds * num_frames / settings.frames_per_forward


def run_matrix_product(settings: Settings) -> float:
    """FLOP per second of a large matrix product of the same type."""
    with _ready(settings) as (extractor, device):
        size = settings.workload.matrix_size or _MATRIX_SIZES[device.type]
        dtype = torch.get_autocast_dtype(device.type)
        if not torch.is_autocast_enabled(device.type):
            dtype = next(extractor.backbone.parameters()).dtype
        left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        return 2 * size**3 / _time(partial(torch.mm, left, right), device)


def probe_passes(settings: Settings) -> dict[int, float]:
    """Frames/s of the uncompiled backbone, by `frames_per_forward`, as far as there is memory."""
    found = {}
    with _ready(settings) as (extractor, device), suppress(torch.OutOfMemoryError):
        for number in _PASSES[device.type]:
            frames = _make_frames(extractor, number, settings.workload, device)
            found[number] = number / _time(partial(extractor.backbone.forward, frames), device)
    return found


def probe_workers(root: Path, split: str, num_workers: Sequence[int]) -> dict[int, float]:
    """Videos per second that are read, for several `num_workers`."""
    found = {}
    for number in num_workers:
        data = VideoDataModule(root, [split], num_workers=number)
        data.setup("predict")
        loader = data.predict_dataloader()
        start = time.perf_counter()
        count = sum(len(batch.videos) for batch in loader)
        found[number] = count / (time.perf_counter() - start)
    return found


def count_flop(backbone: BackboneName, height: int = 256, width: int = 256) -> int:
    """FLOP per frame of a CNN, of its convolutions and matrix products."""
    with torch.device("meta"):
        cnn = ARCHITECTURES[backbone].build(weights=None).eval()
        remove_head(cnn, ARCHITECTURES[backbone].heads)
        with FlopCounterMode(display=False) as counter:
            cnn(torch.empty(1, 3, height, width))
    return int(counter.get_total_flops())


@cache
def _plain_cnn(backbone: BackboneName) -> nn.Module:
    """The CNN as torchvision has it, with the weights that featx has for `random`."""
    cnn = build_random(ARCHITECTURES[backbone].build).eval().requires_grad_(False)
    remove_head(cnn, ARCHITECTURES[backbone].heads)
    return cnn


@cache
def _extractor(settings: Settings) -> FeatureExtractor:
    return FeatureExtractor(
        settings.backbone,
        "random",
        frames_per_forward=settings.frames_per_forward,
        compile=settings.compile,
        allow_tf32=settings.allow_tf32,
    )


def _make_trainer(settings: Settings, *callbacks: FeatureWriter) -> Trainer:
    return Trainer(
        accelerator=settings.accelerator,
        devices=1,
        precision=settings.precision,  # type: ignore[arg-type]  # Lightning checks it
        callbacks=[*callbacks],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
    )


@contextmanager
def _ready(settings: Settings) -> Iterator[tuple[FeatureExtractor, torch.device]]:
    """The extractor on its device, in the contexts that a Trainer steps in."""
    trainer = _make_trainer(settings)
    extractor = _extractor(settings)
    plugin = trainer.precision_plugin
    device = trainer.strategy.root_device
    compiled = frozen() if settings.compile else nullcontext()
    precise = float32_precision(settings.allow_tf32)
    with torch.inference_mode(), plugin.predict_step_context(), precise, compiled:
        yield plugin.convert_module(extractor).to(device), device  # type: ignore[misc]


def _make_frames(
    extractor: FeatureExtractor, count: int, workload: Workload, device: torch.device
) -> Tensor:
    """Normalized frames, as the backbone takes them."""
    dtype = next(extractor.backbone.parameters()).dtype
    frames = torch.randn(count, 3, workload.height, workload.width, device=device).to(dtype)
    return frames.contiguous(memory_format=torch.channels_last)


def _time(run: Callable[[], Any], device: torch.device, repeats: int = 2) -> float:
    """Seconds of one run, out of many; an untimed one before finds memory and libraries."""
    run()
    while True:
        _wait(device)
        start = time.perf_counter()
        for _ in range(repeats):
            run()
        _wait(device)
        seconds = time.perf_counter() - start
        if seconds >= _LEAST_SECONDS:
            return seconds / repeats
        repeats *= 2


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def find_device(accelerator: str, precision: str = "32-true") -> torch.device:
    """The device that a Trainer takes, or a UsageError if it takes none, or not this precision."""
    try:
        trainer = Trainer(accelerator=accelerator, devices=1, precision=precision, barebones=True)  # type: ignore[arg-type]  # Lightning checks it
    except (MisconfigurationException, ValueError) as error:
        raise UsageError(f"trainer: {' '.join(str(error).split())}") from error
    device = trainer.strategy.root_device
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"accelerator: expected cpu or gpu (CUDA), found {device.type}.")
    return device


def describe_device(device: torch.device) -> str:
    """What a person calls it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.processor() or platform.machine()} CPU, {torch.get_num_threads()} threads"


def peak_memory() -> dict[str, int]:
    """Bytes that this process has held at once so far, on the CPU and on its GPU."""
    unit = 1 if platform.system() == "Darwin" else 1024
    peak = {"cpu": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    if torch.cuda.is_available() and torch.cuda.max_memory_reserved():
        peak["cuda"] = torch.cuda.max_memory_reserved()
    return peak
