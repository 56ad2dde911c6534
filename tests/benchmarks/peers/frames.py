"""Normalized frames one by one, as kaiko-eva and thingsvision take them."""

from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset


class Frames(Dataset[Tensor]):
    """All frames of the videos of a folder."""

    def __init__(self, folder: Path) -> None:
        paths = sorted(folder.glob("*.pt"))
        self.videos = [torch.load(path, mmap=True, weights_only=True) for path in paths]
        self.index = [(v, f) for v, video in enumerate(self.videos) for f in range(len(video))]

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, item: int) -> Tensor:
        video, frame = self.index[item]
        normalized: Tensor = self.videos[video][frame]
        return normalized


def make_cnn(weights: Path) -> torch.nn.Module:
    """ResNet-50 as torchvision has it, without its head."""
    import torchvision

    cnn: torch.nn.Module = torchvision.models.resnet50(weights=None)
    cnn.fc = torch.nn.Identity()
    cnn.load_state_dict(torch.load(weights, weights_only=True))
    return cnn.eval()
