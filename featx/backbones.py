"""The backbones: build, load, strip the head, freeze, fold batch norms into convolutions."""

import hashlib
import pickle
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse
from torchvision import models

from featx.errors import UsageError, WeightsError

BackboneName = Literal["resnet50", "resnet101", "efficientnet_v2_s", "efficientnet_v2_m"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Of RGB between 0 and 1. Source: torchvision's own transforms for these weights."""

_IGNORED = "num_batches_tracked"  # counts training steps: no part of what the backbone computes


class Architecture(NamedTuple):
    """How to build a backbone.

    Attributes:
        build: torchvision's builder.
        weights: Its pretrained weights.
        head: Name of the classification head, which is replaced by the identity.
        feature_dim: Number of features of a frame.
    """

    build: Callable[..., nn.Module]
    weights: type[models.WeightsEnum]
    head: str
    feature_dim: int


ARCHITECTURES: dict[str, Architecture] = {
    "resnet50": Architecture(models.resnet50, models.ResNet50_Weights, "fc", 2048),
    "resnet101": Architecture(models.resnet101, models.ResNet101_Weights, "fc", 2048),
    "efficientnet_v2_s": Architecture(
        models.efficientnet_v2_s, models.EfficientNet_V2_S_Weights, "classifier", 1280
    ),
    "efficientnet_v2_m": Architecture(
        models.efficientnet_v2_m, models.EfficientNet_V2_M_Weights, "classifier", 1280
    ),
}


class Backbone(NamedTuple):
    """A frozen CNN, ready for frames.

    Attributes:
        module: Maps normalized frames `[B, 3, H, W]` to features `[B, feature_dim]`.
        feature_dim: Number of features of a frame.
        weights: Name of the weights that were loaded, or of their file.
        weights_sha256: Digest of the weights' values, see `state_dict_sha256`.
    """

    module: nn.Module
    feature_dim: int
    weights: str
    weights_sha256: str


def build_backbone(name: str, weights: str = "DEFAULT") -> Backbone:
    """Build a backbone without its head, frozen, in eval mode, fused, in channels_last.

    Args:
        name: One of `ARCHITECTURES`.
        weights: The name of torchvision weights (`DEFAULT`, `IMAGENET1K_V1`, ...), the path of a
            local state dict (with or without the head), or `random`: seeded, for tests and demos.

    Raises:
        UsageError: The backbone is unknown.
        WeightsError: The weights are not there, cannot be downloaded, or do not fit.
    """
    if name not in ARCHITECTURES:
        raise UsageError(f"backbone: expected one of {', '.join(ARCHITECTURES)}, found {name!r}.")
    architecture = ARCHITECTURES[name]
    if weights == "random":
        module = _build_random(architecture)
    else:
        module = architecture.build(weights=None)
        setattr(module, architecture.head, nn.Identity())
        if weights in architecture.weights.__members__:
            entry = architecture.weights[weights]
            weights, state = entry.name, _download(entry)
        else:
            path = Path(weights).expanduser()
            weights, state = path.name, _read_state_dict(path, architecture)
        _load(module, state, architecture.head, weights)
    digest = state_dict_sha256(module.state_dict())
    module = fuse(module.eval()).eval().requires_grad_(False)
    module = module.to(memory_format=torch.channels_last)
    return Backbone(module, architecture.feature_dim, weights, digest)


def state_dict_sha256(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of the names, dtypes, shapes and bytes of a state dict, in the order of the names.

    It says what was loaded, whatever file it came from. Counters of training steps are left out.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        if not name.endswith(_IGNORED):
            digest.update(f"{name} {tensor.dtype} {[*tensor.shape]}\n".encode())
            digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def normalize(frames: Tensor) -> Tensor:
    """Normalize raw RGB with ImageNet's mean and std, in float32.

    Args:
        frames: uint8 `[..., 3, H, W]`, on any device.
    """
    mean, std = _imagenet(frames.device)
    return frames.float().div_(255).sub_(mean).div_(std)


@cache
def _imagenet(device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and std `[3, 1, 1]`: no buffers, which a half-precision Trainer would round."""
    mean, std = (torch.tensor(rgb, device=device) for rgb in (IMAGENET_MEAN, IMAGENET_STD))
    return mean.view(3, 1, 1), std.view(3, 1, 1)


def _download(entry: models.WeightsEnum) -> Mapping[str, Tensor]:
    try:
        state: Mapping[str, Tensor] = entry.get_state_dict(
            progress=True, check_hash=True, map_location="cpu", weights_only=True
        )
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        raise WeightsError(
            f"{entry.url}: expected to download the weights {entry.name}, found: "
            f"{_first_line(error)}. Download the file elsewhere and put it into {folder}, or give "
            "its path as weights."
        ) from error
    return state


def _read_state_dict(path: Path, architecture: Architecture) -> Mapping[str, Tensor]:
    names = ", ".join(architecture.weights.__members__)
    accepted = f"one of {names}, random, or the path of a state dict"
    if not path.is_file():
        raise WeightsError(f"weights: expected {accepted}, found no file at {path}.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever torch trips over in a foreign file
        raise WeightsError(
            f"{path}: expected a state dict written by torch.save, found: {_first_line(error)}. "
            "Save it as torch.save(model.state_dict(), path)."
        ) from error
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise WeightsError(
            f"{path}: expected a state dict (names and tensors), found {type(state).__name__}. "
            "Save it as torch.save(model.state_dict(), path)."
        )
    return state


def _load(module: nn.Module, state: Mapping[str, Tensor], head: str, weights: str) -> None:
    """Load a state dict into a module without a head, or say in one line why it doesn't fit."""
    state = {name: value for name, value in state.items() if not name.startswith(f"{head}.")}
    expected = module.state_dict()
    missing = [name for name in expected.keys() - state.keys() if not name.endswith(_IGNORED)]
    found = [f"no {name}" for name in sorted(missing)]
    found += [f"an unknown {name}" for name in sorted(state.keys() - expected.keys())]
    found += [
        f"{name} as {[*value.shape]} where {[*expected[name].shape]} belongs"
        for name, value in state.items()
        if name in expected and value.shape != expected[name].shape
    ]
    if found:
        more = f", and {len(found) - 3} more" if len(found) > 3 else ""
        raise WeightsError(
            f"{weights}: expected the state dict of this backbone, found "
            f"{', '.join(found[:3])}{more}. Give the weights of this backbone."
        )
    module.load_state_dict(state, strict=False)


def _build_random(architecture: Architecture) -> nn.Module:
    """Seeded random weights whose features depend on the frame, as smoothly as trained ones do.

    At torchvision's plain initialization an EfficientNet's features hardly depend on the frame.
    Batch-norm statistics calibrated on random images, as training would have done, mend that.
    The positive biases keep most activations in their linear part: around zero, rounding errors
    would grow from layer to layer until they drown the features.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums then come out the same, however many threads a process has
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            module = architecture.build(weights=None)
            setattr(module, architecture.head, nn.Identity())
            for layer in module.modules():
                if isinstance(layer, nn.BatchNorm2d):
                    layer.weight.uniform_(0.6, 1.1)
                    layer.bias.normal_(0.5, 0.1)
                    layer.momentum = None  # the plain mean over all passes
            module.train()
            for _ in range(2):
                module(_random_images(16, size=64))
    finally:
        torch.set_num_threads(threads)
    return module


def _random_images(count: int, size: int) -> Tensor:
    """Images `[count, 3, size, size]` with detail at every scale, each as strong as chance has it.

    Calibrated on less variety, a network overflows on a frame unlike all that it has seen.
    """
    images = torch.zeros(count, 3, size, size)
    for exponent in range(size.bit_length()):
        detail = torch.randn(count, 3, 2**exponent, 2**exponent) * torch.rand(count, 1, 1, 1)
        images += nn.functional.interpolate(detail, size=size)
    return images


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).partition("\n")[0].rstrip(".")
