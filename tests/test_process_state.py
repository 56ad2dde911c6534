"""A call from Python leaves the process as it found it."""

import json
from pathlib import Path

import jobs
import pytest

pytestmark = pytest.mark.processes

SCRIPT = Path(__file__).with_name("print_process_state.py")


def test_a_call_leaves_the_process_as_it_was(
    small_root: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Threads, warnings filters, signal handlers and TF32: after runs, an error and a signal."""
    status = jobs.end(jobs.run_script(SCRIPT, small_root, tmp_path, folder=tmp_path), 120)
    printed = capfd.readouterr()
    assert status == 0, printed.err
    states = json.loads(printed.out.splitlines()[-1])
    before = states.pop("before")
    assert len(states) == 5
    for way, state in states.items():
        assert (way, state) == (way, before)
