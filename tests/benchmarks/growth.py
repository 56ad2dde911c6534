"""A data set that has grown by ten videos: the time of the rerun beside that of a fresh run.

python tests/benchmarks/growth.py FOLDER [--videos 10000] [--added 10]

The CNN is a stub, so that what is left shows: the scan, the plan, and the copy of finished rows.
"""

import argparse
import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn

from featx import FeatureExtractor, FeatureWriter, VideoDataModule
from featx.data.media.processed_file import save_videos
from featx.extraction import writer as writer_module
from featx.progress import without_chatter

NUM_FRAMES, SIZE, FEATURE_DIM, PER_FILE = 64, 8, 1280, 100


class Stub(nn.Module):
    """As fast as a CNN could be: the pixels of a frame, spread over its features."""

    def __init__(self, size: int = SIZE, feature_dim: int = FEATURE_DIM) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(3 * size * size, feature_dim, generator=generator))

    def forward(self, frames: Tensor) -> Tensor:
        """Features of frames `[B, 3, H, W]`."""
        return (frames.flatten(1) @ self.weight).relu()


def save(root: Path, count: int) -> None:
    """Videos in files of a hundred, each with a digest of its own."""
    for start in range(0, count, PER_FILE):
        place = root / "train" / f"{start // PER_FILE:05}" / "x"
        place.mkdir(parents=True, exist_ok=True)

        def videos(numbers: range) -> Any:  # noqa: ANN401
            for number in numbers:
                generator = torch.Generator().manual_seed(number)
                shape = (NUM_FRAMES, 3, SIZE, SIZE)
                pixels = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
                yield {"clips": f"{number}"}, pixels

        save_videos(place / "processed_data.pt", videos(range(start, min(start + PER_FILE, count))))


def run(root: Path, out: Path) -> tuple[float, dict[str, float], int]:
    """One run: its seconds, those of its steps, and the bytes of its file."""
    seconds: dict[str, float] = {}

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **settings: Any) -> Any:  # noqa: ANN401
            begin = time.perf_counter()
            try:
                return function(*args, **settings)
            finally:
                seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - begin

        return wrapped

    with ExitStack() as stack:
        for owner, name, what in (
            (VideoDataModule, "_scan", "scan"),
            (writer_module, "plan_files", "plan"),
            (writer_module, "merge_share", "copy"),
            (writer_module, "publish", "publish"),
        ):
            function = timed(what, getattr(owner, name))
            stack.enter_context(patch.object(owner, name, function))
        stack.enter_context(without_chatter())
        begin = time.perf_counter()
        writer = FeatureWriter(out)
        trainer = Trainer(
            accelerator="cpu",
            callbacks=[writer],
            logger=False,
            enable_checkpointing=False,
        )
        extractor = FeatureExtractor(Stub(), feature_dim=FEATURE_DIM)
        trainer.predict(extractor, VideoDataModule(root), return_predictions=False)
        total = time.perf_counter() - begin
    seconds["all else"] = total - sum(seconds.values())
    return total, seconds, writer.paths["train"].stat().st_size


def main() -> None:
    """Print the times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--videos", type=int, default=10_000)
    parser.add_argument("--added", type=int, default=10)
    args = parser.parse_args()
    root, out = args.folder / "root", args.folder / "out"
    for place in (root, out):
        shutil.rmtree(place, ignore_errors=True)
    for name, count in (
        ("fresh", args.videos),
        (f"{args.added} added", args.videos + args.added),
        ("nothing new", args.videos + args.added),
    ):
        save(root, count)
        total, seconds, size = run(root, out)
        steps = ", ".join(f"{step} {value:.1f} s" for step, value in seconds.items())
        rate = size / 1e6 / seconds["copy and publish"]
        print(f"{name}: {total:.1f} s ({steps}; {size / 1e6:.0f} MB, {rate:.0f} MB/s)")


if __name__ == "__main__":
    main()
