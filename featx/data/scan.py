"""The scan: inputs are opened by threads or processes, bad ones are collected, all are counted."""

import multiprocessing
from collections.abc import (
    Callable,
    Collection,
    Container,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from featx.data.batches import outlive_signals
from featx.data.manifest import Manifest, ScanSettings
from featx.data.summary import Examples, ScanSummary, Used, summarize
from featx.data.tree import natural_key
from featx.errors import FeatxError, IncompleteError, InputError, combine, first_line
from featx.parallel import count_cores, map_ahead

ENOUGH = 2000  # inputs that are not in the scan cache, for which it pays to start processes

_AT_ONCE = 64  # inputs that a process takes together
_LISTED = 200  # bad inputs that one error lists

_In = TypeVar("_In")
_Out = TypeVar("_Out")


class Rejections(dict[str, dict[str, InputError]]):
    """The bad inputs of each split: the error of each, by its place."""

    def __init__(self, splits: Sequence[str]) -> None:
        super().__init__({split: {} for split in splits})

    @contextmanager
    def collect(self, split: str, place: str) -> Iterator[None]:
        """Keep an InputError that is raised inside, by the place of its input."""
        try:
            yield
        except InputError as error:
            self[split][place] = error

    def check(self, settings: ScanSettings, non_empty: Collection[str]) -> None:
        """Raise one error that lists all bad inputs, if `on_error` does not leave them out.

        Args:
            settings: The settings of the scan.
            non_empty: The splits that have at least one video.

        Raises:
            InputError: There are bad inputs; with `on_error: skip`, in a split without a video.
        """
        if not settings.strict:
            return
        skips = settings.on_error == "skip"
        errors = [
            error
            for split, found in self.items()
            if not (skips and split in non_empty)
            for _, error in sorted(found.items(), key=lambda item: natural_key(item[0]))
        ]
        if errors:
            others, way_out = f"{len(errors)} others", "Fix or remove them"
            if skips:
                others += " and no good one beside them"
            else:
                way_out += ", or set on_error to skip to leave them out"
            found = f"expected inputs that featx accepts, found {others}. {way_out}."
            raise combine(f"{settings.root}: {found}", errors, _LISTED)


def map_inputs(
    function: Callable[[_In], _Out],
    items: Sequence[_In],
    num_unknown: int,
    threads: int,
) -> Generator[tuple[_In, Future[_Out]]]:
    """Apply a function to inputs ahead, and yield each input with its future, in order.

    Args:
        function: Opens an input; its result can be pickled.
        items: The inputs.
        num_unknown: How many of them are not in the scan cache, and take time.
        threads: The number of threads, where processes do not pay or cannot be forked.
    """
    if may_fork(num_unknown):
        return _map_in_processes(function, items, count_cores())
    return map_ahead(function, items, threads, "scanning")


def may_fork(num_unknown: int) -> bool:
    """Return True if processes are to open inputs, of which `num_unknown` take time."""
    can_fork = "fork" in multiprocessing.get_all_start_methods()
    return num_unknown > ENOUGH and count_cores() > 1 and can_fork


def _map_in_processes(
    function: Callable[[_In], _Out], items: Sequence[_In], processes: int
) -> Generator[tuple[_In, Future[_Out]]]:
    """Do the same in the workers of a DataLoader, which handles signals and dead workers."""
    loader = DataLoader(
        _Chunks(function, items),
        batch_size=None,
        num_workers=processes,
        collate_fn=list,  # a chunk stays as it is
        worker_init_fn=outlive_signals,
        multiprocessing_context="fork",  # because the data of the function must not be copied
        generator=torch.Generator(),  # so that the random state of the process stays
    )
    number = 0
    chunks = iter(loader)
    while number < len(items):
        try:
            outcomes = next(chunks)
        except RuntimeError as error:
            if "DataLoader worker (pid" not in str(error):  # an error that a worker raised
                raise
            raise IncompleteError(
                f"{items[number]}: expected to scan it and those after it, found that a scan "
                f"worker died ({first_line(error)}). Free some memory; or, if an input crashes "
                "every reader, leave it out."
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
    """Chunks of results; an error of featx is a result, too, so that it keeps its type."""

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


def summarize_scan(
    settings: ScanSettings,
    manifest: Manifest,
    known: Container[str],
    is_input: Callable[[str], bool],
    found: Iterable[tuple[str, ...]],
    traits: Mapping[str, Examples] | None = None,
) -> ScanSummary:
    """Summarize what a scan has found and left out; see `summarize`."""
    used = [
        Used(split, len(numbers), len(manifest.positions[split]), manifest.find_categories(split))
        for split, numbers in manifest.numbers.items()
    ]
    in_splits = settings.layout == "tree" and settings.table is None
    return summarize(
        settings.root, used, manifest.rejected, known, is_input, found, in_splits, traits
    )
