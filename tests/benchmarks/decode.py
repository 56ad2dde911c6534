"""From clip to pixels: featx beside torchcodec, on one thread each, by turns, by medians.

`pip install torchcodec` wants the FFmpeg of the system. The clips are made once, in FOLDER:

    python tests/benchmarks/decode.py FOLDER [--rounds 5] [--hour]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

CLIPS: dict[str, tuple[int, int, int, int]] = {  # height, width, frames, frames between key frames
    "720p, 10 s": (720, 1280, 300, 250),
    "1080p, 10 s": (1080, 1920, 300, 250),
    "240p, 2 s": (240, 320, 50, 250),
    "360p, 3 min": (360, 640, 4500, 250),
    "360p, 1 h": (360, 640, 90_000, 250),
}
NUM_FRAMES, IMAGE_SIZE = 64, 256

FEATX = """
import resource, sys, time, torch
torch.set_num_threads(1)
from featx.data.media.clip import open_clip
from featx.data.media.preprocessing import Preprocessing
from featx.data.media.video_file import Home
clip = open_clip(sys.argv[1], Preprocessing()).take("a/a/a", "clip", Home("a", "a"))
begin = time.perf_counter()
clip.read()
"""
TORCHCODEC = """
import resource, sys, time, torch
torch.set_num_threads(1)
import numpy as np
from torchcodec.decoders import VideoDecoder
from torchvision.transforms.v2.functional import resize
begin = time.perf_counter()
decoder = VideoDecoder(sys.argv[1], num_ffmpeg_threads=1)
count = decoder.metadata.num_frames
numbers = np.linspace(0, count - 1, 64).astype(int).tolist()
frames = decoder.get_frames_at(numbers).data
video = torch.stack([resize(frame, [256, 256], antialias=True) for frame in frames])
"""
END = """
seconds = time.perf_counter() - begin
print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def draw(count: int, height: int, width: int) -> Iterator[np.ndarray[Any, np.dtype[np.uint8]]]:
    """Frames with detail that moves, and noise that no frame shares with another."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    image = image.repeat(8, axis=0).repeat(8, axis=1)
    noise = rng.integers(0, 8, (2 * height, 2 * width, 1), np.uint8)
    for number in range(count):
        y, x = rng.integers(0, height), rng.integers(0, width)
        yield np.roll(image, number, axis=1) // 2 + noise[y : y + height, x : x + width]


def make(path: Path, height: int, width: int, count: int, gop: int) -> None:
    """Encode a clip as sites do: H.264 with B-frames, at 0.1 bits a pixel."""
    temporary = path.with_suffix(".part.mp4")
    options = {"preset": "veryfast", "x264-params": f"keyint={gop}:bframes=3:log-level=none"}
    with av.open(temporary, "w") as container:
        stream: Any = container.add_stream("libx264", rate=30, options=options)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        stream.bit_rate = 3 * height * width
        for number, image in enumerate(draw(count, height, width)):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 30)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    temporary.rename(path)


def remux(source: Path, target: Path) -> None:
    """Copy a clip into another container, packet by packet."""
    with av.open(source) as before, av.open(target, "w") as after:
        stream = after.add_stream_from_template(before.streams.video[0])
        for packet in before.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                after.mux(packet)


def run(program: str, path: Path, checkout: Path | None = None) -> tuple[float, float]:
    """Seconds and peak megabytes of one decoder on one clip, in a process of its own."""
    env = os.environ | ({"PYTHONPATH": str(checkout)} if checkout else {})
    done = subprocess.run(
        [sys.executable, "-c", program + END, str(path)],
        env=env,
        cwd=path.parent,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    seconds, megabytes = map(float, done.stdout.split())
    return seconds, megabytes


def main() -> None:
    """Make the clips that are missing, let all decoders take turns, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--hour", action="store_true")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    here = Path(__file__).resolve().parents[2]
    contenders = {"featx": (FEATX, here), "torchcodec": (TORCHCODEC, None)}
    results: dict[str, Any] = {}
    for name, (height, width, count, gop) in CLIPS.items():
        if count > 10_000 and not args.hour:
            continue
        path = args.folder / f"{height}_{count}.mp4"
        if not path.exists():
            begin = time.perf_counter()
            make(path, height, width, count, gop)
            print(f"made {path.name} in {time.perf_counter() - begin:.0f} s", flush=True)
        taken: dict[str, list[tuple[float, float]]] = {key: [] for key in contenders}
        for _ in range(args.rounds):
            for key, (program, checkout) in contenders.items():
                taken[key].append(run(program, path, checkout))
        results[name] = {
            key: [round(statistics.median(values), 3) for values in zip(*runs, strict=True)]
            for key, runs in taken.items()
        }
        medians = {key: values[0] for key, values in results[name].items()}
        ratio = medians["torchcodec"] / medians["featx"]
        texts = [f"{key} {s:.3f} s {mb:.0f} MB" for key, (s, mb) in results[name].items()]
        print(f"{name:12} {'  '.join(texts)}  x {ratio:.2f} of torchcodec", flush=True)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
