"""Two processes, one of half the speed: blocks that are taken as they come, against fixed shares.

    python tests/benchmarks/slowed.py [--videos 2000] [--seconds 0.02]

The CNN is a stub that sleeps, so that the two do not compete for cores. Of one fast process and one
of half its speed, the ideal takes two thirds of the time of the fast one alone.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))  # for helpers, in the children of a run, too

from helpers import random_videos

from featx import FeatureExtractor, FeatureWriter, VideoDataModule
from featx.data.batches import VideoBatch
from featx.data.sampler import cut_shares
from featx.extraction import datamodule


class Stub(nn.Module):
    """Features that are the mean of a frame's colours."""

    def forward(self, frames: Tensor) -> Tensor:
        """`[B, 3, H, W]` to `[B, 3]`."""
        return frames.mean(dim=(2, 3))


class Sleeper(FeatureExtractor):
    """Takes a fixed time a batch, and rank 1 takes twice as much."""

    seconds = 0.0
    begin = 0.0

    def predict_step(self, batch: VideoBatch, batch_idx: int = 0) -> list[Tensor]:
        """Sleep in proportion."""
        self.begin = self.begin or time.time()
        features = super().predict_step(batch, batch_idx)
        time.sleep(self.seconds * (1 + self.global_rank))
        return features

    def on_predict_end(self) -> None:
        """Tell when this process was at work."""
        spans = Path(os.environ["SPANS"])
        (spans / f"{self.global_rank}.json").write_text(json.dumps([self.begin, time.time()]))


def work(root: Path, out: Path, ranks: int, seconds: float, are_fixed: bool) -> None:
    """One process of a run."""
    if are_fixed:  # one block for each process, as large as all others
        setattr(datamodule, "cut_blocks", lambda lengths, ranks, _: cut_shares(lengths, ranks))  # noqa: B010
    extractor = Sleeper(Stub(), feature_dim=3, multi_scale=False)
    extractor.seconds = seconds
    trainer = Trainer(
        accelerator="cpu",
        devices=ranks,
        callbacks=[FeatureWriter(out)],
        logger=False,
        enable_progress_bar=False,
    )
    data = VideoDataModule(root, num_workers=0)
    trainer.predict(extractor, data, return_predictions=False)


def measure(root: Path, folder: Path, ranks: int, seconds: float, fixed: str = "") -> float:
    """Seconds from the first batch of any process to the end of the last one."""
    folder.mkdir()
    arguments = [str(root), str(folder / "out"), str(ranks), str(seconds), fixed]
    environment = os.environ | {"SPANS": str(folder)}
    subprocess.run([sys.executable, __file__, "--work", *arguments], env=environment, check=True)
    spans = [json.loads(path.read_text()) for path in folder.glob("?.json")]
    return float(max(end for _, end in spans) - min(begin for begin, _ in spans))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=0.02, help="of a batch of one video")
    parser.add_argument("--work", nargs=5, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        root, out, ranks, seconds, fixed = given.work
        work(Path(root), Path(out), int(ranks), float(seconds), bool(fixed))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        place = folder / "processed" / "train" / "a" / "x"
        place.mkdir(parents=True)
        torch.save(random_videos(given.videos, 2), place / "processed_data.pt")
        alone = measure(folder / "processed", folder / "one", 1, given.seconds)
        ideal = alone / 1.5
        blocks = measure(folder / "processed", folder / "blocks", 2, given.seconds)
        fixed = measure(folder / "processed", folder / "fixed", 2, given.seconds, "fixed")
    print(f"one fast process: {alone:.1f} s; ideal of a fast one and a slow one: {ideal:.1f} s")
    print(f"blocks as they come: {blocks:.1f} s, {blocks / ideal - 1:+.1%}")
    print(f"fixed shares: {fixed:.1f} s, {fixed / ideal - 1:+.1%}")


if __name__ == "__main__":
    main()
