"""What is known of inputs that have not changed since: by name, size and time of change.

An input has to be the same file, too, by its number and the time of its status, as in git's index.

So a second scan need not open what the first one has, nor a rerun read it again. What is kept is a
hint that saves time: whatever is lost, or does not fit any more, is read again.
"""

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

from featx.files import file_stats, replace_file

_FORMAT = 1  # to be raised when what is kept of a clip gets another meaning
_ALL = "known.jsonl"
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


def look_at_file(path: Path) -> Look:
    """What the file system says of a file.

    Raises:
        OSError: It is not there.
    """
    status = path.stat()
    marks = status.st_ino, status.st_ctime_ns
    return Look.make(file_stats(status), marks, status.st_mtime_ns)


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
        self._facts: dict[str, Facts] = {}
        self._is_saved = True

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what runs have kept in a folder; nothing if there is none, or of another version."""
        known = cls()
        others = sorted(path for path in folder.glob("*.jsonl") if path.name != _ALL)
        for path in (folder / _ALL, *others):
            for name, facts in _read(path):
                known._join(name, facts)
        known._is_saved = not others
        return known

    def save(self, folder: Path) -> None:
        """Keep all of it in a folder, if that is something new, and nothing else there."""
        if not self._is_saved:
            folder.mkdir(parents=True, exist_ok=True)
            lines = [_format(name, facts) for name, facts in self._facts.items()]
            replace_file(folder / _ALL, "".join([_header(), *lines]).encode())
            self._is_saved = True
        for path in folder.iterdir() if folder.exists() else ():
            if path.name != _ALL:  # what is in it by now, or half of what a killed run has written
                path.unlink()

    def __contains__(self, name: object) -> bool:
        return name in self._facts

    def find(self, name: str, stats: Stats, file: FileMarks = (0, 0)) -> Facts | None:
        """What is known of an input, if it has not changed since.

        Names may have been exchanged, and a file may get the size and the time of another; but not
        its number and the time of its status, too.
        """
        facts = self._facts.get(name)
        return facts if facts and (facts.stats, facts.file) == (stats, file) else None

    def find_sizes(self) -> set[int]:
        """The sizes of the inputs whose content is known."""
        return {facts.stats[0] for facts in self._facts.values() if facts.digest}

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
        before = self.find(name, facts.stats, facts.file)
        if before:
            facts = replace(
                facts,
                digest=facts.digest or before.digest,
                survey={**before.survey, **facts.survey},
            )
        if facts != self._facts.get(name):
            self._facts[name] = facts
            self._is_saved = False


class Journal:
    """What one process learns of inputs while it reads them, a line each.

    Args:
        path: Its file, which is made with the first line.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def note(self, name: str, facts: Facts) -> None:
        """Note what has been found of an input."""
        lines = [_format(name, facts)] * facts.is_settled
        if lines:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                if not file.tell():
                    file.write(_header())
                file.writelines(lines)


def _header() -> str:
    return json.dumps({"known": _FORMAT}) + "\n"


def _format(name: str, facts: Facts) -> str:
    return json.dumps([name, facts.stats, facts.file, facts.digest, facts.survey]) + "\n"


def _read(path: Path) -> list[tuple[str, Facts]]:
    """The lines of a file; without those that a killed process has left half-written."""
    try:
        header, *lines = path.read_text("utf-8").splitlines() or [""]
    except (OSError, UnicodeDecodeError):
        return []
    if header + "\n" != _header():
        return []
    found = []
    for line in lines:
        try:
            name, (size, time_ns), (inode, status_ns), digest, survey = json.loads(line)
        except (ValueError, TypeError):
            continue
        numbers = (size, time_ns, inode, status_ns)
        are_numbers = all(isinstance(number, int) for number in numbers)
        are_texts = isinstance(name, str) and isinstance(digest, str)
        if are_numbers and are_texts and isinstance(survey, dict) and _DIGEST.fullmatch(digest):
            found.append((name, Facts((size, time_ns), digest, survey, (inode, status_ns))))
    return found
