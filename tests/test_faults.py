"""Failures at every single step: nothing lost, nothing false."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("crash_loop.py")


@pytest.mark.parametrize("overwrite", ["fresh", "overwrite"])
@pytest.mark.parametrize("mode", ["SIGKILL", "ENOSPC", "EIO"])
def test_every_step(tmp_path: Path, mode: str, overwrite: str) -> None:
    """Whatever step fails, the published file is old or complete, and a rerun ends as it should."""
    done = subprocess.run(
        [sys.executable, SCRIPT, tmp_path, mode, overwrite],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > 50  # failures, each followed by a rerun
