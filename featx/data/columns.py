"""Millions of rows in columns: compact in memory, and mapped from a file rather than read.

A column grows cell by cell, and is frozen into an array of the smallest type that fits. One that
has the same value everywhere costs nothing.
"""

import json
import mmap
import zlib
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Union, overload

import numpy as np
from numpy.typing import NDArray

Column = Union[NDArray[Any], "Texts"]
"""Numbers `[rows, ...]`, or texts."""

NOTHING = -1
"""Stands for an integer that is not there, where all others are 0 or more."""

_FORMAT = 1  # of files of columns
_ALIGNMENT = 64  # of arrays in a file, in bytes
_HEADER_AT = 16  # after its length, and the checksum of all that follows
_AT_ONCE = 2**14  # rows that are decoded or copied at once
_MAX_HEADS, _MAX_HEAD_BYTES = 2**16, 2**24  # that are stored once, of one column
_SHA256_BYTES = 32
_ANY = "surrogatepass"  # names of files and cells of JSON may be no UTF-8; what reads them tells
_HEX = np.frombuffer(bytes(range(256)).hex().encode(), np.uint16)
_FREE, _MARK = -1, 0xFFFFFFFF


class Texts(Sequence[str]):
    """Texts `[rows]` in one buffer; a slice shares it.

    Each is a head, which many may have in common and which is stored once, and a tail of its own.

    Args:
        tails: All tails in UTF-8, one after another.
        ends: Where each begins and ends in these `[rows + 1]`.
        codes: Which head each has `[rows]`.
        heads: All heads in UTF-8.
        head_ends: Where each begins and ends in these.
    """

    def __init__(
        self,
        tails: NDArray[np.uint8],
        ends: NDArray[Any],
        codes: NDArray[Any],
        heads: NDArray[np.uint8],
        head_ends: NDArray[Any],
    ) -> None:
        self.arrays = {
            "tails": tails,
            "ends": ends,
            "codes": codes,
            "heads": heads,
            "head_ends": head_ends,
        }
        self._tails, self._ends, self._codes = tails, ends, codes
        self._heads, self._head_ends = heads, head_ends

    @classmethod
    def of(cls, texts: Iterable[str], are_words: bool = False) -> "Texts":
        """Texts one by one; see `TextColumn`."""
        column = TextColumn(are_words)
        for text in texts:
            column.append(text)
        return column.freeze()

    def __len__(self) -> int:
        return len(self._codes)

    @overload
    def __getitem__(self, rows: int) -> str: ...

    @overload
    def __getitem__(self, rows: slice) -> "Texts": ...

    def __getitem__(self, rows: int | slice) -> "str | Texts":
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            if step != 1:
                return self.take(np.arange(start, stop, step))
            ends = self._ends[start : max(start, stop) + 1]
            return Texts(self._tails, ends, self._codes[start:stop], self._heads, self._head_ends)
        row = range(len(self))[rows]
        tail = self._tails[int(self._ends[row]) : int(self._ends[row + 1])].tobytes()
        return self._head(int(self._codes[row])) + tail.decode("utf-8", _ANY)

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), _AT_ONCE):
            ends = self._ends[start : start + _AT_ONCE + 1].tolist()
            codes = self._codes[start : start + _AT_ONCE].tolist()
            heads = {code: self._head(code) for code in {*codes}}
            first = ends[0]
            tails = self._tails[first : ends[-1]].tobytes()
            for row, code in enumerate(codes):
                tail = tails[ends[row] - first : ends[row + 1] - first]
                yield heads[code] + tail.decode("utf-8", _ANY)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # as of a list

    def __repr__(self) -> str:
        return f"Texts({[*self[:10]]}{'...' * (len(self) > 10)})"

    def _head(self, code: int) -> str:
        head = self._heads[int(self._head_ends[code]) : int(self._head_ends[code + 1])]
        return head.tobytes().decode("utf-8", _ANY)

    @property
    def words(self) -> tuple[NDArray[Any], list[str]] | None:
        """Which word each is `[rows]`, and the words; None if they are not all such."""
        if len(self) and self._ends[0] != self._ends[-1]:
            return None
        return self._codes, [self._head(code) for code in range(len(self._head_ends) - 1)]

    def to_array(self) -> NDArray[Any]:
        """All of them, as objects."""
        return np.fromiter(self, object, len(self))

    def take(self, rows: NDArray[np.int64]) -> "Texts":
        """A copy of some rows, in their order."""
        sizes: NDArray[Any] = np.diff(self._ends.astype(np.int64))[rows]
        ends = np.concatenate([[0], np.cumsum(sizes)])
        tails = np.empty(int(ends[-1]), np.uint8)
        for start in range(0, len(rows), _AT_ONCE):
            some = slice(start, start + _AT_ONCE)
            to = ends[start : start + len(rows[some]) + 1]
            shift = self._ends[rows[some]].astype(np.int64) - to[:-1]
            chosen = np.arange(to[0], to[-1]) + np.repeat(shift, sizes[some])
            tails[to[0] : to[-1]] = self._tails[chosen]
        codes = shrink(self._codes[rows])
        return Texts(tails, shrink(ends), codes, self._heads, self._head_ends)


class TextColumn(Sequence[str]):
    """Texts that are appended one by one.

    Args:
        are_words: Whether the same texts recur; otherwise, their folders do: what is up to the
            last slash.
    """

    def __init__(self, are_words: bool = False) -> None:
        self._are_words = are_words
        self._codes, self._ends = array("I"), array("Q", [0])
        self._tails, self._heads = bytearray(), bytearray()
        self._head_ends = array("Q", [0, 0])
        self._known = {"": 0}
        self._words = [""]

    def append(self, text: str) -> None:
        """Add one."""
        cut = len(text) if self._are_words else text.rfind("/") + 1
        head = text[:cut]
        code = self._known.get(head)
        if code is None:
            code = self._add(head)
            cut *= code > 0
        self._codes.append(code)
        if cut < len(text):
            self._tails += text[cut:].encode("utf-8", _ANY)
        self._ends.append(len(self._tails))

    def _add(self, head: str) -> int:
        """The code of a new head; that of none, if there are too many by now."""
        if len(self._known) > _MAX_HEADS or len(self._heads) > _MAX_HEAD_BYTES:
            return 0
        self._known[head] = code = len(self._known)
        self._words.append(head)
        self._heads += head.encode("utf-8", _ANY)
        self._head_ends.append(len(self._heads))
        return code

    def __len__(self) -> int:
        return len(self._codes)

    @overload
    def __getitem__(self, rows: int) -> str: ...

    @overload
    def __getitem__(self, rows: slice) -> Sequence[str]: ...

    def __getitem__(self, rows: int | slice) -> str | Sequence[str]:
        if isinstance(rows, slice):
            return [self[row] for row in range(len(self))[rows]]
        row = range(len(self))[rows]
        tail = self._tails[self._ends[row] : self._ends[row + 1]]
        return self._words[self._codes[row]] + tail.decode("utf-8", _ANY)

    def freeze(self) -> Texts:
        """All of them; nothing can be added then."""
        return Texts(
            np.frombuffer(self._tails, np.uint8),
            shrink(np.frombuffer(self._ends, np.uint64)),
            shrink(np.frombuffer(self._codes, np.uint32)),
            np.frombuffer(self._heads, np.uint8),
            shrink(np.frombuffer(self._head_ends, np.uint64)),
        )


class NumberColumn:
    """Numbers that are appended one by one; it costs nothing as long as there is none.

    Args:
        missing: What stands for a number that is not there.
        kind: Of an array: `q` for integers, `d` for others.
    """

    def __init__(self, missing: float = NOTHING, kind: str = "q") -> None:
        self._missing: array[Any] = array(kind, [missing])
        self._values: array[Any] = array(kind)
        self._kind, self._count = kind, 0

    def append(self, value: float | None) -> None:
        """Add one, or none."""
        if value is not None:
            if lacks := self._count - len(self._values):
                self._values += self._missing * lacks
            self._values.append(value)
        self._count += 1

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, row: int) -> Any:  # noqa: ANN401  # an integer, or a float
        return self._values[row] if row < len(self._values) else self._missing[0]

    def freeze(self) -> NDArray[Any]:
        """All of them."""
        if not self._values:
            return constant(np.frombuffer(self._missing, self._kind)[0], self._count)
        self._values += self._missing * (self._count - len(self._values))
        return shrink(np.frombuffer(self._values, self._kind))


class DigestColumn:
    """SHA-256 digests that are appended one by one; an empty one is not known."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._count = 0

    def append(self, digest: str) -> None:
        """Add one, in hexadecimal digits."""
        if digest:
            self._bytes += bytes(_SHA256_BYTES * self._count - len(self._bytes))
            self._bytes += bytes.fromhex(digest)
        self._count += 1

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, row: int) -> str:
        digest = self._bytes[_SHA256_BYTES * row : _SHA256_BYTES * (row + 1)]
        return digest.hex() if any(digest) else ""

    def freeze(self) -> NDArray[np.uint8]:
        """All of them `[rows, 32]`, zero where they are not known."""
        if not self._bytes:
            return constant(np.zeros(_SHA256_BYTES, np.uint8), self._count)
        self._bytes += bytes(_SHA256_BYTES * self._count - len(self._bytes))
        return np.frombuffer(self._bytes, np.uint8).reshape(self._count, _SHA256_BYTES)


class Index:
    """Finds the rows of texts by these, with no object for each.

    It is a table of hashes, open addressing, whose matches are compared.

    Args:
        texts: The texts; more may be appended to them.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = texts
        self._count = 0
        self._table = _make_table(2**10)

    @classmethod
    def of(cls, texts: Sequence[str]) -> "Index":
        """An index of all texts; of those that are equal, it finds the first."""
        index = cls(texts)
        for row, text in enumerate(texts):
            index.add(text, row)
        return index

    def find(self, text: str) -> int | None:
        """The row of a text; None if there is none."""
        _, rows = table = self._table
        row = rows[self._find_slot(table, text, hash(text) & _MARK)]
        return None if row == _FREE else row

    def __contains__(self, text: object) -> bool:
        return isinstance(text, str) and self.find(text) is not None

    def add(self, text: str, row: int, replace: bool = False) -> None:
        """Note the row of a text, which is among the texts by now.

        Args:
            text: The text.
            row: Its row.
            replace: Whether it counts instead of an earlier one; otherwise, that stays.
        """
        mark = hash(text) & _MARK
        marks, rows = self._table
        slot = self._find_slot(self._table, text, mark)
        if rows[slot] == _FREE:
            marks[slot], rows[slot] = mark, row
            self._count += 1
            if 3 * self._count > 2 * len(rows):
                self._grow()
        elif replace:
            rows[slot] = row

    def _find_slot(self, table: tuple["array[int]", "array[int]"], text: str, mark: int) -> int:
        """Where a text is in a table, or can be put."""
        marks, rows = table
        mask, texts = len(rows) - 1, self._texts
        slot = mark & mask
        while (row := rows[slot]) != _FREE and not (marks[slot] == mark and texts[row] == text):
            slot = (slot + 1) & mask
        return slot

    def _grow(self) -> None:
        marks, rows = _make_table(2 * len(self._table[1]))
        mask = len(rows) - 1
        for mark, row in zip(*self._table, strict=True):
            if row != _FREE:
                slot = mark & mask
                while rows[slot] != _FREE:
                    slot = (slot + 1) & mask
                marks[slot], rows[slot] = mark, row
        self._table = marks, rows  # at once: other threads may look for a text


def _make_table(size: int) -> tuple["array[int]", "array[int]"]:
    """The slots of an index: some bits of a hash, and a row."""
    return array("I", [0]) * size, array("i", [_FREE]) * size


def shrink(values: NDArray[Any]) -> NDArray[Any]:
    """The same numbers in the smallest type that fits; one that is everywhere costs nothing."""
    if not len(values):
        return values
    first = values[:1]
    if values.ndim == 1 and np.array_equal(
        values, np.broadcast_to(first, values.shape), equal_nan=values.dtype.kind == "f"
    ):
        return constant(_fit(first)[0], len(values))
    return _fit(values)


def _fit(values: NDArray[Any]) -> NDArray[Any]:
    if values.dtype.kind not in "iu":
        return values
    low, high = int(values.min()), int(values.max())
    kinds = (np.uint8, np.uint16, np.uint32) if low >= 0 else (np.int8, np.int16, np.int32)
    for kind in kinds:
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return values.astype(kind)
    return values


def constant(value: Any, count: int) -> NDArray[Any]:  # noqa: ANN401  # a number, or an array
    """A column that has one value everywhere, and stores it once."""
    value = np.asarray(value)
    return np.broadcast_to(value, (count, *value.shape))


def is_constant(values: NDArray[Any]) -> bool:
    """Whether a column stores one value for all rows."""
    return len(values) > 1 and values.strides[0] == 0


def are_unique(texts: Sequence[str]) -> bool:
    """Whether no two texts are equal."""
    hashes = np.fromiter(map(hash, texts), np.int64, len(texts))
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    alike = order[1:][ordered[1:] == ordered[:-1]], order[:-1][ordered[1:] == ordered[:-1]]
    rows = np.unique(np.concatenate(alike)).tolist()
    return len({texts[row] for row in rows}) == len(rows)


def to_hex(digests: NDArray[np.uint8]) -> NDArray[np.bytes_]:
    """Digests `[rows, 32]` in hexadecimal digits `[rows]`, S64; empty where they are not known."""
    if is_constant(digests) and not digests[0].any():
        return np.zeros(len(digests), "S64")
    found = np.ascontiguousarray(_HEX[digests]).view("S64").reshape(len(digests))
    found[~digests.any(axis=1)] = b""
    return found


def get_hex(digests: NDArray[np.uint8], row: int) -> str:
    """One digest in hexadecimal digits; empty if it is not known."""
    digest = digests[row].tobytes()
    return digest.hex() if any(digest) else ""


def save_columns(path: Path, columns: Mapping[str, Column]) -> None:
    """Write columns into a file."""
    arrays: dict[str, NDArray[Any]] = {}
    for name, column in columns.items():
        if isinstance(column, Texts):
            # The tails of a slice are among those of all.
            ends = column.arrays["ends"]
            first, last = (int(ends[0]), int(ends[-1])) if len(column) else (0, 0)
            moved = ends if not first else shrink(ends.astype(np.int64) - first)
            tails = column.arrays["tails"][first:last]
            found = column.arrays | {"tails": tails, "ends": moved}
            arrays |= {f"{name}\n{part}": values for part, values in found.items()}
        else:
            arrays[name] = column
    entries: list[tuple[str, str, tuple[int, ...], int, int]] = []
    size = 0
    for name, values in arrays.items():
        stored = 1 if is_constant(values) else len(values)
        entries.append((name, values.dtype.str, values.shape, stored, size))
        size += _align(values[:stored].nbytes)
    header = json.dumps({"columns": _FORMAT, "arrays": entries}).encode()
    start = _align(_HEADER_AT + len(header))
    with path.open("w+b") as file:
        file.write(len(header).to_bytes(8, "little") + bytes(8) + header)
        for (_, _, _, stored, offset), values in zip(entries, arrays.values(), strict=True):
            file.seek(start + offset)
            values[:stored].tofile(file)
        file.truncate(start + size)
        file.flush()
        with mmap.mmap(file.fileno(), 0) as mapped:
            mapped[8:_HEADER_AT] = _find_checksum(mapped)


def open_columns(path: Path, verify: bool = False) -> dict[str, Column]:
    """The columns in a file, which is mapped, so that processes share them.

    Args:
        path: The file.
        verify: Read all of it, and compare it with its checksum.

    Raises:
        OSError: There is no such file, or it cannot be read.
        ValueError: It is none of columns, incomplete, or damaged.
    """
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if verify and mapped[8:_HEADER_AT] != _find_checksum(mapped):
        raise ValueError(f"{path}: damaged")
    length = int.from_bytes(mapped[:8], "little")
    header = json.loads(mapped[_HEADER_AT : _HEADER_AT + length])
    if not isinstance(header, dict) or header.get("columns") != _FORMAT:
        raise ValueError(f"{path}: no columns")
    start = _align(_HEADER_AT + length)
    columns: dict[str, Column] = {}
    texts: dict[str, dict[str, NDArray[Any]]] = {}
    for full_name, kind, shape, stored, offset in header["arrays"]:
        count = stored * int(np.prod(shape[1:], dtype=np.int64))
        values = np.empty(0, kind)
        if count:
            values = np.frombuffer(mapped, kind, count, start + offset)
        values = values.reshape(stored, *shape[1:])
        if stored != shape[0]:
            values = np.broadcast_to(values, shape)
        name, _, part = full_name.partition("\n")
        if part:
            texts.setdefault(name, {})[part] = values
        else:
            columns[name] = values
    return columns | {name: Texts(**arrays) for name, arrays in texts.items()}


def _find_checksum(mapped: mmap.mmap) -> bytes:
    """That of what follows it in a file, and of the length before it."""
    with memoryview(mapped) as view:
        return zlib.crc32(view[_HEADER_AT:], zlib.crc32(view[:8])).to_bytes(8, "little")


def _align(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
