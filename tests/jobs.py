"""Start jobs in processes of their own, and see them end.

An interpreter takes seconds to import torch and Lightning, so jobs are forked from a server that
has imported them. Jobs under torchrun, and other ranks that Lightning starts, are interpreters.
"""

import atexit
import contextlib
import json
import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
import time
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any, Protocol

SCRIPT = Path(__file__).with_name("run_job.py")

TWO: dict[str, object] = {"devices": 2, "strategy": "ddp_fork"}
"""Settings for two ranks where it does not matter that Lightning usually starts interpreters."""

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(
    ["featx.extraction.run", "featx.commands.predict", "featx.data.media.clip"]
)


class Job(Protocol):
    """A process that leads a session of its own."""

    @property
    def pid(self) -> int:
        """The number of the process."""

    def poll(self) -> int | None:
        """The status, or None while the process runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the status.

        Raises:
            subprocess.TimeoutExpired: The process still runs.
        """


class Forked:
    """A script that runs in a process of the server's."""

    def __init__(self, script: Path, args: list[str], folder: Path) -> None:
        self._process = _SERVER.Process(
            target=_run_script, args=(script, args, folder, {**os.environ}, _Descriptors())
        )
        self._process.start()
        _RUNNING.append(self._process)

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid or 0

    def poll(self) -> int | None:
        """The status, or None while the process runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the status."""
        self._process.join(timeout)
        status = self.poll()
        if status is None:
            raise subprocess.TimeoutExpired("a job", timeout or 0)
        return status


class _Descriptors:
    """Standard output and error of this process, for another one."""

    def __getstate__(self) -> list[Any]:
        return [DupFd(1), DupFd(2)]

    def __setstate__(self, state: list[Any]) -> None:
        for number, duplicate in enumerate(state, start=1):
            os.dup2(duplicate.detach(), number)


_RUNNING: list[BaseProcess] = []


@atexit.register  # runs before the wait of multiprocessing for all processes
def _kill_all() -> None:
    for process in _RUNNING:
        if process.is_alive():
            process.kill()


def _run_script(
    script: Path, args: list[str], folder: Path, environment: dict[str, str], _: _Descriptors
) -> None:
    multiprocessing.set_start_method(None, force=True)  # of DataLoaders: as in an interpreter
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [str(script), *args]
    runpy.run_path(str(script), run_name="__main__")


def run_script(script: Path, *args: object, folder: Path) -> Job:
    """Run a script with these arguments in a folder."""
    return Forked(script, [str(arg) for arg in args], folder)


def start(root: Path | str, out: Path, **settings: object) -> Job:
    """Start a job in a session of its own; the settings are those of run_job.py."""
    out.parent.mkdir(parents=True, exist_ok=True)
    return run_script(SCRIPT, root, out, json.dumps(settings), folder=out.parent)


def start_nodes(root: Path, out: Path, nodes: int, per_node: int, **settings: object) -> list[Job]:
    """Start a job under torchrun, as on several machines, which may be restarted often."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torchrun = [
        *("-m", "torch.distributed.run", f"--nnodes=1:{nodes}", f"--nproc-per-node={per_node}"),
        *("--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{port}", "--rdzv-id=featx"),
        *("--max-restarts=100", "--local-addr=127.0.0.1"),
    ]
    return [
        subprocess.Popen(
            [sys.executable, *torchrun, SCRIPT, root, out, json.dumps(settings)],
            cwd=out.parent,
            env=os.environ | {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"},  # see torchrun.sh
            start_new_session=True,
        )
        for _ in range(nodes)
    ]


def end(job: Job, seconds: float) -> int:
    """See that the job ends in time, with all of its processes; returns its status."""
    try:
        status = job.wait(seconds)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            if not processes(job):
                return status
            time.sleep(0.1)
        raise AssertionError(f"processes are left: {processes(job)}")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(job.pid, signal.SIGKILL)


def processes(job: Job) -> list[int]:
    """The processes of a job's session that are alive."""
    alive = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, _, session = path.read_text().rpartition(")")[2].split()[:4]
            if int(session) == job.pid and state != "Z":
                alive.append(int(path.parent.name))
    return alive


def find_ranks(out: Path) -> list[int]:
    """The processes of jobs on an output folder that are alive, but for torchrun's own."""
    alive = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_text().split("\0")
            if str(SCRIPT) in words and str(out) in words and "torch.distributed.run" not in words:
                alive.append(int(path.parent.name))
    return alive


def end_nodes(nodes: list[Job], out: Path, seconds: float) -> list[int]:
    """See that a job under torchrun ends in time, with all of its processes: the statuses."""
    try:
        statuses = [end(node, seconds) for node in nodes]
        deadline = time.monotonic() + 30
        while left := find_ranks(out):
            if time.monotonic() > deadline:
                raise AssertionError(f"processes are left: {left}")
            time.sleep(0.1)
        return statuses
    finally:
        for node in nodes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(node.pid, signal.SIGKILL)
        for pid in find_ranks(out):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def run(root: Path | str, out: Path, **settings: object) -> dict[str, bytes]:
    """Run a job undisturbed: the bytes of its files."""
    assert end(start(root, out, **settings), 120) == 0
    return contents(out)


def contents(out: Path) -> dict[str, bytes]:
    """The bytes of the files in an output folder, after a check that nothing else is there."""
    names = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    notes = {name for name in names if name.startswith(".featx/")}
    assert all(name.startswith(".featx/scan_cache/") for name in notes)  # what scans have found
    names -= notes
    assert "configuration_analysis.json" in names
    assert all(name.endswith(".h5") for name in names - {"configuration_analysis.json"})
    return {name: (out / name).read_bytes() for name in names}
