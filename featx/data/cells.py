"""The cells of tables: what they are, in columns, and as numbers or texts."""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import numpy as np

from featx.data.columns import Column, TextColumn, Texts

Cell = str | int | float | None

_INTEGER = re.compile(r"[+-]?(0|[1-9][0-9]*)")
_DECIMAL = re.compile(r"[+-]?(0|[1-9][0-9]*)?(\.[0-9]*)?([eE][+-]?[0-9]+)?")
_EXACT = 2**53  # up to which floating point knows all integers
_KINDS = (type(None), str, int, float, bool)
_TEXT = _KINDS.index(str)


class Cells(Sequence[Cell]):
    """The cells of a column, as they are appended: all of them as texts, and what each is.

    Args:
        cells: The first ones.
        are_words: Whether the same texts recur; see `TextColumn`.
    """

    def __init__(self, cells: Iterable[Cell] = (), are_words: bool = True) -> None:
        self._kinds = bytearray()
        self._texts = TextColumn(are_words)
        for cell in cells:
            self.append(cell)

    def append(self, cell: Cell) -> None:
        """Add one."""
        if isinstance(cell, str):
            self._kinds.append(_TEXT)
            self._texts.append(cell)
        else:
            self._kinds.append(_KINDS.index(type(cell)))
            self._texts.append("" if cell is None else repr(cell))

    def fill(self, count: int) -> None:
        """Add so many that are empty."""
        for _ in range(count):
            self.append(None)

    def __len__(self) -> int:
        return len(self._kinds)

    @overload
    def __getitem__(self, rows: int) -> Cell: ...

    @overload
    def __getitem__(self, rows: slice) -> list[Cell]: ...

    def __getitem__(self, rows: int | slice) -> Cell | list[Cell]:
        if isinstance(rows, slice):
            return [self[row] for row in range(len(self))[rows]]
        return _read(self._kinds[rows], self._texts[rows])

    def __iter__(self) -> Iterator[Cell]:
        return (_read(kind, text) for kind, text in zip(self._kinds, self._texts, strict=True))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return [*self] == [*other]

    __hash__ = None  # type: ignore[assignment]  # as of a list


def _read(kind: int, text: str) -> Cell:
    """A cell of a kind."""
    if kind == _TEXT:
        return text
    if _KINDS[kind] is bool:
        return text == "True"
    if _KINDS[kind] is int:
        return int(text)
    return float(text) if text else None


def to_column(cells: Sequence[Cell], is_text: bool) -> Column:
    """A column as numbers, if all of its cells are; otherwise as texts.

    Integers with a leading zero are text: it means something. So are those that are too long.
    """
    kinds = {_find_kind(cell, is_text) for cell in cells if not is_empty(cell)}
    lacks = any(is_empty(cell) for cell in cells)
    if kinds == {int} and not lacks:
        return np.fromiter((int(cell or 0) for cell in cells), np.int64, len(cells))
    if kinds and kinds <= {int, float}:
        numbers = (np.nan if cell is None or is_empty(cell) else float(cell) for cell in cells)
        return np.fromiter(numbers, np.float64, len(cells))
    return Texts.of(("" if cell is None else str(cell) for cell in cells), are_words=True)


def is_empty(cell: Cell) -> bool:
    """Whether a cell says nothing."""
    return cell is None or (isinstance(cell, str) and not cell.strip())


def to_integer(cell: Cell, is_text: bool) -> int | None:
    """The integer in a cell, which a column with gaps may have as 12.0; None if it is none."""
    kind = _find_kind(cell, is_text)
    if kind is float and float(str(cell)).is_integer():
        kind = int
    return int(float(str(cell))) if kind is int else None


def _find_kind(cell: Cell, is_text: bool) -> type:
    """What a cell is: int, float or str."""
    if isinstance(cell, str) and is_text:
        text = cell.strip()
        if _INTEGER.fullmatch(text):
            return int if abs(int(text)) <= _EXACT else str
        return float if any(map(str.isdigit, text)) and _DECIMAL.fullmatch(text) else str
    if isinstance(cell, (bool, str)) or cell is None:
        return str
    if isinstance(cell, int):
        return int if abs(cell) <= _EXACT else str
    return float
