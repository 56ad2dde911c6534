"""The README's commands and examples, run as they are printed but for their size."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pages import ROOT, SMALL, read_page

import featx
from featx import FeatureDataModule, FeatureDataset
from featx.cli import COMMANDS, main
from featx.commands.bench import command as bench

PAGE = read_page(ROOT / "README.md")
TEXT, LINES = PAGE.text, PAGE.lines
_SRUN = """#!/bin/bash
shift  # its own option
for rank in 0 1; do
  SLURM_PROCID=$rank SLURM_LOCALID=$rank SLURM_NODEID=0 "$@" & pids+=($!)
done
status=0
for pid in "${pids[@]}"; do wait "$pid" || status=1; done
exit $status
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*categories have no videos:UserWarning")
def test_commands_of_featx(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One after the other, on small clips and with random weights; each ends with status 0."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    asked: list[Path | None] = []
    monkeypatch.setattr(bench, "bench", lambda root=None: asked.append(root))
    shutil.copy(ROOT / ".github/page.png", make_folder(tmp_path / "frames/train/a/b"))
    (raw / "clips.csv").write_text("path\ntrain/hello/2.mp4\n")
    folders = {"RAW_DIR": raw, "PROCESSED_DIR": "processed", "FRAMES_DIR": tmp_path / "frames"}
    ran: list[str] = []
    found = PAGE.commands
    assert {command for command, *_ in found} == {*COMMANDS} - {"demo"}  # see .ci/run and test_demo
    for command, *args in found:
        for name, path in folders.items():
            args = [arg.replace(name, str(path)) for arg in args]
        is_straight = command == "predict" and "--config" not in args
        if is_straight:  # from clips
            args += ["--data.num_frames", "6", "--data.image_size", "32"]
            args += ["--model.backbone", "resnet50"]
        folder = f"straight {len(ran)}" if is_straight else "features"
        ran.append(command)
        args = [arg.replace("FEATURES_DIR", folder) for arg in args]
        if command == "bench":
            bench.bench(root=Path(args[1]) if args else None)
            continue
        assert main([command, *args, *SMALL[command]]) == 0, (command, args)
    assert len(asked) == 1
    assert ran.count("predict") == 5
    assert (tmp_path / "train.png").is_file()
    assert (tmp_path / "page.html").is_file()
    assert (tmp_path / "both.h5").is_file()
    assert len([*(tmp_path / "NPY_DIR").rglob("*.npy")]) == 4


def make_folder(path: Path) -> Path:
    """A new folder."""
    path.mkdir(parents=True)
    return path


def test_the_other_commands() -> None:
    """What is left is installed and run by .ci/run, or by test_configs."""
    others = [line[0] for line in LINES if line and line[0] != "featx"]
    assert others == ["python3", "python3", "configs/torchrun.sh"]


def test_examples_in_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their names exist, and those for training run on a feature file."""
    examples = PAGE.examples
    assert len(examples) == 3
    for example in examples:
        compile(example, "README.md", "exec")
        for names in re.findall(r"from featx import (.*)", example):
            assert all(hasattr(featx, name.strip()) for name in names.split(","))
    assert FeatureDataset.__name__ in examples[1]
    assert FeatureDataModule.__name__ in examples[1]


def test_files_that_it_names() -> None:
    """Configurations, notebooks, tests, benchmarks and pictures are where it says."""
    named = {*re.findall(r"[`(]((?:configs|notebooks|tests|\.github)/[\w/.]+\.\w+)[`)]", TEXT)}
    assert len(named) > 10
    assert [name for name in named if not (ROOT / name).is_file()] == []


@pytest.mark.processes
def test_the_job_script(small_root: Path, tmp_path: Path) -> None:
    """The script for SLURM, with an `srun` that starts the processes on this machine."""
    srun = tmp_path / "bin" / "srun"
    srun.parent.mkdir()
    srun.write_text(_SRUN)
    srun.chmod(0o755)
    job = {
        "SLURM_JOB_NAME": "featx",
        "SLURM_JOB_ID": "12345",
        "SLURM_JOB_NUM_NODES": "1",
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_CPUS_PER_TASK": "1",
        "SLURM_NODELIST": "localhost",
        "MASTER_ADDR": "127.0.0.1",
    }
    path = os.pathsep.join([str(srun.parent), str(Path(sys.executable).parent), os.environ["PATH"]])
    options = ["--model.backbone=resnet50", "--model.weights=random", "--trainer.accelerator=cpu"]
    done = subprocess.run(
        ["configs/slurm.sh", small_root, tmp_path / "out", *options, "--trainer.strategy=ddp"],
        cwd=ROOT,
        env=os.environ | job | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert len([*(tmp_path / "out").glob("*_features_multiscale.h5")]) == 3


def test_it_is_short_and_has_every_box() -> None:
    """A newcomer reads it to its end, and finds each file and folder of the package in it."""
    assert len(TEXT.splitlines()) <= 280
    boxes = {p.name + "/" * p.is_dir() for p in (ROOT / "featx").iterdir() if p.name[0] != "_"}
    assert [box for box in boxes - {"py.typed"} if f"`{box}`" not in TEXT] == []


def test_where_what_goes() -> None:
    """CONTRIBUTING names files, tables and parameters that there are."""
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    named = re.findall(r"`((?:featx|tests|commands|data)/[\w/]+\.py)`", text)
    assert len(named) > 5
    paths = [
        ROOT / name if name[:5] in ("featx", "tests") else ROOT / "featx" / name for name in named
    ]
    assert [path for path in paths if not path.is_file()] == []
