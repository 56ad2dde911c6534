"""The contenders of `featx bench` take turns, each in a process of its own."""

import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np
import torch
from torch.nn.functional import interpolate

from featx.backbones.transforms import normalize
from featx.commands.bench import measurements
from featx.commands.bench.measurements import Settings, Workload
from featx.commands.bench.report import Measurement
from featx.data.media.processed_file import FILE_NAME
from featx.errors import IncompleteError
from featx.features.feature_file import file_name

T = TypeVar("T")

_MAX_PLAIN_VIDEOS = 16  # more would take hours, and its time per video does not depend on them


class Process:
    """A process of its own, whose log is in a folder: nothing else leaves its traces there."""

    def __init__(self, folder: Path) -> None:
        self._log = folder / "bench.log"
        context = get_context("spawn")
        self._pool = ProcessPoolExecutor(1, context, measurements.prepare_process, (self._log,))

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *exception: object) -> None:
        self._pool.shutdown()

    def run(self, function: Callable[..., T], *args: Any) -> T:  # noqa: ANN401
        """Return what a function returns there, or raise an IncompleteError if it has died."""
        try:
            return self._pool.submit(function, *args).result()
        except BrokenProcessPool as error:
            raise IncompleteError(
                f"{self._log}: expected the benchmark to finish, found that a process was killed, "
                "perhaps for want of memory. See its last lines, or lower frames_per_forward."
            ) from error


def compete(
    work: Path,
    settings: Sequence[Settings],
    num_videos: int,
    rounds: int,
    process_type: type[Process] = Process,
) -> list[Measurement]:
    """Let the plain loop and featx, at several settings for one backbone, take turns.

    `work` is the folder of `make_videos`; each contender runs in a process of its own.
    """
    backbone, accelerator = settings[0].backbone, settings[0].accelerator
    workload = settings[0].workload
    num_frames = num_videos * workload.num_frames
    num_plain_frames = min(num_videos, _MAX_PLAIN_VIDEOS) * workload.num_frames
    plain_file = work / "plain.h5"
    rates: list[float] = []
    with ExitStack() as stack:
        plain, *others = (
            stack.enter_context(process_type(work.parent)) for _ in range(1 + len(settings))
        )

        def run_plain(split: str, exact: bool = False) -> float:
            args = backbone, accelerator, work / "float32" / split, plain_file, exact
            return plain.run(measurements.run_plain_loop, *args)

        def run_featx(process: Process, each: Settings, split: str) -> float:
            output_dir = work / each.precision
            shutil.rmtree(output_dir, ignore_errors=True)
            args = each, work / "uint8", split, output_dir
            return process.run(measurements.run_featx, *args)

        run_plain("warmup")
        measured = [
            Measurement(each, plain=rates, first_seconds=run_featx(process, each, "warmup"))
            for each, process in zip(settings, others, strict=True)
        ]
        for turn in range(1, rounds + 1):
            print(f"{backbone}: round {turn} of {rounds}", flush=True)
            rates.append(num_plain_frames / run_plain("bench"))
            for m, process in zip(measured, others, strict=True):
                m.featx.append(num_frames / run_featx(process, m.settings, "bench"))
                m.featx_memory = m.featx_memory or process.run(measurements.peak_memory)
                seconds = process.run(measurements.run_backbone, m.settings, num_frames)
                m.backbone.append(num_frames / seconds)
                m.ceiling.append(process.run(measurements.run_matrix_product, m.settings))
        memory = plain.run(measurements.peak_memory)
        if plain.run(measurements.find_device, accelerator).type == "cuda":
            run_plain("bench", exact=True)  # for errors are told from these features
        flop = plain.run(measurements.count_flop, backbone, workload.height, workload.width)
        with h5py.File(plain_file) as file:
            expected = file["features"][:]
        for m, process in zip(measured, others, strict=True):
            m.flop_per_frame, m.plain_memory = flop, memory
            m.passes = process.run(measurements.probe_passes, m.settings)
            path = work / m.settings.precision / file_name("bench", multi_scale=True)
            with h5py.File(path) as file:
                m.bytes_per_frame = path.stat().st_size / int(file["num_frames"][:].sum())
                difference = np.linalg.norm(file["features"][: len(expected)] - expected)
            m.relative_error = float(difference / np.linalg.norm(expected))
    return measured


def make_videos(folder: Path, count: int, workload: Workload) -> None:
    """Make videos of distinct frames, with detail at every scale, a file each.

    They are at `folder/uint8/<split>` as raw RGB, for featx, and at `folder/float32/<split>`
    normalized, as the plain loop takes them; the splits are bench, and warmup with one video.
    """
    generator = torch.Generator().manual_seed(0)
    for number in range(count):
        video = torch.zeros(workload.num_frames, 3, workload.height, workload.width)
        for size in (4, 16, 64, 256):
            detail = torch.rand(workload.num_frames, 3, size, size, generator=generator)
            shape = workload.height, workload.width
            video += interpolate(detail, shape) * torch.rand(1, generator=generator)
        video = (video / video.amax() * 255).to(torch.uint8)
        for split in ("bench", "warmup")[: 2 if number == 0 else 1]:
            place = Path(split) / "category" / f"{number:05d}" / FILE_NAME
            for kind, pixels in (("uint8", video), ("float32", normalize(video).contiguous())):
                if kind == "uint8" or number < _MAX_PLAIN_VIDEOS:
                    path = folder / kind / place
                    path.parent.mkdir(parents=True, exist_ok=True)
                    torch.save({"videos": pixels[None]}, path)
