"""Looks at many inputs at once: by threads, or by processes where there are enough to pay."""

import multiprocessing
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from contextlib import closing, suppress
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from featx.data.batches import outlive_signals
from featx.data.manifest import Share
from featx.errors import FeatxError, IncompleteError, InputError, first_line
from featx.parallel import count_cores, map_ahead

ENOUGH = 2000  # inputs that nobody knows, for which it pays to start processes

_AT_ONCE = 64  # inputs that go to a process together

_In = TypeVar("_In")
_Out = TypeVar("_Out")


class ShareSeen(Exception):  # it is no error
    """Ends a scan that was to look at the share of one machine alone."""


def map_inputs(
    function: Callable[[_In], _Out],
    items: Sequence[_In],
    num_unknown: int,
    threads: int,
    share: Share | None = None,
) -> Generator[tuple[_In, Future[_Out]]]:
    """Items in order, each with the future of what a function gives for it; see `map_ahead`.

    Args:
        function: What looks at an input; what it gives can be pickled.
        items: The inputs.
        num_unknown: How many of them take time.
        threads: How many look at them, where processes do not pay or cannot be forked.
        share: The share of them that this machine looks at, if it is to do nothing else.

    Raises:
        ShareSeen: It has.
    """
    if share:
        own = items[share.machine :: share.num_machines]
        _look(share, map_inputs(function, own, num_unknown // share.num_machines, threads))
        raise ShareSeen
    if may_fork(num_unknown):
        return _map_in_processes(function, items, count_cores())
    return map_ahead(function, items, threads, "scanning")


def _look(share: Share, ahead: Generator[tuple[_In, Future[Any]]]) -> None:
    """Note what is found of a share; what is bad, the first machine finds again, and tells."""
    with closing(ahead):
        for item, finding in ahead:
            with suppress(InputError):
                found = finding.result()
                if found.is_new:
                    share.note(item if isinstance(item, str) else found.name, found.facts)


def may_fork(num_unknown: int) -> bool:
    """Whether processes are to look at inputs, of which so many take time."""
    can_fork = "fork" in multiprocessing.get_all_start_methods()
    return num_unknown > ENOUGH and count_cores() > 1 and can_fork


def _map_in_processes(
    function: Callable[[_In], _Out], items: Sequence[_In], processes: int
) -> Generator[tuple[_In, Future[_Out]]]:
    """The same, by a DataLoader's workers: if one dies, or a signal comes, it sees to it."""
    loader = DataLoader(
        _Chunks(function, items),
        batch_size=None,
        num_workers=processes,
        collate_fn=_keep,
        worker_init_fn=outlive_signals,
        multiprocessing_context="fork",  # what the function knows is not copied
        generator=torch.Generator(),  # and not the one of the process, which others use
    )
    number = 0
    chunks = iter(loader)
    while number < len(items):
        try:
            outcomes = next(chunks)
        except RuntimeError as error:
            if "DataLoader worker (pid" not in str(error):  # it says what was raised in one
                raise
            raise IncompleteError(
                f"{items[number]}: expected to scan it and those after it, found that a process "
                f"which did has ended ({first_line(error)}). Where it is not for want of memory, "
                "leave an input out that no program can read."
            ) from error
        for outcome in outcomes:
            future: Future[_Out] = Future()
            if isinstance(outcome, FeatxError):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)
            yield items[number], future
            number += 1


class _Chunks(Dataset[list[Any]]):
    """What a function gives for some inputs that follow each other; or raises, as a value."""

    def __init__(self, function: Callable[[Any], Any], items: Sequence[Any]) -> None:
        self._function = function
        self._items = items

    def __len__(self) -> int:
        return -(-len(self._items) // _AT_ONCE)

    def __getitem__(self, number: int) -> list[Any]:
        rows = range(len(self._items))[number * _AT_ONCE : (number + 1) * _AT_ONCE]
        return [self._find(self._items[row]) for row in rows]

    def _find(self, item: Any) -> Any:  # noqa: ANN401  # of any kind
        try:
            return self._function(item)
        except FeatxError as error:
            return error


def _keep(outcomes: list[Any]) -> list[Any]:
    """A chunk as it is."""
    return outcomes
