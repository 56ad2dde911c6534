"""One run at a time: a second one is told at once, and a dead one is no obstacle."""

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from featx.errors import OutputError
from featx.features.lock import RunLock

HOLDER = """
import sys, time
from pathlib import Path
from featx.features.lock import RunLock
lock = RunLock(Path(sys.argv[1]))
lock.acquire()
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The lock's file."""
    return tmp_path / "out" / ".featx" / "lock"


@pytest.mark.processes
def test_a_second_run_is_told_who_holds_it(path: Path) -> None:
    """The holder's process and host are named; when it is killed, the lock is free."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, path], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(OutputError) as caught:
            RunLock(path).acquire()
        assert f"found process {holder.pid} on {socket.gethostname()}. Wait" in str(caught.value)
        assert str(caught.value).startswith(f"{path.parent.parent}: expected no other run")
    finally:
        holder.kill()
        holder.communicate()
    lock = RunLock(path)
    lock.acquire()
    assert path.read_text() == f"process {os.getpid()} on {socket.gethostname()}\n"
    lock.release()


def test_nothing_is_left(path: Path) -> None:
    """The file and its folder are gone after the release; others in the folder stay."""
    lock = RunLock(path)
    lock.acquire()
    lock.acquire()
    lock.release()
    lock.release()
    assert not path.parent.exists()
    lock.acquire()
    (path.parent / "part").write_text("")
    lock.release()
    assert [*path.parent.iterdir()] == [path.parent / "part"]


def test_a_lock_removed_in_between(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock on a file that its holder has just removed protects nothing: it is taken anew."""
    original = Path.open
    removed: list[Path] = []

    def open_and_remove(self: Path, mode: str) -> object:
        file = original(self, mode)
        if not removed:
            self.unlink()
            removed.append(self)
        return file

    monkeypatch.setattr(Path, "open", open_and_remove)
    lock = RunLock(path)
    lock.acquire()
    assert removed == [path]
    assert path.exists()
    lock.release()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """The path and the system's reason are named."""
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputError, match="found: Not a directory"):
        RunLock(tmp_path / "out" / ".featx" / "lock").acquire()


@pytest.mark.processes
def test_a_restarted_run_waits_for_what_it_has_lost(path: Path) -> None:
    """A process of the same run is about to end: its lock is waited for, and no other's."""
    code = HOLDER.replace("RunLock(Path(sys.argv[1]))", "RunLock(Path(sys.argv[1]), 'mine')")
    with subprocess.Popen(
        [sys.executable, "-c", code, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(OutputError, match=r"found process .* run mine"):
            RunLock(path, "another").acquire()
        lock = RunLock(path, "mine")
        waiting = threading.Thread(target=lock.acquire)
        waiting.start()
        holder.kill()
        waiting.join(30)
        assert not waiting.is_alive()
        lock.release()
