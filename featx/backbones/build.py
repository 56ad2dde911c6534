"""The backbones: build, load, remove the head, freeze, fold batch norms into convolutions."""

import copy
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn
from torch.fx.experimental.optimization import fuse

from featx.backbones.architectures import find_architecture, find_head
from featx.backbones.transforms import InputTransform
from featx.backbones.weights import LoadedWeights, build_random, load_weights, state_dict_sha256
from featx.errors import UsageError, first_line

_COMMON_SIZE = 224  # of image classifiers


class Backbone(NamedTuple):
    """A frozen CNN, ready for frames.

    Attributes:
        module: Maps frames `[B, 3, H, W]` to features `[B, feature_dim]`.
        name: Its name.
        feature_dim: Number of features per frame.
        transform: What the module takes.
        weights: Name of the loaded weights, or of their file.
        weights_sha256: Digest of the weights' values, see `state_dict_sha256`.
        note: What loading the weights took off their file, and left over; see `LoadedWeights`.
    """

    module: nn.Module
    name: str
    feature_dim: int
    transform: InputTransform
    weights: str
    weights_sha256: str
    note: str = ""


def build_backbone(name: str, weights: str = "DEFAULT", input_size: int | None = None) -> Backbone:
    """Build a backbone: frozen, in eval mode, conv-bn fused, channels_last, without its head.

    Args:
        name: One of `ARCHITECTURES`, `LITE0`, another of torchvision's classification models, or
            `timm:<name>`.
        weights: The name of pretrained weights (`DEFAULT`, `IMAGENET1K_V1`, ...), the path of a
            local state dict (with or without the head), or `random`: seeded, for tests and demos.
        input_size: Height and width to which frames are resized; by default those of the weights.

    Raises:
        UsageError: The backbone is unknown, or does not take frames of this size.
        WeightsError: The weights do not exist, cannot be downloaded, or do not fit.
        MissingDependencyError: The package that it comes from is not installed.
    """
    architecture = find_architecture(name, weights, input_size)
    transform, loaded = architecture.transform, LoadedWeights(weights)
    if weights == "random":
        module = build_random(architecture.build, transform.size)
        remove_head(module, architecture.heads)
    else:
        module = architecture.build(weights=None)
        heads = remove_head(module, architecture.heads)
        loaded = load_weights(module, weights, architecture.weights, heads)
    digest = state_dict_sha256(module.state_dict())
    if architecture.fusible:
        module = fuse(module.eval())
    if input_size:
        transform = transform._replace(size=input_size)
    module = _freeze(module)
    feature_dim = architecture.feature_dim or find_feature_dim(module, name, transform)
    return Backbone(module, name, feature_dim, transform, loaded.name, digest, loaded.note)


def wrap_module(
    module: nn.Module, feature_dim: int | None, weights: str, input_size: int | None
) -> Backbone:
    """Freeze a copy of any module that maps frames `[B, 3, H, W]` to features.

    Args:
        module: The module; it gets frames that are normalized with ImageNet's mean and std.
        feature_dim: Number of features per frame; by default, a forward pass of 224 x 224 tells.
        weights: `DEFAULT` for those that it has, or the path of a state dict.
        input_size: Height and width to which frames are resized; by default, they are not.

    Raises:
        UsageError: It does not give one vector per frame.
        WeightsError: The weights do not exist, or do not fit.
    """
    name, module = type(module).__name__, copy.deepcopy(module)
    loaded = LoadedWeights("as given")
    if weights != "DEFAULT":
        loaded = load_weights(module, weights, {}, ())
    digest = state_dict_sha256(module.state_dict())
    transform = InputTransform(input_size)
    module = _freeze(module)
    feature_dim = feature_dim or find_feature_dim(module, name, transform)
    return Backbone(module, name, feature_dim, transform, loaded.name, digest, loaded.note)


def find_feature_dim(module: nn.Module, name: str, transform: InputTransform) -> int:
    """Number of features per frame, from a forward pass.

    Raises:
        UsageError: The module fails, or does not give one vector per frame.
    """
    size = transform.size or _COMMON_SIZE
    example = next(module.parameters(), torch.empty(0))
    frames = example.new_zeros(2, 3, size, size)
    try:
        with torch.inference_mode():
            features = module(frames)
    except Exception as error:  # of the user's module: a size that it does not take can be any
        raise UsageError(
            f"{name}: expected a backbone for frames of {size} x {size}, found: "
            f"{first_line(error)}. Set input_size to a size that it takes, or feature_dim."
        ) from error
    shape = [*features.shape] if isinstance(features, torch.Tensor) else type(features).__name__
    if not isinstance(features, torch.Tensor) or features.ndim != 2 or len(features) != 2:
        raise UsageError(
            f"{name}: expected features [2, feature_dim] of 2 frames, found {shape}. "
            "Pool and flatten what the module gives."
        )
    return features.shape[1]


def remove_head(module: nn.Module, heads: Sequence[str] | None) -> Sequence[str]:
    """Put the identity in the place of the head, be it found; returns the names of its layers."""
    heads = [find_head(module)] if heads is None else heads
    for head in heads:
        parent, _, child = head.rpartition(".")
        setattr(module.get_submodule(parent), child, nn.Identity())
    return heads


def _freeze(module: nn.Module) -> nn.Module:
    """In eval mode, for fusing rebuilds modules in training mode; without gradients."""
    frozen: nn.Module = module.eval().requires_grad_(False)
    return frozen.to(memory_format=torch.channels_last)
