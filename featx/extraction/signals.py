"""How a run ends early: after a signal, or when another of its processes has ended."""

import os
import signal
import threading

from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch import Trainer
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher

from featx.errors import IncompleteError
from featx.extraction.ranks import describe_end


class Interruption:
    """Signal handlers that let a run finish its current batch, and then end it.

    Create it before the first batch. Lightning ignores SIGTERM while it predicts. Its own handlers
    are installed earlier, and at the end of a run it restores all handlers that there were before.

    Args:
        trainer: The Trainer of the run.

    Attributes:
        at_once: Whether a signal ends the process immediately, because no batch is running.
    """

    at_once = False

    def __init__(self, trainer: Trainer) -> None:
        self._signal = 0
        environment = getattr(trainer.strategy, "cluster_environment", None)
        # Under torchrun, the first process of a machine is the child of an agent, too.
        self._is_child = trainer.local_rank > 0 or isinstance(environment, TorchElasticEnvironment)
        self._parent = os.getppid()
        launcher = trainer.strategy.launcher
        self._launcher = launcher if isinstance(launcher, _SubprocessScriptLauncher) else None
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGINT, signal.SIGTERM):
                signal.signal(signum, self._stop)
        # Lightning's default, SIGKILL, would kill this process soon after a child has failed.
        self._set_observer_signal(signal.SIGTERM)

    def _stop(self, signum: int, frame: object) -> None:
        """Ask all processes to end after the current batch; a second signal ends at once."""
        self._signal = signum
        if not self._is_child:  # because a child may get one signal twice: also from its parent
            signal.signal(signum, signal.SIG_DFL)
        if self._launcher:
            self._launcher.kill(signum)
        if self.at_once:
            self.check()

    def _set_observer_signal(self, signum: int) -> None:
        """Set the signal that Lightning sends to all processes once a child fails; 0: none."""
        for thread in threading.enumerate():
            if type(thread).__name__ == "_ChildProcessObserver":
                thread._termination_signal = signum  # type: ignore[attr-defined]

    def check(self) -> None:
        """End the process here, if a signal came or another process has ended.

        Raises:
            SystemExit: After a signal.
            IncompleteError: The parent of this process, or one of its children, has ended.
        """
        children = self._launcher.procs if self._launcher else []
        expected = (None, 0, 128 + self._signal)
        orphaned = self._is_child and os.getppid() != self._parent
        failed = orphaned or any(child.poll() not in expected for child in children)
        if failed or self._signal:
            # This process now ends by itself. A signal from Lightning's thread would only spoil
            # its exit status; the other processes notice that it has gone.
            self._set_observer_signal(0)
        if failed:
            raise IncompleteError(describe_end())
        if self._signal:
            raise SystemExit(128 + self._signal)
