"""Every configuration runs as it stands, with the weights and the folders of the test."""

import os
import subprocess
import sys
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


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(path, marks=() if path.stem in ("cpu", "resnet50") else pytest.mark.slow)
        for path in CONFIGS
    ],
    ids=lambda path: path.stem,
)
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


def run_torchrun(root: Path, out: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    """Run torchrun.sh on one machine, with two processes."""
    settings = {"PROCESSES": "2", "RESTARTS": "0", "PORT": "0", "CONFIG": str(CONFIGS[0])}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return subprocess.run(
        [CONFIGS[0].with_name("torchrun.sh"), "localhost", "1", root, out, *options],
        env=os.environ | settings | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.processes
def test_torchrun(small_root: Path, tmp_path: Path) -> None:
    """The script for several machines, on one: the options reach all processes."""
    options = ["--model.weights=random", "--model.backbone=resnet50", "--trainer.accelerator=cpu"]
    done = run_torchrun(small_root, tmp_path / "out", *options)
    assert done.returncode == 0, done.stderr
    assert len([*(tmp_path / "out").glob("*.h5")]) == 3


@pytest.mark.processes
def test_torchrun_with_a_wrong_option(tmp_path: Path) -> None:
    """It is told once, in a line, and nothing is started, let alone again and again."""
    done = run_torchrun(tmp_path, tmp_path / "out", "--data.root_of_all=x")
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert "data.root_of_all" in line
