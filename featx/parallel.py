"""How much runs at once: the cores for this process, and threads that work ahead."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_In = TypeVar("_In")
_Out = TypeVar("_Out")


def count_cores() -> int:
    """Cores that this process may use: a job scheduler may allow it fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def map_ahead(
    function: Callable[[_In], _Out], items: Iterable[_In], threads: int, name: str, ahead: int = 2
) -> Generator[tuple[_In, Future[_Out]]]:
    """Items in order, each with the future of what a function gives for it; threads compute ahead.

    To be closed (`contextlib.closing`), for what uses it may fail: the threads then end.

    Args:
        function: Called in a thread. What it raises, `result()` of the future raises.
        items: The items.
        threads: How many threads.
        name: How they are called.
        ahead: How many items at most are under way for each thread, so that memory stays bounded.
    """
    waiting: deque[tuple[_In, Future[_Out]]] = deque()
    pool = ThreadPoolExecutor(threads, name)
    try:
        for item in items:
            if len(waiting) == ahead * threads:
                yield waiting.popleft()
            waiting.append((item, pool.submit(function, item)))
        while waiting:
            yield waiting.popleft()
    finally:
        pool.shutdown(cancel_futures=True)
