"""What a file of `torch.save` holds, without reading its tensors or running its pickle."""

import hashlib
import io
import stat as modes
import struct
import sys
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cache
from threading import Lock
from typing import IO, Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from featx.data.storage import Place, RangeReader, is_remote, open_file, stat, status_of
from featx.durable import load_tensors
from featx.errors import InputError, MissingInputError, first_line, parsing

_SAVE = "torch.save({'videos': videos}, path)"
_PIECE_BYTES = 2**24
_OFFSET = "_checkpoint_offset"  # of a storage in its file; private to torch, so it may vanish


@dataclass(frozen=True, slots=True)
class Archive:
    """The description of a file of `torch.save`.

    Its digest is the SHA-256 of the names, sizes and checksums of all members: it changes with the
    content, and is known without reading it.
    """

    data: Any  # its tensors have shapes and strides, but no data
    members: Mapping[int, zipfile.ZipInfo]  # by the offset of the first byte of each
    digest: str
    stats: tuple[int, int]  # see `file_stats`
    tells_offsets: bool = True  # whether to believe torch about where the bytes of a storage are

    def find_offset(self, storage: torch.UntypedStorage) -> int | None:
        """Byte of the file at which a storage of `data` begins; None if torch does not tell."""
        return getattr(storage, _OFFSET, None) if self.tells_offsets else None


def read_archive(path: Place, tells_offsets: bool = True) -> Archive:
    """Describe a file of `torch.save`, after checking that it is complete; nothing is executed.

    Args:
        path: The file.
        tells_offsets: See `Archive`.

    Raises:
        MissingInputError: The file does not exist.
        InputError: The file cannot be read, or is damaged.
    """
    with _opened(path) as file:
        members, digest, stats = _check_members(path, file)
        file.seek(0)
        with one_at_a_time, _fake_mode(), _parsing(path):
            data = load_tensors(file if is_remote(path) else path)
    return Archive(data, members, digest, stats, tells_offsets)


@contextmanager
def _opened(path: Place) -> Iterator[IO[bytes]]:
    """Open an archive.

    Raises:
        MissingInputError: The file does not exist.
        InputError: It cannot be read.
    """
    with _reading(path):
        status = stat(path)
        if not status.is_file:
            raise InputError(
                f"{path}: expected a file, found {modes.filemode(status.mode)}. Remove it, or its "
                "folder."
            )
        file = open_file(path, status)
    with file:
        yield file


@contextmanager
def _reading(path: Place) -> Iterator[None]:
    """Turn an error of the system into one about the input."""
    try:
        yield
    except FileNotFoundError as error:
        raise MissingInputError(
            f"{path}: expected a file, found nothing. Check the path."
        ) from error
    except OSError as error:
        raise InputError(
            f"{path}: expected a readable file, found: {first_line(error)}. "
            "Check its permissions and the disk."
        ) from error


one_at_a_time = Lock()  # threads must not enter that mode together, nor ask what it has made


@cache
def _fake_mode() -> FakeTensorMode:
    """The mode in which tensors have no data; to make one takes as long as to read a header."""
    return FakeTensorMode()


def read_digest(path: Place) -> str:
    """The digest of an archive, see `Archive`.

    Raises:
        InputError: As `read_archive`.
    """
    with _opened(path) as file:
        return _check_members(path, file)[1]


def verify_checksums(path: Place) -> None:
    """Read every byte of a file of `torch.save`, and compare it with the file's own checksums.

    Raises:
        InputError: The file cannot be read, or its content is not what was written.
    """
    with _opened(path) as file:
        _check_members(path, file)
        pieces = io.BufferedReader(file, _PIECE_BYTES) if isinstance(file, RangeReader) else file
        with _parsing(path), zipfile.ZipFile(pieces) as archive:
            damaged = archive.testzip()
    if damaged:
        raise _damaged(path, f"other bytes than were written (the checksum of {damaged})")


def _check_members(
    path: Place, file: IO[bytes]
) -> tuple[dict[int, zipfile.ZipInfo], str, tuple[int, int]]:
    """The members, the digest and the stats of an archive."""
    with _reading(path):
        start = file.read(64)
        with _parsing(path, OSError):
            is_archive = zipfile.is_zipfile(file)
        if not is_archive:
            raise _damaged(path, _guess_format(start))
        with _parsing(path, OSError), zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            by_offset = {_find_data(file, m.header_offset): m for m in members}
            end = archive.start_dir
            orders = [archive.read(m) for m in members if m.filename.endswith("/byteorder")]
    if orders and orders[0] != sys.byteorder.encode():
        raise InputError(
            f"{path}: expected the byte order {sys.byteorder}, found another. "
            f"Load it and save its tensors again on this machine: {_SAVE}."
        )
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise InputError(
            f"{path}: expected an archive as torch.save writes it, found compressed members. "
            f"Load it and save its tensors again: {_SAVE}."
        )
    if any(offset + member.file_size > end for offset, member in by_offset.items()):
        raise _damaged(path, "members that overlap the archive's directory")
    content = [(member.filename, member.file_size, member.CRC) for member in members]
    digest = hashlib.sha256(repr(content).encode()).hexdigest()
    return by_offset, digest, status_of(file).stats


def _parsing(path: Place, *passes: type[Exception]) -> AbstractContextManager[None]:
    """One parse of an archive: torch and zipfile raise any error for damaged bytes."""
    return parsing(lambda error: _damaged(path, first_line(error)), passes)


def _find_data(file: IO[bytes], header: int) -> int:
    """Offset of the first byte of a member: after its header, a name and extra fields."""
    file.seek(header + 26)
    name_size, extra_size = struct.unpack("<HH", file.read(4))
    return header + 30 + int(name_size) + int(extra_size)


def _guess_format(start: bytes) -> str:
    """What a file that is not a complete archive seems to be, from its first bytes."""
    if not start:
        return "an empty file"
    if start.startswith(b"PK"):
        return "a truncated archive"
    if start.startswith(b"\x80"):
        return "a plain pickle, or a file in torch's format before 1.6"
    return "text" if start.isascii() else "an unknown format"


def _damaged(path: Place, found: str) -> InputError:
    return InputError(
        f"{path}: expected a file written by torch.save, found {found}. "
        f"Make the file again, or load it where you trust it and save its tensors: {_SAVE}."
    )
