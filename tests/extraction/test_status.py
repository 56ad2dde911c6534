"""Heartbeats: what ranks report, and the progress of the run that follows from it."""

import json
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from featx.extraction.status import Heartbeat, HeartbeatFile, read_heartbeats, sum_up


def test_all_ranks_count_but_only_those_at_work_have_a_rate() -> None:
    """A rank that waits has no rate, and that of a stale heartbeat is not counted."""
    working = [
        Heartbeat(rank, time=1000, videos=10, frames=100, rate=rank + 1.0, total_frames=1000)
        for rank in range(3)
    ]
    ended = Heartbeat(3, time=1000, phase="waiting", videos=5, frames=50, total_frames=1000)
    stale = Heartbeat(4, time=300, videos=1, frames=10, rate=100.0, total_frames=1000)
    found = sum_up([*working, ended, stale], 1001)
    assert (found.videos, found.frames, found.rate) == (36, 360, 6)
    assert found.seconds_left == pytest.approx(640 / 6)
    assert sum_up([working[0]], 1001).seconds_left == 900
    assert sum_up([ended], 1001).seconds_left is None


@pytest.mark.processes
def test_who_is_alive() -> None:
    """On this machine, the process is looked up; on another one, the heartbeat must be recent."""
    here = Heartbeat(host=socket.gethostname(), pid=os.getpid(), time=0)
    assert here.judge(1000) == "alive"
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    assert replace(here, pid=process.pid, time=1000).judge(1000) == "ended"
    there = Heartbeat(host="another.machine", pid=os.getpid(), time=1000)
    assert there.judge(1599) == "alive"
    assert there.judge(1601) == "stale"


def test_a_heartbeat_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is rewritten at most once a second; its rate counts from the phase's start."""
    now = 100.0
    monkeypatch.setattr("featx.extraction.status.time.monotonic", lambda: now)
    folder = tmp_path / "status"
    file = HeartbeatFile(folder, 1)
    (folder / "7.json").write_text('{"lunch": 7}')
    file.beat.total_videos = 9
    file.enter("extraction")
    file.advance(2, 20)
    for number in range(5):
        file.skip(f"reason {number}")
    now += 0.5
    file.write()
    assert read_heartbeats(folder)[0].videos == 0
    now += 1.5
    file.write()
    [beat] = read_heartbeats(folder)
    assert (beat.rank, beat.videos, beat.frames, beat.phase) == (1, 2, 20, "extraction")
    assert (beat.rate, beat.total_videos) == (10, 9)
    assert (beat.skipped, beat.reasons) == (5, ["reason 0", "reason 1", "reason 2"])
    assert (beat.pid, beat.host) == (os.getpid(), socket.gethostname())
    file.enter("waiting")
    assert read_heartbeats(folder)[0].rate == 0
    (folder / "7.json").unlink()
    file.remove()
    assert not folder.exists()


def test_ranks_see_each_other(tmp_path: Path) -> None:
    """A rank reads the other files every few seconds, or when it is asked to."""
    first, second = (HeartbeatFile(tmp_path / "status", rank) for rank in range(2))
    assert first.sum_up().videos == 0
    second.advance(3, 30)
    second.write(at_once=True)
    first.advance(1, 10)
    assert first.sum_up().videos == 1
    assert first.sum_up(at_once=True).videos == 4


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    """It is no reason for a run to end."""
    folder = tmp_path / "status"
    folder.write_text("a file")
    file = HeartbeatFile(folder, 0)
    file.enter("extraction")
    file.advance(1, 1)
    assert file.sum_up().videos == 1
    file.remove()
    assert folder.read_text() == "a file"
    folder.unlink()
    gone = HeartbeatFile(folder, 0)
    shutil.rmtree(folder)
    gone.remove()


def test_files_that_are_none_of_ours(tmp_path: Path) -> None:
    """They are ignored."""
    (tmp_path / "0.json").write_text(json.dumps(asdict(Heartbeat())))
    (tmp_path / "1.json").write_text(json.dumps(asdict(Heartbeat(1)) | {"lunch": 1}))
    assert [beat.rank for beat in read_heartbeats(tmp_path)] == [0]
