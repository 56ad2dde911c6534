"""Every configuration runs as it stands, with the weights and the folders of the test."""

from pathlib import Path

import h5py
import pytest
import yaml
from helpers import Save, random_videos

from featx.backbones.architectures import ARCHITECTURES
from featx.cli import main

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.yaml"))


def test_there_is_one_for_each_backbone_and_one_for_the_cpu() -> None:
    """The configurations are those that the README lists."""
    assert [path.stem for path in CONFIGS] == [
        "cpu",
        "efficientnet_v2_m",
        "efficientnet_v2_s",
        "resnet101",
        "resnet50",
    ]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_weights_exist(config: Path) -> None:
    """The weights that a configuration names are torchvision's for its backbone."""
    model = yaml.safe_load(config.read_text())["model"]
    assert model["weights"] in ARCHITECTURES[model["backbone"]].weights


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_config_runs(config: Path, root: Path, save: Save, tmp_path: Path) -> None:
    """`featx predict --config` makes the file that the configuration asks for."""
    save("train/a/x", random_videos(2, 3, size=32))
    arguments = [
        "predict",
        f"--config={config}",
        "--model.weights=random",
        f"--data.root={root}",
        f"--writer.output_dir={tmp_path / 'out'}",
        "--trainer.accelerator=cpu",
        "--trainer.devices=1",
    ]
    assert main(arguments) == 0
    with h5py.File(tmp_path / "out" / "train_features_multiscale.h5") as file:
        backbone = "efficientnet_v2_s" if config.stem == "cpu" else config.stem
        assert file.attrs["backbone"] == backbone
        assert file["features"].shape == (2, 5, 2048 if "resnet" in backbone else 1280)
