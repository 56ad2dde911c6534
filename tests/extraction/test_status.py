"""Signs of life: what processes say, and what follows from it."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from featx.extraction.status import Pace, Reporter, Sign, read_signs, sum_up


def test_a_pace_is_that_of_the_last_ten_minutes() -> None:
    """What was before that does not count, nor what an earlier run has done."""
    pace = Pace(100.0)
    assert pace.find_rate(100.0, 0) == 0
    assert pace.find_rate(110.0, 50) == 5
    for second in range(110, 2001, 10):
        rate = pace.find_rate(float(second), 50 + (second - 110))
    assert rate == pytest.approx(1.0)
    assert pace.find_rate(2300.0, 1940) == pytest.approx(0.5)


def test_all_processes_count_but_only_those_at_work_have_a_rate() -> None:
    """One that has ended, or never begun, is neither slow nor fast; nor is a silent one."""
    working = [
        Sign(rank, time=1000, videos=10, frames=100, rate=rank + 1.0, total_frames=1000)
        for rank in range(3)
    ]
    ended = Sign(3, time=1000, phase="waiting", videos=5, frames=50, total_frames=1000)
    silent = Sign(4, time=900, videos=1, frames=10, rate=100.0, total_frames=1000)
    found = sum_up([*working, ended, silent], 1001)
    assert (found.videos, found.frames, found.rate) == (36, 360, 6)
    assert found.slowest == working[0]
    assert found.fastest == working[2]
    assert found.seconds_left == pytest.approx(640 / 6)
    assert sum_up([working[0]], 1001)[3:] == (None, None, 900)
    assert sum_up([ended], 1001).seconds_left is None


def test_who_is_alive() -> None:
    """On this machine, the process tells; on another one, whether it has said anything lately."""
    here = Sign(host=socket.gethostname(), pid=os.getpid(), time=0)
    assert here.is_alive(1000)
    assert here.is_silent(1000)
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    assert not replace(here, pid=process.pid, time=1000).is_alive(1000)
    there = Sign(host="another.machine", pid=os.getpid(), time=1000)
    assert there.is_alive(1059)
    assert not there.is_alive(1061)


def test_a_reporter_is_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it says can be read until it stops; then nothing is left."""
    monkeypatch.setattr("featx.extraction.status._BEAT_SECONDS", 0.01)
    folder = tmp_path / "status"
    folder.mkdir()
    (folder / "7.json").write_text('{"rank": 7}')
    reporter = Reporter(folder, Sign(1, num_ranks=2, total_videos=9))
    reporter.begin("extraction")
    reporter.advance(2, 20)
    for number in range(5):
        reporter.skip(f"reason {number}")
    while not (signs := read_signs(folder)) or signs[0].skipped < 5:
        time.sleep(0.01)
    [sign] = signs
    assert (sign.rank, sign.videos, sign.frames, sign.phase) == (1, 2, 20, "extraction")
    assert (sign.skipped, sign.reasons) == (5, ("reason 0", "reason 1", "reason 2"))
    assert (sign.pid, sign.host) == (os.getpid(), socket.gethostname())
    (folder / "7.json").unlink()
    reporter.stop()
    assert not folder.exists()


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    """It is no reason for a run to end."""
    folder = tmp_path / "status"
    folder.write_text("a file")
    reporter = Reporter(folder, Sign())
    reporter.begin("extraction")
    reporter.advance(1, 1)
    assert reporter.sum_up().videos == 1
    reporter.stop()
    assert folder.read_text() == "a file"
    folder.unlink()
    gone = Reporter(folder, Sign())
    shutil.rmtree(folder, ignore_errors=True)
    gone.stop()


@pytest.mark.parametrize("change", [{"phase": "lunch"}, {"reasons": None}, {"rate": "fast"}])
def test_files_that_are_none_of_ours(tmp_path: Path, change: dict[str, object]) -> None:
    """They are passed over."""
    (tmp_path / "0.json").write_text(json.dumps(asdict(Sign())))
    (tmp_path / "1.json").write_text(json.dumps(asdict(Sign(1)) | change))
    assert [sign.rank for sign in read_signs(tmp_path)] == [0]
