"""The steps of `gpu.sh`, each in a process of its own, with the time that is left.

python tests/benchmarks/gpu.py OUT [--seconds 540] [--step NAME]
"""

import argparse
import json
import os
import platform
import resource
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

import featx
from featx import FeatureExtractor
from featx.commands.bench.command import bench
from featx.commands.bench.measurements import Workload
from featx.commands.bench.rounds import make_videos

ON_GPU = torch.cuda.is_available()
ACCELERATOR = "gpu" if ON_GPU else "cpu"
WORKLOAD = Workload() if ON_GPU else Workload(16, 64, 64, 256, (0, 2))
NUM_VIDEOS = 100 if ON_GPU else 4
CLIP = (720, 1280, 300) if ON_GPU else (192, 320, 60)  # height, width, frames
NUM_CLIPS = 48 if ON_GPU else 4
LARGE = 10_000  # videos, to which the whole job is extrapolated

Found = dict[str, Any]


def describe(folder: Path) -> Found:
    """The machine, and what runs on it."""
    names = ("torch", "torchvision", "lightning", "h5py", "numpy")
    found: Found = {
        name: str(sys.modules[name].__version__) for name in names if name in sys.modules
    }
    found |= {"python": platform.python_version(), "cores": os.cpu_count()}
    if ON_GPU:
        properties = torch.cuda.get_device_properties(0)
        found |= {"gpu": properties.name, "memory_gb": round(properties.total_memory / 2**30, 1)}
    for name, module in (("av", "av"), ("torchcodec", "featx.data.media.torchcodec")):
        try:
            __import__(module)
            found[name] = "there"
        except ImportError as error:
            found[name] = str(error)
    found["compiler"] = shutil.which("g++")
    return found


def extract(root: Path, out: Path, extractor: FeatureExtractor | None = None, **job: Any) -> Path:  # noqa: ANN401
    """A job over one split; the path of its file."""
    shutil.rmtree(out, ignore_errors=True)
    if extractor is None:
        [path] = featx.extract(root, out, **({"accelerator": ACCELERATOR} | job)).values()
        return path
    from lightning.pytorch import Trainer

    writer = featx.FeatureWriter(out)
    trainer = Trainer(
        accelerator=ACCELERATOR, callbacks=[writer], logger=False, enable_checkpointing=False
    )
    trainer.predict(extractor, featx.VideoDataModule(root, ["bench"]), return_predictions=False)
    return out / "bench_features_multiscale.h5"


def read(path: Path) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The features of a file."""
    with h5py.File(path) as file:
        found: np.ndarray[Any, np.dtype[np.float32]] = file["features"][:]
    return found


def peak_memory() -> Found:
    """Megabytes of the process and of the GPU, at most."""
    found: Found = {"process_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}
    if ON_GPU:
        found["gpu_mb"] = torch.cuda.max_memory_allocated() // 2**20
    return found


def equality(folder: Path) -> Found:
    """How far a GPU's features are from a CPU's, and whether a second run has the same bytes."""
    make_videos(folder, 3, WORKLOAD)
    job: Found = {"weights": "random", "splits": ["bench"]}
    found: Found = {}
    for backbone in ("resnet50", "efficientnet_v2_s"):
        variants: dict[str, Found] = {
            "cpu": {"accelerator": "cpu"},
            "32-true": {},
            "32-true again": {},
            "TF32": {"allow_tf32": True},
            "bf16-mixed": {"precision": "bf16-mixed"},
            "16-mixed": {"precision": "16-mixed"} if ON_GPU else {},
        }
        paths = {
            name: extract(folder / "uint8", folder / name, backbone=backbone, **job, **variant)
            for name, variant in variants.items()
        }
        expected = read(paths["cpu"])
        found[backbone] = {
            name: float(np.linalg.norm(read(path) - expected) / np.linalg.norm(expected))
            for name, path in paths.items()
        }
        same = paths["32-true"].read_bytes() == paths["32-true again"].read_bytes()
        found[backbone]["two runs have the same bytes"] = same
    return found


def whole_job(folder: Path) -> Found:
    """A data set from start to published file, and what a large one would take."""
    make_videos(folder, NUM_VIDEOS, WORKLOAD)
    found: Found = {}
    for backbone, precision in (("resnet50", "32-true"), ("efficientnet_v2_m", "bf16-mixed")):
        job: Found = {"backbone": backbone, "weights": "random", "precision": precision}
        seconds: dict[str, float] = {}
        for split in ("warmup", "bench"):  # of one video, and of all
            begin = time.perf_counter()
            extract(folder / "uint8", folder / "out", splits=[split], **job)
            seconds[split] = time.perf_counter() - begin
        one, many = seconds["warmup"], seconds["bench"]
        each = (many - one) / (NUM_VIDEOS - 1)
        found[f"{backbone}, {precision}"] = {
            "1 video, s": one,
            f"{NUM_VIDEOS} videos, s": many,
            "frames/s": WORKLOAD.num_frames / each,
            f"{LARGE} videos, hours": (one + (LARGE - 1) * each) / 3600,
        } | peak_memory()
    return found


def from_clips(folder: Path) -> Found:
    """Straight from clips, decoded on the CPU and on the GPU."""
    from decode import make

    height, width, count = CLIP
    first = folder / "clips/train/a/0.mp4"
    first.parent.mkdir(parents=True)
    make(first, height, width, count, gop=250)
    for number in range(1, NUM_CLIPS):
        shutil.copy(first, first.with_name(f"{number}.mp4"))
    job: Found = {"backbone": "resnet50", "weights": "random", "source": "clips"}
    job |= {"num_frames": WORKLOAD.num_frames, "image_size": WORKLOAD.height}
    found: Found = {}
    features = {}
    num_workers = min(8, os.cpu_count() or 1)
    ways: dict[str, Found] = {
        "pyav": {},
        "torchcodec, workers": {"decoder": "torchcodec", "num_workers": num_workers},
        "torchcodec, this process": {"decoder": "torchcodec", "num_workers": 0},
    }
    for name, settings in ways.items():
        begin = time.perf_counter()
        try:
            path = extract(folder / "clips", folder / name, **job, **settings)
        except featx.FeatxError as error:
            found[name] = str(error)
            continue
        seconds = time.perf_counter() - begin
        features[name] = read(path)
        off = np.linalg.norm(features[name] - features["pyav"]) / np.linalg.norm(features["pyav"])
        found[name] = {"frames/s": NUM_CLIPS * WORKLOAD.num_frames / seconds, "off": float(off)}
    return found | peak_memory()


def compiled(folder: Path) -> Found:
    """Compiled or not, twice in one process with one extractor."""
    if not shutil.which("g++"):
        return {"left out": "there is no C++ compiler"}
    make_videos(folder, max(NUM_VIDEOS // 4, 2), WORKLOAD)
    found: Found = {}
    features = {}
    for is_compiled in (False, True):
        extractor = FeatureExtractor("efficientnet_v2_s", "random", compile=is_compiled)
        seconds, paths = [], []
        for turn in range(2):
            begin = time.perf_counter()
            paths.append(extract(folder / "uint8", folder / f"{is_compiled} {turn}", extractor))
            seconds.append(time.perf_counter() - begin)
        features[is_compiled] = read(paths[0])
        found["compiled" if is_compiled else "not compiled"] = {
            "first run, s": seconds[0],
            "second run, s": seconds[1],
            "same bytes": paths[0].read_bytes() == paths[1].read_bytes(),
        } | peak_memory()
    off = np.linalg.norm(features[True] - features[False]) / np.linalg.norm(features[False])
    return found | {"off": float(off)}


def benchmark(folder: Path) -> Found:
    """`featx bench` for the four backbones."""
    bench(
        folder / "bench",
        ["resnet50", "efficientnet_v2_s", "resnet101", "efficientnet_v2_m"],
        ["32-true", "bf16-mixed"],
        compile=False,
        accelerator=ACCELERATOR,
        videos=24 if ON_GPU else 2,
        rounds=1,
        workload=WORKLOAD,
    )
    shutil.copy(folder / "bench/bench.json", folder.parent / "bench.json")
    return {"table": str(folder.parent / "bench.json")}


STEPS: dict[str, Callable[[Path], Found]] = {  # the most worth knowing first
    "machine": describe,
    "equality": equality,
    "whole job": whole_job,
    "from clips": from_clips,
    "compile": compiled,
    "bench": benchmark,
}


def main() -> None:
    """Run the steps that the time is enough for, and write what they found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=540)
    parser.add_argument("--step", choices=STEPS)
    args = parser.parse_args()
    if args.step:
        warnings.simplefilter("ignore")
        folder = args.out / args.step.replace(" ", "_")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            found = STEPS[args.step](folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        (args.out / "step.json").write_text(json.dumps(found))
        return
    args.out.mkdir(parents=True, exist_ok=True)
    results: Found = {}
    end = time.monotonic() + args.seconds - 5
    for name in STEPS:
        begin = time.monotonic()
        command = [sys.executable, __file__, str(args.out), "--step", name]
        (args.out / "step.json").unlink(missing_ok=True)
        with (args.out / "gpu.log").open("a") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
            try:
                failure = f"status {process.wait(max(end - begin, 1))}: see gpu.log"
            except subprocess.TimeoutExpired:
                failure = "left out, or ended: there was no time left"
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        written = args.out / "step.json"
        found = json.loads(written.read_text()) if written.exists() else {"failed": failure}
        results[name] = found | {"seconds": round(time.monotonic() - begin, 1)}
        print(f"{name}: {json.dumps(results[name], indent=2)}", flush=True)
        (args.out / "gpu.json").write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
