"""How long the list of videos takes, and how much memory, with very many of them.

`scale.py scan FOLDER [--kind table|processed|clips] [--count N]` makes a table of N rows, a tree of
N tiny processed_data.pt files, or of N tiny clips in N / 100 folders. It tells the seconds and the
memory (RSS: anonymous and of mapped files, beyond what the imports take) of the process that scans,
of another rank, which maps what that has found, and of a DataLoader worker of it; the first time
and, with what is known by then, the second.
"""

import argparse
import multiprocessing
import os
import shutil
import time
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Dataset

from featx.data.manifest import Manifest, ScanSettings
from featx.data.media.clip import write_clip
from featx.data.media.preprocessing import Preprocessing
from featx.data.media.processed_file import FILE_NAME, save_videos
from featx.data.scan_cache import ScanCache
from featx.data.sources import SOURCES, TABLE


def read_memory() -> dict[str, int]:
    """Resident memory in MB, by kind, and the highest there was."""
    fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    names = {"RssAnon": "anonymous", "RssFile": "of files", "VmHWM": "peak"}
    return {name: int(fields[field].split()[0]) // 1024 for field, name in names.items()}


def make_table(folder: Path, count: int) -> None:
    """A table of segments of clips, of each of which there are a hundred."""
    import numpy as np

    write_clip(folder / "clip.mp4", np.zeros((32, 16, 16, 3), np.uint8))
    for number in range(max(1, count // 100)):
        os.link(folder / "clip.mp4", folder / f"a rather long name of a clip {number:06d}.mp4")
    with (folder / "table.csv").open("w") as file:
        file.write("path,split,label,id,start_frame,end_frame,signer\n")
        for row in range(count):
            clip, part = divmod(row, 100)
            file.write(
                f"a rather long name of a clip {clip % max(1, count // 100):06d}.mp4,train,"
                f"sign {row % 1000},video {row:08d},{part % 20},{part % 20 + 8},{row % 17}\n"
            )


def make_processed(folder: Path, count: int) -> None:
    """Files of one tiny video each."""
    one = folder / FILE_NAME
    save_videos(one, [({"clips": "a.mp4"}, torch.zeros(2, 3, 4, 4, dtype=torch.uint8))])
    for number in range(count):
        place = folder / "train" / f"sign {number // 100}" / f"part {number % 100}"
        place.mkdir(parents=True)
        shutil.copyfile(one, place / FILE_NAME)
    one.unlink()


def make_clips(folder: Path, count: int) -> None:
    """Clips, a hundred in each folder."""
    import numpy as np

    write_clip(folder / "one.mp4", np.zeros((4, 16, 16, 3), np.uint8))
    for number in range(count):
        place = folder / "train" / f"sign {number // 100}"
        place.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / "one.mp4", place / f"clip {number:08d}.mp4")
    (folder / "one.mp4").unlink()


def tell(what: str, begin: float, before: dict[str, int]) -> None:
    """Print the seconds and the memory of this process."""
    found = {name: value - before[name] for name, value in read_memory().items()}
    memory = ", ".join(f"{value} MB {name}" for name, value in found.items())
    print(f"{what}: {time.perf_counter() - begin:.1f} s, {memory}", flush=True)


def scan(folder: Path, kind: str, place: Path) -> None:
    """Scan, as rank 0 does, and write what is found."""
    table = folder / "table.csv" if kind == "table" else None
    source = TABLE if table else SOURCES[kind]  # type: ignore[index]
    preprocessing = Preprocessing(num_frames=8, image_size=16)
    before, begin = read_memory(), time.perf_counter()
    cache = ScanCache.load(place / "scan_cache")
    settings = ScanSettings(folder, preprocessing=preprocessing, table=table, scan_cache=cache)
    manifest = source.scan(settings)
    tell("rank 0, scanned", begin, before)
    manifest.save(place / "manifest.arrow")
    cache.save(place / "scan_cache")
    tell(f"rank 0, {len(manifest)} videos saved", begin, before)


class Locate(Dataset[int]):
    """Finds videos, and reads none."""

    def __init__(self, manifest: Manifest, before: dict[str, int]) -> None:
        self.manifest = manifest
        self.before = before

    def __getitem__(self, position: int) -> int:
        """The length of a video."""
        begin = time.perf_counter()
        file, index = self.manifest.locate(position)
        if position == len(self.manifest) - 1:
            tell("a worker", begin, self.before)
        return file.lengths[index]


def follow(place: Path) -> None:
    """Map what rank 0 has found, and ask for all that another rank needs of each video."""
    before, begin = read_memory(), time.perf_counter()
    manifest = Manifest.open(place / "manifest.arrow")
    for split in manifest.positions:
        manifest.labels(split)
        manifest.preprocessing(split)
    manifest.lengths.sum()
    tell("another rank", begin, before)
    order = range(0, len(manifest), max(1, len(manifest) // 100))
    loader = DataLoader(
        Locate(manifest, before),
        sampler=[*order, len(manifest) - 1],
        num_workers=1,
        batch_size=None,
    )
    for _ in loader:
        pass


def main() -> None:
    """Make a data set, unless it is there, and scan it twice."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["scan"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kind", choices=["table", "processed", "clips"], default="table")
    parser.add_argument("--count", type=int, default=20_000)
    args = parser.parse_args()
    folder = args.folder / f"{args.kind}-{args.count}"
    if not folder.exists():
        folder.mkdir(parents=True)
        makers = {"table": make_table, "processed": make_processed, "clips": make_clips}
        makers[args.kind](folder, args.count)
        time.sleep(2.5)  # until what is found of files may be noted
    place = args.folder / "out"
    shutil.rmtree(place, ignore_errors=True)
    processes = multiprocessing.get_context("spawn")
    for which in ("first", "second"):
        print(f"{args.kind}, {args.count} videos, the {which} time")
        (place / "manifest.arrow").unlink(missing_ok=True)
        for function, arguments in ((scan, (folder, args.kind, place)), (follow, (place,))):
            process = processes.Process(target=function, args=arguments)
            process.start()
            process.join()
        for path in (place / "manifest.arrow", *place.glob("scan_cache/*")):
            print(f"{path.name}: {path.stat().st_size / args.count:.0f} bytes a video")


if __name__ == "__main__":
    main()
