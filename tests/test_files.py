"""Durable writes: the old content or the new one, and an error that names the path."""

import errno
import os
from pathlib import Path

import pytest

from featx.errors import MissingInputError, OutputError
from featx.files import publish_file, replace_file, writing


def test_replace_file(tmp_path: Path) -> None:
    """The new content is there, and nothing else."""
    replace_file(tmp_path / "a", b"old")
    replace_file(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
    assert [*tmp_path.iterdir()] == [tmp_path / "a"]


def test_a_write_that_fails_leaves_the_old_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the disk refuses, the old content is there, and nothing else."""
    replace_file(tmp_path / "a", b"old")

    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output error"):
        replace_file(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"old"
    assert [*tmp_path.iterdir()] == [tmp_path / "a"]


def test_content_and_rename_are_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The content is synced before the rename, and the folder after it."""
    synced: list[tuple[str, bool]] = []

    def record(descriptor: int) -> None:
        names = {path.stat().st_ino: path.name for path in (tmp_path, *tmp_path.iterdir())}
        synced.append((names[os.fstat(descriptor).st_ino], (tmp_path / "a").exists()))

    monkeypatch.setattr(os, "fsync", record)
    (tmp_path / "b").write_bytes(b"new")
    publish_file(tmp_path / "b", tmp_path / "a")
    assert synced == [("b", False), (tmp_path.name, True)]


def test_writing_names_the_path(tmp_path: Path) -> None:
    """The system's reason and the path are in one line; featx's own errors pass unchanged."""
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    message = r"place: expected .*, found: No space left on device\."
    with pytest.raises(OutputError, match=message), writing(Path("place")):
        raise full
    with pytest.raises(MissingInputError, match="as it is"), writing(Path("place")):
        raise MissingInputError("as it is")  # which is an OSError, too
