"""Collect the finished rows of a feature file into parts."""

import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from featx.feature_file import encode
from featx.staging import Staging

PART_BYTES = 16 * 2**20
PART_SECONDS = 30.0

_MAX_QUEUED = 64  # videos waiting for compression; this bounds the memory of the queue


class PartWriter:
    """Collects finished rows of a file, compresses them in threads, and writes parts.

    Args:
        staging: Where the parts go.
        pool: The threads; zlib releases the GIL.
    """

    def __init__(self, staging: Staging, pool: ThreadPoolExecutor) -> None:
        self._staging = staging
        self._pool = pool
        self._queue: deque[tuple[int, Future[list[bytes]]]] = deque()
        self._encoded: dict[int, list[bytes]] = {}
        self._bytes = 0
        self._last_write = time.monotonic()

    def add(self, row: int, features: NDArray[np.float32]) -> None:
        """Take the features `[num_frames, feature_dim]` of a row; waits while the queue is full."""
        self._queue.append((row, self._pool.submit(encode, features, self._staging.layout)))
        while self._queue and (len(self._queue) > _MAX_QUEUED or self._queue[0][1].done()):
            self._collect()
        if self._bytes >= PART_BYTES or time.monotonic() - self._last_write > PART_SECONDS:
            self._write()

    def flush(self) -> None:
        """Write everything taken so far."""
        while self._queue:
            self._collect()
        self._write()

    def _collect(self) -> None:
        row, future = self._queue.popleft()
        self._encoded[row] = future.result()
        self._bytes += sum(map(len, self._encoded[row]))

    def _write(self) -> None:
        if self._encoded:
            self._staging.write_part(self._encoded)
            self._encoded, self._bytes = {}, 0
        self._last_write = time.monotonic()
