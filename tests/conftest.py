"""Fixtures: tiny seeded data, made where the tests run; nothing binary is committed."""

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from featx import backbones
from featx.backbones import Architecture

TINY_DIM = 6


class TinyCNN(nn.Module):
    """A backbone of three layers, for tests in which the backbone is not the point."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.conv = nn.Conv2d(3, TINY_DIM, 3, padding=1, bias=False)
        self.conv.weight.data = torch.randn(self.conv.weight.shape, generator=generator)
        self.bn = nn.BatchNorm2d(TINY_DIM)
        self.fc: nn.Module = nn.Linear(TINY_DIM, 4)

    def forward(self, frames: Tensor) -> Tensor:
        """Frames `[B, 3, H, W]` to what the head makes of the features `[B, 6]`."""
        out: Tensor = self.fc(self.bn(self.conv(frames)).relu().mean(dim=(2, 3)))
        return out


def build_tiny(weights: None = None) -> nn.Module:
    """A builder as torchvision has them."""
    return TinyCNN()


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the tiny CNN in the place of ResNet-50."""
    table = backbones.ARCHITECTURES
    stub = Architecture(build_tiny, table["resnet50"].weights, "fc", TINY_DIM)
    monkeypatch.setitem(table, "resnet50", stub)


def random_video(num_frames: int, seed: int = 0, size: int = 8) -> Tensor:
    """A uint8 video `[num_frames, 3, size, size]`."""
    generator = torch.Generator().manual_seed(seed)
    shape = (num_frames, 3, size, size)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def random_videos(count: int, num_frames: int, seed: int = 0, size: int = 8) -> Tensor:
    """uint8 videos `[count, num_frames, 3, size, size]`."""
    return torch.stack([random_video(num_frames, 100 * seed + i, size) for i in range(count)])


Save = Callable[..., Path]


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


@pytest.fixture(autouse=True)
def _quiet() -> None:
    """Warnings that Lightning and torch give about themselves, or about a machine without a GPU."""
    for message in (
        ".*does not have many workers.*",
        ".*LeafSpec.*",
        "weights: random.*",
        ".*litlogger.*",
    ):
        warnings.filterwarnings("ignore", message=message)
