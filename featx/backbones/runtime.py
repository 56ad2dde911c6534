"""How a backbone runs: compiled, how float32 is multiplied, and with which allocator.

What is set for the process is undone afterwards, but for glibc's thresholds, which cannot be read.
"""

import ctypes
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import torch
from torch import backends, nn

from featx.errors import MissingDependencyError, first_line

_OPTIONS: dict[str, str | int | bool] = {
    "triton.cudagraphs": True,  # a forward pass is one launch; without effect on a CPU
    "deterministic": True,  # no kernel is chosen by its time, for the choice changes the last bits
}


def compile_frozen(module: nn.Module) -> None:
    """Let a module be compiled at its first call in `frozen`, for input of one shape."""
    module.compile(dynamic=False, options=_OPTIONS)


def imitates_bfloat16(cpu_info: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the CPU has no instructions for bfloat16, so that torch computes it in float32.

    That takes several times as long as float32 itself.

    Args:
        cpu_info: Where Linux describes the CPU. Elsewhere nobody knows, and the answer is no.
    """
    try:
        flags = re.search(r"^(?:flags|Features)\s*:(.*)$", cpu_info.read_text(), re.MULTILINE)
    except OSError:
        return False
    return flags is not None and not {"avx512_bf16", "amx_bf16", "bf16"} & {*flags[1].split()}


@contextmanager
def frozen(max_sizes: int = 64) -> Iterator[None]:
    """Call a module of `compile_frozen`, without gradients, and say in one line what that lacks.

    Its weights become constants: they are laid out for the kernels once, and activations become
    part of the convolutions before them. Not one of the options above, for these reach the
    compiler's back end alone, when its front end has already made the weights inputs; and not set
    for good, for weights that still change must not be frozen.

    Args:
        max_sizes: How many sizes of frames may be compiled. At this limit torch would go on
            uncompiled, and the last bits would depend on the order of videos.

    Raises:
        MissingDependencyError: It cannot be compiled: there is no C++ compiler, or no Triton.
    """
    from torch._dynamo import config as front_end  # these take a second to import
    from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException
    from torch._inductor import config as back_end

    limits = {"recompile_limit": max_sizes, "fail_on_recompile_limit_hit": True}
    try:
        with front_end.patch(limits), back_end.patch(freezing=True):
            yield
    except (TorchDynamoException, FailOnRecompileLimitHit) as error:
        raise MissingDependencyError(
            "compile: expected torch.compile to work (it needs a C++ compiler, and Triton on CUDA; "
            f"and at most {max_sizes} sizes of frames), found: {first_line(error)}. "
            "Fix that, or set compile to false."
        ) from error


@contextmanager
def num_threads(count: int) -> Iterator[None]:
    """Compute with so many threads on the CPU, and as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def float32_precision(allow_tf32: bool) -> Iterator[None]:
    """Let float32 convolutions and matrix products round to TF32, or not; and undo it afterwards.

    The settings are the process's, and a notebook goes on with its own. torch has two names for
    each, which it keeps apart: the compiler reads the old ones, and the kernels the new ones. On a
    CPU, nothing is rounded either, unless it is allowed and the process has asked for it.
    """
    # torch declares no type for them.
    operations: tuple[Any, ...] = (
        cast(Any, backends.cudnn).conv,
        cast(Any, backends.cudnn).rnn,
        backends.cuda.matmul,
        cast(Any, backends.mkldnn).conv,
        cast(Any, backends.mkldnn).matmul,
    )
    before = [operation.fp32_precision for operation in operations]
    convolution = product = None
    with suppress(RuntimeError):  # where only the new names are in use, the old ones have no value
        convolution = backends.cudnn.allow_tf32
    with suppress(RuntimeError):
        product = torch.get_float32_matmul_precision()
    backends.cudnn.allow_tf32 = backends.cuda.matmul.allow_tf32 = allow_tf32
    for operation in operations:
        if not allow_tf32 and operation.fp32_precision not in ("ieee", "none"):
            operation.fp32_precision = "ieee"
        elif allow_tf32 and operation in operations[:3] and operation.fp32_precision != "tf32":
            operation.fp32_precision = "tf32"
    try:
        yield
    finally:
        if convolution is not None:
            backends.cudnn.allow_tf32 = convolution
        if product is not None:
            torch.set_float32_matmul_precision(product)
        for operation, value in zip(operations, before, strict=True):
            operation.fp32_precision = value


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # the numbers of mallopt's options, from malloc.h
_MMAP_THRESHOLDS = (2**30, 2**25)  # bytes; glibc before 2.35 takes no more than 32 MiB
_TRIM_THRESHOLD = 2**31 - 1  # bytes; the largest int


def keep_freed_memory() -> bool:
    """Let the process keep the memory of freed tensors, for the next ones.

    By default, glibc gives the memory of every large tensor back to the kernel and takes it again,
    page by page. On a CPU, these page faults are a quarter of the time of a CNN. What is kept is
    at most the memory that was once in use at the same time.

    Returns:
        Whether that was done; other C libraries are left as they are.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    libc.malloc_trim(0)  # what an earlier run has left, every process forked from now on would copy
    large = any(libc.mallopt(_M_MMAP_THRESHOLD, value) for value in _MMAP_THRESHOLDS)
    return large and bool(libc.mallopt(_M_TRIM_THRESHOLD, _TRIM_THRESHOLD))
