"""The backbones: build, load, remove the head, freeze, fold batch norms into convolutions."""

import hashlib
import pickle
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse
from torchvision import models

from featx.errors import UsageError, WeightsError, first_line, shorten
from featx.random_weights import build_random

BackboneName = Literal["resnet50", "resnet101", "efficientnet_v2_s", "efficientnet_v2_m"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Of RGB values from 0 to 1. Source: torchvision's transforms for these weights."""

_STEP_COUNTER = "num_batches_tracked"  # of a batch norm; it plays no part in the features


class Architecture(NamedTuple):
    """How to build a backbone.

    Attributes:
        build: torchvision's builder.
        weights: Its pretrained weights.
        head: Name of the classification head, which is replaced by the identity.
        feature_dim: Number of features per frame.
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
        feature_dim: Number of features per frame.
        weights: Name of the loaded weights, or of their file.
        weights_sha256: Digest of the weights' values, see `state_dict_sha256`.
    """

    module: nn.Module
    feature_dim: int
    weights: str
    weights_sha256: str


def build_backbone(name: str, weights: str = "DEFAULT") -> Backbone:
    """Build a backbone: frozen, in eval mode, conv-bn fused, channels_last, without its head.

    Args:
        name: One of `ARCHITECTURES`.
        weights: The name of torchvision weights (`DEFAULT`, `IMAGENET1K_V1`, ...), the path of a
            local state dict (with or without the head), or `random`: seeded, for tests and demos.

    Raises:
        UsageError: The backbone is unknown.
        WeightsError: The weights do not exist, cannot be downloaded, or do not fit.
    """
    if name not in ARCHITECTURES:
        raise UsageError(f"backbone: expected one of {', '.join(ARCHITECTURES)}, found {name!r}.")
    architecture = ARCHITECTURES[name]
    if weights == "random":
        module = build_random(architecture.build)
        setattr(module, architecture.head, nn.Identity())
    else:
        module = architecture.build(weights=None)
        setattr(module, architecture.head, nn.Identity())
        if weights in architecture.weights.__members__:
            entry = architecture.weights[weights]
            weights, source, state = entry.name, entry.url, _download(entry)
        else:
            path = Path(weights).expanduser()
            weights, source, state = (
                path.name,
                str(path),
                _read_state_dict(path, architecture.weights.__members__),
            )
        _load(module, _check_state_dict(state, source), architecture.head, source)
    digest = state_dict_sha256(module.state_dict())
    module = fuse(module.eval()).eval()  # again, for fusing rebuilds modules in training mode
    module = module.requires_grad_(False).to(memory_format=torch.channels_last)
    return Backbone(module, architecture.feature_dim, weights, digest)


def state_dict_sha256(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of the names, dtypes, shapes and bytes of a state dict, sorted by name.

    It identifies the values that were loaded, whatever file they came from. Counters of training
    steps are left out.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        if not name.endswith(_STEP_COUNTER):
            digest.update(f"{name} {tensor.dtype} {[*tensor.shape]}\n".encode())
            digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def normalize(frames: Tensor) -> Tensor:
    """Normalize raw RGB with ImageNet's mean and std, in float32 and in one pass.

    Args:
        frames: uint8 `[B, 3, H, W]`, on any device.

    Returns:
        float32 `[B, 3, H, W]` in the memory format channels_last.
    """
    scale, shift = _imagenet(frames.device)
    normalized = torch.empty(
        frames.shape,
        dtype=torch.float32,
        device=frames.device,
        memory_format=torch.channels_last,  # as the CNN takes it
    )
    return torch.addcmul(shift, frames, scale, out=normalized)


@cache
def _imagenet(device: torch.device) -> tuple[Tensor, Tensor]:
    """Scale and shift `[3, 1, 1]`; as buffers, a half-precision Trainer would round them."""
    mean = torch.tensor(IMAGENET_MEAN, dtype=torch.float64).view(3, 1, 1)
    std = torch.tensor(IMAGENET_STD, dtype=torch.float64).view(3, 1, 1)
    # The default dtype is not float32 inside of a half-precision Trainer's steps.
    scale, shift = 1 / (255 * std), -mean / std
    return scale.to(device, torch.float32), shift.to(device, torch.float32)


def _download(entry: models.WeightsEnum) -> object:
    try:
        return entry.get_state_dict(
            progress=True, check_hash=True, map_location="cpu", weights_only=True
        )
    except Exception as error:  # of the network, the disk, or a damaged file in the cache
        cached = Path(torch.hub.get_dir()) / "checkpoints" / Path(entry.url).name
        raise WeightsError(
            f"{entry.url}: expected to download the weights {entry.name}, found: "
            f"{_describe(error)}. Download the file elsewhere and put it at {cached} (if there is "
            "one already, it is damaged), or give its path as weights."
        ) from error


def _read_state_dict(path: Path, names: Iterable[str]) -> object:
    if not path.is_file():
        raise WeightsError(
            f"weights: expected one of {', '.join(names)}, random, or the path of a state dict, "
            f"found no file at {path}. Check the name or the path."
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a foreign file can fail anywhere inside torch
        raise WeightsError(
            f"{path}: expected a state dict written by torch.save, found: {_describe(error)}. "
            "Save it as torch.save(model.state_dict(), path)."
        ) from error


def _describe(error: Exception) -> str:
    if isinstance(error, pickle.UnpicklingError):  # its message is a page long
        return "Python objects besides tensors, such as a whole model"
    return f"{type(error).__name__}: {first_line(error)}"


def _check_state_dict(state: object, source: str) -> dict[str, Tensor]:
    plain = isinstance(state, Mapping) and all(
        isinstance(name, str)
        and isinstance(value, Tensor)
        and value.layout is torch.strided
        and value.device.type == "cpu"
        and (value.is_floating_point() or name.endswith(_STEP_COUNTER))
        for name, value in state.items()
    )
    if not plain:
        raise WeightsError(
            f"{source}: expected a state dict of floating-point tensors, found "
            f"{type(state).__name__} of something else. "
            "Save it as torch.save(model.state_dict(), path)."
        )
    return dict(cast(Mapping[str, Tensor], state))


def _load(module: nn.Module, state: Mapping[str, Tensor], head: str, source: str) -> None:
    """Load a state dict into a module without a head, or say in one line why it does not fit."""
    state = {name: value for name, value in state.items() if not name.startswith(f"{head}.")}
    shapes = {name: value.shape for name, value in module.state_dict().items()}
    differences = [
        f"{name} as {[*value.shape]} instead of {[*shapes[name]]}"
        for name, value in state.items()
        if name in shapes and value.shape != shapes[name]
    ]
    if not differences:
        result = module.load_state_dict(state, strict=False)
        differences += [f"no {name}" for name in result.missing_keys]
        differences += [f"an unknown {name}" for name in result.unexpected_keys]
    if differences:
        raise WeightsError(
            f"{source}: expected the state dict of this backbone, found "
            f"{shorten(differences, 3)}. Give the weights of this backbone."
        )
