"""How the processes of one run agree, and how they end together."""

import os
import signal
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch import Trainer
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher
from lightning.pytorch.utilities import rank_zero_warn
from torch import distributed

from featx.errors import FeatxError, IncompleteError, first_line

_PATIENCE = timedelta(days=30)
_POLL_SECONDS = 0.05

T = TypeVar("T")


def _pass() -> None:
    """Do nothing."""


class Ranks:
    """All processes of a run, to be made by all of them at once.

    They have a process group of their own. The group of Lightning takes it for a failure if one
    process waits for another for half an hour; but a scan may take longer, and so may the work of
    a process with a slower disk. A process that has died is noticed at once all the same.
    """

    def __init__(self) -> None:
        self._group: Any = None  # a ProcessGroup, which new_group declares otherwise
        self._counts: Counter[str] = Counter()
        if distributed.is_available() and distributed.is_initialized():
            from torch.distributed.distributed_c10d import PrefixStore, _get_default_store

            with _noticing_an_end():
                self._group = distributed.new_group(backend="gloo", timeout=_PATIENCE)
                name = self.from_first(lambda: uuid.uuid4().hex)  # of this run, and of no other
            self._store = PrefixStore(f"featx/{name}", _get_default_store())

    def from_first(self, compute: Callable[[], T], meanwhile: Callable[[], None] = _pass) -> T:
        """What rank 0 computes.

        Args:
            compute: What it does.
            meanwhile: What the others do again and again.

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
        self.wait(meanwhile)  # in a broadcast, a signal would not be noticed
        with _noticing_an_end():
            distributed.broadcast_object_list(outcome, src=0, group=self._group)
        result = outcome[0]
        if isinstance(result, FeatxError):
            result.told = not first
            raise result
        return result  # type: ignore[return-value]  # no longer the None of before

    def wait(self, meanwhile: Callable[[], None] = _pass) -> None:
        """Wait until all ranks are here, however long that takes.

        Args:
            meanwhile: What is done again and again while others are still to come. The wait goes on
                when it returns, and ends with what it raises.

        Raises:
            IncompleteError: Another rank has ended.
        """
        if self._group is not None:
            with _noticing_an_end():
                barrier = distributed.barrier(group=self._group, async_op=True)
            while not barrier.is_completed():
                meanwhile()
                time.sleep(_POLL_SECONDS)
            with _noticing_an_end():
                barrier.wait()

    def count(self, name: str, number: int) -> int:
        """Add to a counter that all ranks share; each begins at 0 with the run.

        Returns:
            What it is then.

        Raises:
            IncompleteError: Another rank, which has the counters, has ended.
        """
        if self._group is None:
            self._counts[name] += number
            return self._counts[name]
        with _noticing_an_end():
            return int(self._store.add(name, number))


@contextmanager
def _noticing_an_end() -> Iterator[None]:
    """Turn what torch raises of a process that has ended into an error of the run.

    Raises:
        IncompleteError: One has.
    """
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, FeatxError):
            raise
        raise IncompleteError(_tell_end(first_line(error))) from error


def _tell_end(found: str) -> str:
    return (
        f"process {os.getpid()}: expected all processes of the run to go on, found that one has "
        f"ended{f' ({found})' * bool(found)}. What that one said tells why; then run the same "
        "command again."
    )


def warn_of_shared_store() -> None:
    """Warn of what torchrun does by default, if it is to start processes again.

    They meet in a store that outlives them, and may take the addresses of those that are gone.
    """
    restarts = os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")
    if restarts != "0" and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        rank_zero_warn(
            f"torchrun: expected TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 with --max-restarts "
            f"{restarts}, found a store that is shared: processes that begin anew may hang. Set "
            "it, as configs/torchrun.sh does."
        )


class Interruption:
    """Lets a run finish the batch at hand, and no other; to be made before the batches begin.

    Lightning ignores SIGTERM while it predicts. Its own handlers are installed before these, and
    however a run ends, it puts back those of all signals that there were before its own.

    Args:
        trainer: The Trainer of the run.

    Attributes:
        at_once: Whether a signal ends the process at once, because there is no batch at hand.
    """

    at_once = False

    def __init__(self, trainer: Trainer) -> None:
        self._signal = 0
        environment = getattr(trainer.strategy, "cluster_environment", None)
        # Under torchrun, the first process of a machine is a child of an agent, too.
        self._is_child = trainer.local_rank > 0 or isinstance(environment, TorchElasticEnvironment)
        self._parent = os.getppid()
        launcher = trainer.strategy.launcher
        self._launcher = launcher if isinstance(launcher, _SubprocessScriptLauncher) else None
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGINT, signal.SIGTERM):
                signal.signal(signum, self._stop)
        # Lightning's, which would kill this process a moment after a child has failed.
        self._observe_with(signal.SIGTERM)

    def _stop(self, signum: int, frame: object) -> None:
        """End after the batch at hand, with all processes; a second signal ends at once."""
        self._signal = signum
        if not self._is_child:  # a child may get one signal twice: from its parent, too
            signal.signal(signum, signal.SIG_DFL)
        if self._launcher:
            self._launcher.kill(signum)
        if self.at_once:
            self.check()

    def _observe_with(self, signum: int) -> None:
        """What Lightning's thread sends all processes once a child has failed; 0 is nothing."""
        for thread in threading.enumerate():
            if type(thread).__name__ == "_ChildProcessObserver":
                thread._termination_signal = signum  # type: ignore[attr-defined]

    def check(self) -> None:
        """End the process here, if it is time.

        Raises:
            SystemExit: After a signal.
            IncompleteError: The parent of this process, or one of its children, has ended.
        """
        children = self._launcher.procs if self._launcher else []
        expected = (None, 0, 128 + self._signal)
        orphaned = self._is_child and os.getppid() != self._parent
        failed = orphaned or any(child.poll() not in expected for child in children)
        if failed or self._signal:
            # From here on this process ends by itself. A signal, to which it soon does not listen
            # any more, would only spoil its status; the others notice that it has gone.
            self._observe_with(0)
        if failed:
            raise IncompleteError(_tell_end(""))
        if self._signal:
            raise SystemExit(128 + self._signal)
