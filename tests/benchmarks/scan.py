"""The scan of many small clips, the first time and the second: seconds, and the bytes read.

python tests/benchmarks/scan.py FOLDER [--clips 20000]
"""

import argparse
import os
import shutil
import time
from pathlib import Path

import numpy as np

from featx.data.manifest import ScanSettings
from featx.data.media.clip import write_clip
from featx.data.scan_cache import ScanCache
from featx.data.sources.clips import scan_clips

PER_FOLDER = 100


def read_bytes() -> int:
    """Bytes that this process has read so far, from disk or from memory."""
    fields = Path("/proc/self/io").read_text().split()
    return int(fields[fields.index("rchar:") + 1])


def make(folder: Path, count: int) -> int:
    """Clips of two seconds, of a few kinds, whose time of change is long ago; their bytes."""
    y, x = np.mgrid[:240, :320]
    frames = np.stack([np.stack([x + 3 * i, y + 2 * i, x + y + i], -1) for i in range(48)])
    models = []
    for suffix, codec in (("mp4", "libx264"), ("mkv", "libx264"), ("avi", "mpeg4")):
        models.append(folder / f"model.{suffix}")
        write_clip(models[-1], (frames % 256).astype(np.uint8), codec)
    total = 0
    for number in range(count):
        model = models[number % len(models)]
        place = folder / "root" / "train" / f"{number // PER_FOLDER:04}" / f"{number}{model.suffix}"
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(model, place)
        os.utime(place, (number, number))
        total += model.stat().st_size
    return total


def main() -> None:
    """Print the times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clips", type=int, default=20_000)
    args = parser.parse_args()
    shutil.rmtree(args.folder / "root", ignore_errors=True)
    shutil.rmtree(args.folder / "scan_cache", ignore_errors=True)
    args.folder.mkdir(exist_ok=True)
    total = make(args.folder, args.clips)
    print(f"{args.clips} clips, {total / 1e6:.0f} MB")
    for name in ("first", "second"):
        before, begin = read_bytes(), time.perf_counter()
        cache = ScanCache.load(args.folder / "scan_cache")
        scan_clips(ScanSettings(args.folder / "root", scan_cache=cache))
        cache.save(args.folder / "scan_cache")
        seconds = time.perf_counter() - begin
        print(f"{name} scan: {seconds:.1f} s, {(read_bytes() - before) / 1e6:.0f} MB read")


if __name__ == "__main__":
    main()
