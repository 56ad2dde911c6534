"""Start jobs in processes of their own, and see them end."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

SCRIPT = Path(__file__).with_name("run_job.py")

Job = subprocess.Popen[bytes]


def start(root: Path | str, out: Path, **settings: object) -> Job:
    """Start a job in a process group of its own; the settings are those of run_job.py."""
    out.parent.mkdir(parents=True, exist_ok=True)
    return subprocess.Popen(
        [sys.executable, SCRIPT, root, out, json.dumps(settings)],
        cwd=out.parent,
        start_new_session=True,
    )


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
    assert all(name.startswith(".featx/known/") for name in notes)  # what is known of clips
    names -= notes
    assert "configuration_analysis.json" in names
    assert all(name.endswith(".h5") for name in names - {"configuration_analysis.json"})
    return {name: (out / name).read_bytes() for name in names}
