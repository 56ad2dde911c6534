"""How a run ends before its time, without Lightning's launcher: see also test_signals."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.fabric.strategies.launchers.subprocess_script import _ChildProcessObserver
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher

from featx.errors import IncompleteError
from featx.extraction.distributed import Interruption, Ranks, warn_of_shared_store

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


def test_a_process_alone() -> None:
    """It counts by itself, and waits for nobody."""
    ranks = Ranks()
    assert [ranks.count("a", 1), ranks.count("b", 5), ranks.count("a", 2)] == [1, 5, 3]
    ranks.wait(lambda: pytest.fail("there is nothing to wait for"))
    assert ranks.from_first(lambda: 7) == 7
    assert Ranks().count("a", 1) == 1


MEMBER = """
import sys
import torch.distributed as distributed
from featx.errors import FeatxError, InputError
from featx.extraction.distributed import Ranks

rank, store, ends = int(sys.argv[1]), sys.argv[2], sys.argv[3] == "ends"
distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
Ranks().count("a", 7)  # of another run
ranks = Ranks()
if rank == 0:
    while ranks.count("a", 0) < 3:  # the other one waits, and counts meanwhile
        pass
    if ends:
        raise SystemExit(5)
ranks.wait(lambda: ranks.count("a", 1))
assert ranks.from_first(lambda: 10 + rank) == 10

def fail():
    raise InputError("it is bad")

try:
    ranks.from_first(fail)
except InputError as error:
    assert error.told == (rank == 1)
    raise SystemExit(3)
"""


@pytest.mark.parametrize(("how", "statuses"), [("stays", [3, 3]), ("ends", [5, 1])])
def test_two_processes(
    tmp_path: Path, how: str, statuses: list[int], capfd: pytest.CaptureFixture[str]
) -> None:
    """They share counters, do something while they wait, and notice when one has ended."""
    members = [
        subprocess.Popen([sys.executable, "-c", MEMBER, str(rank), tmp_path / "store", how])
        for rank in range(2)
    ]
    assert [member.wait(120) for member in members] == statuses
    assert ("IncompleteError" in capfd.readouterr().err) == (how == "ends")


def test_a_store_that_outlives_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """With restarts, torchrun's own is warned of; without, or with another, it is not."""
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "0")
    warn_of_shared_store()
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "3")
    with pytest.warns(UserWarning, match="TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1"):
        warn_of_shared_store()
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "False")
    warn_of_shared_store()
