"""Repeated frames: a clip of 32 frames stretched to 64, against 64 distinct frames.

    python tests/benchmarks/repeats.py [--rounds 5]

ResNet-50 on the CPU, in float32; reading is included. It also tells the share of the check itself.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from featx import FeatureExtractor
from featx.backbones.runtime import keep_freed_memory
from featx.data.batches import VideoDataset, drop_repeats
from featx.data.manifest import ScanSettings
from featx.data.sources.processed import scan_processed


def main() -> None:
    """Print seconds per video, and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    keep_freed_memory()
    extractor = FeatureExtractor("resnet50", "random")
    distinct = torch.randint(0, 256, (64, 3, 256, 256), dtype=torch.uint8)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        path = Path(folder) / "train/category/a/processed_data.pt"
        path.parent.mkdir(parents=True)
        torch.save([distinct, distinct[:32].repeat_interleave(2, dim=0)], path)
        manifest = scan_processed(ScanSettings(Path(folder)))
        dataset = VideoDataset(manifest)
        seconds: tuple[list[float], ...] = ([], [])
        checks: list[float] = []
        for turn in range(rounds + 1):
            for position in (0, 1):
                start = time.perf_counter()
                extractor.predict_step(dataset[position])
                if turn:
                    seconds[position].append(time.perf_counter() - start)
            video = manifest.files[0].read(0).frames
            start = time.perf_counter()
            drop_repeats(video)
            checks.append(time.perf_counter() - start)
    plain, repeated = map(statistics.median, seconds)
    check = statistics.median(checks)
    print(f"64 distinct frames: {plain:.2f} s; 32, each twice: {repeated:.2f} s")
    print(f"ratio: {repeated / plain:.1%}; the check: {check * 1e3:.2f} ms, {check / plain:.2%}")


if __name__ == "__main__":
    main()
