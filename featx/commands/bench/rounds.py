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
    """A process of its own, for what is to be measured without the traces of anything else.

    Args:
        folder: Where its log goes.
    """

    def __init__(self, folder: Path) -> None:
        self._log = folder / "bench.log"
        context = get_context("spawn")
        self._pool = ProcessPoolExecutor(1, context, measurements.prepare_process, (self._log,))

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *exception: object) -> None:
        self._pool.shutdown()

    def run(self, function: Callable[..., T], *args: Any) -> T:  # noqa: ANN401
        """What a function returns there.

        Raises:
            IncompleteError: The process has died.
        """
        try:
            return self._pool.submit(function, *args).result()
        except BrokenProcessPool as error:
            raise IncompleteError(
                f"{self._log}: expected the benchmark to finish, found that a process was killed, "
                "perhaps for want of memory. See its last lines, or lower frames_per_forward."
            ) from error


class Entry:
    """featx at some settings, and what was measured of it.

    Args:
        settings: The settings.
        process: Where it runs.
        work: Folder of the videos.
    """

    def __init__(self, settings: Settings, process: Process, work: Path) -> None:
        self.settings = settings
        self._process = process
        self._root, self._out = work / "uint8", work / settings.precision
        self._featx: list[float] = []
        self._backbone: list[float] = []
        self._ceiling: list[float] = []
        self._memory: dict[str, int] = {}
        self._first_seconds = self._run("warmup")

    def take_turn(self, num_frames: int) -> None:
        """Measure featx, the bare backbone and the matrix product once."""
        self._featx.append(num_frames / self._run("bench"))
        self._memory = self._memory or self._process.run(measurements.peak_memory)
        seconds = self._process.run(measurements.run_backbone, self.settings, num_frames)
        self._backbone.append(num_frames / seconds)
        self._ceiling.append(self._process.run(measurements.run_matrix_product, self.settings))

    def conclude(
        self, plain_file: Path, plain: Sequence[float], plain_memory: dict[str, int]
    ) -> Measurement:
        """Put what was measured beside the plain loop's file, rates and memory."""
        path = self._out / file_name("bench", multi_scale=True)
        workload = self.settings.workload
        with h5py.File(path) as file, h5py.File(plain_file) as expected:
            bytes_per_frame = path.stat().st_size / int(file["num_frames"][:].sum())
            features = expected["features"][:]
            difference = np.linalg.norm(file["features"][: len(features)] - features)
        return Measurement(
            settings=self.settings,
            flop_per_frame=self._process.run(
                measurements.count_flop, self.settings.backbone, workload.height, workload.width
            ),
            plain=plain,
            featx=self._featx,
            backbone=self._backbone,
            ceiling=self._ceiling,
            plain_memory=plain_memory,
            featx_memory=self._memory,
            first_seconds=self._first_seconds,
            relative_error=float(difference / np.linalg.norm(features)),
            passes=self._process.run(measurements.probe_passes, self.settings),
            bytes_per_frame=bytes_per_frame,
        )

    def _run(self, split: str) -> float:
        shutil.rmtree(self._out, ignore_errors=True)
        args = self.settings, self._root, split, self._out
        return self._process.run(measurements.run_featx, *args)


def compete(
    work: Path,
    settings: Sequence[Settings],
    num_videos: int,
    rounds: int,
    process_type: type[Process] = Process,
) -> list[Measurement]:
    """Let the plain loop and featx, at several settings for one backbone, take turns.

    Args:
        work: Folder of the videos, see `make_videos`.
        settings: The settings.
        num_videos: Number of videos.
        rounds: How often each has its turn.
        process_type: What each runs in.
    """
    num_frames = settings[0].workload.num_frames
    backbone, accelerator = settings[0].backbone, settings[0].accelerator
    num_plain_frames = min(num_videos, _MAX_PLAIN_VIDEOS) * num_frames
    plain_file = work / "plain.h5"
    rates = []
    with ExitStack() as stack:
        plain, *others = (
            stack.enter_context(process_type(work.parent)) for _ in range(1 + len(settings))
        )

        def run_plain(split: str, exact: bool = False) -> float:
            args = backbone, accelerator, work / "float32" / split, plain_file, exact
            return plain.run(measurements.run_plain_loop, *args)

        run_plain("warmup")
        entries = [
            Entry(each, process, work) for each, process in zip(settings, others, strict=True)
        ]
        for turn in range(1, rounds + 1):
            print(f"{backbone}: round {turn} of {rounds}", flush=True)
            rates.append(num_plain_frames / run_plain("bench"))
            for entry in entries:
                entry.take_turn(num_videos * num_frames)
        memory = plain.run(measurements.peak_memory)
        if plain.run(measurements.find_device, accelerator).type == "cuda":
            run_plain("bench", exact=True)  # for errors are told from these features
        return [entry.conclude(plain_file, rates, memory) for entry in entries]


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
