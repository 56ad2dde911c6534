"""`featx status`: how far a run is, told from its folder alone."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from helpers import (
    Save,
    extract_eagerly,
    finish,
    finish_in,
    make_rows,
    plan,
    prepare,
    random_videos,
    sha256,
    write_feature_file,
)

from featx.cli import main
from featx.errors import FeatxError
from featx.extraction.extractor import FeatureExtractor
from featx.extraction.status import Heartbeat
from featx.features.feature_file import to_digests
from featx.features.resume.parts import PendingFile
from featx.features.resume.publish import merge_share
from featx.features.shards import shard_path


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A folder with one file that is published, and two rows of another."""
    lengths = [3, 4, 5]
    write_feature_file(tmp_path / "train_features.h5", lengths)
    digests = to_digests([sha256(f"another {row}") for row in range(3)])
    layout = replace(plan(lengths), input_sha256=digests)
    staging = PendingFile(tmp_path / "val_features.h5", layout)
    prepare(staging)
    rows = make_rows(lengths)
    staging.write_part({row: finish(staging, row, rows[row]) for row in (0, 2)})
    return tmp_path


def say(out: Path, rank: int, **said: Any) -> None:  # noqa: ANN401
    """Write the heartbeat of a rank, by default of this process and time."""
    folder = out / ".featx" / "status"
    folder.mkdir(parents=True, exist_ok=True)
    usual: dict[str, Any] = {"host": socket.gethostname(), "pid": os.getpid(), "time": time.time()}
    beat = Heartbeat(rank, **(usual | said))
    (folder / f"{rank}.json").write_text(json.dumps(asdict(beat)))


def test_nobody_works_on_it(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is finished is told, and what to do; status 1, as long as something is not."""
    assert main(["status", str(out)]) == 1
    assert capsys.readouterr().out.splitlines()[1:] == [
        "  published: train_features.h5, 3 videos",
        "  not published yet: val_features.h5, 2 videos in parts",
        "  no process works on it: run the same command again to go on from there",
    ]
    shutil.rmtree(out / ".featx")
    assert main(["status", str(out)]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == ["  published: train_features.h5, 3 videos"]


def test_shards_without_the_file_over_them(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a run has published of them before it was ended is not finished."""
    shutil.rmtree(out / ".featx")
    lengths = [3, 4, 5, 3]
    staging = PendingFile(out / "test_features.h5", plan(lengths), rows_per_file=2)
    prepare(staging)
    for row, features in enumerate(make_rows(lengths)[:3]):
        staging.write_part({row: finish_in(staging, row, features)})
    [merged] = merge_share([staging], 0, 2)
    assert merged.path is not None
    shard_path(staging.target, 0).parent.mkdir()
    merged.path.rename(shard_path(staging.target, 0))
    assert main(["status", str(out), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["unpublished"] == {"test_features.h5": 3}
    for part in staging.folder.iterdir():
        part.unlink()
    assert staging.has_parts()
    assert main(["status", str(out), "--json"]) == 1


def test_a_run_that_lives(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its phase, how far it is and how fast, its processes, and what they have left out."""
    work = {"phase": "extraction", "total_videos": 100, "total_frames": 1000, "found": 7}
    say(out, 0, **work, device="cuda:0", videos=10, frames=100, rate=2.0)
    say(
        out, 1, **work, host="other", videos=20, frames=200, rate=5.0, skipped=2, reasons=["a", "b"]
    )
    assert main(["status", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == (
        "  extraction: 30 of 100 videos, 7 found from an earlier run, left 01:40, 7.0 frames/s"
    )
    assert lines[2].startswith(f"  rank 0, process {os.getpid()} on {socket.gethostname()}, cuda:0")
    assert lines[3].startswith(f"  rank 1, process {os.getpid()} on other: extraction, 20 videos")
    assert lines[4] == "  skipped so far: 2: a, b"
    assert main(["status", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["run"]["seconds_left"] == 100
    assert [process["state"] for process in found["processes"]] == ["alive", "alive"]
    assert found["published"] == {"train_features.h5": 3}
    assert found["unpublished"] == {"val_features.h5": 2}


def test_a_run_that_scans(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Only the phase is known."""
    say(tmp_path, 0)
    assert main(["status", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[1] == "  scan"


@pytest.mark.processes
def test_processes_that_are_gone(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A process of this machine has ended; one of another machine has a stale heartbeat."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    say(out, 0, pid=process.pid)
    say(out, 1, host="other", time=time.time() - 1000)
    assert main(["status", str(out)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].endswith(", ended")
    assert lines[2].endswith("1000 s ago, stale")
    assert "no process works on it" in lines[-1]


def test_another_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line says that it is not one of featx."""
    assert main(["status", str(tmp_path)]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert f"{tmp_path}: expected train_features_multiscale.h5" in line


@pytest.mark.usefixtures("tiny")
def test_in_the_midst_of_a_run(
    root: Path,
    save: Save,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It is found at work; at its end it leaves nothing, and is done."""
    save("train/a/x", random_videos(3, 4))
    out = tmp_path / "out"
    statuses = []
    step = FeatureExtractor.predict_step

    def look(self: FeatureExtractor, *batch: Any) -> Any:  # noqa: ANN401
        statuses.append(main(["status", str(out), "--json"]))
        return step(self, *batch)

    monkeypatch.setattr(FeatureExtractor, "predict_step", look)
    extract_eagerly(root, out)
    assert statuses == [0, 0, 0]
    assert '"state": "alive"' in capsys.readouterr().out
    assert not (out / ".featx" / "status").exists()
    assert main(["status", str(out)]) == 0


@pytest.mark.usefixtures("tiny")
def test_a_run_that_cannot_begin_leaves_nothing(root: Path, tmp_path: Path) -> None:
    """Not even a folder, if there was none."""
    with pytest.raises(FeatxError):
        extract_eagerly(root, tmp_path / "out")
    assert not (tmp_path / "out").exists()
