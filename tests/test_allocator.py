"""The allocator: no page faults for memory that was in use a moment ago."""

import platform
import subprocess
import sys

import pytest

from featx.backbones import runtime as allocator

CODE = """
import resource, sys, torch
from featx.backbones.runtime import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
faults = []
for step in range(20):
    torch.ones(2**24)  # 64 MB, taken and freed
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print((faults[19] - faults[9]) * resource.getpagesize() // 10)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is about glibc")
def test_freed_memory_is_kept() -> None:
    """A tensor of 64 MB costs its pages each time by default, and only once if they are kept."""
    bytes_per_step = {
        mode: int(subprocess.check_output([sys.executable, "-c", CODE, mode]))
        for mode in ("default", "keep")
    }
    assert bytes_per_step["keep"] < 2**20 < bytes_per_step["default"]


def test_other_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without glibc, nothing is called that may not exist."""
    monkeypatch.setattr("ctypes.CDLL", None)
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert not allocator.keep_freed_memory()
