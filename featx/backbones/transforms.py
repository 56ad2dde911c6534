"""What a backbone takes: frames normalized, and resized where it has a size of its own."""

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import center_crop, resize

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Of RGB values from 0 to 1. Source: torchvision's transforms for these weights."""


class InputTransform(NamedTuple):
    """How frames become the input of a backbone.

    Attributes:
        size: Height and width; None for backbones that take frames as they are.
        mean: Mean of RGB values from 0 to 1.
        std: Standard deviation of these values.
        interpolation: How frames are resized: bilinear, bicubic, ...
    """

    size: int | None = None
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    interpolation: str = "bilinear"

    def __call__(self, frames: Tensor, white: float | None = None) -> Tensor:
        """Normalize and resize frames.

        Args:
            frames: `[B, 3, H, W]`: uint8 as raw RGB, floating point as `white` says.
            white: The value of white in floating RGB whose black is 0; None if it is normalized
                with ImageNet's mean and std.

        Returns:
            `[B, 3, H, W]`, or `[B, 3, size, size]`: resized by the shorter side, with
            antialiasing, and cut out of the centre.
        """
        if not frames.is_floating_point():
            frames = normalize(frames, self.mean, self.std)
        elif white is not None:
            frames = normalize(frames, self.mean, self.std, white)
        elif (self.mean, self.std) != (IMAGENET_MEAN, IMAGENET_STD):
            scale, shift = _scale_and_shift(self.mean, self.std, frames.device)
            imagenet_scale, imagenet_shift = _scale_and_shift(
                IMAGENET_MEAN, IMAGENET_STD, frames.device
            )
            frames = (frames.float() - imagenet_shift) * (scale / imagenet_scale) + shift
        if self.size is None or frames.shape[-2:] == (self.size, self.size):
            return frames
        mode = InterpolationMode(self.interpolation)
        resized = resize(frames.float(), [self.size], mode, antialias=True)
        cropped: Tensor = center_crop(resized, [self.size, self.size])
        return cropped


def normalize(
    frames: Tensor,
    mean: tuple[float, ...] = IMAGENET_MEAN,
    std: tuple[float, ...] = IMAGENET_STD,
    white: float = 255,
) -> Tensor:
    """Normalize raw RGB in float32 and in one pass.

    Args:
        frames: uint8 or floating point `[B, 3, H, W]`, on any device.
        mean: Mean of RGB values from 0 to 1.
        std: Standard deviation of these values.
        white: The value of white; that of black is 0.

    Returns:
        float32 `[B, 3, H, W]` in the memory format channels_last.
    """
    scale, shift = _scale_and_shift(mean, std, frames.device, white)
    normalized = torch.empty(
        frames.shape,
        dtype=torch.float32,
        device=frames.device,
        memory_format=torch.channels_last,  # as the CNN takes it
    )
    return torch.addcmul(shift, frames, scale, out=normalized)


@cache
def _scale_and_shift(
    mean: tuple[float, ...], std: tuple[float, ...], device: torch.device, white: float = 255
) -> tuple[Tensor, Tensor]:
    """Two `[3, 1, 1]`; as buffers, a half-precision Trainer would round them."""
    means, stds = (
        torch.tensor(values, dtype=torch.float64).view(3, 1, 1) for values in (mean, std)
    )
    # The default dtype is not float32 inside of a half-precision Trainer's steps.
    scale, shift = 1 / (white * stds), -means / stds
    return scale.to(device, torch.float32), shift.to(device, torch.float32)
