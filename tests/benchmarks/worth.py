"""How long `featx probe` and `featx inspect --duplicates` take, and how much memory.

python tests/benchmarks/worth.py FOLDER [--videos 1000 20000] [--frames 64] [--dim 1280]
    [--categories 100] [--page]

Features are made up: categories are clouds, and 0.5 % of the test videos are in train, too, nearly.
Each command runs in a process of its own.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np

from featx.features.feature_file import FileLayout, create, encode, file_name, write_row
from featx.features.provenance import Provenance
from featx.parallel import count_cores, map_ahead

SPLITS = {"train": 0.7, "val": 0.15, "test": 0.15}


def make(folder: Path, videos: int, frames: int, dim: int, categories: int) -> int:
    """Write the files, unless they are there; the number of copies in test."""
    folder.mkdir(parents=True, exist_ok=True)
    centres = np.random.default_rng(0).standard_normal((categories, dim)).astype("f4")
    copies = int(0.005 * SPLITS["test"] * videos)
    for number, (split, share) in enumerate(SPLITS.items()):
        path, count = folder / file_name(split, True), round(share * videos)
        if path.exists():
            continue
        labels = np.arange(count) % categories
        made = Provenance({f"{i:04}": i for i in range(categories)}, True, {"backbone": "made up"})
        layout = FileLayout.plan(
            labels,
            np.full(count, frames, np.int32),
            [f"{split}/{i:07}.mp4" for i in range(count)],
            dim,
            replace(made, runs=[made.last_bits()]),
        )

        def draw(
            row: int, number: int = number, layout: FileLayout = layout, split: str = split
        ) -> list[bytes]:
            is_copy = split == "test" and row < copies
            rng = np.random.default_rng((0, row) if is_copy else (number, row))
            video = 0.3 * centres[row % categories] + rng.standard_normal(dim, np.float32)
            video = np.maximum(video + 0.5 * rng.standard_normal((frames, dim), np.float32), 0)
            if is_copy:
                video += 0.05 * np.random.default_rng(row).standard_normal(video.shape, np.float32)
            return encode(video, layout)

        with h5py.File(path, "w") as file:
            create(file, layout)
            for row, chunks in map_ahead(draw, range(count), count_cores(), "drawing"):
                write_row(file, row, chunks.result())
    return copies


def run(*args: str) -> tuple[float, float, str]:
    """Run a command of featx: its seconds, its peak memory in MB, and its output."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "featx", *args], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    out = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, out
    return time.perf_counter() - start, usage.ru_maxrss / 1024, out


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--videos", type=int, nargs="+", default=[1000, 20_000])
    parser.add_argument("--frames", type=int, default=64)
    parser.add_argument("--dim", type=int, default=1280)
    parser.add_argument("--categories", type=int, default=100)
    parser.add_argument("--page", action="store_true")
    settings = parser.parse_args()
    sizes = (settings.frames, settings.dim, settings.categories)
    for videos in settings.videos:
        folder = settings.folder / "-".join(map(str, (videos, *sizes)))
        copies = make(folder, videos, *sizes)
        megabytes = sum(path.stat().st_size for path in folder.glob("*.h5")) / 1e6
        print(f"{videos:,} videos, {settings.frames} frames, {megabytes:,.0f} MB", flush=True)
        for pool in ("mean", "thirds"):
            seconds, memory, out = run("probe", str(folder), "--pool", pool, "--json")
            accuracy = json.loads(out)["features"][0]["probes"]["linear"]["accuracy"]["value"]
            print(f"  probe --pool {pool}: {seconds:.0f} s, {memory:,.0f} MB, {accuracy:.3f}")
        page = ["--html", str(folder / "page.html")] if settings.page else []
        seconds, memory, out = run("inspect", str(folder), "--duplicates", "--json", *page)
        found = json.loads(out)["duplicates"]
        right = sum(p["first"]["row"] == p["second"]["row"] for p in found["leaks"])
        print(
            f"  inspect --duplicates {' '.join(page[:1])}: {seconds:.0f} s, {memory:,.0f} MB, "
            f"{right} of {copies} leaks, {len(found['leaks']) + len(found['duplicates']) - right} "
            "false",
            flush=True,
        )


if __name__ == "__main__":
    main()
