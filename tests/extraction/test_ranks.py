"""Ranks share counters and results, and notice when one of them has ended."""

from pathlib import Path

import jobs
import pytest

from featx.extraction.ranks import Ranks, warn_of_shared_store


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
from featx.extraction.ranks import Ranks

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


@pytest.mark.processes
@pytest.mark.parametrize(("how", "statuses"), [("stays", [3, 3]), ("ends", [5, 1])])
def test_two_processes(
    tmp_path: Path, how: str, statuses: list[int], capfd: pytest.CaptureFixture[str]
) -> None:
    """They share counters, do something while they wait, and notice when one has ended."""
    script = tmp_path / "member.py"
    script.write_text(MEMBER)
    members = [
        jobs.run_script(script, rank, tmp_path / "store", how, folder=tmp_path) for rank in range(2)
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
