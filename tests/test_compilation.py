"""Compiling: what it lacks is told in one line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import TinyCNN

from featx.compilation import compile_frozen, compiler_needed


def test_it_computes_the_same() -> None:
    """A compiled CNN gives what it gave before, pass after pass."""
    cnn = TinyCNN().eval().requires_grad_(False)
    frames = torch.randn(2, 4, 3, 8, 8)
    with torch.inference_mode():
        expected = [cnn(part) for part in frames]
        compile_frozen(cnn)
        for part, features in zip(frames, expected, strict=True):
            torch.testing.assert_close(cnn(part), features)


def test_without_a_compiler(tmp_path: Path) -> None:
    """Not a traceback of pages, but what to install or to set."""
    code = (
        "import torch; from featx.errors import MissingDependencyError\n"
        "from featx.compilation import compile_frozen, compiler_needed\n"
        "cnn = torch.nn.Conv2d(3, 2, 3).requires_grad_(False); compile_frozen(cnn)\n"
        "with compiler_needed(), torch.inference_mode(): cnn(torch.randn(1, 3, 8, 8))"
    )
    environment = {
        "CXX": "no-such-compiler",
        "PATH": str(tmp_path),
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True
    )
    assert done.stderr.splitlines()[-1].startswith(
        "featx.errors.MissingDependencyError: compile: expected a C++ compiler (on CUDA also "
        "Triton) that works, found: InvalidCxxCompiler: No working C++ compiler"
    )
    assert done.stderr.endswith("Install it, or set compile to false.\n")


def test_other_errors_stay_what_they_are() -> None:
    """Running out of memory has nothing to do with compilers."""
    with pytest.raises(MemoryError), compiler_needed():
        raise MemoryError
