"""What the processes of one run agree on."""

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

from torch import distributed

from featx.errors import FeatxError

_PATIENCE = timedelta(days=30)
_POLL_SECONDS = 0.05

T = TypeVar("T")


class Ranks:
    """All processes of a run, to be made by all of them at once.

    They have a process group of their own. The group of Lightning takes it for a failure if one
    process waits for another for half an hour; but a scan may take longer, and so may the work of
    a process with a slower disk. A process that has died is noticed at once all the same.
    """

    def __init__(self) -> None:
        self._group: Any = None  # a ProcessGroup, which new_group declares otherwise
        if distributed.is_available() and distributed.is_initialized():
            self._group = distributed.new_group(backend="gloo", timeout=_PATIENCE)

    def from_first(self, compute: Callable[[], T]) -> T:
        """What rank 0 computes.

        Raises:
            FeatxError: Rank 0 could not; all ranks raise it, and rank 0 tells the user.
        """
        if self._group is None:
            return compute()
        first = distributed.get_rank() == 0
        outcome: list[T | FeatxError | None] = [None]
        if first:
            try:
                outcome = [compute()]
            except FeatxError as error:
                outcome = [error]
        distributed.broadcast_object_list(outcome, src=0, group=self._group)
        result = outcome[0]
        if isinstance(result, FeatxError):
            result.told = not first
            raise result
        return result  # type: ignore[return-value]  # no longer the None of before

    def wait(self) -> None:
        """Wait until all ranks are here; a signal is noticed meanwhile."""
        if self._group is not None:
            barrier = distributed.barrier(group=self._group, async_op=True)
            while not barrier.is_completed():
                time.sleep(_POLL_SECONDS)
            barrier.wait()
