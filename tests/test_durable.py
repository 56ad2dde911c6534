"""Durable writes: the old content or the new one, and an error that names the path."""

import errno
import os
import pickle
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from featx.durable import (
    PathValue,
    check_replaceable,
    expand,
    load_tensors,
    publish_file,
    replace_file,
    writing,
)
from featx.errors import InputError, MissingInputError, OutputError, UsageError
from featx.features.feature_file import open_feature_file


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


def test_a_home_of_nobody() -> None:
    """It is told in one line."""
    assert expand("~") == Path.home()
    assert expand("a/~b") == Path("a/~b")
    with pytest.raises(UsageError, match="~nobody-of-this-name/x: expected the home of a user"):
        expand("~nobody-of-this-name/x")


def test_a_name_that_is_too_long(tmp_path: Path) -> None:
    """Of a file to write it is told in one line, and of one to read, too."""
    path = tmp_path / ("x" * 300)
    with pytest.raises(OutputError, match="found: File name too long"):
        check_replaceable(path)
    with pytest.raises(InputError, match="found: File name too long"):
        open_feature_file(path)


def test_a_program_is_not_loaded(tmp_path: Path) -> None:
    """An archive of TorchScript is one: torch.load would hand it to torch.jit."""
    path = tmp_path / "program.pt"
    torch.save({"a": torch.zeros(1)}, path)
    with zipfile.ZipFile(path, "a") as archive:
        folder = archive.namelist()[0].partition("/")[0]
        archive.writestr(f"{folder}/constants.pkl", b"\x80\x02).")
    with pytest.raises((RuntimeError, UserWarning), match="TorchScript"):
        load_tensors(path)


POLLUTING = (
    b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nN}X\x04\x00\x00\x00evilK\x01s\x86b.",
    b"\x80\x02ctorch._utils\n_rebuild_parameter\n}X\x04\x00\x00\x00evilK\x01sb.",
    b"\x80\x02ctorch\nTensor\nN}X\x04\x00\x00\x00evilK\x01s\x86b.",
    b"\x80\x02ctorch\nUntypedStorage\nN}X\x04\x00\x00\x00evilK\x01s\x86b.",
    b"\x80\x02cpathlib\nPosixPath\nN}X\x04\x00\x00\x00evilK\x01s\x86b.",
)


@pytest.mark.parametrize("content", POLLUTING)
def test_what_a_pickle_names_is_not_changed(tmp_path: Path, content: bytes) -> None:
    """A pickle may set attributes of what it is given: nothing of that is torch's or featx's."""
    path = tmp_path / "a.pt"
    torch.save(None, path)
    with zipfile.ZipFile(path) as source:
        members = {info.filename: source.read(info) for info in source.infolist()}
    with zipfile.ZipFile(path, "w") as target:
        for name, old in members.items():
            target.writestr(name, content if name.endswith("/data.pkl") else old)
    with suppress(pickle.UnpicklingError):
        load_tensors(path)
    for thing in (
        torch._utils._rebuild_tensor_v2,
        torch._utils._rebuild_parameter,
        torch.Tensor,
        torch.UntypedStorage,
        Path,
        PathValue,
    ):
        assert not hasattr(thing, "evil")
