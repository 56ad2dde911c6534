"""From finished rows to parts: when one is written. `staging` has the parts on disk."""

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from featx.errors import FeatureError, FeatxError
from featx.features.feature_file import FileLayout, encode
from featx.features.staged import Row
from featx.features.staging import Staging

_log = logging.getLogger(__name__)


class PartLimits(NamedTuple):
    """When a part is written.

    Attributes:
        num_bytes: When so many bytes are together.
        seconds: When so many seconds have passed.
        queued: Videos on their way to a part; this also bounds how far ahead of CUDA we run.
    """

    num_bytes: int = 16 * 2**20
    seconds: float = 30.0
    queued: int = 8


USUAL_LIMITS = PartLimits()


class PartWriter:
    """Collects finished rows of a file, compresses them in threads, and writes parts.

    Args:
        staging: Where the parts go.
        pool: The threads; zlib releases the GIL.
        skips: Whether rows that are not finite are left out, or are an error.
        limits: When a part is written.
    """

    def __init__(
        self,
        staging: Staging,
        pool: ThreadPoolExecutor,
        skips: bool = False,
        limits: PartLimits = USUAL_LIMITS,
    ) -> None:
        self._limits = limits
        self._staging = staging
        self._pool = pool
        self._skips = skips
        self._queue: deque[tuple[int, Future[Row]]] = deque()
        self._finished: dict[int, Row] = {}
        self._bytes = 0
        self._shard = 0
        self._settled: Counter[int] = Counter()
        self._last_write = time.monotonic()

    def add(
        self,
        row: int,
        fetch: Callable[[], NDArray[np.float32]],
        made_of: str = "",
        times: NDArray[np.float32] | None = None,
        damage: str = "",
    ) -> None:
        """Take a row; waits while the queue is full.

        Args:
            row: Its number.
            fetch: Gives its features `[num_frames, feature_dim]`; called in another thread.
            made_of: What it was made of.
            times: When its frames are shown, where the layout has that.
            damage: What is missing of its video.

        Raises:
            FeatureError: This row, or one before it, is not finite.
        """
        shard = self._staging.find_shard(row)
        if shard != self._shard:  # most often, the one before it is done
            self.flush()
            self._shard = shard
        if damage:
            _log.warning("Damaged: %s: found %s", self._staging.layout.video_ids[row], damage)
        made, layout = Row([], made_of, times, damage), self._staging.lay_out(shard)
        self._queue.append((row, self._pool.submit(self._encode, row, fetch, made, layout)))
        while self._queue and (len(self._queue) > self._limits.queued or self._queue[0][1].done()):
            self._collect()
        waited = time.monotonic() - self._last_write
        if self._bytes >= self._limits.num_bytes or waited > self._limits.seconds:
            self._write()

    def skip(self, row: int, error: FeatxError) -> None:
        """Leave a row out of the file."""
        self._staging.skip(row, str(error))
        self._settled[self._staging.find_shard(row)] += 1

    def take_settled(self) -> Mapping[int, int]:
        """How many rows of each shard are on disk, or left out, that were not the last time."""
        settled, self._settled = self._settled, Counter()
        return settled

    def flush(self) -> None:
        """Write everything taken so far.

        Raises:
            FeatureError: A row is not finite; the others are written.
        """
        errors = []
        while self._queue:
            try:
                self._collect()
            except FeatureError as error:
                errors.append(error)
        self._write()
        if errors:
            raise errors[0]

    def _encode(
        self, row: int, fetch: Callable[[], NDArray[np.float32]], made: Row, layout: FileLayout
    ) -> Row:
        features = fetch()
        if not np.isfinite(features).all():
            raise FeatureError(
                f"{self._staging.layout.video_ids[row]}: expected finite features, "
                "found NaN or infinity. Check the weights, or use a precision with more range: "
                "32-true or bf16-mixed."
            )
        return made._replace(chunks=encode(features, layout))

    def _collect(self) -> None:
        row, future = self._queue.popleft()
        try:
            self._finished[row] = future.result()
        except FeatureError as error:
            if not self._skips:
                raise
            self.skip(row, error)
            _log.warning("Left out: %s", error)
        else:
            self._bytes += sum(map(len, self._finished[row].chunks))

    def _write(self) -> None:
        if self._finished:
            self._staging.write_part(self._finished)
            self._settled.update(map(self._staging.find_shard, self._finished))
            self._finished, self._bytes = {}, 0
        self._last_write = time.monotonic()
