"""A table of a million rows over a thousand clips: how long its plan takes, and how much memory.

python tests/benchmarks/table.py [--rows 1000000] [--clips 1000]
"""

import argparse
import random
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from featx import VideoDataModule
from featx.data.media.clip import write_clip
from featx.extraction.record import plan_layout


def main() -> None:
    """Make the clips and the table, and plan a file of it as a run does."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--clips", type=int, default=1_000)
    args = parser.parse_args()
    random.seed(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        noise = np.random.default_rng(0).integers(0, 256, (250, 16, 16, 3), np.uint8)
        write_clip(folder / "0.mp4", noise, rate=25)
        content = (folder / "0.mp4").read_bytes()
        for number in range(1, args.clips):
            (folder / f"{number}.mp4").write_bytes(content)
        with (folder / "table.csv").open("w") as file:
            file.write("path,label,start,end,signer,translation\n")
            for row in range(args.rows):
                start = random.uniform(0, 8)
                file.write(
                    f"{row % args.clips}.mp4,sign {row % 997},{start:.3f},{start + 1:.3f},"
                    f"{row % 50},the sentence of row {row}\n"
                )
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        begin = time.perf_counter()
        data = VideoDataModule(table=folder / "table.csv")
        data.setup("predict")
        scanned = time.perf_counter() - begin
        run = {"multi_scale": True, "scales": [1.0, 0.85, 1.15]}
        layout = plan_layout(data.manifest, "all", 1280, run)
        planned = time.perf_counter() - begin
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(
            f"{len(layout.labels)} rows of {args.clips} clips: scanned in {scanned:.1f} s, planned "
            f"in {planned:.1f} s, {after / 2**20:.2f} GB at most, {before / 2**20:.2f} GB of them "
            "for imports"
        )


if __name__ == "__main__":
    main()
