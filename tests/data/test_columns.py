"""Columns: what comes out is what went in, in little room, also by way of a file."""

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from featx.data import columns
from featx.data.columns import (
    DigestColumn,
    Index,
    NumberColumn,
    TextColumn,
    Texts,
    are_unique,
    constant,
    get_hex,
    is_constant,
    open_columns,
    save_columns,
    shrink,
    to_hex,
)

ANY_TEXTS = st.lists(st.text(st.characters() | st.sampled_from("/\ud800\udfff"), max_size=6))


def count_bytes(texts: Texts) -> int:
    """Memory of texts."""
    return sum(part[: 1 if is_constant(part) else None].nbytes for part in texts.arrays.values())


@given(ANY_TEXTS, st.booleans(), st.data())
def test_texts_are_what_they_were(given: list[str], are_words: bool, data: st.DataObject) -> None:
    """One by one, in slices, in another order, and all of them; whatever their characters."""
    texts = Texts.of(given, are_words)
    assert texts == given
    assert [*texts] == given == [texts[row] for row in range(len(given))]
    start, stop = sorted(data.draw(st.tuples(*[st.integers(0, len(given))] * 2)))
    assert [*texts[start:stop]] == given[start:stop]
    assert [*texts[::-1]] == given[::-1]
    rows = data.draw(st.lists(st.integers(0, len(given) - 1)) if given else st.just([]))
    assert [*texts[start:].take(np.array([], np.int64))] == []
    assert [*texts.take(np.array(rows, np.int64))] == [given[row] for row in rows]
    assert pickle.loads(pickle.dumps(texts[start:stop])) == given[start:stop]


def test_texts_grow() -> None:
    """They can be read while others are added; a row that is not there is no row."""
    column = TextColumn()
    for number in range(3):
        column.append(f"a/{number}")
    assert (column[1], column[-1], column[:2]) == ("a/1", "a/2", ["a/0", "a/1"])
    assert [*column] == ["a/0", "a/1", "a/2"]
    for texts in (column, column.freeze()):
        with pytest.raises(IndexError):
            texts[3]


@pytest.mark.parametrize("are_words", [False, True])
def test_what_recurs_is_stored_once(are_words: bool) -> None:
    """The folder of a path, or a whole word; one that is everywhere costs nothing."""
    word = "a long name of a category"
    texts = [word] * 1000 if are_words else [f"{word}/{number % 10}" for number in range(1000)]
    assert count_bytes(Texts.of(texts, are_words)) < (100 if are_words else 4000)


def test_too_many_heads_are_stored_with_their_tails(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the table of heads does not grow with the rows."""
    monkeypatch.setattr(columns, "_MAX_HEADS", 2)
    texts = [f"{number}/x" for number in range(5)]
    found = Texts.of(texts)
    assert found == texts
    assert len(found.arrays["head_ends"]) == 4


@pytest.mark.parametrize(
    ("values", "dtype"),
    [([0, 255], "u1"), ([0, 256], "u2"), ([-1, 127], "i1"), ([-1, 128], "i2"), ([2**40, 1], "i8")],
)
def test_numbers_take_the_smallest_type(values: list[int], dtype: str) -> None:
    """That fits all of them."""
    found = shrink(np.array(values))
    assert (found.tolist(), found.dtype) == (values, np.dtype(dtype))


def test_one_value_everywhere_costs_nothing() -> None:
    """Also NaN, and a number that nobody has given."""
    missing = NumberColumn()
    for _ in range(3):
        missing.append(None)
    for values in (shrink(np.full(9, 7)), shrink(np.full(9, np.nan)), missing.freeze()):
        assert is_constant(values)
    assert missing.freeze().tolist() == [-1, -1, -1]


def test_numbers_that_are_missing() -> None:
    """They have a number of their own, wherever they are."""
    column = NumberColumn(np.nan, "d")
    for value in (None, 1.5, None, None):
        column.append(value)
    assert [column[row] for row in (1, 0)] == [1.5, pytest.approx(np.nan, nan_ok=True)]
    np.testing.assert_array_equal(column.freeze(), [np.nan, 1.5, np.nan, np.nan])


@pytest.mark.parametrize("digests", [[], ["", ""], ["", "ab" * 32, ""], ["00" + "cd" * 31]])
def test_digests(digests: list[str]) -> None:
    """Thirty-two bytes each, and hexadecimal digits again; those that are not known are empty."""
    column = DigestColumn()
    for digest in digests:
        column.append(digest)
    found = column.freeze()
    assert found.shape == (len(digests), 32)
    assert to_hex(found).dtype == "S64"
    assert to_hex(found).tolist() == [digest.encode() for digest in digests]
    assert [get_hex(found, row) for row in range(len(digests))] == digests


@given(ANY_TEXTS)
def test_an_index_finds_the_first(given: list[str]) -> None:
    """Of those that are equal; and nothing else."""
    index = Index.of(Texts.of(given))
    assert [index.find(text) for text in given] == [given.index(text) for text in given]
    assert "no such text" not in index
    assert None not in index


def test_an_index_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    """It finds thousands, also where hashes are the same."""
    texts = [str(number) for number in range(5000)]
    index = Index.of(texts)
    assert [index.find(text) for text in texts] == [*range(5000)]
    monkeypatch.setattr(columns, "hash", lambda text: len(text), raising=False)
    index = Index.of(texts[:200])
    assert [index.find(text) for text in texts[:201]] == [*range(200), None]


@pytest.mark.parametrize("texts", [[], ["a"], ["a", "b"], ["b", "a", "b"]])
def test_unique_texts(texts: Sequence[str]) -> None:
    """No two are equal; that two have the same hash does not matter."""
    assert are_unique(Texts.of(texts)) == (len({*texts}) == len(texts))


def test_texts_of_the_same_hash_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """They may be different all the same."""
    monkeypatch.setattr(columns, "hash", lambda text: 0, raising=False)
    assert are_unique(["a", "b", "c"])
    assert not are_unique(["a", "b", "a"])


def test_columns_by_way_of_a_file(tmp_path: Path) -> None:
    """They are mapped as they were; what is the same everywhere is stored once."""
    given: dict[str, NDArray[np.generic] | Texts] = {
        "numbers": np.arange(70_000),
        "constant": constant(np.zeros(32, np.uint8), 10**6),
        "floats": np.array([np.nan, 0.5]),
        "nothing": np.empty(0, np.int64),
        "texts": Texts.of(f"a/{number}" for number in range(100)),
        "slice": Texts.of(["a", "bc", "def", "g"])[1:3],
        "no texts": Texts.of([]),
    }
    save_columns(tmp_path / "file", given)
    found = open_columns(tmp_path / "file")
    assert found.keys() == given.keys()
    for name, column in given.items():
        if isinstance(column, Texts):
            assert found[name] == column
        else:
            np.testing.assert_array_equal(cast(NDArray[np.generic], found[name]), column)
            assert cast(NDArray[np.generic], found[name]).dtype == column.dtype
    assert is_constant(cast(NDArray[np.generic], found["constant"]))
    assert (tmp_path / "file").stat().st_size < 8 * 70_000 + 10_000


@pytest.mark.parametrize("content", [b"", b"text", bytes(100), b"\x02" + bytes(7) + b"{}"])
def test_another_file_is_refused(tmp_path: Path, content: bytes) -> None:
    """It is no file of columns, or half of one."""
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ValueError, match=r"."):
        open_columns(tmp_path / "file")


def test_half_a_file_is_refused(tmp_path: Path) -> None:
    """A process may have been killed while it wrote."""
    save_columns(tmp_path / "file", {"numbers": np.arange(1000)})
    content = (tmp_path / "file").read_bytes()
    (tmp_path / "file").write_bytes(content[:-100])
    with pytest.raises(ValueError, match=r"."):
        open_columns(tmp_path / "file")
