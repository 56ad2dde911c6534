"""Parts on disk, and their merge into the published file: plain files, no Lightning.

Finished rows go to disk as parts: small, complete feature files with one more dataset, `rows`.
A part is built in memory and written atomically, and its name holds the digest of its bytes, so it
either exists in full or not at all. When every row is in a part, the compressed chunks are copied
into one file, which is renamed into place.
"""

import hashlib
import io
import shutil
import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from featx.disk import check_replaceable, publish_file, replace_file, writing
from featx.errors import IncompleteError, OutputError, shorten
from featx.feature_file import Layout, create, encode, fingerprint, read_row, write_row
from featx.validation import find_problems, open_feature_file

STAGING_FOLDER = ".featx"
PART_BYTES = 32 * 2**20
PART_SECONDS = 30.0

_MAX_QUEUED = 64  # videos waiting for compression; this bounds the memory of the queue
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
        self._published = False  # by an earlier run

    def prepare(self, overwrite: bool) -> set[int]:
        """Find what an earlier run with the same inputs and settings has finished.

        Damaged parts and temporary files are removed.

        Returns:
            The rows that are finished: all of them, if the file is published.

        Raises:
            OutputError: The folder cannot be written; or the file, or a part, is of other inputs
                or settings, and `overwrite` is off.
        """
        check_replaceable(self.target)
        done: set[int] = set()
        with writing(self.folder):
            if self.target.exists() and not overwrite:
                with open_feature_file(self.target) as file:
                    self._check_fingerprint(self.target, file)
                self._published = True
                self._remove_folder()
                return {*range(len(self.layout.labels))}
            self.folder.mkdir(parents=True, exist_ok=True)
            for path in sorted(self.folder.iterdir()):
                try:
                    with _open_part(path) as part:
                        self._check_fingerprint(path, part)
                        done.update(part["rows"][:].tolist())
                except IncompleteError:
                    path.unlink()
                except OutputError:
                    if not overwrite:
                        raise
                    path.unlink()
        return done

    def _check_fingerprint(self, path: Path, file: h5py.File) -> None:
        """Refuse a file whose rows depend on other inputs or settings."""
        expected, found = fingerprint(self.layout.attributes), fingerprint(file.attrs)
        differences = [
            f"{name} {found.get(name)!r} instead of {value!r}"
            for name, value in expected.items()
            if found.get(name) != value
        ]
        if differences:
            raise OutputError(
                f"{path}: expected a file of the same inputs and settings, found "
                f"{shorten(differences)}. "
                "Set overwrite to true to replace it, or choose another output_dir."
            )

    def write_part(self, encoded: Mapping[int, list[bytes]]) -> None:
        """Write the compressed chunks of finished rows; on return they are safe on disk."""
        buffer = io.BytesIO()
        rows = [*encoded]
        with h5py.File(buffer, "w") as file:
            create(file, self.layout.select(rows))
            file.create_dataset("rows", data=np.array(rows, dtype=np.int64))
            for position, chunks in enumerate(encoded.values()):
                write_row(file, position, chunks)
        content = buffer.getbuffer()
        name = f"part-{rows[0]:09d}-{hashlib.sha256(content).hexdigest()}.h5"
        with writing(self.folder):
            replace_file(self.folder / name, content)

    def publish(self) -> None:
        """Merge the parts into the published file, and remove them.

        Raises:
            IncompleteError: A row is missing, or a part was changed.
            OutputError: The disk is full, or the file cannot be written.
        """
        if self._published:
            return
        paths = sorted(self.folder.glob("part-*.h5"))
        place = {row: (path, k) for path in paths for k, row in enumerate(_rows(path))}
        names = self.layout.video_ids
        missing = [name for row, name in enumerate(names) if row not in place]
        if missing:
            raise IncompleteError(
                f"{self.target}: expected {len(names)} videos, found {len(names) - len(missing)}, "
                f"without {shorten(missing)}. Nothing was published: run again without limits."
            )
        self._check_space(sum(path.stat().st_size for path in paths))
        merged = self.folder / "merged.h5"
        with writing(self.target):
            with h5py.File(merged, "w", locking=False) as file:
                create(file, self.layout)
                open_part = lru_cache(_OPEN_PARTS)(_open_part)
                for row in range(len(names)):
                    path, position = place[row]
                    write_row(file, row, read_row(open_part(path), position))
            with h5py.File(merged, "r", locking=False) as file:
                problems = find_problems(file, read_features=False)
            if problems:
                raise OutputError(
                    f"{merged}: expected a valid file, found {problems[0]}. Run again."
                )
            publish_file(merged, self.target)
            self._remove_folder()

    def _remove_folder(self) -> None:
        if self.folder.exists():
            shutil.rmtree(self.folder)
        with suppress(OSError):  # another split has parts there, or there is no such folder
            self.folder.parent.rmdir()

    def _check_space(self, needed: int) -> None:
        """Check before the merge, because HDF5 crashes on a full disk."""
        free = shutil.disk_usage(self.folder).free
        if free < needed:
            raise OutputError(
                f"{self.target}: expected {needed / 2**20:.0f} MB of free disk space for the "
                f"merge, found {free / 2**20:.0f} MB. Free some, and run again."
            )


class PartWriter:
    """Collects finished rows of a file, compresses them in threads, and writes parts.

    Args:
        staging: Where the parts go.
        pool: The threads; zlib releases the GIL.
    """

    def __init__(self, staging: Staging, pool: ThreadPoolExecutor) -> None:
        self._staging = staging
        self._pool = pool
        self._queue: deque[tuple[int, Future[list[bytes]]]] = deque()
        self._encoded: dict[int, list[bytes]] = {}
        self._bytes = 0
        self._last_write = time.monotonic()

    def add(self, row: int, features: NDArray[np.float32]) -> None:
        """Take the features `[num_frames, feature_dim]` of a row; waits while the queue is full."""
        self._queue.append((row, self._pool.submit(encode, features, self._staging.layout)))
        while self._queue and (len(self._queue) > _MAX_QUEUED or self._queue[0][1].done()):
            self._collect()
        if self._bytes >= PART_BYTES or time.monotonic() - self._last_write > PART_SECONDS:
            self._write()

    def flush(self) -> None:
        """Write everything taken so far."""
        while self._queue:
            self._collect()
        self._write()

    def _collect(self) -> None:
        row, future = self._queue.popleft()
        self._encoded[row] = future.result()
        self._bytes += sum(map(len, self._encoded[row]))

    def _write(self) -> None:
        if self._encoded:
            self._staging.write_part(self._encoded)
            self._encoded, self._bytes = {}, 0
        self._last_write = time.monotonic()


def _open_part(path: Path) -> h5py.File:
    """Read a part into memory, and check its bytes against the digest in its name."""
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != path.stem.rpartition("-")[2]:
        raise IncompleteError(
            f"{path}: expected the bytes that were written, found others. "
            "The disk or another program has changed them: run again."
        )
    return h5py.File(io.BytesIO(content), "r")


def _rows(path: Path) -> list[int]:
    with h5py.File(path, "r", locking=False) as file:
        rows: list[int] = file["rows"][:].tolist()
    return rows
