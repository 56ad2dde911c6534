"""Several processes: the same files, however many there are and however they were started."""

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import h5py
import jobs
import nbformat
import pytest
import torch
from helpers import Save, random_video, random_videos
from nbclient import NotebookClient

import featx
from featx.cli import main

pytestmark = pytest.mark.processes


@pytest.fixture
def five(root: Path, save: Save) -> Path:
    """Five videos of different lengths."""
    for number in range(5):
        save(f"train/{number}/x", random_videos(1, 3 + number, seed=number, size=32))
    return root


def extract(root: Path, out: Path, **settings: object) -> dict[str, bytes]:
    """The bytes of the files that this process makes."""
    featx.extract(
        root,
        out,
        backbone="resnet50",
        weights="random",
        frames_per_forward=4,
        accelerator="cpu",
        **settings,  # type: ignore[arg-type]
    )
    return jobs.contents(out)


@pytest.mark.usefixtures("tiny")
def test_two_processes_write_the_same_shards(five: Path, tmp_path: Path) -> None:
    """Whichever of them has made which row, also of one shard; and a grown split, too."""
    expected = extract(five, tmp_path / "one", rows_per_file=2)
    assert len(expected) == 5
    split = five / "train"
    (split / "0").rename(tmp_path / "later")
    jobs.run(five, tmp_path / "two", delay=0, rows_per_file=2, **jobs.TWO)
    (tmp_path / "later").rename(split / "0")
    found = jobs.run(five, tmp_path / "two", delay=0, rows_per_file=2, **jobs.TWO)
    assert found == expected


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("number", [1, 2, 5])
def test_two_processes_write_the_same_bytes(
    root: Path, save: Save, tmp_path: Path, number: int
) -> None:
    """Also with as many videos as processes, and when one of them has none."""
    for i in range(number):
        save(f"train/{i}/x", random_videos(1, 3 + i, seed=i, size=32))
    out = tmp_path / "two"
    expected = extract(root, tmp_path / "one")
    assert jobs.run(root, out, delay=0, **jobs.TWO) == expected
    if number == 5:
        assert jobs.run(root, out, delay=0, **jobs.TWO) == expected  # nothing is left for either


@pytest.mark.usefixtures("tiny")
def test_three_processes_of_different_speed(root: Path, save: Save, tmp_path: Path) -> None:
    """Which of them makes which video leaves no trace, also if all have begun anew."""
    save("train/a/x", [random_video(3 + i % 4, i) for i in range(20)])
    out = tmp_path / "three"
    settings = jobs.TWO | {"devices": 3, "delay": 0.01, "slow": {"1": 0.2}, "batch_size": 2}
    assert jobs.end(jobs.start(root, out, fault="0:raise", **settings), 60) == 1
    assert jobs.run(root, out, **settings) == extract(root, tmp_path / "one")


@pytest.mark.usefixtures("tiny")
def test_two_processes_leave_out_the_same(root: Path, save: Save, tmp_path: Path) -> None:
    """Bad videos at the end, where the second process finds them."""
    bad = torch.full((3, 3, 8, 8), float("nan"))
    save("train/a/x", [random_video(3), random_video(5), 0, random_video(3), bad, bad])
    expected = extract(root, tmp_path / "one", on_error="skip")
    assert jobs.run(root, tmp_path / "two", delay=0, on_error="skip", **jobs.TWO) == expected
    with h5py.File(tmp_path / "two" / "train_features_multiscale.h5") as file:
        assert [*json.loads(file.attrs["skipped"])] == [f"train/a/x/{i}" for i in (2, 4, 5)]


def test_two_processes_without_a_video(root: Path, tmp_path: Path) -> None:
    """No videos are an error, and not a hang."""
    (root / "train" / "a").mkdir(parents=True)
    assert jobs.end(jobs.start(root, tmp_path / "out", **jobs.TWO), 60) == 1


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_same_bytes_at_every_setting(five: Path, tmp_path: Path, precision: str) -> None:
    """Processes, batches and workers leave no trace in the files."""
    expected = jobs.run(five, tmp_path / "two", devices=2, precision=precision)
    for batch_size, num_workers in [(1, 0), (3, 2)]:
        settings = {"batch_size": batch_size, "num_workers": num_workers, "precision": precision}
        assert extract(five, tmp_path / f"{batch_size}", **settings) == expected


def predict(root: Path, out: Path, *options: str) -> list[str]:
    """The command line of a job."""
    settings = {
        "model.backbone": "resnet50",
        "model.weights": "random",
        "data.root": root,
        "writer.output_dir": out,
        "trainer.accelerator": "cpu",
        "trainer.devices": 1,
        "trainer.enable_progress_bar": "false",
    }
    arguments = [f"--{name}={value}" for name, value in settings.items()]
    return ["-m", "featx", "predict", *arguments, *options]


def run_nodes(launcher: str, command: list[str]) -> list[int]:
    """Run a job on two nodes of one process: their statuses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    nodes = []
    for rank in range(2):
        torchrun = [
            *("-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"),
            *(f"--node-rank={rank}", "--master-addr=127.0.0.1", f"--master-port={port}"),
        ]
        srun = {
            **{"SLURM_JOB_NAME": "featx", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "1"},
            **{"SLURM_PROCID": f"{rank}", "SLURM_NODEID": f"{rank}", "SLURM_LOCALID": "0"},
            **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": f"{port}"},
        }
        node = subprocess.Popen(
            [sys.executable, *(torchrun if launcher == "torchrun" else ()), *command],
            env={**os.environ, **(srun if launcher == "SLURM" else {})},
            start_new_session=True,
        )
        nodes.append(node)
    return [jobs.end(node, 120) for node in nodes]


@pytest.mark.parametrize("launcher", ["torchrun", "SLURM"])
def test_two_nodes(
    five: Path, tmp_path: Path, launcher: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """As on two machines with a shared folder: the same bytes as on one."""
    out = tmp_path / "two"
    assert run_nodes(launcher, predict(five, out, "--trainer.num_nodes=2")) == [0, 0]
    assert "requeue" not in capfd.readouterr().err
    assert main(predict(five, tmp_path / "one")[2:]) == 0
    assert jobs.contents(out) == jobs.contents(tmp_path / "one")


def test_no_node_takes_a_failure_for_a_success(five: Path, tmp_path: Path) -> None:
    """Where the first one cannot publish, the second one does not end with status 0 either."""
    options = ("--trainer.num_nodes=2", "--trainer.limit_predict_batches=2")
    assert run_nodes("SLURM", predict(five, tmp_path / "out", *options)) == [1, 1]
    assert not [*(tmp_path / "out").glob("*.h5")]


CELL = """
from lightning.pytorch import Trainer
from featx import FeatureExtractor, FeatureWriter, VideoDataModule

def extract(out, **settings):
    trainer = Trainer(callbacks=[FeatureWriter(out)], logger=False, accelerator="cpu", **settings)
    trainer.predict(
        FeatureExtractor("resnet50", "random"), VideoDataModule("processed", num_workers=1),
        return_predictions=False,
    )

extract("one")
extract("two", devices=2, strategy="ddp_notebook")

import featx

paths = featx.extract(
    "processed", "two", backbone="resnet50", weights="random", devices=2, accelerator="cpu"
)
assert paths["train"].exists()
"""


def test_two_processes_of_a_notebook(five: Path, tmp_path: Path) -> None:
    """A notebook forks its processes; it has used torch before."""
    notebook = nbformat.from_dict(  # type: ignore[no-untyped-call]
        {
            "cells": [{"cell_type": "code", "source": CELL, "metadata": {}, "outputs": []}],
            "metadata": {},
            "nbformat": 4,
            "nbformat_minor": 4,
        }
    )
    resources = {"metadata": {"path": tmp_path}}
    NotebookClient(notebook, timeout=120, resources=resources).execute()
    assert jobs.contents(tmp_path / "one") == jobs.contents(tmp_path / "two")


@pytest.mark.usefixtures("tiny")
def test_kills_at_random(
    root: Path, save: Save, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Any process, at any time, again and again, on one process or two: the same bytes."""
    save("train/a/x", random_videos(12, 5))
    save("train/b/x", random_videos(12, 7, seed=1))
    for category in "ab":
        save(f"test/{category}/x", random_videos(3, 5, seed=2))
    rng = random.Random(0)
    out = tmp_path / "out"
    settings = {"delay": 0.05, "num_workers": 1}
    expected = extract(root, tmp_path / "undisturbed")
    kills = request.config.getoption("kills")
    for kill in range(1, kills + 1):
        job = jobs.start(root, out, devices=2, **settings)
        while not (out / ".featx" / "lock").exists() and job.poll() is None:
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 1.5))
        if alive := jobs.processes(job):
            os.kill(rng.choice(alive), signal.SIGKILL)
        jobs.end(job, 60)
        for path in out.glob("*.h5"):
            assert path.read_bytes() == expected[path.name]
        if kill % 4 == 0 or kill == kills:
            assert jobs.run(root, out, devices=rng.choice([1, 2]), **settings) == expected
            shutil.rmtree(out)


def test_a_run_goes_on_with_other_settings(five: Path, tmp_path: Path) -> None:
    """What changes last bits may be another, and so may the number of processes.

    Nothing is made twice, and of each row the file tells how it was made.
    """
    out = tmp_path / "out"
    assert jobs.end(jobs.start(five, out, delay=0, fault="0:kill"), 60) != 0
    parts = {path.name: path.read_bytes() for path in out.rglob("part-*.h5")}
    assert len(parts) == 2
    content = jobs.run(five, out, delay=0, frames_per_forward=3, **jobs.TWO)
    fresh = jobs.run(five, tmp_path / "fresh", delay=0)
    name = "train_features_multiscale.h5"
    with h5py.File(out / name) as found, h5py.File(tmp_path / "fresh" / name) as expected:
        runs = [run["frames_per_forward"] for run in json.loads(found.attrs["runs"])]
        assert [runs[run] for run in found["run"][:]] == [4, 4, 3, 3, 3]
        torch.testing.assert_close(
            torch.from_numpy(found["features"][:]),
            torch.from_numpy(expected["features"][:]),
            rtol=1e-5,
            atol=1e-5,
        )
        for row in range(2):  # as they were in the parts
            chunk = found["features"].id.read_direct_chunk((row, 0, 0))[1]
            assert any(chunk in part for part in parts.values())
    assert content != fresh
    # With the settings of the beginning, too, nothing is left to do.
    assert jobs.run(five, out, delay=0) == content
