"""Columns of NumPy numbers and Arrow texts, and the Arrow file that maps them into memory."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Union, overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from featx.errors import first_line

Column = Union[NDArray[Any], "Texts"]
"""Numbers or digests `[rows, ...]`, or texts."""

NOTHING = -1
"""Stands for a missing integer, where all others are 0 or more."""

_AT_ONCE = 2**14  # texts that are Python objects at once
_DIGEST = pa.binary(32)
_HEX = np.frombuffer(bytes(range(256)).hex().encode(), np.uint16)


class Texts(Sequence[str]):
    """An Arrow array of texts as a sequence of str, equal to a list of them; a slice shares it.

    Args:
        array: Strings without nulls, dictionary-encoded or not.
    """

    def __init__(self, array: pa.Array) -> None:
        self.array = array

    @classmethod
    def of(cls, texts: Iterable[str], are_words: bool = False) -> "Texts":
        """Make an array of texts; with `are_words`, which recur, each is stored once."""
        array = pa.array(texts, pa.large_string())
        return cls(array.dictionary_encode() if are_words else array)

    def __len__(self) -> int:
        return len(self.array)

    @overload
    def __getitem__(self, rows: int) -> str: ...

    @overload
    def __getitem__(self, rows: slice) -> "Texts": ...

    def __getitem__(self, rows: int | slice) -> "str | Texts":
        if isinstance(rows, slice):
            return Texts(self.array[rows])
        text: str = self.array[rows].as_py()
        return text

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), _AT_ONCE):
            yield from self.array[start : start + _AT_ONCE].to_pylist()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # as of a list

    def __repr__(self) -> str:
        return f"Texts({[*self[:10]]}{'...' * (len(self) > 10)})"

    @property
    def different(self) -> list[str]:
        """The different texts."""
        found: list[str] = self.array.unique().to_pylist()
        return found

    @property
    def are_unique(self) -> bool:
        """True if no two texts are equal."""
        return len(self.array.unique()) == len(self)

    def to_array(self) -> NDArray[Any]:
        """Return all texts as a NumPy array of objects."""
        return np.fromiter(self, object, len(self))


def shrink(values: NDArray[Any]) -> NDArray[Any]:
    """Return the same numbers in the smallest type that fits; see `constant`."""
    if values.dtype == bool:
        values = values.view(np.uint8)
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
    """Return a column that has one value in all rows, and stores it once."""
    value = np.asarray(value)
    return np.broadcast_to(value, (count, *value.shape))


def is_constant(values: NDArray[Any]) -> bool:
    """Return True if a column stores one value for all rows."""
    return len(values) > 1 and values.strides[0] == 0


def to_digests(content: bytes | bytearray) -> NDArray[np.uint8]:
    """Return SHA-256 digests that follow each other as a column `[rows, 32]`; 0 is not known."""
    digests = np.frombuffer(content, np.uint8).reshape(-1, 32)
    return digests if digests.any() else constant(np.zeros(32, np.uint8), len(digests))


def to_hex(digests: NDArray[np.uint8]) -> NDArray[np.bytes_]:
    """Return digests `[rows, 32]` in hexadecimal digits `[rows]`, S64; empty if not known."""
    if is_constant(digests) and not digests[0].any():
        return np.zeros(len(digests), "S64")
    found = np.ascontiguousarray(_HEX[digests]).view("S64").reshape(len(digests))
    found[~digests.any(axis=1)] = b""
    return found


def get_hex(digests: NDArray[np.uint8], row: int) -> str:
    """Return one digest in hexadecimal digits; empty if it is not known."""
    digest = digests[row].tobytes()
    return digest.hex() if any(digest) else ""


def save_columns(
    path: Path, columns: Mapping[str, Column], shared: str, notes: Mapping[str, Any]
) -> None:
    """Write columns as one Arrow IPC file, a row a video.

    What several videos share becomes the dictionary of one column, whose values are structs. A
    column that has one value in all rows is kept in the metadata.

    Args:
        path: The file.
        columns: The columns.
        shared: Such as `clip`: this column has numbers from 0, and the columns `clip.x` have a row
            for each of these.
        notes: Is kept as JSON in the metadata.
    """
    constants: dict[str, tuple[str, Any, int]] = {}
    arrays: dict[str, pa.Array] = {}
    for name, column in columns.items():
        if isinstance(column, np.ndarray) and is_constant(column) and name != shared:
            constants[name] = column.dtype.str, column[0].tolist(), len(column)
        else:
            arrays[name] = _to_arrow(column)
    prefix = f"{shared}."
    parts = {name: arrays.pop(name) for name in [*arrays] if name.startswith(prefix)}
    names = [name.removeprefix(prefix) for name in parts]
    structs = pa.StructArray.from_arrays([*parts.values()], names=names)
    arrays[shared] = pa.DictionaryArray.from_arrays(arrays[shared].cast(pa.int32()), structs)
    metadata = {"notes": json.dumps(notes), "constants": json.dumps(constants)}
    batch = pa.record_batch(arrays).replace_schema_metadata(metadata)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, batch.schema) as writer:
        writer.write_batch(batch)


def open_columns(path: Path) -> tuple[dict[str, Column], dict[str, Any]]:
    """Map the columns of a file into memory, shared with other processes.

    Returns:
        The columns, and the notes.

    Raises:
        OSError: There is no such file, or no whole one yet.
    """
    try:
        batch = pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)
    except pa.ArrowInvalid as error:
        raise OSError(f"{path}: expected a whole Arrow file, found: {first_line(error)}") from error
    metadata = batch.schema.metadata
    columns: dict[str, Column] = {
        name: np.broadcast_to(np.array(value, kind), (count, *np.shape(value)))
        for name, (kind, value, count) in json.loads(metadata[b"constants"]).items()
    }
    for name, array in zip(batch.schema.names, batch.columns, strict=True):
        if pa.types.is_dictionary(array.type) and pa.types.is_struct(array.type.value_type):
            for field, values in zip(
                array.type.value_type, array.dictionary.flatten(), strict=True
            ):
                columns[f"{name}.{field.name}"] = from_arrow(values)
            columns[name] = from_arrow(array.indices)
        else:
            columns[name] = from_arrow(array)
    return columns, json.loads(metadata[b"notes"])


def _to_arrow(column: Column) -> pa.Array:
    if isinstance(column, Texts):
        return column.array
    if column.ndim == 2:
        buffer = pa.py_buffer(np.ascontiguousarray(column))
        return pa.FixedSizeBinaryArray.from_buffers(_DIGEST, len(column), [None, buffer])
    return pa.array(column)


def from_arrow(array: pa.Array) -> Column:
    """Return numbers, digests or texts of Arrow as a column, which shares their memory."""
    if array.type == _DIGEST:
        if not len(array):
            return np.empty((0, 32), np.uint8)
        digests = np.frombuffer(array.buffers()[1], np.uint8).reshape(-1, 32)
        return digests[array.offset : array.offset + len(array)]
    if pa.types.is_integer(array.type) or pa.types.is_floating(array.type):
        values: NDArray[Any] = array.to_numpy()
        return values
    return Texts(array)
