"""What is known of inputs that have not changed since: by name, size and time of change.

Where two of them are of one size and time, by their inode, too.

So a second scan need not open what the first one has, nor a rerun read it again. What is kept is a
hint that saves time: whatever is lost, or does not fit any more, is read again.
"""

import json
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from featx.files import replace_file

_FORMAT = 1  # to be raised when what is kept of a clip gets another meaning
_ALL = "known.jsonl"
_SETTLED_NS = 2_000_000_000  # within which a change may leave the time of change as it is

Stats = tuple[int, int]
"""Size in bytes and time of change in nanoseconds, see `file_stats`; or what stands for them."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of one input.

    Attributes:
        stats: Its size and time of change.
        digest: SHA-256 of its content; empty if nobody has read it all.
        survey: What its source has found in it, as JSON has it; nothing, if nobody has looked.
        inode: Its number in its file system; 0 if nobody has asked.
        changed_ns: When it was changed last, in nanoseconds, if `stats` does not tell.
    """

    stats: Stats
    digest: str = ""
    survey: Mapping[str, Any] = field(default_factory=dict)
    inode: int = 0
    changed_ns: int | None = field(default=None, compare=False)

    @property
    def is_settled(self) -> bool:
        """Whether another change would be seen by its time."""
        changed_ns = self.stats[1] if self.changed_ns is None else self.changed_ns
        return time.time_ns() - changed_ns > _SETTLED_NS


class Known:
    """What is known of the inputs of a data set, by their names in it."""

    def __init__(self) -> None:
        self._facts: dict[str, Facts] = {}
        self._counts: Counter[Stats] = Counter()
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
        """Keep all of it in a folder, instead of what is there, if that is something else."""
        if self._is_saved:
            return
        folder.mkdir(parents=True, exist_ok=True)
        lines = [_format(name, facts) for name, facts in self._facts.items()]
        replace_file(folder / _ALL, "".join([_header(), *lines]).encode())
        for path in folder.glob("*.jsonl"):
            if path.name != _ALL:
                path.unlink()
        self._is_saved = True

    def find(self, name: str, stats: Stats, inode: int = 0) -> Facts | None:
        """What is known of an input, if it has not changed since.

        Where others are of the same size and time, it has to be the same file, too: names may have
        been exchanged.
        """
        facts = self._facts.get(name)
        if facts is None or facts.stats != stats:
            return None
        return facts if self._counts[stats] == 1 or facts.inode == inode else None

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
        before = self.find(name, facts.stats, facts.inode)
        if before:
            facts = replace(
                facts,
                digest=facts.digest or before.digest,
                survey={**before.survey, **facts.survey},
            )
        if facts != (last := self._facts.get(name)):
            if last:
                self._counts[last.stats] -= 1
            self._counts[facts.stats] += 1
            self._facts[name] = facts
            self._is_saved = False


class Journal:
    """What one process learns of inputs while it reads them, a line each.

    Args:
        path: Its file, which is made with the first line.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def note(self, names_and_facts: Iterable[tuple[str, Facts]]) -> None:
        """Note what has been found of some inputs."""
        lines = [_format(name, facts) for name, facts in names_and_facts if facts.is_settled]
        if lines:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                if not file.tell():
                    file.write(_header())
                file.writelines(lines)


def _header() -> str:
    return json.dumps({"known": _FORMAT}) + "\n"


def _format(name: str, facts: Facts) -> str:
    return json.dumps([name, [*facts.stats], facts.digest, facts.survey, facts.inode]) + "\n"


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
            name, (size, time_ns), digest, survey, inode = json.loads(line)
        except (ValueError, TypeError):
            continue
        found.append((name, Facts((size, time_ns), digest, survey, inode)))
    return found
