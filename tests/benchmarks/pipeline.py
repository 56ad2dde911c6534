"""Everything but the CNN: uint8 video read, normalized, gathered, compressed and written.

    python tests/benchmarks/pipeline.py [--videos 40] [--workers 0 2] [--cold] [--profile]

A stub takes the place of the backbone and returns at once features that compress as real ones do.
Without --cold, the videos are in the kernel's cache; with it (Linux, as root), they are not.
"""

import argparse
import cProfile
import os
import pstats
import statistics
import tempfile
import time
from pathlib import Path

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn

from featx import FeatureExtractor, FeatureWriter, VideoDataModule

NUM_FRAMES, SIZE, FEATURE_DIM = 64, 256, 1280


class Stub(nn.Module):
    """Half of its features are zero, as after a ReLU."""

    def __init__(self) -> None:
        super().__init__()
        features = torch.randn(256, FEATURE_DIM, generator=torch.Generator().manual_seed(0))
        self.features = nn.Parameter(features.relu(), requires_grad=False)

    def forward(self, frames: Tensor) -> Tensor:
        """The same features, whatever the frames."""
        return self.features[: len(frames)]


def run(extractor: FeatureExtractor, root: Path, out: Path, num_workers: int) -> float:
    """Seconds of one job."""
    data = VideoDataModule(root, num_workers=num_workers)
    start = time.perf_counter()
    trainer = Trainer(
        accelerator="cpu",
        callbacks=[FeatureWriter(out, overwrite=True)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
    )
    trainer.predict(extractor, datamodule=data, return_predictions=False)
    return time.perf_counter() - start


def main() -> None:
    """Print MB/s for each number of workers, medians of alternating runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=int, default=40)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--profile", action="store_true")
    args = parser.parse_args()
    extractor = FeatureExtractor("efficientnet_v2_s", "random")
    extractor.backbone = Stub()
    with tempfile.TemporaryDirectory() as folder:
        root, generator = Path(folder) / "processed", torch.Generator().manual_seed(0)
        for number in range(args.videos):
            path = root / f"train/category/{number:04d}/processed_data.pt"
            path.parent.mkdir(parents=True)
            shape = (1, NUM_FRAMES, 3, SIZE, SIZE)
            torch.save(torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator), path)
        os.sync()
        megabytes = args.videos * NUM_FRAMES * 3 * SIZE**2 / 1e6
        rates: dict[int, list[float]] = {number: [] for number in args.workers}
        for turn in range(args.rounds):
            for number in args.workers:
                if args.cold:
                    Path("/proc/sys/vm/drop_caches").write_text("3")
                out = Path(folder) / f"{number}-{turn}"
                rates[number].append(megabytes / run(extractor, root, out, number))
        for number, found in rates.items():
            print(f"{number} workers: {statistics.median(found):.0f} MB/s", found)
        if args.profile:
            profile = cProfile.Profile()
            profile.runcall(run, extractor, root, Path(folder) / "profile", args.workers[-1])
            pstats.Stats(profile).sort_stats("tottime").print_stats(25)


if __name__ == "__main__":
    main()
