"""A lazy scan: clips are opened when their turn comes, and everything else is as ever."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from helpers import extract_eagerly, grey_levels

from featx import VideoDataModule
from featx.data.media.clip import write_clip
from featx.data.media.lazy import LazyClip
from featx.errors import ChangedInputError, InputError, UsageError
from featx.extraction.extractor import FeatureExtractor

pytestmark = pytest.mark.usefixtures("tiny")

SETTINGS: dict[str, Any] = {"image_size": 16, "num_frames": 4}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Clips in a tree, made long ago."""
    for number, name in enumerate(("train/a/1.mp4", "train/a/x/2.mp4", "train/b/3.mp4")):
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_clip(path, grey_levels(8 + number))
        os.utime(path, (1, 1))
    return tmp_path / "tree"


@pytest.fixture
def make_table(tree: Path) -> Callable[[str], Path]:
    """Writes a table of them."""

    def write(text: str) -> Path:
        path = tree / "t.csv"
        path.write_text(text)
        return path

    return write


SEGMENTS = (
    "path,label,start_frame,end_frame,left,top,right,bottom,id\n"
    "train/a/1.mp4,x,0,5,,,,,one\n"
    "train/a/1.mp4,y,3,8,0,0,32,32,two\n"
    "train/b/3.mp4,x,2,9,,,,,three\n"
)
TIMES = "path,start,end\ntrain/a/1.mp4,0.1,0.2\ntrain/b/3.mp4,,\ntrain/a/x/2.mp4,0.2,\n"


def read(path: Path) -> dict[str, list[Any]]:
    """What a feature file says of its rows."""
    with h5py.File(path) as file:
        names = ("features", "labels", "num_frames", "video_ids", "input_sha256")
        return {name: np.asarray(file[name]).tolist() for name in names}


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        (None, SETTINGS | {"source": "clips"}),
        (None, SETTINGS | {"source": "clips", "layout": "flat"}),
        (SEGMENTS, SETTINGS),
        (SEGMENTS, {"image_size": 16, "stride": 2}),
        (TIMES, SETTINGS),
    ],
)
def test_rows_are_those_of_a_full_scan(
    tree: Path,
    tmp_path: Path,
    make_table: Callable[[str], Path],
    text: str | None,
    settings: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Features, names, labels and what they are made of; and again, all of them are finished."""
    if text:
        settings = {**settings, "table": make_table(text)}
    full = extract_eagerly(tree, tmp_path / "full", **settings)
    lazy = extract_eagerly(tree, tmp_path / "lazy", scan="lazy", **settings)
    assert {split: read(path) for split, path in lazy.items()} == {
        split: read(path) for split, path in full.items()
    }
    before = {split: path.read_bytes() for split, path in lazy.items()}

    def fail(*args: object) -> None:
        raise AssertionError("it was made again")

    monkeypatch.setattr(FeatureExtractor, "predict_step", fail)
    monkeypatch.setattr("featx.data.media.survey.open_container", fail)
    again = extract_eagerly(tree, tmp_path / "lazy", scan="lazy", **settings)
    assert {split: path.read_bytes() for split, path in again.items()} == before


def test_a_lazy_scan_opens_nothing(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither clips nor what the file system says of them."""

    def fail(*args: object) -> None:
        raise AssertionError("it was looked at")

    for name in ("_stamp", "_survey"):
        monkeypatch.setattr(f"featx.data.media.clip.{name}", fail)
    data = VideoDataModule(tree, source="clips", scan="lazy", **SETTINGS)
    data.setup("predict")
    assert data.manifest.lengths.tolist() == [4, 4, 4]
    assert all(isinstance(file, LazyClip) for file in data.manifest.files)


def test_bad_clips_are_found_late(
    tree: Path, tmp_path: Path, make_table: Callable[[str], Path]
) -> None:
    """When their turn comes, they stop the run, or are left out; a box outside is one."""
    (tree / "train" / "b" / "3.mp4").unlink()
    table = make_table(SEGMENTS.replace("32,32", "3200,32"))
    settings = {**SETTINGS, "table": table, "scan": "lazy"}
    with pytest.raises(InputError, match="two: expected a box in the frame of 96 x 64 pixels"):
        extract_eagerly(tree, tmp_path / "out", **settings)
    [path] = extract_eagerly(tree, tmp_path / "out", on_error="skip", **settings).values()
    assert read(path)["video_ids"] == [b"one"]


@pytest.mark.parametrize("is_mount", [True, False])
def test_a_disk_that_is_gone_is_no_fault_of_clips(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_mount: bool
) -> None:
    """The run ends, also where bad ones are left out, and the next one goes on."""
    settings = {**SETTINGS, "source": "clips", "scan": "lazy", "on_error": "skip"}
    step = FeatureExtractor.predict_step

    def lose(*args: Any) -> Any:  # noqa: ANN401
        if not (tmp_path / "away").exists():
            tree.rename(tmp_path / "away")
            if is_mount:
                tree.mkdir()
        return step(*args)

    with monkeypatch.context() as patch:
        patch.setattr(FeatureExtractor, "predict_step", lose)
        with pytest.raises(ChangedInputError, match=f"expected to read clips of {tree}, found: No"):
            extract_eagerly(tree, tmp_path / "out", **settings)
    assert not [*(tmp_path / "out").glob("*.h5")]
    (tmp_path / "away").rename(tree)
    [path] = extract_eagerly(tree, tmp_path / "out", **settings).values()
    assert len(read(path)["video_ids"]) == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"source": "processed"}, "scan: expected full with the source processed, found lazy"),
        ({"source": "frames"}, "scan: expected full with the source frames, found lazy"),
        ({"source": "clips", "fps": 5}, "sample by num_frames"),
        ({"source": "clips", "stride": 2}, "sample by num_frames"),
        ({"source": "clips", "scan": "fast"}, "scan: expected full or lazy, found 'fast'"),
    ],
)
def test_where_lengths_do_not_follow(tree: Path, settings: dict[str, Any], message: str) -> None:
    """Without opening clips, a lazy scan is refused, with what is missing."""
    with pytest.raises(UsageError, match=message):
        VideoDataModule(tree, **{"scan": "lazy", **settings})


def test_a_table_that_does_not_tell_lengths(tree: Path, make_table: Callable[[str], Path]) -> None:
    """With a stride, every row has to say where it ends."""
    table = make_table(SEGMENTS + "train/b/3.mp4,x,2,,,,,,four\n")
    data = VideoDataModule(tree, table=table, stride=2, scan="lazy")
    with pytest.raises(UsageError, match="start_frame and end_frame in every row"):
        data.setup("predict")
