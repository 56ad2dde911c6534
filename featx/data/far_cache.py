"""A local folder for copies of far files: bounded, and shared by processes and threads.

An entry is a folder whose name has its size. It is filled under another name, and renamed when it
is complete. Whoever reads it holds a shared lock on it, and what is locked is not removed: the
kernel lets a lock go when its process dies. fsspec has caches of its own, but these know no bound
and take no locks.
"""

import fcntl
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from featx.errors import FeatxError, UsageError, first_line

_NAME = re.compile(r"[0-9a-f]{64}-([0-9]+)(\.part)?")
_DEAD = ".dead"  # of what is being removed
_POLL_SECONDS = 0.05
_KEPT = 0.9  # of the bound, when room is made, so that it is not made for each file


@dataclass(frozen=True, slots=True)
class Cache:
    """Copies on the local disk.

    Attributes:
        folder: Where they are.
        limit: Bytes of all of them. A larger one is kept as long as it is the only one.
    """

    folder: Path
    limit: int

    @contextmanager
    def lease(self, key: str, size: int, fill: Callable[[Path], None]) -> Iterator[Path]:
        """The folder of an entry, which stays as it is as long as the context lasts.

        Nobody may ask for a second entry meanwhile: two who did could wait for each other's room.

        Args:
            key: SHA-256, in hexadecimal digits, of what it is a copy of.
            size: Its bytes.
            fill: Puts the files into a new folder.

        Raises:
            UsageError: The copy cannot be written.
        """
        entry = self.folder / f"{key}-{size}"
        try:
            descriptor = self._take(entry, size, fill)
        except (FeatxError, FileNotFoundError):  # the latter of what is to be copied
            raise
        except OSError as error:
            raise UsageError(
                f"cache_dir: expected a folder that can be written, found {self.folder}: "
                f"{first_line(error)}. Free some disk space, or set cache_dir to another folder."
            ) from error
        try:
            yield entry
        finally:
            _unlock(descriptor)

    def _take(self, entry: Path, size: int, fill: Callable[[Path], None]) -> int:
        """The lock on an entry, once it is there."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        while True:
            descriptor = _lock(entry, fcntl.LOCK_SH)
            if descriptor is not None:
                os.utime(entry)  # the least recently used one goes first
                return descriptor
            descriptor = self._reserve(entry, size)
            if descriptor is None:
                time.sleep(_POLL_SECONDS)
                continue
            part = _find_part(entry)
            try:
                fill(part)
                with self._alone():  # or another could find neither
                    part.rename(entry)
            except BaseException:
                with self._alone():
                    self._remove(part)
                _unlock(descriptor)
                raise
            # The system may let the one lock go before it takes the other.
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            if _is_same(descriptor, entry):
                return descriptor
            _unlock(descriptor)

    def _reserve(self, entry: Path, size: int) -> int | None:
        """The lock on a new folder to fill; None while there is no room, or another fills it."""
        part = _find_part(entry)
        with self._alone():
            if entry.exists():
                return None
            if part.exists():
                left = _lock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if left is None:
                    return None
                self._remove(part)  # of a process that was killed
                _unlock(left)
            total = self._read_total()
            if total is None or total + size > self.limit:
                total = self._evict(size)
                self._write_total(total)
                if total and total + size > self.limit:
                    return None
            self._write_total(total + size)
            part.mkdir()
            return _lock(part, fcntl.LOCK_EX)

    def _evict(self, size: int) -> int:
        """Remove what was used least recently, until there is room; returns the bytes that stay."""
        entries = []
        for path in self.folder.iterdir():
            if path.name.endswith(_DEAD):
                shutil.rmtree(path, ignore_errors=True)
            elif match := _NAME.fullmatch(path.name):
                with suppress(FileNotFoundError):  # a part that was renamed just now
                    entries.append((path.stat().st_mtime_ns, path, int(match[1])))
        total = sum(each for _, _, each in entries)
        for _, path, each in sorted(entries):
            if total + size <= self.limit * _KEPT:
                break
            descriptor = _lock(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if descriptor is not None:
                self._remove(path)
                _unlock(descriptor)
                total -= each
        return total

    def _remove(self, path: Path) -> None:
        """Remove an entry in one step, so that half of it never looks complete."""
        dead = self.folder / f"{uuid.uuid4().hex}{_DEAD}"
        path.rename(dead)
        shutil.rmtree(dead)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep all others from adding and removing."""
        descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            _unlock(descriptor)

    def _read_total(self) -> int | None:
        """Bytes of all entries, or more; None if they have to be counted."""
        try:
            return int((self.folder / "total").read_text("ascii"))
        except (OSError, ValueError):
            return None

    def _write_total(self, total: int) -> None:
        (self.folder / "total").write_text(str(total), "ascii")


def _find_part(entry: Path) -> Path:
    """Where an entry is filled."""
    return entry.with_name(f"{entry.name}.part")


def _lock(folder: Path, how: int) -> int | None:
    """Lock a folder; None if it is not there (any more), or locked by another, if that matters."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, how)
    except BlockingIOError:
        os.close(descriptor)
        return None
    if _is_same(descriptor, folder):
        return descriptor
    _unlock(descriptor)
    return None


def _is_same(descriptor: int, folder: Path) -> bool:
    """Whether an open folder is still the one at a path."""
    try:
        return os.path.samestat(os.fstat(descriptor), folder.stat())
    except FileNotFoundError:
        return False


def _unlock(descriptor: int) -> None:
    """Let a lock go, also where a forked process has a copy of the descriptor."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)
