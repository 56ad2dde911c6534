"""glibc's allocator: keep the memory of one forward pass for the next."""

import ctypes
import platform

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
