"""Compiling: what it lacks is told in one line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import TinyCNN

from featx.backbones.runtime import compile_frozen, frozen
from featx.errors import MissingDependencyError


def test_it_computes_the_same() -> None:
    """A compiled CNN gives what it gave before, pass after pass."""
    cnn = TinyCNN().eval().requires_grad_(False)
    frames = torch.randn(2, 4, 3, 8, 8)
    with torch.inference_mode():
        expected = [cnn(part) for part in frames]
        compile_frozen(cnn)
        for part, features in zip(frames, expected, strict=True):
            with frozen():
                torch.testing.assert_close(cnn(part), features)


def test_the_weights_are_constants() -> None:
    """Otherwise, they would be laid out and rounded again for each pass, and nothing be fused."""
    cnn = TinyCNN(64).eval().requires_grad_(False)
    frames = torch.randn(4, 3, 8, 8)
    compile_frozen(cnn)
    with torch.inference_mode(), frozen():
        expected = cnn(frames)
        cnn.conv.weight.zero_()  # biases stay where they are
        assert torch.equal(cnn(frames), expected)


def test_frames_of_many_sizes() -> None:
    """All are compiled, or it is told: torch would quietly go on without, after eight."""
    torch._dynamo.reset()  # the other tests have compiled the same code
    cnn = TinyCNN().eval().requires_grad_(False)
    compile_frozen(cnn)
    with torch.inference_mode(), frozen(max_sizes=2):
        for size in (6, 7):
            cnn(torch.randn(1, 3, size, size))
    with (
        pytest.raises(MissingDependencyError, match="at most 2 sizes of frames"),
        torch.inference_mode(),
        frozen(max_sizes=2),
    ):
        cnn(torch.randn(1, 3, 8, 8))


def test_other_weights_are_not_frozen() -> None:
    """What a notebook compiles for itself still sees its weights change."""
    with frozen():
        pass
    layer = torch.nn.Linear(3, 3, bias=False).requires_grad_(False)
    frames = torch.randn(2, 3)
    layer.compile()
    with torch.no_grad():
        layer(frames)
        layer.weight.zero_()
        assert not layer(frames).any()


def test_without_a_compiler(tmp_path: Path) -> None:
    """Not a traceback of pages, but what to install or to set."""
    code = (
        "import torch; from featx.errors import MissingDependencyError\n"
        "from featx.backbones.runtime import compile_frozen, frozen\n"
        "cnn = torch.nn.Conv2d(3, 2, 3).requires_grad_(False); compile_frozen(cnn)\n"
        "with frozen(), torch.inference_mode(): cnn(torch.randn(1, 3, 8, 8))"
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
        "featx.errors.MissingDependencyError: compile: expected torch.compile to work (it needs a "
        "C++ compiler, and Triton on CUDA; and at most 64 sizes of frames), found: "
        "InvalidCxxCompiler: No working C++ compiler"
    )
    assert done.stderr.endswith("Mend that, or set compile to false.\n")


def test_other_errors_stay_what_they_are() -> None:
    """Running out of memory has nothing to do with compilers."""
    with pytest.raises(MemoryError), frozen():
        raise MemoryError
