"""How the processes of one run agree, and how they end together."""

import os
import signal
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

from lightning.pytorch import Trainer
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher
from torch import distributed

from featx.errors import FeatxError, IncompleteError

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


class Interruption:
    """Lets a run finish the batch at hand, and no other; to be made when the batches begin.

    Lightning ignores SIGTERM while it predicts. Its own handlers are installed before these, and
    however a run ends, it puts back those of all signals that there were before its own.

    Args:
        trainer: The Trainer of the run.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._signal = 0
        self._is_child = trainer.local_rank > 0
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
            raise IncompleteError(
                f"process {os.getpid()}: expected all processes of the run to go on, found that "
                "one has ended. What that one said tells why; then run the same command again."
            )
        if self._signal:
            raise SystemExit(128 + self._signal)
