"""Shards are published while a run goes on: each by the process that finishes its last rows.

So what is on disk twice is never more than a few shards, and little is left to do at the end.
"""

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from featx.errors import FeatxError, IncompleteError
from featx.extraction.ranks import Ranks
from featx.features.staging import Staging


class ShardPublisher:
    """Publishes the shards whose rows are all settled: on disk, or left out.

    How many are is counted for all processes of the run together, so that exactly one of them finds
    that a shard is complete. It merges it in a thread, beside the CNN.

    Args:
        ranks: The processes of the run.
        stagings: The files, by split.
        pending: Which rows `[rows]` of each are to be made in this run. Of a shard that has others,
            only the first process knows where these are, and publishes it at the end.
    """

    def __init__(
        self,
        ranks: Ranks,
        stagings: Mapping[str, Staging],
        pending: Mapping[str, NDArray[np.bool_]],
    ) -> None:
        self._ranks = ranks
        self._stagings = {s: each for s, each in stagings.items() if each.rows_per_file}
        self._pending = pending
        self._pool = ThreadPoolExecutor(1, "merging")
        self._merges: list[Future[None]] = []

    def settle(self, split: str, counts: Mapping[int, int]) -> None:
        """Say that so many rows of some shards are settled by this process.

        Raises:
            FeatxError: A merge has failed.
        """
        staging = self._stagings.get(split)
        for shard, count in counts.items() if staging else ():
            assert staging is not None
            is_pending = self._pending[split][staging.find_rows(shard)]
            settled = self._ranks.count(f"{split}/{shard}", count)
            if settled == is_pending.sum() and is_pending.all():
                self._merges.append(self._pool.submit(_publish, staging, shard))
        self._check()

    def finish(self) -> None:
        """Wait for the merges of this process.

        Raises:
            FeatxError: One has failed.
        """
        self._pool.shutdown()
        self._check()

    def stop(self) -> None:
        """End the merges that are under way; another run makes them anew."""
        for staging in self._stagings.values():
            staging.is_stopped = True
        self._pool.shutdown(cancel_futures=True)
        for merge in self._merges:
            with suppress(FeatxError):  # that it was stopped, or what has ended the run
                if not merge.cancelled():
                    merge.result()

    def _check(self) -> None:
        """Raise what a merge that has ended has raised."""
        ended = [merge for merge in self._merges if merge.done()]
        self._merges = [merge for merge in self._merges if not merge.done()]
        for merge in ended:
            merge.result()


def _publish(staging: Staging, shard: int) -> None:
    """Publish a shard, or leave it to the first process, which tells at the end what is missing.

    One row that is not what it was to be is no reason to end the work on all others; and on a
    network disk, what other processes have written may not be seen yet.
    """
    with suppress(IncompleteError):
        staging.publish_shard(shard)
