"""The main job: from clips to a feature file, as a plain loop does it."""

import copy
import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import reference
import torch
from clips import encode, moving_frames
from torch import nn

from featx.cli import main

SCALES = (1.0, 0.85, 1.15)
CLIPS = {"train/bye/b.mov": 13, "train/hello/a.mov": 30, "train/hello/z.mov": 5}
"""Clips in row order, with their numbers of frames."""


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of clips; PNG is lossless, so that the loop needs no decoder."""
    folder = tmp_path_factory.mktemp("raw")
    for number, (name, count) in enumerate(CLIPS.items()):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        encode(path, "png", pixels="rgb24", size=(48, 64 + 16 * number), count=count)
    return folder


@pytest.fixture(scope="module")
def cnn() -> nn.Module:
    """A whole classifier."""
    return reference.make_cnn("resnet50")


@pytest.mark.parametrize("multi_scale", [True, False])
def test_a_feature_file_is_that_of_a_plain_loop(
    raw: Path, cnn: nn.Module, tmp_path: Path, multi_scale: bool
) -> None:
    """Frames are sampled evenly, resized, normalized, passed through the CNN and averaged."""
    torch.save(cnn.state_dict(), tmp_path / "weights.pth")
    arguments = {
        "model.weights": tmp_path / "weights.pth",
        "model.backbone": "resnet50",
        "model.multi_scale": str(multi_scale).lower(),
        "data.root": raw,
        "data.source": "clips",
        "data.num_frames": 8,
        "data.image_size": 32,
        "data.num_workers": 0,
        "writer.output_dir": tmp_path / "out",
        "trainer.accelerator": "cpu",
        "trainer.devices": 1,
    }
    assert main(["predict", *(f"--{name}={value}" for name, value in arguments.items())]) == 0
    cnn = reference.strip_head(copy.deepcopy(cnn), "resnet50")
    [path] = (tmp_path / "out").glob("*.h5")
    with h5py.File(path) as file:
        assert [*file["video_ids"].asstr()] == [*CLIPS]
        assert file["labels"][:].tolist() == [0, 1, 1]
        assert json.loads(file.attrs["category_mapping"]) == {"bye": 0, "hello": 1}
        for row, count in enumerate(CLIPS.values()):
            images = np.stack(moving_frames(count, 48, 64 + 16 * row))
            chosen = images[[int(place) for place in np.linspace(0, count - 1, 8)]]
            frames = nn.functional.interpolate(
                torch.from_numpy(chosen).permute(0, 3, 1, 2),
                (32, 32),
                mode="bilinear",
                antialias=True,
            )
            expected = reference.extract_video(
                cnn, reference.normalize(frames), SCALES if multi_scale else (1.0,)
            )
            assert file["num_frames"][row] == len(expected)
            found = file["features"][row, : len(expected)]
            assert reference.relative_error(found, expected) <= 1e-5
            assert not file["features"][row, len(expected) :].any()
