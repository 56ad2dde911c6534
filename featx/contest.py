"""The contenders of `featx bench` take turns, each in a process of its own."""

import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np
import torch
from torch.nn.functional import interpolate

from featx import contenders
from featx.backbones import normalize
from featx.bench_report import Measurement
from featx.contenders import HEIGHT, NUM_FRAMES, WIDTH, Settings
from featx.feature_file import file_name
from featx.headers import FILE_NAME

T = TypeVar("T")

_MAX_PLAIN_VIDEOS = 16  # more would take hours, and its time per video does not depend on them


class Process:
    """A process of its own, for what is to be measured without the traces of anything else.

    Args:
        folder: Where its log goes.
    """

    def __init__(self, folder: Path) -> None:
        self._pool = ProcessPoolExecutor(
            1, get_context("spawn"), contenders.prepare_process, (folder / "bench.log",)
        )

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *exception: object) -> None:
        self._pool.shutdown()

    def run(self, function: Callable[..., T], *args: Any) -> T:  # noqa: ANN401
        """What a function returns there."""
        return self._pool.submit(function, *args).result()


def compete(
    work: Path, settings: Sequence[Settings], num_videos: int, rounds: int
) -> list[Measurement]:
    """Let the contenders for one backbone take turns."""
    backbone, accelerator = settings[0].backbone, settings[0].accelerator
    num_frames = num_videos * NUM_FRAMES
    num_plain = min(num_videos, _MAX_PLAIN_VIDEOS) * NUM_FRAMES
    plain_file = work / "plain.h5"
    plain_rates: list[float] = []
    rates: list[dict[str, list[float]]] = [
        {"featx": [], "backbone": [], "ceiling": []} for _ in settings
    ]
    memory: list[dict[str, int]] = [{} for _ in settings]
    with ExitStack() as stack:
        plain, *others = (
            stack.enter_context(Process(work.parent)) for _ in range(1 + len(settings))
        )

        def run_plain(split: str) -> float:
            folder = work / "float32" / split
            return plain.run(contenders.run_plain_loop, backbone, accelerator, folder, plain_file)

        def run_featx(number: int, split: str) -> float:
            shutil.rmtree(work / f"out-{number}", ignore_errors=True)
            args = settings[number], work / "uint8", split, work / f"out-{number}"
            return others[number].run(contenders.run_featx, *args)

        run_plain("warmup")
        first_seconds = [run_featx(number, "warmup") for number in range(len(settings))]
        for turn in range(1, rounds + 1):
            print(f"{backbone}: round {turn} of {rounds}", flush=True)
            plain_rates.append(num_plain / run_plain("bench"))
            for number, (each, process) in enumerate(zip(settings, others, strict=True)):
                found = rates[number]
                found["featx"].append(num_frames / run_featx(number, "bench"))
                memory[number] = memory[number] or process.run(contenders.peak_memory)
                seconds = process.run(contenders.run_backbone, each, num_frames)
                found["backbone"].append(num_frames / seconds)
                found["ceiling"].append(process.run(contenders.run_matrix_product, each))
        flop = plain.run(contenders.count_flop, backbone)
        plain_memory = plain.run(contenders.peak_memory)
        passes = [
            process.run(contenders.probe_passes, each)
            for each, process in zip(settings, others, strict=True)
        ]
    measurements = []
    for number, each in enumerate(settings):
        path = work / f"out-{number}" / file_name("bench", multi_scale=True)
        with h5py.File(path) as file, h5py.File(plain_file) as expected:
            bytes_per_frame = path.stat().st_size / int(file["num_frames"][:].sum())
            features = expected["features"][:]
            error = np.linalg.norm(file["features"][: len(features)] - features)
            relative_error = float(error / np.linalg.norm(features))
        measurements.append(
            Measurement(
                each,
                flop,
                plain_rates,
                plain_memory=plain_memory,
                featx_memory=memory[number],
                first_seconds=first_seconds[number],
                relative_error=relative_error,
                passes=passes[number],
                bytes_per_frame=bytes_per_frame,
                **rates[number],
            )
        )
    return measurements


def make_videos(folder: Path, count: int) -> None:
    """Make videos of distinct frames, with detail at every scale, a file each.

    They are at `folder/uint8/<split>` as raw RGB, for featx, and at `folder/float32/<split>`
    normalized, as the plain loop takes them; the splits are bench, and warmup with one video.
    """
    generator = torch.Generator().manual_seed(0)
    for number in range(count):
        video = torch.zeros(NUM_FRAMES, 3, HEIGHT, WIDTH)
        for size in (4, 16, 64, 256):
            detail = torch.rand(NUM_FRAMES, 3, size, size, generator=generator)
            video += interpolate(detail, (HEIGHT, WIDTH)) * torch.rand(1, generator=generator)
        video = (video / video.amax() * 255).to(torch.uint8)
        for split in ("bench", "warmup")[: 2 if number == 0 else 1]:
            place = Path(split) / "category" / f"{number:05d}" / FILE_NAME
            for kind, pixels in (("uint8", video), ("float32", normalize(video).contiguous())):
                if kind == "uint8" or number < _MAX_PLAIN_VIDEOS:
                    path = folder / kind / place
                    path.parent.mkdir(parents=True, exist_ok=True)
                    torch.save({"videos": pixels[None]}, path)
