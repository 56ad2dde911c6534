"""Straight from clips: the whole job beside decoding alone and the CNN alone, by turns, by medians.

    python tests/benchmarks/straight.py FOLDER [--clips 6] [--rounds 5] [--profile]

Clips of 720p and 10 s, of which 64 frames are taken, through a ResNet-50. FOLDER keeps the clip.
"""

import argparse
import cProfile
import pstats
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import torch
from decode import make
from lightning.pytorch import Trainer

from featx import FeatureExtractor, FeatureWriter, VideoDataModule
from featx.progress import without_chatter


def run(extractor: FeatureExtractor, root: Path, out: Path) -> float:
    """Seconds of one job."""
    shutil.rmtree(out, ignore_errors=True)
    data = VideoDataModule(root, source="clips")
    with without_chatter():
        trainer = Trainer(
            accelerator="cpu",
            callbacks=[FeatureWriter(out)],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
        )
        begin = time.perf_counter()
        trainer.predict(extractor, datamodule=data, return_predictions=False)
    return time.perf_counter() - begin


def main() -> None:
    """Print frames a second of each, and what of the two one after the other the job reaches."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clips", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--profile", action="store_true")
    args = parser.parse_args()
    clip = args.folder / "720_300.mp4"
    if not clip.exists():
        args.folder.mkdir(parents=True, exist_ok=True)
        make(clip, 720, 1280, 300, 250)
    extractor = FeatureExtractor("resnet50", "random")
    num_frames = 64 * args.clips
    taken: dict[str, list[float]] = {"whole job": [], "decoding alone": [], "CNN alone": []}
    with tempfile.TemporaryDirectory() as name:
        root, out = Path(name) / "clips", Path(name) / "features"
        for number in range(args.clips):
            path = root / f"train/a/{number}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(clip, path)
        data = VideoDataModule(root, source="clips")
        data.setup("predict")
        frames = data.make_dataset()[0].videos[0]
        run(extractor, root, out)
        for _ in range(args.rounds):
            taken["whole job"].append(run(extractor, root, out))
            begin = time.perf_counter()
            for position in range(args.clips):
                data.make_dataset()[position]
            taken["decoding alone"].append(time.perf_counter() - begin)
            begin = time.perf_counter()
            with torch.inference_mode():
                for _ in range(args.clips):
                    extractor(frames)
            taken["CNN alone"].append(time.perf_counter() - begin)
        for key, seconds in taken.items():
            print(f"{key:16} {num_frames / statistics.median(seconds):6.1f} frames/s", seconds)
        both = statistics.median(map(sum, zip(*[*taken.values()][1:], strict=True)))
        print(f"of the two one after the other: {both / statistics.median(taken['whole job']):.0%}")
        if args.profile:
            profile = cProfile.Profile()
            profile.runcall(run, extractor, root, out)
            pstats.Stats(profile).sort_stats("tottime").print_stats(15)


if __name__ == "__main__":
    main()
