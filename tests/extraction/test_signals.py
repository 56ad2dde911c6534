"""How a run ends early, without Lightning's launcher: see also tests/test_signals.py."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.fabric.strategies.launchers.subprocess_script import _ChildProcessObserver
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher

from featx.errors import IncompleteError
from featx.extraction.signals import Interruption

pytestmark = pytest.mark.processes

Child = subprocess.Popen[bytes]


@pytest.fixture
def handlers() -> Iterator[None]:
    """The handlers of this process are there again afterwards, as Lightning has it."""
    before = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)


@pytest.fixture
def main() -> Iterator[Child]:
    """A process in the place of the main one."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def make_trainer(child: Child) -> Any:  # noqa: ANN401  # as much of a Trainer as is asked
    """A Trainer with one child."""
    launcher = _SubprocessScriptLauncher(LightningEnvironment(), num_processes=2, num_nodes=1)
    launcher.procs = [child]
    return SimpleNamespace(local_rank=0, strategy=SimpleNamespace(launcher=launcher))


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize("by_signal", [False, True])
def test_a_run_that_ends_by_itself_keeps_its_status(main: Child, by_signal: bool) -> None:
    """After a child has failed, or a signal, Lightning's observer kills nobody any more."""
    child = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
    child.wait()
    observer = _ChildProcessObserver(main.pid, [child], sleep_period=1)
    observer.start()
    interruption = Interruption(make_trainer(child))
    if by_signal:
        child.returncode = 128 + signal.SIGTERM  # as a child ends that has been told to
        interruption._stop(signal.SIGTERM, None)
        with pytest.raises(SystemExit, match="143"):
            interruption.check()
    else:
        with pytest.raises(IncompleteError, match="found that one has ended"):
            interruption.check()
    observer.join(10)
    assert not observer.is_alive()
    assert main.poll() is None


@pytest.mark.usefixtures("handlers")
def test_a_run_that_waits_is_told(main: Child) -> None:
    """Between batches nobody may look for hours: then the observer does end the run."""
    child = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
    child.wait()
    observer = _ChildProcessObserver(main.pid, [child], sleep_period=1)
    observer.start()
    Interruption(make_trainer(child))
    observer.join(10)
    assert main.wait(10) == -signal.SIGTERM


@pytest.mark.usefixtures("handlers")
def test_where_there_is_no_batch_a_signal_ends_at_once(main: Child) -> None:
    """As in a plan or a merge that takes hours."""
    interruption = Interruption(make_trainer(main))
    interruption._launcher = None
    interruption._stop(signal.SIGTERM, None)
    interruption.at_once = True
    with pytest.raises(SystemExit, match="130"):
        interruption._stop(signal.SIGINT, None)


@pytest.mark.usefixtures("handlers")
def test_no_process_outlives_its_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under torchrun, that of rank 0 is a child, too."""
    strategy = SimpleNamespace(launcher=None, cluster_environment=None)
    trainer: Any = SimpleNamespace(local_rank=0, strategy=strategy)
    alone = Interruption(trainer)
    monkeypatch.setattr(TorchElasticEnvironment, "__init__", lambda self: None)
    strategy.cluster_environment = TorchElasticEnvironment()
    child = Interruption(trainer)
    child.check()
    monkeypatch.setattr(os, "getppid", lambda: 1)
    alone.check()
    with pytest.raises(IncompleteError, match="found that one has ended"):
        child.check()
