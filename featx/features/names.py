"""Many names in little memory."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import overload

import h5py
import numpy as np
from numpy.typing import NDArray

_AT_ONCE = 2**16  # names that are Python's own objects for a moment


class Names(Sequence[str]):
    """A name for each row: a sequence, as a list of them is, without an object for each.

    Args:
        content: The UTF-8 bytes of all names, one after the other.
        ends: Where each of them ends `[rows]`, int64.
    """

    def __init__(self, content: bytes, ends: NDArray[np.int64]) -> None:
        # Arrays, not objects: processes that are forked share them, and go on doing so.
        self._content, self._ends = np.frombuffer(content, np.uint8), ends

    @classmethod
    def pack(cls, names: Iterable[str]) -> "Names":
        """Take names one by one."""
        left = iter(names)
        pieces, ends = [], [np.zeros(0, np.int64)]
        end = 0
        while some := [name.encode("utf-8", "surrogateescape") for name in islice(left, _AT_ONCE)]:
            pieces.append(b"".join(some))
            ends.append(end + np.cumsum([len(name) for name in some], dtype=np.int64))
            end = int(ends[-1][-1])
        return cls(b"".join(pieces), np.concatenate(ends))

    @classmethod
    def read(cls, dataset: h5py.Dataset) -> "Names":
        """Read text of a file.

        Raises:
            ValueError: It is no text.
        """
        starts = range(0, len(dataset), _AT_ONCE)
        texts = dataset.asstr()
        return cls.pack(name for start in starts for name in texts[start : start + _AT_ONCE])

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> Sequence[str]: ...
    def __getitem__(self, row: int | slice) -> str | Sequence[str]:
        """A name, or some of them."""
        if isinstance(row, slice):
            start, stop, step = row.indices(len(self))
            if step != 1 or stop <= start:
                return Names.pack(self[each] for each in range(start, stop, step))
            first = self._ends[start - 1] if start else np.int64(0)
            content = self._content[first : self._ends[stop - 1]]
            return Names(content.tobytes(), self._ends[start:stop] - first)
        number = row + len(self) if row < 0 else row
        if not 0 <= number < len(self):
            raise IndexError(f"expected a row below {len(self)}, found {row}")
        start = self._ends[number - 1] if number else 0
        name = self._content[start : self._ends[number]].tobytes()
        return name.decode("utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), _AT_ONCE):
            ends = self._ends[start : start + _AT_ONCE].tolist()
            before = first = int(self._ends[start - 1]) if start else 0
            content = self._content[first : ends[-1]].tobytes()
            for end in ends:
                yield content[before - first : end - first].decode("utf-8", "surrogateescape")
                before = end

    def __eq__(self, other: object) -> bool:
        """Whether another sequence has the same names."""
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # as a list has none

    def __repr__(self) -> str:
        return repr([*self])
