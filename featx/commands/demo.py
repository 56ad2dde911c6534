"""`featx demo`: the whole job in about a minute, on clips that it makes itself."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featx.commands.inspect.command import inspect
from featx.commands.parser import ConciseParser
from featx.commands.preprocess import preprocess
from featx.data.clip_file import write_clip
from featx.errors import check_at_least
from featx.extraction.run import extract
from featx.files import expand, writing

_DIRECTIONS = {"right": (1, 0), "left": (-1, 0), "down": (0, 1), "up": (0, -1)}
_CLIP_FRAMES, _CLIP_SIZE = 48, 128


def main(args: Sequence[str], summary: str) -> int:
    """Run `featx demo`; returns its exit status."""
    parser = ConciseParser(prog="featx demo", description=summary)
    parser.add_function_arguments(demo)
    demo(**vars(parser.parse_args(args)))
    return 0


def demo(
    output_dir: Path = Path("featx_demo"),
    clips: int = 2,
    num_frames: int = 64,
    image_size: int = 128,
) -> None:
    """Make clips, preprocess them, extract their features, and inspect the files.

    This takes about half a minute on two cores and downloads nothing. The categories are the four
    directions in which a square moves. The weights are random, so the features mean little.

    Args:
        output_dir: Folder for the clips, the videos and the features.
        clips: Clips per category in train; val and test have half as many.
        num_frames: Frames per video.
        image_size: Height and width of a video.

    Raises:
        UsageError: A number is out of range.
    """
    check_at_least(1, clips=clips)
    output_dir = expand(output_dir)
    raw, processed, features = (output_dir / name for name in ("raw", "processed", "features"))
    print(f"\n1. Making clips in {raw}", flush=True)
    with writing(raw):
        make_clips(raw, clips)
    print(
        f"\n2. featx preprocess {raw} {processed} --num-frames {num_frames} "
        f"--image-size {image_size}",
        flush=True,
    )
    preprocess(raw, processed, num_frames, image_size)
    print(
        f"\n3. featx predict --data.root {processed} --writer.output_dir {features} "
        "--writer.overwrite true --model.backbone resnet50 --model.weights random "
        "--model.frames_per_forward 16 --trainer.accelerator cpu --trainer.devices 1",
        flush=True,
    )
    paths = extract(
        processed,
        features,
        backbone="resnet50",
        weights="random",
        frames_per_forward=16,
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


def make_clips(folder: Path, count: int) -> None:
    """Make clips at `folder/<split>/<direction>/clip_<number>.mp4`, `count` of each in train."""
    seeds = iter(range(10**6))  # so that no two clips are alike
    for split, number in {"train": count, "val": -(-count // 2), "test": -(-count // 2)}.items():
        for category, direction in _DIRECTIONS.items():
            (folder / split / category).mkdir(parents=True, exist_ok=True)
            for clip in range(number):
                path = folder / split / category / f"clip_{clip:03d}.mp4"
                write_clip(path, draw_motion(direction, next(seeds)))


def draw_motion(direction: tuple[int, int], seed: int) -> NDArray[np.uint8]:
    """Frames `[num_frames, height, width, 3]` of a bright square that moves over a dim texture.

    Its way leads through the middle, so that only the order of the frames tells the direction.
    """
    rng = np.random.default_rng(seed)
    texture = rng.integers(0, 96, (_CLIP_SIZE // 8, _CLIP_SIZE // 8, 3), np.uint8)
    frames = np.tile(texture.repeat(8, axis=0).repeat(8, axis=1), (_CLIP_FRAMES, 1, 1, 1))
    side, colour = _CLIP_SIZE // 4, rng.integers(160, 256, 3, np.uint8)
    middle = (_CLIP_SIZE - side) / 2 + rng.integers(-side // 4, side // 4, 2, endpoint=True)
    for number, frame in enumerate(frames):
        way = (number / (_CLIP_FRAMES - 1) - 0.5) * _CLIP_SIZE / 2
        left, top = (middle + np.array(direction) * way).astype(int)
        frame[top : top + side, left : left + side] = colour
    return frames
