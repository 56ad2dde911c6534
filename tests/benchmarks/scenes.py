"""Clips of photographs under a moving camera, for the benchmarks: more like real ones than squares.

The category is how the camera moves: right, left, in, out, and two turns. Scenes are parts of a few
photographs that come with scikit-learn, matplotlib and, where it is installed, scikit-image.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import affine_grid, grid_sample

MOVES = ("right", "left", "in", "out", "clockwise", "back")
NUM_FRAMES, SIZE = 48, 160


class Scene(NamedTuple):
    """What a camera sees, and how it moves: by these a clip can be made again, or nearly.

    Attributes:
        photo: Which photograph.
        place: Where in it the middle is, across and down, from -1 to 1.
        zoom: How much of it is seen, from 0 to 1.
        mirrored: Whether it is.
        colour: A factor for each channel.
        move: One of `MOVES`.
    """

    photo: int
    place: tuple[float, float]
    zoom: float
    mirrored: bool
    colour: tuple[float, float, float]
    move: str


def load_photos() -> list[torch.Tensor]:
    """Photographs `[3, H, W]` from 0 to 1."""
    from matplotlib.cbook import get_sample_data
    from matplotlib.image import imread
    from sklearn.datasets import load_sample_images

    found = [*load_sample_images().images]
    found.append(imread(str(get_sample_data("grace_hopper.jpg", asfileobj=False))))
    try:
        from skimage import data
    except ImportError:
        pass
    else:
        found += [getattr(data, name)() for name in ("astronaut", "coffee", "cat", "rocket")]
    return [torch.tensor(np.array(photo)).permute(2, 0, 1).float() / 255 for photo in found]


def draw_scene(rng: np.random.Generator, photos: int, move: str) -> Scene:
    """A scene at random."""
    x, y = rng.uniform(-0.45, 0.45, 2)
    colour = rng.uniform(0.75, 1.0, 3)
    return Scene(
        int(rng.integers(photos)),
        (float(x), float(y)),
        float(rng.uniform(0.25, 0.4)),
        bool(rng.integers(2)),
        (float(colour[0]), float(colour[1]), float(colour[2])),
        move,
    )


def film(
    photos: Sequence[torch.Tensor],
    scene: Scene,
    num_frames: int = NUM_FRAMES,
    size: int = SIZE,
    shift: int = 0,
    speed: float = 1.0,
) -> NDArray[np.uint8]:
    """The frames `[num_frames, size, size, 3]` of a scene.

    Args:
        photos: The photographs.
        scene: What is seen.
        num_frames: How many frames.
        size: Their height and width.
        shift: At which frame the clip begins.
        speed: How fast the camera moves: at 1, through the whole way in `NUM_FRAMES`.
    """
    photo = photos[scene.photo]
    photo = photo.flip(2) if scene.mirrored else photo
    time = (np.arange(num_frames) + shift) * speed / (NUM_FRAMES - 1) - 0.5
    x, y = scene.place
    thetas = []
    for t in time:
        zoom, turn, dx = scene.zoom, 0.0, 0.0
        if scene.move in ("right", "left"):
            dx = 0.35 * t * (1 if scene.move == "right" else -1)
        elif scene.move in ("in", "out"):
            zoom *= 1.6 ** (t * (-1 if scene.move == "in" else 1))
        else:
            turn = 0.9 * t * (1 if scene.move == "clockwise" else -1)
        cos, sin = zoom * np.cos(turn), zoom * np.sin(turn)
        thetas.append([[cos, -sin, x + dx], [sin, cos, y]])
    grid = affine_grid(torch.tensor(thetas).float(), [num_frames, 3, size, size], False)
    frames = grid_sample(
        photo.expand(num_frames, -1, -1, -1), grid, padding_mode="reflection", align_corners=False
    )
    frames = frames * torch.tensor(scene.colour).view(3, 1, 1)
    found: NDArray[np.uint8] = (255 * frames).byte().permute(0, 2, 3, 1).numpy()
    return found


def name_clip(folder: Path, split: str, scene: Scene, number: int) -> Path:
    """Where a clip is, its folder made."""
    path = folder / split / scene.move / f"{number:05}.mp4"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
