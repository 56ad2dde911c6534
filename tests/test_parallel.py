"""Threads that work ahead: in order, not too far, and no longer than they are wanted."""

import threading
import time
from contextlib import closing

import pytest

from featx.parallel import map_ahead


def test_in_order_and_not_too_far() -> None:
    """Every item comes in its turn, with its result; a bounded number is under way."""
    begun: list[int] = []

    def double(number: int) -> int:
        begun.append(number)
        return 2 * number

    with closing(map_ahead(double, range(20), threads=2, name="doubling")) as results:
        number, future = next(results)
        assert (number, future.result()) == (0, 0)
        time.sleep(0.1)
        assert len(begun) <= 5
        found = [(number, future.result()) for number, future in results]
        assert found == [(number, 2 * number) for number in range(1, 20)]


def test_an_error_comes_in_its_turn() -> None:
    """Neither those before it are lost, nor those after it."""

    def invert(number: int) -> float:
        return 1 / number

    with closing(map_ahead(invert, [2, 0, 4], threads=2, name="inverting")) as results:
        first, second, third = (future for _, future in results)
    assert (first.result(), third.result()) == (0.5, 0.25)
    with pytest.raises(ZeroDivisionError):
        second.result()


def test_the_threads_end_with_what_uses_them() -> None:
    """Also if that fails while somebody keeps its traceback, as a notebook does."""
    begun: list[int] = []

    def wait(number: int) -> int:
        begun.append(number)
        time.sleep(0.02)
        return number

    def use() -> None:
        with closing(map_ahead(wait, range(1000), threads=2, name="waiting")) as results:
            for _ in results:
                raise KeyError("on purpose")

    with pytest.raises(KeyError) as kept:
        use()
    count = len(begun)
    time.sleep(0.1)
    assert len(begun) == count
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("waiting")]
    assert kept.traceback
