"""Real clips, where the environment names a folder of them: the real job at its real size."""

import os
import shutil
from pathlib import Path

import h5py
import pytest

import featx
from featx.backbones.architectures import ARCHITECTURES
from featx.commands.inspect.command import inspect
from featx.commands.preprocess import preprocess
from featx.data.sources.clips import CLIP_SUFFIXES

FOLDER = os.environ.get("FEATX_REAL_CLIPS")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FOLDER, reason="FEATX_REAL_CLIPS names no folder of clips"),
]


@pytest.fixture(scope="module")
def processed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each clip as a category of its own, preprocessed at 64 frames of 256 by 256."""
    folder = tmp_path_factory.mktemp("real")
    clips = [path for path in Path(str(FOLDER)).iterdir() if path.suffix in CLIP_SUFFIXES]
    for clip in clips:
        place = folder / "raw" / "train" / clip.stem
        place.mkdir(parents=True)
        shutil.copy(clip, place)
    assert preprocess(folder / "raw", folder / "processed") == []
    return folder / "processed"


@pytest.mark.parametrize("backbone", ARCHITECTURES)
def test_real_clips(processed: Path, tmp_path: Path, backbone: str) -> None:
    """All clips come out, with 73 frames each, and the file is valid."""
    paths = featx.extract(
        processed,
        tmp_path,
        backbone=backbone,
        weights="random",
        accelerator="cpu",
        devices=1,
    )
    assert inspect(paths["train"])
    with h5py.File(paths["train"]) as file:
        count = len([*processed.glob("train/*")])
        assert file["features"].shape == (count, 73, ARCHITECTURES[backbone].feature_dim)
        assert file["num_frames"][:].tolist() == [73] * count


def test_straight_from_the_clips(processed: Path, tmp_path: Path) -> None:
    """The features are those of the preprocessed videos, and so are the rows."""
    found = [
        featx.extract(
            root,
            tmp_path / root.name,
            backbone="resnet50",
            weights="random",
            source=source,  # type: ignore[arg-type]
            accelerator="cpu",
            devices=1,
        )["train"]
        for root, source in ((processed, "processed"), (processed.parent / "raw", "clips"))
    ]
    with h5py.File(found[0]) as by_way, h5py.File(found[1]) as straight:
        for name in by_way:
            assert (by_way[name][:] == straight[name][:]).all()
