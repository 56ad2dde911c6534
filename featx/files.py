"""Files: durable writes, where a path holds the old content or the new one; and what tells two."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from featx.errors import FeatxError, OutputError, first_line


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the system's error about a write into one that names the path.

    Raises:
        OutputError: Something could not be written.
    """
    try:
        yield
    except FeatxError:
        raise
    except OSError as error:
        raise OutputError(
            f"{path}: expected a writable place, found: {first_line(error)}. "
            "Change its permissions, free some disk space, or choose another output folder."
        ) from error


def check_replaceable(path: Path) -> None:
    """Check that a path is free, or a file that can be replaced.

    Raises:
        OutputError: Something else is there.
    """
    if path.exists() and not path.is_file():
        raise OutputError(f"{path}: expected a file or nothing, found a folder. Remove it.")


def remove(path: Path) -> None:
    """Remove a file or a folder."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def file_stats(status: os.stat_result) -> tuple[int, int]:
    """Size in bytes and time of the last change in nanoseconds."""
    return status.st_size, status.st_mtime_ns


def file_sha256(path: Path) -> str:
    """SHA-256 of all bytes of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file that is only a report: an empty one if none can be read."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def replace_file(path: Path, content: bytes | memoryview, temporary: Path | None = None) -> None:
    """Write a file atomically and durably.

    Args:
        path: The file.
        content: All of it.
        temporary: Where to write it first, on the same file system; by default, beside it.
    """
    temporary = temporary or path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        publish_file(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def publish_file(temporary: Path, path: Path) -> None:
    """Rename a complete file into place, durably; both paths must be on one file system."""
    _sync(temporary)
    temporary.replace(path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    """Make a file's content, or the renames in a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
