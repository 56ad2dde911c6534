"""From the shell's prompt to an answer: how long commands take before they do what they are for.

    python tests/benchmarks/startup.py [--rounds 5] [--before CHECKOUT]

Six clips of eight small frames are made for it. The floor of `predict` is the imports of torch,
torchvision and Lightning; the weights are random, which takes about as long as to read them.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from featx.data.media.clip import write_clip

IMPORTS = "import torch, torchvision, lightning.pytorch"
REACHED = 9
# The command, which ends as soon as the first frames have reached the backbone.
FIRST_FRAME = f"""
import os, sys
from featx import cli
from featx.extraction.extractor import FeatureExtractor
FeatureExtractor.predict_step = lambda *args: os._exit({REACHED})
sys.exit(cli.main(sys.argv[1:]))
"""


def make_clips(root: Path) -> None:
    """Six clips of eight frames."""
    rng = np.random.default_rng(0)
    for number in range(6):
        path = root / f"train/{'ab'[number % 2]}/{number}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_clip(path, rng.integers(0, 256, (8, 64, 64, 3), np.uint8))


def take(args: list[str], checkout: Path, status: int = 0) -> float:
    """Seconds of a command of Python."""
    env = os.environ | {"PYTHONPATH": str(checkout)}
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *args], env=env, cwd="/", capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - begin
    if done.returncode != status:
        raise SystemExit(f"{args}: {done.returncode}: {done.stderr[-2000:]}")
    return seconds


def main() -> None:
    """Let the commands take turns, and print medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--before", type=Path)
    args = parser.parse_args()
    checkouts = {"": Path(__file__).resolve().parents[2]}
    if args.before:
        checkouts["before: "] = args.before.resolve()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_clips(folder / "clips")
        job = ["predict", "--data.root", str(folder / "clips"), "--data.source", "clips"]
        job += ["--data.num_frames", "8", "--data.image_size", "64"]
        job += ["--model.backbone", "resnet50", "--model.weights", "random"]
        job += ["--trainer.accelerator", "cpu", "--writer.output_dir"]
        out, other = str(folder / "features"), str(folder / "other")
        take(["-m", "featx", *job, out], checkouts[""])
        [file] = (folder / "features").glob("*.h5")
        commands = {
            "imports": ["-c", IMPORTS],
            "featx --help": ["-m", "featx", "--help"],
            "featx inspect FILE": ["-m", "featx", "inspect", str(file)],
            "featx predict --help": ["-m", "featx", "predict", "--help"],
            "featx predict, to its first frame": ["-c", FIRST_FRAME, *job, other],
            "featx predict, six clips": ["-m", "featx", *job, out, "--writer.overwrite", "true"],
        }
        taken: dict[str, list[float]] = {}
        for _ in range(args.rounds):
            for name, command in commands.items():
                for prefix, checkout in checkouts.items():
                    status = REACHED if FIRST_FRAME in command else 0
                    seconds = take(command, checkout, status)
                    taken.setdefault(prefix + name, []).append(seconds)
        for name, found in taken.items():
            print(f"{name:42} {statistics.median(found):5.2f} s", sorted(found))


if __name__ == "__main__":
    main()
