"""The backbones: stripped, frozen, fused, and loaded from what a person has."""

import copy
from pathlib import Path
from urllib.error import URLError

import pytest
import reference
import torch
from torch import Tensor, nn
from torchvision import models

from featx.backbones.architectures import ARCHITECTURES
from featx.backbones.build import Backbone, build_backbone
from featx.backbones.transforms import normalize
from featx.backbones.weights import state_dict_sha256
from featx.errors import UsageError, WeightsError

LARGE = ("resnet101", "efficientnet_v2_s", "efficientnet_v2_m")
NAMES = [pytest.param(n, marks=pytest.mark.slow) if n in LARGE else n for n in ARCHITECTURES]


@pytest.fixture(scope="module", params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    """Each backbone of the table."""
    return str(request.param)


@pytest.fixture(scope="module")
def built(name: str) -> Backbone:
    """The backbone with random weights."""
    return build_backbone(name, "random")


def frames(count: int = 4, size: int = 64) -> Tensor:
    """Smooth random frames, normalized."""
    generator = torch.Generator().manual_seed(3)
    coarse = torch.randn(count, 3, 5, 5, generator=generator)
    return nn.functional.interpolate(coarse, size=size, mode="bicubic")


def test_frozen_fused_and_of_the_right_size(built: Backbone, name: str) -> None:
    """No batch norm is left, no parameter learns, and features are as many as the table says."""
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in built.module.modules())
    assert not any(parameter.requires_grad for parameter in built.module.parameters())
    assert not any(layer.training for layer in built.module.modules())
    weights = [weight for weight in built.module.parameters() if weight.ndim == 4]
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)
    assert built.feature_dim == ARCHITECTURES[name].feature_dim
    assert built.module(frames()).shape == (4, built.feature_dim)


def test_random_weights_tell_frames_apart(built: Backbone) -> None:
    """Different frames give different features: else comparisons on them prove nothing."""
    features = built.module(frames())
    spread = (features - features.mean(dim=0)).norm() / features.norm()
    assert 0.05 < spread < 0.6


def test_random_weights_are_well_conditioned(built: Backbone) -> None:
    """Rounding errors stay small on smooth, noisy and flat frames: no layer runs away."""
    generator = torch.Generator().manual_seed(0)
    noisy = torch.randn(2, 3, 48, 48, generator=generator)
    flat = torch.rand(2, 3, 1, 1, generator=generator).expand(2, 3, 48, 48) * 4 - 2
    double = copy.deepcopy(built.module).double()
    for images in (frames(2), noisy, flat):
        exact = double(images.double())
        assert (built.module(images) - exact).norm() / exact.norm() < 1e-5


def test_random_weights_are_the_same_every_time(name: str, built: Backbone) -> None:
    """Seeded, whatever the global seed and the number of threads, and neither is changed."""
    torch.manual_seed(7)
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    torch.set_num_threads(threads + 1)
    try:
        again = build_backbone(name, "random")
        assert torch.get_num_threads() == threads + 1
    finally:
        torch.set_num_threads(threads)
    assert again.weights_sha256 == built.weights_sha256
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("with_head", [True, False])
def test_a_local_state_dict(tmp_path: Path, with_head: bool) -> None:
    """A state dict loads with and without its head, to the same features and the same digest."""
    cnn = reference.make_cnn("resnet50")
    path = tmp_path / "mine.pth"
    if not with_head:
        cnn = reference.strip_head(cnn, "resnet50")
    torch.save(cnn.state_dict(), path)
    built = build_backbone("resnet50", str(path))
    cnn = reference.strip_head(cnn, "resnet50")
    assert built.weights == "mine.pth"
    assert built.weights_sha256 == state_dict_sha256(cnn.state_dict())
    assert (built.module(frames()) - cnn(frames())).norm() / cnn(frames()).norm() < 1e-5


def test_digest_sees_every_value_and_name() -> None:
    """The digest changes with a value, a name or a shape, and not with order or counters."""
    state = {"a": torch.zeros(2, 3), "b": torch.ones(4), "b.num_batches_tracked": torch.tensor(1)}
    digest = state_dict_sha256(state)
    assert digest == state_dict_sha256(
        dict(reversed(state.items())) | {"b.num_batches_tracked": torch.tensor(5)}
    )
    changed = torch.zeros(2, 3)
    changed[1, 1] = 1e-30
    for other in ({"a": changed}, {"a": torch.zeros(3, 2)}, {"c": torch.zeros(2, 3)}):
        assert digest != state_dict_sha256({"b": torch.ones(4)} | other)


def test_pretrained_weights_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """A weights name is loaded the way torchvision loads it; DEFAULT is recorded by its name."""
    state = reference.make_cnn("resnet50").state_dict()
    asked: dict[str, object] = {}

    def load(url: str, **settings: object) -> dict[str, Tensor]:
        asked.update(settings, url=url)
        return state

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", load)
    built = build_backbone("resnet50", "DEFAULT")
    assert built.weights == "IMAGENET1K_V2"
    assert asked["url"] == ARCHITECTURES["resnet50"].weights["IMAGENET1K_V2"].url
    assert asked["weights_only"]
    assert asked["check_hash"]


def test_weights_that_cannot_be_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The address, the reason and two ways out are told in one line."""

    def fail(url: str, **settings: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fail)
    with pytest.raises(WeightsError, match=r"https://.*no network.*checkpoints/.*or give its p"):
        build_backbone("resnet50", "IMAGENET1K_V1")


def test_a_damaged_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A damaged file in the cache is named, for it must go first."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    cached = tmp_path / "checkpoints" / "resnet50-0676ba61.pth"
    for content in (b"", b"hello"):
        cached.write_bytes(content)
        with pytest.raises(WeightsError, match=str(cached)) as caught:
            build_backbone("resnet50", "IMAGENET1K_V1")
        assert "\n" not in str(caught.value)


def test_weights_that_are_not_there(tmp_path: Path) -> None:
    """What is accepted is listed."""
    with pytest.raises(
        WeightsError, match=r"IMAGENET1K_V1, DEFAULT, random, or the path .* no file"
    ):
        build_backbone("efficientnet_v2_s", str(tmp_path / "none.pth"))


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    """What is missing, unknown or of another shape is named, in one line."""
    path = tmp_path / "other.pth"
    torch.save(models.resnet34().state_dict(), path)
    with pytest.raises(WeightsError, match=r"an unknown layer1\.2.*and \d+ more") as caught:
        build_backbone("resnet18", str(path))
    assert "\n" not in str(caught.value)
    state = models.resnet18().state_dict()
    del state["bn1.weight"]
    torch.save(state, path)
    with pytest.raises(WeightsError, match=r"found no bn1\.weight\. Give"):
        build_backbone("resnet18", str(path))
    state["conv1.weight"] = torch.zeros(64, 1, 7, 7)
    torch.save(state, path)
    with pytest.raises(WeightsError, match=r"conv1\.weight as \[64, 1, 7, 7\] instead of \[64"):
        build_backbone("resnet18", str(path))


CONTENTS = {
    "list": [1, 2],
    "object": {"model": Path("x")},
    "numbers": {"conv1.weight": 1},
    "other keys": {1: torch.zeros(1)},
    "sparse": {"conv1.weight": torch.zeros(64, 3, 7, 7).to_sparse()},
    "integers": {"conv1.weight": torch.zeros(64, 3, 7, 7, dtype=torch.int64)},
}


@pytest.mark.parametrize("content", [b"", b"hello", *CONTENTS])
def test_weights_that_are_no_state_dict(tmp_path: Path, content: bytes | str) -> None:
    """A file of something else is refused in one line, and nothing in it is executed."""
    path = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(CONTENTS[content], path)
    with pytest.raises(WeightsError, match=r"weights\.pth: expected a state dict") as caught:
        build_backbone("resnet50", str(path))
    assert "\n" not in str(caught.value)


def test_an_unknown_backbone() -> None:
    """Those that are known are listed."""
    with pytest.raises(
        UsageError, match=r"one of resnet50, .*, found 'resnet5'\. Did you mean resnet50 or"
    ):
        build_backbone("resnet5", "random")


def test_normalize() -> None:
    """Raw RGB is normalized as the reference does it, to float32 rounding."""
    video = torch.randint(0, 256, (5, 3, 9, 9), dtype=torch.uint8)
    torch.testing.assert_close(normalize(video), reference.normalize(video), rtol=0, atol=1e-6)
