"""Which planted leaks and wrong labels are found, on clips of photographs under a moving camera.

python tests/benchmarks/leaks.py FOLDER [--backbones efficientnet_lite0 resnet50:random]

Of 240 test clips, 60 are put into train, too: copied, encoded anew, compressed strongly, resized,
shifted by two to four frames, or all of that. 5 % of the clips get a wrong label; the label is the
photograph that a clip is of.
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import NamedTuple, cast

import av
import numpy as np
from numpy.typing import NDArray
from scenes import MOVES, SIZE, Scene, draw_scene, film, load_photos, name_clip

from featx import extract
from featx.analysis.neighbours import find_doubts
from featx.analysis.overview import look_over
from featx.features.folder import open_feature_files

KINDS = ("copied", "encoded anew", "compressed", "resized", "shifted", "all of that")
NUM_FRAMES, IMAGE_SIZE = 16, 128


def encode(path: Path, frames: NDArray[np.uint8], rate: int, codec: str = "libx264") -> None:
    """Write a clip of so many bits a second."""
    with av.open(path, "w") as container:
        stream = cast(av.VideoStream, container.add_stream(codec, rate=24))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt, stream.bit_rate = "yuv420p", rate
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


class Truth(NamedTuple):
    """What is known of the clips.

    Attributes:
        planted: Of each planted clip, which it is of, and how.
        photos: Which photograph each clip is of.
    """

    planted: dict[str, tuple[str, str]]
    photos: dict[str, int]


def make_clips(folder: Path) -> Truth:
    """The clips, unless they are there."""
    noted = folder.with_suffix(".json")
    if noted.exists():
        return Truth(*json.loads(noted.read_text()))
    photos, rng = load_photos(), np.random.default_rng(0)
    truth = Truth({}, {})
    test: list[tuple[Scene, Path]] = []
    for split, count in {"train": 80, "val": 20, "test": 40}.items():
        for move in MOVES:
            for number in range(count):
                scene = draw_scene(rng, len(photos), move)
                path = name_clip(folder, split, scene, number)
                encode(path, film(photos, scene), 2_000_000)
                truth.photos[path.relative_to(folder).as_posix()] = scene.photo
                test += [(scene, path)] * (split == "test")
    for number, choice in enumerate(rng.permutation(len(test))[:60]):
        scene, path = test[choice]
        kind = KINDS[number % len(KINDS)]
        new = name_clip(folder, "train", scene, 1000 + number)
        shift = int(rng.choice([-4, -3, -2, 2, 3, 4]))
        if kind == "copied":
            shutil.copy(path, new)
        elif kind == "encoded anew":
            encode(new, film(photos, scene), 400_000)
        elif kind == "compressed":
            encode(new, film(photos, scene), 80_000, "mpeg4")
        elif kind == "resized":
            encode(new, film(photos, scene, size=SIZE * 3 // 5), 2_000_000)
        elif kind == "shifted":
            encode(new, film(photos, scene, shift=shift), 2_000_000)
        else:
            encode(new, film(photos, scene, size=SIZE * 3 // 5, shift=shift), 400_000)
        name = new.relative_to(folder).as_posix()
        truth.planted[name] = path.relative_to(folder).as_posix(), kind
        truth.photos[name] = scene.photo
    noted.write_text(json.dumps(truth))
    return truth


def main() -> None:
    """Make the clips, extract their features, and tell what is found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--backbones", nargs="+", default=["efficientnet_lite0", "resnet50:random"])
    settings = parser.parse_args()
    clips = settings.folder / "clips"
    truth = make_clips(clips)
    for chosen in settings.backbones:
        backbone, _, weights = chosen.partition(":")
        folder = settings.folder / backbone
        extract(
            clips,
            folder,
            backbone=backbone,
            weights=weights or "DEFAULT",
            source="clips",
            num_frames=NUM_FRAMES,
            image_size=IMAGE_SIZE,
            frames_per_forward=16,
            accelerator="cpu",
            devices=1,
        )
        overview = look_over(open_feature_files(folder))
        names = overview.videos.names
        found = {frozenset((names[p.first], names[p.second])) for p in overview.duplicates.pairs}
        true = {frozenset((new, old)): kind for new, (old, kind) in truth.planted.items()}
        kinds = [true.get(pair, "false") for pair in found]
        print(f"{chosen}: threshold {overview.duplicates.threshold:.4f}")
        for kind in (*KINDS, "false"):
            print(f"  {kind}: {kinds.count(kind)}")
        labels = np.array([truth.photos[name] for name in names])
        rng = np.random.default_rng(1)
        wrong = rng.permutation(len(labels))[: len(labels) // 20]
        count = labels.max() + 1
        given = labels.copy()
        given[wrong] = (labels[wrong] + rng.integers(1, count, len(wrong))) % count
        doubts = find_doubts(overview.space.points, given, overview.videos.contents)
        listed = {doubt.place for doubt in doubts.listed}
        right = len(listed & {*wrong.tolist()})
        print(f"  wrong labels: {right} of {len(wrong)} found, {len(listed) - right} false")


if __name__ == "__main__":
    main()
