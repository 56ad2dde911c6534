"""Weights as people have them: in checkpoints, with prefixes, beside other things."""

import argparse
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import Evil, TinyCNN, build_tiny
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torchvision import models

from featx import FeatureExtractor
from featx.backbones.build import build_backbone
from featx.backbones.weights import state_dict_sha256
from featx.errors import WeightsError

pytestmark = pytest.mark.usefixtures("tiny")


def trained() -> dict[str, Tensor]:
    """A state dict of the tiny CNN, its head included, that is not the one that it begins with."""
    torch.manual_seed(1)
    cnn = TinyCNN()
    for parameter in cnn.parameters():
        nn.init.normal_(parameter)
    return cnn.state_dict()


def without_head(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same without the head."""
    return {name: value for name, value in state.items() if not name.startswith("fc.")}


def prefixed(prefix: str, **others: Any) -> dict[str, Any]:  # noqa: ANN401
    """A state dict whose names have a prefix, and what else is in it."""
    return {prefix + name: value for name, value in trained().items()} | others


def load(path: Path, content: object, **settings: Any) -> tuple[str, str]:  # noqa: ANN401
    """Save and load weights: their digest, and what is said of them."""
    torch.save(content, path, **settings)
    built = build_backbone("resnet50", str(path))
    assert built.weights == path.name
    return built.weights_sha256, built.note


HEAD = torch.zeros(2, 2)
OPTIMIZER = {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 0.1}]}
FORMS: dict[str, tuple[object, str]] = {
    "bare": (trained(), ""),
    "without its head": (without_head(trained()), ""),
    "ordered": (OrderedDict(trained()), ""),
    "a parameter": (
        {n: nn.Parameter(v) if v.is_floating_point() else v for n, v in trained().items()},
        "",
    ),
    "state_dict": ({"state_dict": trained()}, "took off the wrapper state_dict"),
    "model": ({"model": trained()}, "took off the wrapper model"),
    "model_state_dict": ({"model_state_dict": trained()}, "the wrapper model_state_dict"),
    "nested": (
        {"model": {"state_dict": trained()}},
        "took off the wrapper model and the wrapper state_dict",
    ),
    "ImageNet's .pth.tar": (
        {
            "epoch": 90,
            "arch": "resnet50",
            "state_dict": prefixed("module."),
            "best_acc1": np.float64(76.1),
            "optimizer": OPTIMIZER,
        },
        "took off the wrapper state_dict and the prefix module.; "
        "left over: epoch, arch, best_acc1, optimizer",
    ),
    "a checkpoint of Lightning": (
        {
            "epoch": 3,
            "pytorch-lightning_version": "2.6.0",
            "state_dict": prefixed("model.", **{"loss.weight": torch.ones(3)}),
            "hyper_parameters": argparse.Namespace(lr=0.1, path=Path("x")),
            "callbacks": {},
        },
        "took off the wrapper state_dict and the prefix model.; left over: epoch, "
        "pytorch-lightning_version, hyper_parameters, callbacks, loss.weight",
    ),
    "of two processes, compiled": (prefixed("module._orig_mod."), "the prefix module._orig_mod."),
    "compiled": (prefixed("_orig_mod."), "took off the prefix _orig_mod."),
    "backbone": (
        prefixed("backbone.", **{"head.0.weight": HEAD}),
        "took off the prefix backbone.; left over: head.0.weight",
    ),
    "encoder": (prefixed("encoder."), "took off the prefix encoder."),
    "several prefixes": (prefixed("model.encoder.backbone."), "prefix model.encoder.backbone."),
    "beside another's": (
        prefixed("encoder.", **{f"momentum_encoder.{name}": v for name, v in trained().items()}),
        "took off the prefix encoder.; left over: momentum_encoder.bn.bias, ",
    ),
    "a projector beside it": (
        trained() | {"projector.0.weight": HEAD},
        "left over: projector.0.weight",
    ),
    "another head": ({**without_head(trained()), "fc.0.weight": HEAD, "fc.2.weight": HEAD}, ""),
    "in half precision": ({n: v.half() if v.ndim else v for n, v in trained().items()}, ""),
    "arguments beside it": (
        {"state_dict": trained(), "args": argparse.Namespace(out=Path("x"), best=np.float64(1))},
        "left over: args",
    ),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("zipped", [True, False])
def test_they_load(tmp_path: Path, form: str, zipped: bool) -> None:
    """The weights are those that were saved, and what was around them is told in one line."""
    content, note = FORMS[form]
    expected = without_head(trained())
    if form == "in half precision":
        expected = {n: v.half().float() if v.ndim else v for n, v in expected.items()}
    path = tmp_path / "weights.pth"
    digest, found = load(path, content, _use_new_zipfile_serialization=zipped)
    assert digest == state_dict_sha256(expected)
    assert note in found
    assert bool(note) == bool(found)
    assert "\n" not in found
    if found:
        assert found.startswith(f"{path}: ")
    assert not Path("pwned").exists()


class Classifier(LightningModule):
    """A model of one's own around a backbone, with objects among its settings."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.backbone = build_tiny()
        self.loss = nn.CrossEntropyLoss(weight=torch.ones(4))


def test_a_checkpoint_that_lightning_saved(tmp_path: Path) -> None:
    """Its backbone is found among all that a Trainer saves, and the line about it is shown."""
    model, path = Classifier(tmp_path), tmp_path / "last.ckpt"
    trainer = Trainer(logger=False, accelerator="cpu", enable_progress_bar=False)
    trainer.strategy.connect(model)
    trainer.save_checkpoint(path)
    extractor = FeatureExtractor("resnet50", str(path))
    state = without_head(model.backbone.state_dict())
    assert (extractor.weights, extractor.weights_sha256) == ("last.ckpt", state_dict_sha256(state))


def test_the_line_is_shown(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A person sees what was taken off, once."""
    path = tmp_path / "weights.pth"
    torch.save(prefixed("module."), path)
    with caplog.at_level("INFO"):
        FeatureExtractor("resnet50", str(path))
    assert caplog.text.count(f"{path}: took off the prefix module.") == 1


def test_a_module_of_ones_own(tmp_path: Path) -> None:
    """Its weights may come in the same forms."""
    path = tmp_path / "weights.pth"
    torch.save({"state_dict": prefixed("module.")}, path)
    extractor = FeatureExtractor(build_tiny(), str(path))
    assert extractor.weights_sha256 == state_dict_sha256(trained())


REFUSED: dict[str, tuple[object, str]] = {
    "another prefix": (
        prefixed("net."),
        "expected the names of this backbone, found them under the prefix 'net.'. Take it off",
    ),
    "two that could be meant": (
        prefixed("encoder.") | prefixed("backbone."),
        "found them under the prefix 'backbone.' and under 'encoder.'.",
    ),
    "teacher and student": (
        prefixed("teacher.") | prefixed("student."),
        "found them under the prefix 'student.' and under 'teacher.'.",
    ),
    "a prefix without a dot": (prefixed("x"), "found an unknown xconv.weight, xbn.weight and "),
    "another backbone": (
        {"module.layer1.weight": HEAD, "module.layer2.weight": HEAD},
        "found an unknown module.layer1.weight, module.layer2.weight, no conv.weight, bn.weight",
    ),
    "more inside of its parts": (
        prefixed("module.", **{"module.conv.se.weight": HEAD}),
        "found an unknown conv.se.weight. Give",
    ),
    "one name missing": (
        {n: v for n, v in prefixed("module.").items() if n != "module.bn.weight"},
        "no conv.weight, bn.weight and",
    ),
    "a whole model": (build_tiny(), "found: a Python object (helpers.TinyCNN)"),
    "a wrapped model": ({"model": build_tiny()}, "found: a Python object (helpers.TinyCNN)"),
    "code": (Evil(Path("pwned")), "found: a Python object (posix.mkdir)"),
    "code beside it": (
        {"state_dict": trained(), "evil": Evil(Path("pwned"))},
        "found: a Python object (posix.mkdir)",
    ),
    "arrays of NumPy": ({n: v.numpy() for n, v in trained().items()}, "of something else"),
    "nothing": ({}, "no conv.weight"),
}


@pytest.mark.parametrize("form", REFUSED)
def test_they_are_refused(tmp_path: Path, form: str) -> None:
    """In one line, which names the prefix or the name that was found."""
    content, message = REFUSED[form]
    with pytest.raises(WeightsError) as caught:
        load(tmp_path / "weights.pth", content)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not Path("pwned").exists()


def test_modules_that_want_their_version(tmp_path: Path) -> None:
    """A state dict has notes of its own about its modules; mnasnet asks for them."""
    module = models.mnasnet0_5()
    path = tmp_path / "weights.pth"
    for state in (module.state_dict(), nn.DataParallel(module).state_dict()):
        torch.save({"state_dict": state, "path": Path("x")}, path)
        assert build_backbone("mnasnet0_5", str(path)).feature_dim == 1280
    torch.save(dict(module.state_dict()), path)
    with pytest.raises(WeightsError, match="expected the state dict of this backbone, found: vers"):
        build_backbone("mnasnet0_5", str(path))


def test_a_tensor_with_attributes(tmp_path: Path) -> None:
    """It is a tensor all the same."""
    state = without_head(trained())
    state["conv.weight"].note = Path("x")  # type: ignore[attr-defined]
    assert load(tmp_path / "weights.pth", state)[0] == state_dict_sha256(without_head(trained()))
