"""Random weights for tests and demos, whose features depend on the frame as trained ones do."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


def build_random(build: Callable[..., nn.Module], size: int | None = None) -> nn.Module:
    """Build a CNN with seeded, calibrated random weights.

    At torchvision's plain initialization, an EfficientNet's features hardly depend on the frame.
    Batch-norm statistics calibrated on random images, as training would have done, correct that.
    The positive biases keep most activations in their linear part: around zero, rounding errors
    grow from layer to layer until they drown the features.

    Args:
        build: torchvision's builder.
        size: Height and width of the images; by default small ones, where the CNN takes any.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # so that sums, and weights, do not depend on the number of threads
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            module = build(weights=None)
            batch_norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
            for layer in batch_norms:
                layer.weight.uniform_(0.6, 1.1)
                layer.bias.normal_(0.5, 0.1)
                layer.momentum = None  # the plain mean over all passes
            for name, parameter in module.named_parameters():
                if name.endswith(("layer_scale", ".gamma")):  # a ConvNeXt's blocks begin as nothing
                    parameter.fill_(1)
            module.train()
            for _ in range(2 if batch_norms else 0):
                module(_random_images(16, size or 64))
    finally:
        torch.set_num_threads(threads)
    return module


def _random_images(count: int, size: int) -> Tensor:
    """Images `[count, 3, size, size]` with detail of random strength at every scale.

    Calibrated on less variety, a network overflows on frames that differ from what it has seen.
    """
    images = torch.zeros(count, 3, size, size)
    for exponent in range(size.bit_length()):
        detail = torch.randn(count, 3, 2**exponent, 2**exponent) * torch.rand(count, 1, 1, 1)
        images += nn.functional.interpolate(detail, size=size)
    return images
