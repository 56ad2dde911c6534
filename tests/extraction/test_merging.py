"""Shards that are published while a run goes on."""

from pathlib import Path

import numpy as np
import pytest
from helpers import finish_in, make_rows, plan, prepare, problems

from featx.errors import IncompleteError, OutputError
from featx.extraction.merging import ShardPublisher
from featx.extraction.ranks import Ranks
from featx.features import staging as module
from featx.features.shards import list_shard_paths, shard_path
from featx.features.staging import Staging

LENGTHS = [3, 9, 1, 3, 3]
ROWS = make_rows(LENGTHS)


@pytest.fixture
def staging(tmp_path: Path) -> Staging:
    """A file in shards of two rows, of which none is finished."""
    staging = Staging(tmp_path / "train_features.h5", plan(LENGTHS), rows_per_file=2)
    prepare(staging)
    return staging


def watch(staging: Staging, pending: int = len(LENGTHS)) -> ShardPublisher:
    """A publisher of a run in which the first rows are to be made."""
    return ShardPublisher(Ranks(), {"train": staging}, {"train": np.arange(len(LENGTHS)) < pending})


def write(staging: Staging, *rows: int) -> None:
    """Finish some rows."""
    for row in rows:
        staging.write_part({row: finish_in(staging, row, ROWS[row])})


def test_a_shard_whose_rows_are_settled(staging: Staging) -> None:
    """It is published, and those that lack rows, or have rows of earlier runs, are not."""
    publisher = watch(staging, 4)
    write(staging, 0, 1, 2, 4)
    publisher.settle("train", {0: 1, 1: 1})
    publisher.settle("train", {0: 1, 2: 1})
    publisher.finish()
    assert list_shard_paths(staging.target) == [shard_path(staging.target, 0)]
    assert problems(shard_path(staging.target, 0)) == []


def test_a_row_that_is_not_there(staging: Staging) -> None:
    """The run goes on, publishes the other shards, and tells at its end."""
    publisher = watch(staging)
    write(staging, 0, 2, 3)
    publisher.settle("train", {0: 2, 1: 2})
    publisher.finish()
    assert list_shard_paths(staging.target) == [shard_path(staging.target, 1)]
    with pytest.raises(IncompleteError, match="without video 1, video 4"):
        staging.publish()


def test_a_merge_that_fails(staging: Staging, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has happened ends the run."""

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    publisher = watch(staging)
    write(staging, 0, 1)
    monkeypatch.setattr(module, "merge_rows", fail)

    def work() -> None:
        publisher.settle("train", {0: 2})
        publisher.finish()

    with pytest.raises(OutputError, match="No space left"):
        work()
    publisher.stop()


def test_a_shard_with_rows_of_earlier_runs(staging: Staging) -> None:
    """It is left to the first process, even if all of them are there."""
    publisher = watch(staging, 3)
    write(staging, 2, 3)
    publisher.settle("train", {1: 1})
    publisher.finish()
    assert list_shard_paths(staging.target) == []


def test_a_shard_is_tried_once(staging: Staging, monkeypatch: pytest.MonkeyPatch) -> None:
    """By who settles its last row, and not before."""
    tried: list[int] = []
    monkeypatch.setattr(Staging, "publish_shard", lambda self, shard: tried.append(shard))
    publisher = watch(staging)
    publisher.settle("train", {0: 1, 1: 1})
    publisher.settle("train", {1: 1})
    publisher.finish()
    assert tried == [1]


def test_parts_of_earlier_runs_are_known_to_all_processes(staging: Staging) -> None:
    """Who follows the plan of the first process takes no row from them."""
    write(staging, 0)
    first, other = (Staging(staging.target, plan(LENGTHS), rows_per_file=2) for _ in range(2))
    prepare(first)
    other.follow(first.plan)
    write(other, 1)
    assert [*first.find_places(0)] == [0, 1]
    assert [*other.find_places(0)] == [1]
