"""`featx demo`: the whole job in a minute, on clips that it makes itself."""

from pathlib import Path
from typing import cast

import av
import numpy as np
from numpy.typing import NDArray

from featx.job import extract
from featx.preprocess import preprocess
from featx.report import inspect

_CLIPS = {"train": 3, "val": 1, "test": 1}  # clips of each category in each split
_MOTIONS = {"across": (1.0, 0.0), "down": (0.0, 1.0)}  # categories: how the square moves
_NUM_FRAMES, _SIZE, _RATE = 48, 128, 24


def demo(output_dir: Path = Path("featx_demo")) -> None:
    """Make clips, preprocess them, extract their features, and inspect the files.

    It takes about a minute on two cores, and downloads nothing: the weights are random, so the
    features mean nothing.

    Args:
        output_dir: Folder for the clips, the videos and the features.
    """
    raw, processed, features = (output_dir / name for name in ("raw", "processed", "features"))
    print(f"1. Making clips in {raw}")
    for split, count in _CLIPS.items():
        for category, direction in _MOTIONS.items():
            for number in range(count):
                path = raw / split / category / f"clip_{number}.mp4"
                path.parent.mkdir(parents=True, exist_ok=True)
                write_clip(path, draw_motion(direction, seed=number))
    print(f"2. featx preprocess {raw} {processed} --image_size {_SIZE}")
    preprocess(raw, processed, image_size=_SIZE)
    print(f"3. featx predict --data.root {processed} --writer.output_dir {features} ...")
    paths = extract(
        processed,
        features,
        backbone="resnet50",
        weights="random",
        accelerator="cpu",
        devices=1,
        overwrite=True,
    )
    for path in paths.values():
        print(f"4. featx inspect {path}")
        inspect(path)
    print("\nThe feature files:")
    print("\n".join(f"  {path}" for path in paths.values()))
    print(
        "\nNext, on your own clips:\n"
        "  featx preprocess RAW_DIR PROCESSED_DIR\n"
        "  featx predict --data.root PROCESSED_DIR --writer.output_dir FEATURES_DIR\n"
        "  featx inspect FEATURES_DIR/train_features_multiscale.h5"
    )


def draw_motion(direction: tuple[float, float], seed: int) -> NDArray[np.uint8]:
    """Frames `[num_frames, height, width, 3]` of a bright square that moves over a dim texture."""
    rng = np.random.default_rng(seed)
    texture = rng.integers(0, 96, (_SIZE // 8, _SIZE // 8, 3), np.uint8)
    frames = np.tile(texture.repeat(8, axis=0).repeat(8, axis=1), (_NUM_FRAMES, 1, 1, 1))
    start, colour = rng.integers(0, _SIZE // 4, 2), rng.integers(160, 256, 3, np.uint8)
    for number, frame in enumerate(frames):
        left, top = start + np.array(direction) * number * (_SIZE / 2 / _NUM_FRAMES)
        frame[int(top) : int(top) + _SIZE // 4, int(left) : int(left) + _SIZE // 4] = colour
    return frames


def write_clip(path: Path, frames: NDArray[np.uint8], codec: str = "libx264") -> None:
    """Encode frames `[num_frames, height, width, 3]` to a clip; the suffix says the container."""
    with av.open(path, "w") as container:
        stream = cast(av.VideoStream, container.add_stream(codec, rate=_RATE))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt, stream.bit_rate = "yuv420p", 2_000_000
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
