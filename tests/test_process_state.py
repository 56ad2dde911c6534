"""A call from Python leaves the process as it found it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.processes

SCRIPT = Path(__file__).with_name("print_process_state.py")


def test_a_call_leaves_the_process_as_it_was(small_root: Path, tmp_path: Path) -> None:
    """Threads, warnings filters, signal handlers and TF32: after runs, an error and a signal."""
    done = subprocess.run(
        [sys.executable, SCRIPT, small_root, tmp_path],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    states = json.loads(done.stdout.splitlines()[-1])
    before = states.pop("before")
    assert len(states) == 5
    for way, state in states.items():
        assert (way, state) == (way, before)
