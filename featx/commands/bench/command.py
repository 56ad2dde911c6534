"""`featx bench`: the plain loop, featx, the bare backbone and the ceiling, side by side."""

import json
import os
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from featx.backbones.architectures import BackboneName
from featx.commands.bench import measurements
from featx.commands.bench.measurements import FULL_SIZE, Settings, Workload
from featx.commands.bench.report import (
    estimate,
    format_estimate,
    format_table,
    plot,
    recommend,
)
from featx.commands.bench.rounds import Process, compete, make_videos
from featx.commands.parser import ConciseParser
from featx.data.manifest import Manifest
from featx.data.settings import VideoSettings
from featx.data.sources import choose_source
from featx.durable import expand, writing
from featx.errors import UsageError, check_at_least, check_installed
from featx.extraction.temporal import DEFAULT_SCALES, output_length
from featx.version import __version__

_CPU: tuple[BackboneName, ...] = ("resnet50", "efficientnet_v2_s")
_CUDA: tuple[BackboneName, ...] = (*_CPU, "resnet101", "efficientnet_v2_m")


def main(args: Sequence[str], summary: str) -> int:
    """Run `featx bench`; returns its exit status."""
    parser = ConciseParser(prog="featx bench", description=summary)
    parser.add_function_arguments(bench, skip={"workload", "process_type"})
    bench(**vars(parser.parse_args(args)))
    return 0


def bench(
    output_dir: Path = Path("featx_bench"),
    backbones: Sequence[BackboneName] | None = None,
    precisions: Sequence[str] = ("32-true", "bf16-mixed"),
    compile: bool = True,
    allow_tf32: bool = False,
    frames_per_forward: int | None = None,
    batch_size: int = 1,
    num_workers: int | None = None,
    accelerator: str = "auto",
    videos: int | None = None,
    rounds: int = 3,
    workload: Workload = FULL_SIZE,
    process_type: type[Process] = Process,
    **inputs: Any,  # noqa: ANN401  # fields of VideoSettings
) -> None:
    """Measure this machine, and recommend settings.

    Four contenders take turns, each in a process of its own, and their medians count: the plain
    loop over scales in float32, featx predict from start to published file, the bare backbone on
    frames in memory, and a large matrix product. The videos are made for it, 64 frames of
    256 x 256, and weights are random. A first run of one video is told apart: it compiles.

    Args:
        output_dir: Folder for bench.json, bench.png, bench.log, and meanwhile the videos.
        backbones: Which CNNs; by default, ResNet-50 and EfficientNetV2-S on a CPU, all on a GPU.
        precisions: Lightning's precisions.
        compile: Compile the backbone.
        allow_tf32: On CUDA, let float32 convolutions and matrix products use TF32.
        frames_per_forward: Frames per forward pass; by default, 16 on a CPU and 32 on a GPU.
        batch_size: Videos per step.
        num_workers: Processes that read videos; by default those of featx predict.
        accelerator: Lightning's accelerator: cpu, gpu, auto, ...
        videos: Number of videos; by default, 4 on a CPU and 100 on a GPU.
        rounds: How often each contender has its turn.
        workload: The videos and matrices to measure with.
        process_type: What each contender runs in.
        **inputs: With a root or a table, how long that data set takes and how much disk space its
            features need is estimated; see `VideoSettings`.

    Raises:
        UsageError: A setting is out of its range.
        MissingDependencyError: There is no matplotlib, or no compiler.
    """
    check_at_least(1, videos=videos, rounds=rounds, frames_per_forward=frames_per_forward)
    if not precisions:
        raise UsageError("precisions: expected one or more, found none.")
    check_installed("matplotlib.figure", "matplotlib", "plot")
    manifest = _scan(VideoSettings(**inputs))
    lengths = [] if manifest is None else manifest.lengths.tolist()
    output_dir = expand(output_dir)
    work = output_dir / "videos"
    with writing(output_dir), ExitStack() as stack:
        output_dir.mkdir(parents=True, exist_ok=True)
        stack.callback(shutil.rmtree, work, ignore_errors=True)
        with process_type(output_dir) as process:
            for precision in precisions:
                device = process.run(measurements.find_device, accelerator, precision)
            device_name = process.run(measurements.describe_device, device)
        on_cuda = device.type == "cuda"
        count = videos or (100 if on_cuda else 4)
        frames_per_forward = frames_per_forward or (32 if on_cuda else 16)
        make_videos(work, count, workload)
        measured = [
            measurement
            for backbone in backbones or (_CUDA if on_cuda else _CPU)
            for measurement in compete(
                work,
                [
                    Settings(
                        backbone=backbone,
                        precision=precision,
                        compile=compile,
                        allow_tf32=allow_tf32,
                        frames_per_forward=frames_per_forward,
                        batch_size=batch_size,
                        num_workers=num_workers,
                        accelerator=accelerator,
                        workload=workload,
                    )
                    for precision in precisions
                ],
                count,
                rounds,
                process_type,
            )
        ]
        with process_type(output_dir) as process:
            reading = process.run(
                measurements.probe_workers, work / "uint8", "bench", workload.num_workers
            )
        advice = recommend(measured, reading, os.cpu_count() or 1)
        rows = sum(output_length(length, DEFAULT_SCALES) for length in lengths)
        estimates = [] if manifest is None else estimate(measured, sum(lengths), rows)
        summary = {
            "featx": __version__,
            "torch": torch.__version__,
            "device": device_name,
            "cores": os.cpu_count(),
            "videos": count,
            "video_shape": [workload.num_frames, 3, workload.height, workload.width],
            "rounds": rounds,
            "measurements": [measurement.to_json() for measurement in measured],
            "videos_read_per_second": reading,
            "recommendations": advice,
            "estimates": estimates,
        }
        (output_dir / "bench.json").write_text(json.dumps(summary, indent=2) + "\n")
        plot(measured, output_dir / "bench.png")
    print(f"\n{device_name}; {count} videos, medians of {rounds} rounds\n")
    print(format_table(measured))
    print("\nRecommended:", *advice, sep="\n  ")
    if manifest is not None:
        print(format_estimate(estimates, manifest.root))
    print(f"\n{output_dir / 'bench.json'}\n{output_dir / 'bench.png'}")


def _scan(videos: VideoSettings) -> Manifest | None:
    """Return the videos of the data set that is to be estimated; None without one."""
    if videos == VideoSettings():
        return None
    settings = videos.to_scan()
    return choose_source(videos.source, settings).scan(settings)
