"""Names in a row: as a list of them, in little memory."""

import pickle
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featx.features.names import Names

TEXTS = st.lists(st.text(max_size=5), max_size=8)


@pytest.mark.slow
@given(TEXTS, st.slices(8))
def test_as_a_list(texts: list[str], some: slice) -> None:
    """Items, slices, iteration, equality and length are those of the list."""
    names = Names.pack(texts)
    assert [*names] == texts
    assert [names[row] for row in range(-len(texts), len(texts))] == texts * 2
    assert [*names[some]] == texts[some]
    assert names == texts
    assert (names == [*texts, ""]) is False
    assert pickle.loads(pickle.dumps(names)) == texts
    assert repr(names) == repr(texts)


def test_what_is_no_row() -> None:
    """It is an error, as with a list; and text alone is no sequence of names."""
    names = Names.pack(["a", "b"])
    for row in (2, -3):
        with pytest.raises(IndexError, match="expected a row below 2"):
            names[row]
    assert names != "ab"


def test_more_than_are_taken_at_once() -> None:
    """They are all there, in order, and take their bytes and eight more each."""
    texts = [f"video {number}" for number in range(150_000)]
    names = Names.pack(texts)
    assert names == texts
    assert [*names[65_530:65_545]] == texts[65_530:65_545]
    assert len(pickle.dumps(names)) < sum(map(len, texts)) + 8 * len(texts) + 1000
    assert sys.getsizeof(names) < 100


def test_names_of_undecodable_bytes() -> None:
    """They stay what they are, as names of files may be."""
    texts = ["\udcff.mp4", "é"]
    assert [*Names.pack(texts)] == texts
