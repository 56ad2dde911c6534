"""The job as its definition words it: a loop, with torchvision's own unfused CNN.

Nothing here comes from featx. Weights are random, but tell frames apart: batch-norm statistics
are calibrated on random images.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision import models

BUILDERS = {
    "resnet50": (models.resnet50, "fc"),
    "resnet101": (models.resnet101, "fc"),
    "efficientnet_v2_s": (models.efficientnet_v2_s, "classifier"),
    "efficientnet_v2_m": (models.efficientnet_v2_m, "classifier"),
}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def make_cnn(backbone: str) -> nn.Module:
    """A whole classifier, head included, with weights that tell frames apart."""
    torch.manual_seed(1)
    return calibrate(BUILDERS[backbone][0](weights=None))


def calibrate(cnn: nn.Module, size: int = 64, count: int = 16) -> nn.Module:
    """Give a CNN batch-norm statistics as training would have."""
    for layer in cnn.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.6, 1.1)
            nn.init.normal_(layer.bias, 0.5, 0.1)
            layer.momentum = None
    cnn.train()
    with torch.no_grad():
        for _ in range(2):
            images = torch.zeros(count, 3, size, size)
            for detail in (1, 4, 16, size):
                noise = torch.randn(count, 3, detail, detail) * torch.rand(count, 1, 1, 1)
                images += nn.functional.interpolate(noise, size=size)
            cnn(images)
    return cnn.eval()


def strip_head(cnn: nn.Module, backbone: str) -> nn.Module:
    """The CNN with the identity for a head."""
    setattr(cnn, BUILDERS[backbone][1], nn.Identity())
    return cnn


def normalize(frames: Tensor) -> Tensor:
    """Raw RGB `[T, 3, H, W]` to ImageNet-normalized float32, channel by channel."""
    channels = [(frames[:, c].float() / 255 - MEAN[c]) / STD[c] for c in range(3)]
    return torch.stack(channels, dim=1)


def extract_video(cnn: nn.Module, video: Tensor, scales: Sequence[float]) -> NDArray[np.float64]:
    """Features of one normalized video, each scale through the CNN."""
    num_frames = len(video)
    per_scale = []
    for scale in scales:
        scaled = video
        if scale != 1.0:
            length = max(int(num_frames * scale), 5)
            scaled = video[np.linspace(0, num_frames - 1, length).astype(int)]
        with torch.no_grad():
            parts = [cnn(scaled[i : i + 24]) for i in range(0, len(scaled), 24)]
        per_scale.append(torch.cat(parts).numpy())
    longest = max(len(features) for features in per_scale)
    total = np.zeros((longest, per_scale[0].shape[1]))
    for features in per_scale:
        total[: len(features)] += features
    return total / len(scales)


def list_videos(root: Path, split: str) -> list[tuple[str, Tensor]]:
    """Category and pixels of every video of a split, in row order."""
    videos = []
    for category in sorted(p for p in (root / split).glob("*") if p.is_dir()):
        for subcategory in sorted(category.glob("*")):
            data = torch.load(subcategory / "processed_data.pt", weights_only=True)
            for video in data["videos"] if isinstance(data, dict) else data:
                videos.append((category.name, video))
    return videos


def extract_split(
    cnn: nn.Module, root: Path, split: str, scales: Sequence[float]
) -> list[tuple[str, NDArray[np.float64]]]:
    """Category and features of every video of a split, in row order."""
    return [
        (category, extract_video(cnn, v if v.is_floating_point() else normalize(v), scales))
        for category, v in list_videos(root, split)
    ]


def relative_error(found: NDArray[np.float32], expected: NDArray[np.float64]) -> float:
    """Norm of the difference, relative to the norm of what is expected."""
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
