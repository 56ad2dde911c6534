"""Columns of numbers and texts, in memory and in an Arrow file."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featx.data.columns import (
    Texts,
    constant,
    get_hex,
    is_constant,
    open_columns,
    save_columns,
    shrink,
    to_digests,
    to_hex,
)

TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=4), max_size=9)


@settings(deadline=None)
@given(TEXTS, st.booleans(), st.slices(9))
def test_texts_are_like_a_list(texts: list[str], are_words: bool, some: slice) -> None:
    """By their length, rows, slices and equality."""
    found = Texts.of(texts, are_words)
    assert found == texts
    assert [*found] == [found[row] for row in range(len(found))] == texts
    assert found[some] == texts[some]
    assert found[1:][:-2] == texts[1:][:-2]
    assert found != [*texts, "more"]
    assert found.to_array().tolist() == texts
    assert {*found.different} == {*texts}
    assert found.are_unique == (len({*texts}) == len(texts))
    if texts:
        assert found[-1] == texts[-1]
    with pytest.raises(IndexError):
        found[len(texts)]
    assert found.__eq__("no list") is NotImplemented


def test_a_slice_of_texts_shares_their_memory() -> None:
    """Splits of a long list cost nothing."""
    texts = Texts.of(f"name {number}" for number in range(1000))
    assert texts[10:900].array.buffers()[2].address == texts.array.buffers()[2].address


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([0, 255], "u1"),
        ([0, 256], "u2"),
        ([-1, 5], "i1"),
        ([0, 2**31], "u4"),
        ([-1, 2**40], "i8"),
        ([0.5, 1], "f8"),
    ],
)
def test_numbers_take_little_room(values: list[float], kind: str) -> None:
    """The smallest type that fits; one value for all rows is stored once."""
    found = shrink(np.array(values))
    assert found.dtype == kind
    assert found.tolist() == values
    same = shrink(np.full(1000, values[1]))
    assert is_constant(same)
    assert same.tolist() == [values[1]] * 1000
    assert shrink(np.array([np.nan, np.nan])).strides == (0,)
    assert len(shrink(np.zeros(0, int))) == 0


def test_digests() -> None:
    """Known ones are hexadecimal digits, others are empty."""
    known = bytes(range(32))
    digests = to_digests(known + bytes(32))
    assert to_hex(digests).tolist() == [known.hex().encode(), b""]
    assert [get_hex(digests, row) for row in range(2)] == [known.hex(), ""]
    unknown = to_digests(bytes(64))
    assert is_constant(unknown)
    assert to_hex(unknown).tolist() == [b"", b""]


@pytest.mark.parametrize("count", [0, 1, 5])
def test_a_file_of_columns(tmp_path: Path, count: int) -> None:
    """All columns come back, with what videos share, with constants and with notes."""
    clips = np.arange(count) // 2
    shared = len({*clips.tolist()})
    columns: dict[str, Any] = {
        "clip": clips,
        "clip.name": Texts.of(f"é{number}.mp4" for number in range(shared)),
        "clip.form": Texts.of("a" * shared, are_words=True),
        "clip.size": np.arange(shared, dtype=np.int64) << 40,
        "clip.digest": np.arange(32 * shared, dtype=np.uint8).reshape(shared, 32),
        "clip.empty": to_digests(bytes(32 * shared)),
        "height": constant(256, count),
        "begin": constant(np.nan, count),
        "length": np.arange(count, dtype=np.uint8),
        "given/clip.a": Texts.of(map(str, range(count)), are_words=True),
        "given/b": np.arange(count) / 2,
    }
    save_columns(tmp_path / "file", columns, "clip", {"homes": [["train", None]]})
    found, notes = open_columns(tmp_path / "file")
    assert notes == {"homes": [["train", None]]}
    assert found.keys() == columns.keys()
    for name, column in columns.items():
        if isinstance(column, Texts):
            assert found[name] == column, name
        else:
            assert np.array_equal(found[name], column, equal_nan=name == "begin"), name
    if count == 5:
        assert is_constant(found["height"])  # type: ignore[arg-type]  # numbers


@pytest.mark.parametrize("content", [b"", b"text", bytes(1000)])
def test_no_file_of_columns(tmp_path: Path, content: bytes) -> None:
    """A file of another kind is refused."""
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(OSError, match="expected a whole Arrow file"):
        open_columns(tmp_path / "file")
