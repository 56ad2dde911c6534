"""The benchmark: what it compares is the same job, and what it says follows from what it saw."""

import json
import multiprocessing
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from helpers import Save, random_videos
from torch import nn

import featx
from featx.backbones.architectures import ARCHITECTURES
from featx.backbones.transforms import normalize
from featx.backbones.weights import build_random
from featx.cli import main
from featx.commands.bench import measurements
from featx.commands.bench.command import bench
from featx.commands.bench.measurements import Settings, Workload, count_flop
from featx.commands.bench.plain_loop import extract_plainly
from featx.commands.bench.report import Measurement, estimate, format_table, recommend
from featx.commands.bench.rounds import Process
from featx.errors import IncompleteError, MissingDependencyError, UsageError

SCALES = (1.0, 0.85, 1.15)


class Here(Process):
    """Runs everything in this process, where the CNN is the tiny one."""

    def run(self, function: Callable[..., Any], *args: Any) -> Any:  # noqa: ANN401
        """What a function returns."""
        return function(*args)


@pytest.fixture
def small(tiny: None, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Settings for videos of 6 frames of 16 x 16, small matrices, and no other processes."""
    monkeypatch.setattr(measurements, "_LEAST_SECONDS", 0.01)
    measurements._plain_cnn.cache_clear()
    measurements._extractor.cache_clear()
    workload = Workload(6, 16, 16, matrix_size=32, num_workers=(0,))
    return {"workload": workload, "process_type": Here}


def measure(name: str = "resnet50", precision: str = "32-true", **changes: Any) -> Measurement:  # noqa: ANN401
    """A measurement with round numbers: 2, 10 and 12 frames/s, and a ceiling of 16."""
    values: dict[str, Any] = {
        "settings": Settings(name, precision, True, False, 32, 1, 0, "cpu"),  # type: ignore[arg-type]
        "flop_per_frame": 10,
        "plain": [1, 2, 3],
        "featx": [10, 9, 20],
        "backbone": [12, 12, 12],
        "ceiling": [160, 100, 170],
        "plain_memory": {"cpu": 2**30},
        "featx_memory": {"cpu": 2**29},
        "first_seconds": 30,
        "relative_error": 1e-6,
        "passes": {8: 5.0, 16: 9.9, 32: 10.0, 64: 10.0},
        "bytes_per_frame": 1000,
    }
    return Measurement(**values | changes)


@pytest.mark.usefixtures("tiny")
def test_the_plain_loop_does_the_same_job(root: Path, save: Save, tmp_path: Path) -> None:
    """The same rows, labels and attributes, in a file that an old reader would know."""
    videos = random_videos(3, 7)
    save("train/bye/a", {"videos": videos[:1]})
    save("train/hello/a", videos[1:])
    paths = featx.extract(
        root, tmp_path / "out", backbone="resnet50", weights="random", accelerator="cpu"
    )
    for path in root.rglob("*.pt"):
        data = torch.load(path, weights_only=True)
        data = data["videos"] if isinstance(data, dict) else data
        torch.save(torch.stack([normalize(video) for video in data]), path)
    cnn = build_random(ARCHITECTURES["resnet50"].build).eval()
    cnn.fc = nn.Identity()
    plain = tmp_path / "plain.h5"
    extract_plainly(cnn, root / "train", plain, SCALES, torch.device("cpu"))
    with h5py.File(plain) as old, h5py.File(paths["train"]) as new:
        for name in ("labels", "num_frames"):
            assert np.array_equal(old[name], new[name])
        np.testing.assert_allclose(new["features"], old["features"], rtol=1e-5, atol=1e-6)
        assert {*old.attrs} <= {*new.attrs}
        assert all(old.attrs[name] == new.attrs[name] for name in old.attrs)


def test_from_start_to_end(
    small: dict[str, Any], raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A table, JSON, a plot, recommendations and an estimate of clips; the videos are removed."""
    out = tmp_path / "bench"
    bench(
        out,
        backbones=["resnet50"],
        precisions=["32-true", "bf16-mixed"],
        compile=False,
        frames_per_forward=4,
        accelerator="cpu",
        videos=2,
        rounds=2,
        root=raw,
        source="clips",
        num_frames=6,
        **small,
    )
    assert sorted(path.name for path in out.iterdir()) == ["bench.json", "bench.png"]
    assert (out / "bench.png").read_bytes().startswith(b"\x89PNG")
    summary = json.loads((out / "bench.json").read_text())
    exact, rough = summary["measurements"]
    assert [len(exact[name]) for name in ("plain", "featx", "backbone", "ceiling")] == [2] * 4
    assert exact["relative_error"] < 1e-5 < rough["relative_error"] < 1e-2
    assert [row["name"] for row in summary["estimates"]] == [
        "resnet50, 32-true",
        "resnet50, bf16-mixed",
    ]
    output = capsys.readouterr().out
    assert output.count("(b) featx predict") == 2
    assert f"{raw}, resnet50, bf16-mixed: 0.00 h" in output


def test_ratios_of_medians() -> None:
    """Each rate is the median of its rounds; shares are of the bare backbone and the ceiling."""
    row = next(line for line in format_table([measure()]).splitlines() if "(b)" in line)
    cells = [cell.strip() for cell in row.split("|")[2:-1]]
    assert cells == ["10.0", "0.16", "5.00", "83.3%", "62.5%", "512 MB cpu", "1.0e-06"]


def test_recommendations() -> None:
    """The smallest pass that is as fast; what compiling and precision gain; enough workers."""
    rough = measure(precision="bf16-mixed", featx=[30], backbone=[33], relative_error=5e-3)
    lines = recommend(
        [measure(), rough, measure("resnet101")], {0: 0.5, 1: 0.9, 2: 1.1, 4: 2.0}, num_cores=8
    )
    assert lines[0] == (
        "resnet50, 32-true: model.frames_per_forward 16 (8: 5.0, 16: 9.9, 32: 10.0, 64: 10.0 "
        "frames/s uncompiled); model.compile true (+20%, but the first run took 30 s)"
    )
    assert lines[3] == (
        "resnet50: trainer.precision 32-true; or bf16-mixed, 3.0 times as fast, if a relative "
        "error of 5e-03 is no matter"
    )
    assert lines[4] == "resnet101: trainer.precision 32-true"
    assert lines[5].startswith("data.num_workers 2 (0: 0.5, 1: 0.9, 2: 1.1, 4: 2.0 videos/s read")
    assert recommend([rough], {0: 9.0, 1: 1.1}, 8)[-1].startswith("data.num_workers 0")
    assert recommend([rough], {0: 0.1, 1: 0.2}, 8)[-1].startswith("data.num_workers 4")


def test_an_estimate() -> None:
    """Time by the frames that go in, disk by those that come out; on the way there are two."""
    (found,) = estimate([measure()], num_frames=36_000, num_rows=40_000)
    assert found == {
        "name": "resnet50, 32-true",
        "seconds": 3600,
        "bytes": 40_000_000,
        "bytes_on_the_way": 80_000_000,
    }


@pytest.mark.parametrize(("backbone", "gflop"), [("resnet50", 10.68), ("efficientnet_v2_m", 14.0)])
def test_counted_flop(backbone: Any, gflop: float) -> None:  # noqa: ANN401
    """What is known of these CNNs at 256 x 256."""
    assert count_flop(backbone) == pytest.approx(gflop * 1e9, rel=0.01)


@pytest.mark.processes
def test_a_process_of_its_own(tmp_path: Path) -> None:
    """Another process, which starts others as any process does, and whose errors arrive."""
    with Process(tmp_path) as process:
        assert process.run(os.getpid) != os.getpid()
        # As text, for a pickled method would bring the state of this process with it.
        found = process.run(eval, "__import__('multiprocessing').get_start_method()")
        assert found == multiprocessing.get_start_method()
        with pytest.raises(FileNotFoundError):
            process.run(os.stat, tmp_path / "nothing")
        with pytest.raises(IncompleteError, match="found that a process was killed"):
            process.run(os._exit, 1)
    assert (tmp_path / "bench.log").exists()


def test_without_matplotlib(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is told before anything is measured."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependencyError, match="pip install matplotlib"):
        bench(tmp_path / "bench")
    assert main(["bench", "--output_dir", str(tmp_path / "bench")]) == 1
    assert capsys.readouterr().err.startswith(
        "featx bench: error: plot: expected the package matplotlib"
    )
    assert not (tmp_path / "bench").exists()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rounds": 0}, "rounds: expected 1 or more, found 0"),
        ({"videos": 0}, "videos: expected 1 or more, found 0"),
        ({"precisions": []}, "precisions: expected one or more"),
        ({"precisions": ["32-true", "9-bit"]}, "trainer: .*9-bit"),
        ({"accelerator": "abacus"}, "trainer: .*abacus"),
    ],
)
def test_wrong_settings(
    small: dict[str, Any], tmp_path: Path, wrong: dict[str, Any], message: str
) -> None:
    """They are told before anything is measured."""
    with pytest.raises(UsageError, match=message):
        bench(tmp_path / "bench", **small, **wrong)
