"""How a backbone runs: compiled, float32's products, and the allocator."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import jobs
import pytest
import torch
from helpers import TinyCNN

from featx.backbones import runtime as allocator
from featx.backbones.runtime import compile_frozen, frozen, imitates_bfloat16
from featx.errors import MissingDependencyError


@pytest.mark.slow
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


@pytest.mark.slow
def test_the_weights_are_constants() -> None:
    """Otherwise, they would be laid out and rounded again for each pass, and nothing be fused."""
    cnn = TinyCNN(64).eval().requires_grad_(False)
    frames = torch.randn(4, 3, 8, 8)
    compile_frozen(cnn)
    with torch.inference_mode(), frozen():
        expected = cnn(frames)
        cnn.conv.weight.zero_()  # biases stay where they are
        assert torch.equal(cnn(frames), expected)


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.processes
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
    assert done.stderr.endswith("Fix that, or set compile to false.\n")


def test_other_errors_stay_what_they_are() -> None:
    """Running out of memory has nothing to do with compilers."""
    with pytest.raises(MemoryError), frozen():
        raise MemoryError


_CODE = """
import torch
from torch import backends
from featx.backbones.runtime import float32_precision

def show():
    operations = (backends.cudnn.conv, backends.cudnn.rnn, backends.cuda.matmul,
                  backends.mkldnn.conv, backends.mkldnn.matmul)
    shown = [operation.fp32_precision for operation in operations]
    for read in (lambda: backends.cudnn.allow_tf32, torch.get_float32_matmul_precision):
        try:
            shown.append(read())
        except RuntimeError:
            shown.append("no value")
    return shown

{before}
before = show()
for allow in (False, True, False):
    with float32_precision(allow):
        inside = [operation == "tf32" for operation in show()[:3]]
        assert inside == [allow] * 3, (allow, show())
        if not allow:
            assert {{*show()[3:5]}} <= {{"ieee", "none"}}
        assert backends.cudnn.allow_tf32 == allow  # the compiler asks for it
        assert backends.cuda.matmul.allow_tf32 == allow
    assert show() == before, (before, show())
"""

SETTINGS = {
    "torch's own": "",
    "the old names": "backends.cudnn.allow_tf32 = False",
    "as Lightning advises": "torch.set_float32_matmul_precision('high')",
    "coarser": "torch.set_float32_matmul_precision('medium')",
    "a new name": "backends.cudnn.conv.fp32_precision = 'ieee'",
}


@pytest.mark.processes
@pytest.mark.parametrize("before", SETTINGS)
def test_settings_come_back(tmp_path: Path, before: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Both the old and the new names, whichever the process has used."""
    script = tmp_path / "script.py"
    script.write_text(_CODE.format(before=SETTINGS[before]))
    status = jobs.end(jobs.run_script(script, folder=tmp_path), 60)
    assert (capfd.readouterr().err, status) == ("", 0)


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


@pytest.mark.processes
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


@pytest.mark.parametrize(
    ("flags", "imitates"),
    [
        ("flags\t\t: fpu avx2 avx512f avx512_bf16 amx_tile", False),
        ("flags\t\t: fpu avx2 amx_bf16", False),
        ("flags\t\t: fpu sse4_2 avx2 fma", True),
        ("flags\t\t: fpu avx2 avx512f avx512_vnni", True),
        ("Features\t: fp asimd bf16 i8mm", False),
        ("Features\t: fp asimd", True),
        ("nothing of the kind", False),
    ],
)
def test_which_cpus_imitate_bfloat16(tmp_path: Path, flags: str, imitates: bool) -> None:
    """By what Linux says of the first processor; where nobody says anything, none does."""
    path = tmp_path / "cpuinfo"
    path.write_text(f"processor\t: 0\n{flags}\nbugs\t\t: none\n")
    assert imitates_bfloat16(path) == imitates
    assert not imitates_bfloat16(tmp_path / "none")
