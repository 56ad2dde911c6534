"""Columns of a table's cells, as Arrow arrays: numbers if all cells are, otherwise texts."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

Cell = str | int | float | None

TEXT = pa.large_string()
"""The type of texts: a column of sentences may have more than 2 GB, as `pa.string()` has not."""

_INTEGER = re.compile(r"[+-]?(0|[1-9][0-9]*)")
_DECIMAL = re.compile(r"[+-]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_EXACT = 2**53  # the integers up to here are floating point numbers, too
_AT_ONCE = 2**16  # cells that are Python objects at the same time


class CellColumn:
    """A column that is built cell by cell, and holds all of them as texts.

    Attributes:
        kinds: The types of the cells that are appended: int, float or str.
    """

    def __init__(self) -> None:
        self.kinds: set[type] = set()
        self._cells: list[str | None] = []
        self._chunks: list[pa.Array] = []

    def append(self, cell: Cell) -> None:
        """Add a cell of JSON or Parquet, which has a type."""
        text = str(cell) if cell is not None else None
        if text and not text.isspace():
            self.kinds.add(_find_kind(cell, is_guessed=False))
        self.extend((text,))

    def extend(self, texts: Iterable[str | None]) -> None:
        """Add cells without a type. Empty ones become null."""
        self._cells += [text or None for text in texts]
        if len(self._cells) >= _AT_ONCE:
            self._pack()

    @property
    def is_guessed(self) -> bool:
        """Return True where the types do not tell whether the cells are numbers or texts."""
        return not self.kinds or (str in self.kinds and len(self.kinds) > 1)

    def to_texts(self) -> pa.Array:
        """Return all cells as texts, null where they are empty."""
        self._pack()
        texts = pa.chunked_array(self._chunks, TEXT).combine_chunks()
        self._chunks = [texts]
        pa.default_memory_pool().release_unused()  # otherwise, it keeps twice what is in use
        return texts

    def to_array(self) -> pa.Array:
        """Return all cells: as numbers if they were appended as such, otherwise as texts."""
        return _to_numbers(self.to_texts(), self.kinds)

    def _pack(self) -> None:
        try:
            self._chunks.append(pa.array(self._cells, TEXT))
        except UnicodeEncodeError:
            self._chunks.append(pa.array(map(_escape, self._cells), TEXT))
        self._cells = []


def _escape(cell: str | None) -> str | None:
    r"""Replace half a surrogate pair, which JSON may have, but UTF-8 and Arrow may not.

    The cell then has a NUL, so that it is refused wherever it is used.
    """
    if cell is None:
        return None
    text = cell.encode("utf-8", "backslashreplace").decode()
    return text if text == cell else f"{text}\0"


def each(column: pa.Array) -> Iterator[Any]:
    """Yield the cells of a column as Python objects, of which few exist at the same time."""
    for start in range(0, len(column), _AT_ONCE):
        yield from column.slice(start, _AT_ONCE).to_pylist()


def to_column(column: pa.Array, is_guessed: bool) -> pa.Array:
    """Return a column without nulls: int64, float64 with NaN, or texts.

    Integers with a leading zero are text, because the zero means something. So are integers that
    are too long for an exact number.

    Args:
        column: Texts or numbers.
        is_guessed: Texts become numbers if all of them are written as numbers.
    """
    if is_guessed and column.type == TEXT:
        column = _to_numbers(column, _guess_kinds(column))
    if column.type == TEXT:
        return pc.fill_null(column, "")
    if column.type == pa.int64() and not column.null_count:
        return column
    return pc.fill_null(column.cast(pa.float64()), np.nan)


def to_integer(cell: str | float, is_guessed: bool) -> int | None:
    """Return the integer in a cell, which a column with gaps may have as 12.0; or None.

    Args:
        cell: The cell.
        is_guessed: A text counts as an integer if it is written as one.
    """
    kind = _find_kind(cell, is_guessed)
    if kind is str or not float(cell).is_integer():
        return None
    return int(cell) if kind is int else int(float(cell))


def strip(column: pa.Array) -> pa.Array:
    """Return texts without the spaces around them, null where they are empty."""
    stripped = pc.utf8_trim_whitespace(column)
    return pc.if_else(pc.equal(stripped, ""), pa.scalar(None, TEXT), stripped)


def _find_kind(cell: Cell, is_guessed: bool) -> type:
    """Return the type that a cell counts as, or that a text is written as: int, float or str."""
    if is_guessed and isinstance(cell, str):
        text = cell.strip()
        if not _INTEGER.fullmatch(text):
            return float if _DECIMAL.fullmatch(text) else str
        cell = int(text)
    if isinstance(cell, (bool, str)) or cell is None:
        return str
    if isinstance(cell, int):
        return int if abs(cell) <= _EXACT else str
    return float


def _guess_kinds(column: pa.Array) -> set[type]:
    """Return the types that a column's texts are written as, up to the first that is no number."""
    kinds: set[type] = set()
    for cell in each(column):
        if cell is not None and not cell.isspace():
            kinds.add(_find_kind(cell, is_guessed=True))
            if str in kinds:
                break
    return kinds


def _to_numbers(texts: pa.Array, kinds: set[type]) -> pa.Array:
    """Return texts as numbers, null where they are empty; as they are, unless all are numbers."""
    if not kinds or str in kinds:
        return texts
    digits = pc.utf8_ltrim(strip(texts), "+")  # which Arrow does not read
    return digits.cast(pa.int64() if kinds == {int} else pa.float64())
