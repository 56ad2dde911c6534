"""Crash-safe parts, and their merge into the published file: plain files, no Lightning.

Finished rows go to disk as parts: small, complete feature files with one more dataset, `rows`.
A part is built in memory, written under a temporary name, synced and renamed, and its name holds
the digest of its bytes; so a part is there and whole, or not there. When every row is in a part,
the parts' compressed chunks are copied into one file, which is renamed into place.
"""

import hashlib
import io
import os
import shutil
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from featx.errors import IncompleteError, OutputError
from featx.feature_file import Layout, create, encode, find_problems, read_row, write_row

STAGING_FOLDER = ".featx"
PART_BYTES = 32 * 2**20
PART_SECONDS = 30.0

_MAX_QUEUED = 64  # videos that wait for compression: what bounds the memory of the queue
_OPEN_PARTS = 4  # parts held in memory during the merge


class Staging:
    """The parts of one feature file on their way to it.

    Args:
        target: Path of the file to publish.
        layout: Its layout.
    """

    def __init__(self, target: Path, layout: Layout) -> None:
        self.target = target
        self.layout = layout
        self.folder = target.parent / STAGING_FOLDER / target.stem

    def prepare(self, overwrite: bool) -> None:
        """Make an empty folder for the parts; those of an earlier run are dropped.

        Raises:
            OutputError: The folder cannot be written, or the file is there and `overwrite` is off.
        """
        if self.target.exists() and not overwrite:
            raise OutputError(
                f"{self.target}: expected no file, found one. "
                "Set overwrite to true to replace it, or choose another output_dir."
            )
        with writing(self.folder):
            if self.folder.exists():
                shutil.rmtree(self.folder)
            self.folder.mkdir(parents=True)
            replace_file(self.folder / "probe", b"")
            (self.folder / "probe").unlink()

    def write_part(self, rows: Sequence[int], encoded: Sequence[list[bytes]]) -> None:
        """Put finished rows on disk: on return they are safe."""
        buffer = io.BytesIO()
        with h5py.File(buffer, "w") as file:
            create(file, self.layout.select(rows))
            file.create_dataset("rows", data=np.array(rows, dtype=np.int64))
            for position, chunks in enumerate(encoded):
                write_row(file, position, chunks)
        content = buffer.getbuffer()
        name = f"part-{rows[0]:09d}-{hashlib.sha256(content).hexdigest()}.h5"
        with writing(self.folder):
            replace_file(self.folder / name, content)

    def publish(self) -> None:
        """Merge the parts into the published file, and remove them.

        Raises:
            IncompleteError: A row is in no part.
            OutputError: The disk is full, or cannot be written.
        """
        paths = sorted(self.folder.glob("part-*.h5"))
        place = {row: (path, k) for path in paths for k, row in enumerate(_rows(path))}
        missing = [row for row in range(len(self.layout.labels)) if row not in place]
        if missing:
            names = ", ".join(self.layout.video_ids[row] for row in missing[:3])
            raise IncompleteError(
                f"{self.target}: expected {len(self.layout.labels)} videos, found "
                f"{len(self.layout.labels) - len(missing)}: {names}{', ...' * (len(missing) > 3)} "
                "missing. Nothing was published: run it again, over all of the data."
            )
        self._check_space(sum(path.stat().st_size for path in paths))
        merged = self.folder / "merged.h5"
        with writing(self.target):
            with h5py.File(merged, "w", locking=False) as file:
                create(file, self.layout)
                open_part = lru_cache(_OPEN_PARTS)(_open_part)
                for row in range(len(self.layout.labels)):
                    path, position = place[row]
                    write_row(file, row, read_row(open_part(path), position))
            with h5py.File(merged, "r", locking=False) as file:
                problems = find_problems(file, read_features=False)
            if problems:
                raise OutputError(f"{merged}: expected a valid file, found {problems[0]}.")
            sync(merged)
            merged.replace(self.target)
            sync(self.target.parent)
            shutil.rmtree(self.folder)
            with suppress(OSError):  # not empty: another split has parts there
                self.folder.parent.rmdir()

    def _check_space(self, needed: int) -> None:
        """HDF5 does not survive a full disk, so ask before the merge."""
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise OutputError(
                f"{self.target}: expected {needed / 2**20:.0f} MB of free disk for the merge, "
                f"found {free / 2**20:.0f} MB. Make room, and run it again."
            )


class PartWriter:
    """Collects finished rows of a file, compresses them in threads, and puts parts on disk.

    Args:
        staging: Where the parts go.
        pool: The threads; compression releases the interpreter.
    """

    def __init__(self, staging: Staging, pool: ThreadPoolExecutor) -> None:
        self._staging = staging
        self._pool = pool
        self._queue: deque[tuple[int, Future[list[bytes]]]] = deque()
        self._rows: list[int] = []
        self._encoded: list[list[bytes]] = []
        self._bytes = 0
        self._since = time.monotonic()

    def add(self, row: int, features: NDArray[np.float32]) -> None:
        """Take the features `[num_frames, feature_dim]` of a row; a full queue makes it wait."""
        self._queue.append((row, self._pool.submit(encode, features, self._staging.layout)))
        while self._queue and (len(self._queue) > _MAX_QUEUED or self._queue[0][1].done()):
            self._collect()
        late = time.monotonic() - self._since > PART_SECONDS
        if self._bytes >= PART_BYTES or (late and self._rows):
            self._write()

    def flush(self) -> None:
        """Put everything taken so far on disk."""
        while self._queue:
            self._collect()
        if self._rows:
            self._write()

    def _collect(self) -> None:
        row, future = self._queue.popleft()
        chunks = future.result()
        self._rows.append(row)
        self._encoded.append(chunks)
        self._bytes += sum(map(len, chunks))

    def _write(self) -> None:
        self._staging.write_part(self._rows, self._encoded)
        self._rows, self._encoded, self._bytes = [], [], 0
        self._since = time.monotonic()


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the system says about a write into an error that names the path."""
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(
            f"{path}: expected to write there, found: {error.strerror or error}. "
            "Make it writable, make room, or choose another output folder."
        ) from error


def replace_file(path: Path, content: bytes | memoryview) -> None:
    """Write a file so that, whatever dies, the path holds the old content or the new."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)


def sync(path: Path) -> None:
    """Make what was written to a file, or renamed in a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _open_part(path: Path) -> h5py.File:
    """Open a part from memory, after checking its bytes against the digest in its name."""
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != path.stem.rpartition("-")[2]:
        raise IncompleteError(
            f"{path}: expected the bytes that were written, found others. The disk or another "
            "program has changed them: run it again."
        )
    return h5py.File(io.BytesIO(content), "r")


def _rows(path: Path) -> list[int]:
    with h5py.File(path, "r", locking=False) as file:
        rows: list[int] = file["rows"][:].tolist()
    return rows
