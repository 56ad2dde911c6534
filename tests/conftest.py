"""Fixtures: the tiny CNN in the place of ResNet-50, and small data sets."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # several processes share the cores

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helpers import TINY, Save, grey_levels, random_video, random_videos
from threadpoolctl import threadpool_limits

from featx.backbones import architectures
from featx.data.media.clip import write_clip


@pytest.fixture
def one_thread() -> Iterator[None]:
    """For small arrays: more threads only wait for each other where tests run side by side."""
    with threadpool_limits(1):
        yield


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the tiny CNN in the place of ResNet-50."""
    monkeypatch.setitem(architectures.ARCHITECTURES, "resnet50", TINY)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty data set's folder."""
    return tmp_path / "processed"


@pytest.fixture
def save(root: Path) -> Save:
    """Save something as the file of a place in the data set: `save("train/hello/a", videos)`."""

    def save_file(place: str, data: object) -> Path:
        path = root / place / "processed_data.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(data, path)
        return path

    return save_file


@pytest.fixture
def small_root(root: Path, save: Save) -> Path:
    """Three splits, two categories, seven videos of different lengths."""
    save("train/hello/a", {"videos": random_videos(2, 7, seed=1)})
    save("train/hello/b", [random_video(3, seed=2), random_video(12, seed=3)])
    save("train/bye/a", random_videos(1, 5, seed=4))
    save("val/bye/a", {"videos": random_videos(1, 7, seed=5)})
    save("val/hello/a", {"videos": random_videos(1, 1, seed=6)})
    save("test/bye/a", {"videos": random_videos(1, 7, seed=7)})
    save("test/hello/a", {"videos": random_videos(1, 9, seed=8)})
    return root


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Clips in a category's own folder, in subcategories, and of several containers."""
    folder = tmp_path / "raw"
    clips = {
        "train/hello/2.mp4": 9,
        "train/hello/10.mkv": 12,
        "train/hello/slow/a.avi": 30,
        "train/bye/x/b.MP4": 8,
        "test/bye/c.mov": 20,
    }
    for number, (name, count) in enumerate(clips.items()):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        codec = "mpeg4" if path.suffix == ".avi" else "libx264"
        write_clip(path, grey_levels(count) // 2 + 10 * number, codec)
    (folder / "train" / "hello" / "notes.txt").write_text("not a clip")
    (folder / "train" / "hello" / ".hidden.mp4").write_text("not a clip")
    return folder


MARKS = {"server": "network", "driver": "browser"}
"""The mark of every test that uses a fixture."""


@pytest.hookimpl(tryfirst=True)  # before the option -m selects tests by their marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that use a server or a browser."""
    for item in items:
        for fixture in MARKS.keys() & {*getattr(item, "fixturenames", ())}:
            item.add_marker(MARKS[fixture])


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add options for longer loops of failures than CI has time for."""
    parser.addoption("--kills", type=int, default=2, help="how often to kill a job at random")
    parser.addoption(
        "--all-failures",
        action="store_true",
        help="let every step of a job fail by a full and by a read-only disk, too",
    )
