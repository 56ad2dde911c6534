"""What is known of inputs that have not changed since: by name, size and time of change.

An input has to be the same file, too, by its number and the time of its status, as in git's index.

So a second scan need not open what the first one has, nor a rerun read it again. What is kept is a
hint that saves time: whatever is lost, or does not fit any more, is read again. All of it is in a
file of columns; what processes learn while they read are lines, until these are joined with that.
"""

import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, Self, overload

import numpy as np
from numpy.typing import NDArray

from featx.data.columns import (
    Column,
    DigestColumn,
    Index,
    NumberColumn,
    TextColumn,
    Texts,
    get_hex,
    open_columns,
    save_columns,
)
from featx.data.storage import Place, Status, stat
from featx.files import publish_file, to_int64

_FORMAT = 1  # to be raised when what is kept of a clip gets another meaning
_ALL, _LINES = f"known-{_FORMAT}.columns", "known.jsonl"  # the latter is what it once was
_TEXTS = ("name", "form", "values")
_NUMBERS = ("size", "time", "inode", "status")
_VALUE = re.compile("[0-9a-f]{64}|[0-9]+")  # what differs between surveys that are alike
_GAP = "\0"  # where it was; JSON has none
_DIGEST = re.compile("([0-9a-f]{64})?")
_SETTLED_NS = 2_000_000_000  # within which a change may leave the time of change as it is

Stats = tuple[int, int]
"""Size in bytes and time of change in nanoseconds, see `file_stats`; or what stands for them."""

FileMarks = tuple[int, int]
"""Number of the inode, and time of change of the status in nanoseconds."""


class Look(NamedTuple):
    """What the file system says of an input, at one moment.

    Attributes:
        stats: Its size and time of change.
        file: Its number, and when its status was changed last.
        is_settled: Whether another change, from now on, would be seen by its time.
    """

    stats: Stats
    file: FileMarks
    is_settled: bool

    @classmethod
    def make(cls, stats: Stats, file: FileMarks, changed_ns: int) -> Self:
        """What there is, now, of an input that was changed last at a time in nanoseconds."""
        return cls(stats, file, time.time_ns() - changed_ns > _SETTLED_NS)


def look_at_file(path: Place, status: Status | None = None) -> Look:
    """Return what the file system or the server says of a file.

    Args:
        path: The file.
        status: Its status, if the caller has asked for it.

    Raises:
        OSError: It is not there.
    """
    status = status or stat(path)
    return Look.make(status.stats, (status.inode, status.status_ns), status.changed_ns)


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of one input.

    Attributes:
        stats: Its size and time of change.
        digest: SHA-256 of its content; empty if nobody has read it all.
        survey: What its source has found in it, as JSON has it; nothing, if nobody has looked.
        file: Its number in its file system, and when its status was changed last.
        is_settled: See `Look`.
    """

    stats: Stats
    digest: str = ""
    survey: Mapping[str, Any] = field(default_factory=dict)
    file: FileMarks = (0, 0)
    is_settled: bool = field(default=True, compare=False)


class Known:
    """What is known of the inputs of a data set, by their names in it."""

    def __init__(self) -> None:
        self._rows = _Rows({})
        self._index = Index(self._rows)
        self._is_saved = True

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what runs have kept in a folder; nothing if there is none, or of another version."""
        known = cls()
        with suppress(OSError, ValueError, KeyError):
            known._rows = _Rows(open_columns(folder / _ALL, verify=True))
            known._index = Index.of(known._rows)
        paths = sorted(folder.glob("*.jsonl"), key=lambda path: (path.name != _LINES, path.name))
        for path in paths:
            if path.name != _LINES or not len(known._rows):
                for name, facts in _read(path):
                    known._join(name, facts)
        known._is_saved = not paths
        return known

    def save(self, folder: Path) -> None:
        """Keep all of it in a folder, if that is something new, and nothing else there."""
        if not self._is_saved:
            folder.mkdir(parents=True, exist_ok=True)
            temporary = folder / f".{_ALL}.{os.getpid()}.tmp"
            try:
                save_columns(temporary, self._rows.collect())
                publish_file(temporary, folder / _ALL)
            finally:
                temporary.unlink(missing_ok=True)
            self._is_saved = True
        for path in folder.iterdir() if folder.exists() else ():
            if path.name != _ALL:  # what is in it by now, or half of what a killed run has written
                path.unlink()

    def __contains__(self, name: object) -> bool:
        return name in self._index

    def find(self, name: str, stats: Stats, file: FileMarks = (0, 0)) -> Facts | None:
        """What is known of an input, if it has not changed since.

        Names may have been exchanged, and a file may get the size and the time of another; but not
        its number and the time of its status, too.
        """
        row = self._index.find(name)
        if row is None or self._rows.find_marks(row) != (*stats, *file):
            return None
        return self._rows.find_facts(row)

    def find_sizes(self) -> NDArray[np.int64]:
        """The sizes of the inputs whose content is known."""
        return self._rows.find_sizes()

    def note(self, name: str, facts: Facts) -> bool:
        """Note what has been found of an input; not if it was changed just before.

        Another change, within the resolution of its time, could not be told then.

        Returns:
            Whether it is noted.
        """
        if not facts.is_settled:
            return False
        self._join(name, facts)
        return True

    def _join(self, name: str, facts: Facts) -> None:
        row = self._index.find(name)
        before = None if row is None else self._rows.find_facts(row)
        if before and (before.stats, before.file) == (facts.stats, facts.file):
            facts = replace(
                facts,
                digest=facts.digest or before.digest,
                survey={**before.survey, **facts.survey},
            )
        if facts != before:
            self._index.add(name, self._rows.append(name, facts, row), replace=True)
            self._is_saved = False


class _Rows(Sequence[str]):
    """Facts in columns, and the names of their inputs: those of a file, and others after them.

    A row that another one replaces stays until all are collected.

    Args:
        columns: Those of the file.
    """

    def __init__(self, columns: Mapping[str, Column]) -> None:
        self._texts: dict[str, Texts] = {}
        self._arrays: dict[str, NDArray[Any]] = {}
        for name in (*_TEXTS, *_NUMBERS, "digest") if columns else ():
            column = columns[name]
            if isinstance(column, Texts):
                self._texts[name] = column
            else:
                self._arrays[name] = column
        self._count = len(self._texts["name"]) if columns else 0
        self._is_replaced = bytearray(self._count)
        self._new = _Growing()

    def __len__(self) -> int:
        return len(self._is_replaced)

    @overload
    def __getitem__(self, row: int) -> str: ...

    @overload
    def __getitem__(self, row: slice) -> list[str]: ...

    def __getitem__(self, row: int | slice) -> str | list[str]:
        if isinstance(row, slice):
            return [self[each] for each in range(len(self))[row]]
        return self._find_text("name", row)

    def __iter__(self) -> Iterator[str]:
        yield from self._texts.get("name", ())
        yield from self._new.texts["name"]

    def _find_text(self, name: str, row: int) -> str:
        if row < self._count:
            return self._texts[name][row]
        return self._new.texts[name][row - self._count]

    def find_marks(self, row: int) -> tuple[int, ...]:
        """Stats of an input, and the marks of its file."""
        if row < self._count:
            return tuple(int(self._arrays[name][row]) for name in _NUMBERS)
        return tuple(self._new.numbers[name][row - self._count] for name in _NUMBERS)

    def find_facts(self, row: int) -> Facts:
        """What is known of an input."""
        size, time_ns, inode, status_ns = self.find_marks(row)
        if row < self._count:
            digest = get_hex(self._arrays["digest"], row)
        else:
            digest = self._new.digests[row - self._count]
        survey = _fill_in(self._find_text("form", row), self._find_text("values", row))
        return Facts((size, time_ns), digest, survey, (inode, status_ns))

    def append(self, name: str, facts: Facts, replaced: int | None) -> int:
        """Add what is known of an input, instead of what was; returns its row."""
        if replaced is not None:
            self._is_replaced[replaced] = True
        self._is_replaced.append(False)
        self._new.append(name, facts)
        return len(self) - 1

    def find_sizes(self) -> NDArray[np.int64]:
        """The different sizes of the inputs whose digests are known."""
        new, count = self._new, self._count
        is_replaced = np.array(self._is_replaced, bool)
        rows = [r for r in range(len(new)) if new.digests[r] and not is_replaced[count + r]]
        sizes = [new.numbers["size"][row] for row in rows]
        if count:
            is_known = self._arrays["digest"].any(axis=1) & ~is_replaced[:count]
            sizes += np.unique(self._arrays["size"][is_known]).tolist()
        return np.unique(np.array(sizes, np.int64))

    def collect(self) -> dict[str, Column]:
        """All columns, with one row for each input."""
        collected = _Growing()
        for row, name in enumerate(self):
            if not self._is_replaced[row]:
                collected.append(name, self.find_facts(row))
        return collected.freeze()


class _Growing:
    """Facts in columns, to which others are added."""

    def __init__(self) -> None:
        self.texts = {name: TextColumn(are_words=name == "form") for name in _TEXTS}
        self.numbers = {name: NumberColumn() for name in _NUMBERS}
        self.digests = DigestColumn()

    def __len__(self) -> int:
        return len(self.digests)

    def append(self, name: str, facts: Facts) -> None:
        """Add what is known of an input."""
        text = json.dumps(facts.survey, separators=(",", ":"))
        form, values = _VALUE.sub(_GAP, text), " ".join(_VALUE.findall(text))
        for column, text in zip(self.texts.values(), (name, form, values), strict=True):
            column.append(text)
        for numbers, value in zip(self.numbers.values(), (*facts.stats, *facts.file), strict=True):
            numbers.append(value)
        self.digests.append(facts.digest)

    def freeze(self) -> dict[str, Column]:
        """The columns."""
        return {
            **{name: column.freeze() for name, column in self.texts.items()},
            **{name: column.freeze() for name, column in self.numbers.items()},
            "digest": self.digests.freeze(),
        }


def _fill_in(form: str, values: str) -> dict[str, Any]:
    """A survey, from what it has in common with others, and what it has not."""
    first, *others = form.split(_GAP)
    parts = (value + other for value, other in zip(values.split(" "), others, strict=False))
    survey: dict[str, Any] = json.loads(first + "".join(parts))
    return survey


class Journal:
    """What one process learns of inputs while it reads them, a line each.

    Args:
        path: Its file, which is made with the first line.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def note(self, name: str, facts: Facts) -> None:
        """Note what has been found of an input."""
        self.write(format_line(name, facts))

    def write(self, line: str) -> None:
        """Add a line, if there is something in it."""
        if line:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                if not file.tell():
                    file.write(_header())
                file.write(line)


def _header() -> str:
    return json.dumps({"known": _FORMAT}) + "\n"


def format_line(name: str, facts: Facts) -> str:
    """What has been found of an input, as a line; none, if it was changed just before."""
    if not facts.is_settled:
        return ""
    return json.dumps([name, facts.stats, facts.file, facts.digest, facts.survey]) + "\n"


def _read(path: Path) -> Iterator[tuple[str, Facts]]:
    """The lines of a file; without those that a killed process has left half-written."""
    with suppress(OSError), path.open("rb") as file:
        if file.readline() != _header().encode():
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
                yield name, Facts((size, to_int64(time_ns)), digest, survey, marks)
