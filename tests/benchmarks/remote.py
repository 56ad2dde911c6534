"""Bytes and requests of jobs on object storage, against an S3 server on this machine.

    python tests/benchmarks/remote.py FOLDER [--clips 50] [--seconds 10]

For a scan of mp4 clips, for the run after it, for 100 segments of one clip, and for mkv clips that
are sampled by `fps`. The clips are made once, in FOLDER.
"""

import argparse
import csv
import logging
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import decode
from helpers import TINY
from remote_server import BUCKET, Proxy, filled, serving

import featx
from featx.backbones import architectures

logging.getLogger("werkzeug").setLevel(logging.ERROR)

SEGMENTS = 100
JOB: dict[str, Any] = {
    "backbone": "resnet50",
    "weights": "random",
    "multi_scale": False,
    "accelerator": "cpu",
    "num_workers": 0,
    "num_frames": 2,
    "image_size": 32,
}


def make_clips(folder: Path, count: int, seconds: int) -> None:
    """Make clips of 240p, as mp4 and as mkv; the index of an mp4 is at its end."""
    first = folder / "mp4/train/a/0.mp4"
    for kind in ("mp4", "mkv"):
        (folder / kind / "train/a").mkdir(parents=True, exist_ok=True)
    if not first.exists():
        decode.make(first, 240, 320, 30 * seconds, 250)
    content = first.read_bytes()
    for number in range(1, count):
        path = first.with_name(f"{number}.mp4")
        if not path.exists():
            path.write_bytes(content)
    for number in range(count):
        path = folder / f"mkv/train/a/{number}.mkv"
        if not path.exists():
            decode.remux(first, path)


@contextmanager
def counting(server: Proxy, name: str, size: int) -> Iterator[None]:
    """Print what is fetched meanwhile, beside the bytes of the clips."""
    server.requests.clear()
    server.num_bytes = 0
    yield
    gets, heads = server.count("GET"), server.count("HEAD")
    print(
        f"{name:40} {server.num_bytes / 1e6:8.2f} MB of {size / 1e6:.2f} MB, {gets} GET and "
        f"{heads} HEAD",
        flush=True,
    )


def main() -> None:
    """Make the clips that are missing, run the jobs, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clips", type=int, default=50)
    parser.add_argument("--seconds", type=int, default=10)
    args = parser.parse_args()
    make_clips(args.folder, args.clips, args.seconds)
    url = f"s3://{BUCKET}"
    architectures.ARCHITECTURES["resnet50"] = TINY  # bytes do not depend on it
    with serving() as server, tempfile.TemporaryDirectory() as out:
        for kind, sampling in (("mp4", {}), ("mkv", {"num_frames": None, "fps": 1.0})):
            root = args.folder / kind
            size = sum(path.stat().st_size for path in root.rglob(f"*.{kind}"))
            title = f"{args.clips} {kind} clips{', by fps' if sampling else ''}"
            with filled(server, root):
                job = {**JOB, "source": "clips", **sampling}
                settings = ("source", "num_frames", "image_size", "fps", "num_workers")
                with counting(server, f"{title}: the scan", size):
                    data = featx.VideoDataModule(
                        url, **{name: job[name] for name in settings if name in job}
                    )
                    data.setup("predict")
                with counting(server, f"{title}: the scan and the run", size):
                    featx.extract(url, Path(out) / kind, **job)
        root = args.folder / "one"
        (root / "train/a").mkdir(parents=True, exist_ok=True)
        clip = root / "0.mp4"
        if not clip.exists():
            clip.write_bytes((args.folder / "mp4/train/a/0.mp4").read_bytes())
        table = Path(out) / "table.csv"
        with table.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["path", "start", "end"])
            step = (args.seconds - 1) / SEGMENTS
            writer.writerows([f"{url}/0.mp4", n * step, n * step + 0.5] for n in range(SEGMENTS))
        with (
            filled(server, root),
            counting(server, f"{SEGMENTS} segments of one mp4 clip", clip.stat().st_size),
        ):
            featx.extract(None, Path(out) / "one", table=table, **JOB)


if __name__ == "__main__":
    main()
