"""The scan cache: the results of earlier scans and runs, for inputs that have not changed.

With it, a second scan opens no input that it knows, and a rerun hashes none again. An entry counts
only if the size, the times and the inode of the input are as they were, as in git's index. The
cache saves time and nothing else: an entry that is lost, damaged or stale is made again.

All entries are in one Arrow stream, with a checksum after its end. Processes that read inputs
append lines to journals, which the next run joins with it.
"""

import json
import os
import re
import time
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from featx.data.storage import Place, Status, stat
from featx.durable import publish_file, to_int64

_FORMAT = 1  # to be raised when the survey of an input gets another meaning
_FILE = f"inputs-{_FORMAT}.arrow"
_CHECKSUM_BYTES = 4
_BATCH = 2**17  # new entries that are Python objects until they are moved to Arrow columns
_SCHEMA = pa.schema(
    {
        "name": pa.large_binary(),  # a name of a file may be no UTF-8
        **dict.fromkeys(("size", "mtime", "inode", "ctime"), pa.int64()),
        "digest": pa.binary(32),  # null if it is not known
        "form": pa.dictionary(pa.int32(), pa.large_string()),
        "values": pa.large_string(),
    }
)
_VALUE = re.compile("[0-9a-f]{64}|[0-9]+")  # what differs between surveys of the same form
_GAP = "\0"  # stands for a value in a form; JSON has no NUL
_DIGEST = re.compile("([0-9a-f]{64})?")
_SETTLED_NS = 2_000_000_000  # the resolution of times on old file systems

Stats = tuple[int, int]
"""Size in bytes and time of change in nanoseconds, see `file_stats`; or what stands for them."""

FileMarks = tuple[int, int]
"""Inode, and time of change of the status in nanoseconds."""


class FileStamp(NamedTuple):
    """Size, times and inode of an input at one moment.

    Attributes:
        stats: Its size and time of change.
        file: Its inode, and the time of change of its status.
        is_settled: True if a later change would change these times, as the last one was long ago.
    """

    stats: Stats
    file: FileMarks
    is_settled: bool

    @classmethod
    def make(cls, stats: Stats, file: FileMarks, changed_ns: int) -> Self:
        """Make the stamp, now, of an input that was changed last at a time in nanoseconds."""
        return cls(stats, file, time.time_ns() - changed_ns > _SETTLED_NS)


def stamp_file(path: Place, status: Status | None = None) -> FileStamp:
    """Return the stamp of a file, local or remote.

    Args:
        path: The file.
        status: Its status, if the caller has asked for it.

    Raises:
        OSError: It is not there.
    """
    status = status or stat(path)
    return FileStamp.make(status.stats, (status.inode, status.status_ns), status.changed_ns)


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """The entry of one input.

    Attributes:
        stats: Its size and time of change.
        digest: SHA-256 of its content in hexadecimal digits; empty if it was not hashed.
        survey: The result of its scan, as JSON; empty if it was not opened.
        file: Its inode, and the time of change of its status.
        is_settled: See `FileStamp`.
    """

    stats: Stats
    digest: str = ""
    survey: Mapping[str, Any] = field(default_factory=dict)
    file: FileMarks = (0, 0)
    is_settled: bool = field(default=True, compare=False)


class ScanCache:
    """The entries of the inputs of a data set, by their names in it."""

    def __init__(self) -> None:
        self._stored = _Stored(_SCHEMA.empty_table())
        self._new: dict[str, CacheEntry] = {}
        self._is_saved = True

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the cache and the journals in a folder; a damaged one counts as empty."""
        cache = cls()
        with suppress(OSError, ValueError):
            cache._stored = _Stored(_open(folder / _FILE))
        paths = sorted(folder.glob("*.jsonl"))
        for path in paths:
            for name, entry in _read_journal(path):
                cache._join(name, entry)
        cache._is_saved = not paths
        return cache

    def save(self, folder: Path) -> None:
        """Write the cache to a folder, if it has changed, and remove all else there."""
        if not self._is_saved:
            folder.mkdir(parents=True, exist_ok=True)
            self._store()
            temporary = folder / f".{_FILE}.{os.getpid()}.tmp"
            try:
                _write(self._stored.table, temporary)
                publish_file(temporary, folder / _FILE)
            finally:
                temporary.unlink(missing_ok=True)
            self._is_saved = True
        for path in folder.iterdir() if folder.exists() else ():
            if path.name != _FILE:  # a journal that was joined, or a file of a killed run
                path.unlink()

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (name in self._new or self._stored.find(name) is not None)

    def find(self, name: str, stats: Stats, file: FileMarks = (0, 0)) -> CacheEntry | None:
        """Return the entry of an input; None if there is none, or the input has changed since."""
        entry = self._find(name)
        return entry if entry and (entry.stats, entry.file) == (stats, file) else None

    def find_sizes(self) -> NDArray[np.int64]:
        """Return the different sizes of the inputs whose digests are known."""
        self._store()
        table = self._stored.table
        sizes = table["size"].filter(table["digest"].is_valid()).unique()
        return np.sort(sizes.to_numpy())

    def note(self, name: str, entry: CacheEntry) -> bool:
        """Add the entry of an input, unless the input was changed just before.

        A further change could leave its times as they are.

        Returns:
            Whether it was added.
        """
        if not entry.is_settled:
            return False
        self._join(name, entry)
        return True

    def _find(self, name: str) -> CacheEntry | None:
        if new := self._new.get(name):
            return new
        number = self._stored.find(name)
        return None if number is None else self._stored.read(number)

    def _join(self, name: str, entry: CacheEntry) -> None:
        """Add an entry; of an input that has not changed, what was known before stays known."""
        before = self._find(name)
        if before and (before.stats, before.file) == (entry.stats, entry.file):
            entry = replace(
                entry,
                digest=entry.digest or before.digest,
                survey={**before.survey, **entry.survey},
            )
        if entry != before:
            self._new[name] = entry
            self._is_saved = False
            if len(self._new) >= _BATCH:
                self._store()

    def _store(self) -> None:
        """Move the new entries to Arrow columns, where an entry takes little memory."""
        if self._new:
            # Threads look in the new entries first, and must find all of them in one or the other.
            self._stored = self._stored.extend(self._new)
            self._new = {}


class _Stored:
    """Entries in Arrow columns, and an index of their names.

    Args:
        table: The columns, in one chunk.
    """

    def __init__(self, table: pa.Table) -> None:
        self.table = table
        columns = [column.combine_chunks() for column in table.columns]
        self._names, *self._numbers, self._digests, self._forms, self._values = columns
        hashes = np.fromiter(map(hash, _iterate(self._names)), np.int64, len(table))
        order = np.argsort(hashes)
        self._hashes, self._rows = array("q", hashes[order].tobytes()), array("q", order.tobytes())

    def find(self, name: str) -> int | None:
        """Return the number of the entry of a name; None if there is none."""
        key = _encode(name)
        wanted = hash(key)
        place = bisect_left(self._hashes, wanted)
        while place < len(self._hashes) and self._hashes[place] == wanted:
            if self._names[self._rows[place]].as_py() == key:
                return self._rows[place]
            place += 1
        return None

    def read(self, number: int) -> CacheEntry:
        """Return an entry."""
        size, mtime, inode, ctime = (column[number].as_py() for column in self._numbers)
        first, *others = self._forms[number].as_py().split(_GAP)
        values = self._values[number].as_py().split(" ")
        parts = (value + other for value, other in zip(values, others, strict=False))
        digest = self._digests[number].as_py()
        survey = json.loads(first + "".join(parts))
        return CacheEntry((size, mtime), digest.hex() if digest else "", survey, (inode, ctime))

    def extend(self, new: Mapping[str, CacheEntry]) -> "_Stored":
        """Return all entries and new ones, which replace those of the same names."""
        replaced = [number for name in new if (number := self.find(name)) is not None]
        stays = np.ones(len(self.table), bool)
        stays[replaced] = False
        before = self.table.filter(pa.array(stays)) if replaced else self.table
        entries = new.values()
        surveys = [json.dumps(entry.survey, separators=(",", ":")) for entry in entries]
        columns = [
            map(_encode, new),
            *zip(*((*entry.stats, *entry.file) for entry in entries), strict=True),
            (bytes.fromhex(entry.digest) or None for entry in entries),
            (_VALUE.sub(_GAP, survey) for survey in surveys),
            (" ".join(_VALUE.findall(survey)) for survey in surveys),
        ]
        arrays = [
            pa.array(values, field.type.value_type).dictionary_encode()
            if pa.types.is_dictionary(field.type)
            else pa.array(values, field.type)
            for values, field in zip(columns, _SCHEMA, strict=True)
        ]
        added = pa.table(arrays, schema=_SCHEMA)
        return _Stored(pa.concat_tables([before, added]).unify_dictionaries().combine_chunks())


def _iterate(column: pa.Array) -> Iterator[bytes]:
    """Yield the values of a column; few of them are Python objects at once."""
    for start in range(0, len(column), _BATCH):
        yield from column[start : start + _BATCH].to_pylist()


def _encode(name: str) -> bytes:
    return name.encode("utf-8", "surrogatepass")


def _write(table: pa.Table, path: Path) -> None:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, _SCHEMA) as writer:
        writer.write_table(table)
    with pa.memory_map(str(path)) as mapped:
        checksum = zlib.crc32(mapped.read_buffer())
    with path.open("ab") as file:
        file.write(checksum.to_bytes(_CHECKSUM_BYTES, "little"))


def _open(path: Path) -> pa.Table:
    """Map the cache in a file.

    Raises:
        OSError: There is no such file, or it cannot be read.
        ValueError: It is damaged.
    """
    content = pa.memory_map(str(path)).read_buffer()
    size = max(content.size - _CHECKSUM_BYTES, 0)
    stream = content.slice(0, size)
    if zlib.crc32(stream).to_bytes(_CHECKSUM_BYTES, "little") != content.slice(size).to_pybytes():
        raise ValueError(f"{path}: damaged")
    table = pa.ipc.open_stream(stream).read_all()
    if table.schema != _SCHEMA:
        raise ValueError(f"{path}: no scan cache")
    return table


class Journal:
    """A file to which one process appends entries while it reads inputs, a line each.

    Args:
        path: Its file, which is made with the first line.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, line: str) -> None:
        """Add a line, unless it is empty."""
        if line:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                if not file.tell():
                    file.write(_HEADER)
                file.write(line)


_HEADER = json.dumps({"scan_cache": _FORMAT}) + "\n"


def format_line(name: str, entry: CacheEntry) -> str:
    """Return an entry as a line of a journal; empty, if the input was changed just before."""
    if not entry.is_settled:
        return ""
    return json.dumps([name, entry.stats, entry.file, entry.digest, entry.survey]) + "\n"


def _read_journal(path: Path) -> Iterator[tuple[str, CacheEntry]]:
    """Yield the entries of a journal; a line that a killed process left half-written is skipped."""
    with suppress(OSError), path.open("rb") as file:
        if file.readline() != _HEADER.encode():
            return
        for line in file:
            try:
                name, (size, time_ns), (inode, status_ns), digest, survey = json.loads(line)
            except (ValueError, TypeError):
                continue
            numbers = (size, time_ns, inode, status_ns)
            are_numbers = all(isinstance(number, int) for number in numbers)
            are_texts = isinstance(name, str) and isinstance(digest, str)
            if are_numbers and are_texts and isinstance(survey, dict) and _DIGEST.fullmatch(digest):
                marks = to_int64(inode), to_int64(status_ns)
                yield name, CacheEntry((size, to_int64(time_ns)), digest, survey, marks)
