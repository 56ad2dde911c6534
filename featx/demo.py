"""`featx demo`: the whole job in about a minute, on clips that it makes itself."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featx.clips import write_clip
from featx.disk import writing
from featx.job import extract
from featx.preprocess import preprocess
from featx.report import inspect

_CLIPS = {"train": 3, "val": 1, "test": 1}  # clips per category in each split
_DIRECTIONS = {"across": (1.0, 0.0), "down": (0.0, 1.0)}  # how the square of a category moves
_NUM_FRAMES, _SIZE = 48, 128


def demo(output_dir: Path = Path("featx_demo")) -> None:
    """Make clips, preprocess them, extract their features, and inspect the files.

    This takes about a minute on two cores and downloads nothing. The weights are random, so the
    features mean nothing.

    Args:
        output_dir: Folder for the clips, the videos and the features.
    """
    output_dir = Path(output_dir).expanduser()
    raw, processed, features = (output_dir / name for name in ("raw", "processed", "features"))
    print(f"\n1. Making clips in {raw}", flush=True)
    with writing(raw):
        make_clips(raw)
    print(f"\n2. featx preprocess {raw} {processed} --image-size {_SIZE}", flush=True)
    preprocess(raw, processed, image_size=_SIZE)
    print(
        f"\n3. featx predict --data.root {processed} --writer.output_dir {features} "
        "--writer.overwrite true --model.backbone resnet50 --model.weights random "
        "--trainer.accelerator cpu --trainer.devices 1",
        flush=True,
    )
    paths = extract(
        processed,
        features,
        backbone="resnet50",
        weights="random",
        overwrite=True,
        accelerator="cpu",
        devices=1,
    )
    print("\n4. featx inspect, for each file", flush=True)
    for path in paths.values():
        inspect(path)
    print("\nThe feature files:")
    print("\n".join(f"  {path}" for path in paths.values()))
    print(
        "\nNext, with your own clips in RAW_DIR/<split>/<category>/:\n"
        "  featx preprocess RAW_DIR PROCESSED_DIR\n"
        "  featx predict --data.root PROCESSED_DIR --writer.output_dir FEATURES_DIR\n"
        "  featx inspect FEATURES_DIR/train_features_multiscale.h5"
    )


def make_clips(folder: Path) -> None:
    """Make clips of two categories of motion at `folder/<split>/<category>/clip_<number>.mp4`."""
    for split, count in _CLIPS.items():
        for category, direction in _DIRECTIONS.items():
            for number in range(count):
                path = folder / split / category / f"clip_{number}.mp4"
                path.parent.mkdir(parents=True, exist_ok=True)
                write_clip(path, draw_motion(direction, seed=number))


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
