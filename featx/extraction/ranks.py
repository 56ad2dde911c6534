"""The ranks of one run: how they share results and counters, and wait for each other."""

import os
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

from lightning.pytorch.utilities import rank_zero_warn
from torch import distributed

from featx.errors import FeatxError, IncompleteError, first_line

_TIMEOUT = timedelta(days=30)
_POLL_SECONDS = 0.05

T = TypeVar("T")


def _pass() -> None:
    """Do nothing."""


class Ranks:
    """All ranks of a run; every rank must create it at the same point.

    They have a process group of their own, because Lightning's group fails when one rank waits
    for another for half an hour. A scan may take longer, and so may a rank with a slow disk. A
    rank that dies is noticed at once all the same.
    """

    def __init__(self) -> None:
        self._group: Any = None  # a ProcessGroup; new_group is annotated otherwise
        self._counts: Counter[str] = Counter()
        if distributed.is_available() and distributed.is_initialized():
            from torch.distributed.distributed_c10d import PrefixStore, _get_default_store

            with _catching_a_dead_rank():
                self._group = distributed.new_group(backend="gloo", timeout=_TIMEOUT)
                name = self.from_first(lambda: uuid.uuid4().hex)  # so that no two runs share keys
            self._store = PrefixStore(f"featx/{name}", _get_default_store())

    def from_first(self, compute: Callable[[], T], meanwhile: Callable[[], None] = _pass) -> T:
        """Return the result of a function that rank 0 alone calls.

        Args:
            compute: The function.
            meanwhile: Called again and again by the other ranks while they wait.

        Raises:
            FeatxError: Rank 0 raised it. All ranks raise it, and rank 0 reports it to the user.
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
        self.wait(meanwhile)  # because a signal would not be noticed during a broadcast
        with _catching_a_dead_rank():
            distributed.broadcast_object_list(outcome, src=0, group=self._group)
        result = outcome[0]
        if isinstance(result, FeatxError):
            result.told = not first
            raise result
        return result  # type: ignore[return-value]  # the None above was overwritten

    def wait(self, meanwhile: Callable[[], None] = _pass) -> None:
        """Wait until all ranks have called this, without a timeout.

        Args:
            meanwhile: Called again and again during the wait. What it raises ends the wait.

        Raises:
            IncompleteError: Another rank has died.
        """
        if self._group is not None:
            with _catching_a_dead_rank():
                barrier = distributed.barrier(group=self._group, async_op=True)
            while not barrier.is_completed():
                meanwhile()
                time.sleep(_POLL_SECONDS)
            with _catching_a_dead_rank():
                barrier.wait()

    def gather(self, value: T) -> list[T]:
        """Return the values of all ranks, in their order, to every rank.

        Raises:
            IncompleteError: Another rank has died.
        """
        if self._group is None:
            return [value]
        values: list[Any] = [None] * distributed.get_world_size()
        with _catching_a_dead_rank():
            distributed.all_gather_object(values, value, group=self._group)
        return values

    def count(self, name: str, number: int) -> int:
        """Add a number to a counter that all ranks share; each counter starts at 0 in every run.

        Returns:
            The counter's new value.

        Raises:
            IncompleteError: The rank that holds the counters has died.
        """
        if self._group is None:
            self._counts[name] += number
            return self._counts[name]
        with _catching_a_dead_rank():
            return int(self._store.add(name, number))


@contextmanager
def _catching_a_dead_rank() -> Iterator[None]:
    """Turn torch's errors about a dead rank into an error of the run.

    Raises:
        IncompleteError: A rank has died.
    """
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, FeatxError):
            raise
        raise IncompleteError(describe_end(first_line(error))) from error


def describe_end(found: str = "") -> str:
    """Return the error message for a rank of this run that has died, with what was found."""
    return (
        f"process {os.getpid()}: expected all processes of the run to go on, found that one has "
        f"ended{f' ({found})' * bool(found)}. Its own error says why; then run the same command "
        "again."
    )


def warn_of_shared_store() -> None:
    """Warn if torchrun is to restart ranks, but they would meet in a store that outlives them.

    Restarted ranks may then read the addresses of dead ones. That is torchrun's default.
    """
    restarts = os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")
    if restarts != "0" and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        rank_zero_warn(
            f"torchrun: expected TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 with --max-restarts "
            f"{restarts}, found a shared store: restarted processes may hang. Set it, as "
            "configs/torchrun.sh does."
        )
