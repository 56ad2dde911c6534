"""What becomes of the tail of a multi-scale file, and which definition a probe finds better.

python tests/benchmarks/tail.py FOLDER [--backbone efficientnet_lite0] [--per-category 60]

Clips show the same six motions at 0.8 to 1.25 times the speed. Frames go through the CNN once; each
definition is a gather of the same features.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from scenes import MOVES, draw_scene, film, load_photos, name_clip
from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).parent.parent))

from analysis import known

from featx import FeatureDataset, extract
from featx.analysis.pooling import PoolName
from featx.analysis.probing import Probed, compare, probe
from featx.data.media.clip import write_clip
from featx.extraction.temporal import DEFAULT_SCALES, ScaleAlign, ScaleAverage, average_scales
from featx.features.folder import open_feature_files

NUM_FRAMES, SIZE = 32, 128
DEFINITIONS: dict[str, tuple[ScaleAverage, ScaleAlign] | None] = {
    "single scale": None,
    "zeros (the default)": ("zeros", "index"),
    "present": ("present", "index"),
    "aligned in time": ("present", "time"),
}
POOLS: tuple[PoolName, ...] = ("mean", "mean+std", "thirds")


def make_clips(folder: Path, per_category: int) -> None:
    """Clips of train, val and test, unless they are there."""
    if folder.exists():
        return
    photos, rng = load_photos(), np.random.default_rng(1)
    for split, share in {"train": 1.0, "val": 0.3, "test": 0.7}.items():
        for move in MOVES:
            for number in range(round(share * per_category)):
                scene = draw_scene(rng, len(photos), move)
                speed = float(np.exp(rng.uniform(np.log(0.8), np.log(1.25))))
                frames = film(photos, scene, round(48 / speed), speed=speed)
                write_clip(name_clip(folder, split, scene, number), frames)


def main() -> None:
    """Make the clips, extract their features, and tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--weights", default="DEFAULT")
    parser.add_argument("--per-category", type=int, default=60)
    settings = parser.parse_args()
    make_clips(settings.folder / "clips", settings.per_category)
    paths = extract(
        settings.folder / "clips",
        settings.folder / "features",
        backbone=settings.backbone,
        weights=settings.weights,
        multi_scale=False,
        source="clips",
        stride=1,  # so that slow clips are long
        image_size=SIZE,
        accelerator="cpu",
        devices=1,
    )
    probed: dict[tuple[str, PoolName], Probed] = {}
    rows = []
    for name, definition in DEFINITIONS.items():
        folder = settings.folder / name
        for split, path in paths.items():
            dataset = FeatureDataset(path)
            videos = []
            for row in range(len(dataset)):
                features = dataset[row].features
                if definition is not None:
                    features = average_scales(features, DEFAULT_SCALES, *definition)
                videos.append(features.numpy())
            labels, names = dataset.labels.tolist(), dataset.video_ids
            known.write(folder, split, videos, labels, names, categories=dataset.categories)
        norms = [np.linalg.norm(video, axis=1) for video in videos]
        tail = np.mean([norm[-1] / np.median(norm) for norm in norms])
        cells = [name, f"{tail:.2f}"]
        for pool in POOLS:
            found = probed[name, pool] = probe(open_feature_files(folder), pool)
            cells += [f"{100 * s.accuracy.value:.1f}" for s in found.scores.values()]
        rows.append(cells)
    headers = ["", "norm of the last row", *(f"{p}, {n}" for p in POOLS for n in ("kNN", "linear"))]
    print(tabulate(rows, headers, disable_numparse=True))
    for pool in POOLS:
        for better in ("present", "aligned in time"):
            difference = compare(
                probed[better, pool], probed["zeros (the default)", pool], "linear"
            )
            assert difference is not None
            value, low, high = (100 * share for share in difference.points)
            print(f"{pool}: {better} - zeros: {value:+.1f} ({low:+.1f} to {high:+.1f}) points")


if __name__ == "__main__":
    torch.set_num_threads(2)
    main()
