"""How a run ends before its time: by a signal, or because another of its processes has ended."""

import os
import signal
import threading

from lightning.pytorch import Trainer
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher

from featx.errors import IncompleteError


class Interruption:
    """Lets a run finish the batch at hand, and no other; to be made when the batches begin.

    Lightning ignores SIGTERM while it predicts. Its own handlers are installed before that, and
    what it restores at the end is what there was before them.

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
        for thread in threading.enumerate():
            # Lightning's, which would kill this process a moment after a child has failed.
            if type(thread).__name__ == "_ChildProcessObserver":
                thread._termination_signal = signal.SIGTERM  # type: ignore[attr-defined]

    def _stop(self, signum: int, frame: object) -> None:
        """End after the batch at hand, with all processes; a second signal ends at once."""
        self._signal = signum
        if not self._is_child:  # a child may get one signal twice: from its parent, too
            signal.signal(signum, signal.SIG_DFL)
        if self._launcher:
            self._launcher.kill(signum)

    def check(self) -> None:
        """End the process here, if it is time.

        Raises:
            SystemExit: After a signal.
            IncompleteError: The parent of this process, or one of its children, has ended.
        """
        children = self._launcher.procs if self._launcher else []
        expected = (None, 0, 128 + self._signal)
        orphaned = self._is_child and os.getppid() != self._parent
        if orphaned or any(child.poll() not in expected for child in children):
            raise IncompleteError(
                f"process {os.getpid()}: expected all processes of the run to go on, found that "
                "one has ended. What that one said tells why; then run the same command again."
            )
        if self._signal:
            raise SystemExit(128 + self._signal)
