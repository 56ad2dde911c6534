"""A run of very many videos of few pixels, with a stub for the CNN, by two processes.

python tests/benchmarks/many.py FOLDER [--videos 1000000] [--rows-per-file 100000] [--devices 2]

For a tenth of the videos, and for all: videos a second, the peak memory of each process (what is
its own, and what is mapped from files), and how many files there were in the staging folder at
most. FOLDER keeps the data sets for the next time.
"""

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from growth import Stub
from lightning.pytorch import Trainer
from torch import Tensor

from featx import FeatureExtractor, FeatureWriter, VideoDataModule
from featx.data.media.processed_file import save_videos
from featx.progress import without_chatter

NUM_FRAMES, SIZE, FEATURE_DIM, PER_FILE = 4, 4, 16, 1_000
BATCH_SIZE = 32
SAMPLE_SECONDS = 1.0


def save(root: Path, count: int) -> None:
    """Videos of few pixels, each other than all others, in files of a thousand."""
    for start in range(0, count, PER_FILE):
        place = root / "train" / f"{start // PER_FILE // 10:05}" / f"{start // PER_FILE % 10}"
        place.mkdir(parents=True, exist_ok=True)
        generator = torch.Generator().manual_seed(start)
        shape = (PER_FILE, NUM_FRAMES, 3, SIZE, SIZE)
        pixels = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)

        def videos(start: int = start, pixels: Tensor = pixels) -> Iterator[Any]:
            for number in range(min(PER_FILE, count - start)):
                yield {"clips": f"{start + number}.mp4"}, pixels[number]

        save_videos(place / "processed_data.pt", videos())


def work(root: Path, out: Path, devices: int, rows_per_file: int | None) -> None:
    """What each process of the run does."""
    with without_chatter():
        trainer = Trainer(
            accelerator="cpu",
            devices=devices,
            callbacks=[FeatureWriter(out, rows_per_file=rows_per_file)],
            logger=False,
            enable_checkpointing=False,
        )
        extractor = FeatureExtractor(Stub(SIZE, FEATURE_DIM), feature_dim=FEATURE_DIM)
        data = VideoDataModule(root, batch_size=BATCH_SIZE)
        trainer.predict(extractor, data, return_predictions=False)


def find_memory(session: int) -> Iterator[tuple[int, int, int]]:
    """The processes of a session: number, and kilobytes of its own and mapped from files."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError):
            if int((folder / "stat").read_text().rpartition(")")[2].split()[3]) == session:
                words = (folder / "status").read_text().split()
                own, mapped = (int(words[words.index(n) + 1]) for n in ("RssAnon:", "RssFile:"))
                yield int(folder.name), own, mapped


def measure(args: argparse.Namespace, out: Path, count: int) -> None:
    """Watch a run from outside."""
    command = [sys.executable, __file__, str(args.folder), "--job", str(out)]
    command += ["--videos", str(count), "--devices", str(args.devices)]
    command += ["--rows-per-file", str(args.rows_per_file)]
    begin = time.monotonic()
    job = subprocess.Popen(command, start_new_session=True)
    peaks: dict[int, list[int]] = {}
    most_files = 0
    while job.poll() is None:
        for process, *memory in find_memory(job.pid):
            peaks[process] = [*map(max, peaks.get(process, [0, 0]), memory)]
        most_files = max(most_files, sum(1 for _ in (out / ".featx").rglob("*")))
        time.sleep(SAMPLE_SECONDS)
    seconds = time.monotonic() - begin
    assert job.returncode == 0
    memory_text = ", ".join(
        f"{own // 1024:,} + {mapped // 1024:,} MB" for own, mapped in peaks.values()
    )
    print(
        f"{count:,} videos: {seconds:.1f} s, {count / seconds:,.0f} videos/s; processes of "
        f"{memory_text} (own + mapped); {most_files} files at most while it ran",
        flush=True,
    )


def main() -> None:
    """Print the figures of a small and a large run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--videos", type=int, default=1_000_000)
    parser.add_argument("--rows-per-file", type=int, default=100_000)
    parser.add_argument("--devices", type=int, default=2)
    parser.add_argument("--job", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    root = args.folder / str(args.videos)
    if args.job:
        work(root, args.job, args.devices, args.rows_per_file)
        return
    for count in (args.videos // 10, args.videos):
        root, out = args.folder / str(count), args.folder / "out"
        if not root.exists():
            save(root, count)
        shutil.rmtree(out, ignore_errors=True)
        measure(args, out, count)


if __name__ == "__main__":
    main()
