"""What lies in a file of `torch.save`, told without reading its tensors or running its pickle."""

import pickle
import stat
import zipfile
from bisect import bisect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from featx.errors import InputError, MissingInputError

_SAVE = "torch.save({'videos': videos}, path)"


@dataclass(frozen=True, slots=True)
class Archive:
    """A file of `torch.save`, described.

    Attributes:
        data: What was saved; its tensors have a shape and strides, and hold no data.
        bounds: Bytes of the file at which a member begins, in order, and where the last one ends.
    """

    data: Any
    bounds: list[int]

    def contains(self, begin: int, end: int) -> bool:
        """Whether the bytes from `begin` to `end` lie in one member of the archive."""
        number = bisect(self.bounds, begin)
        return 0 < number < len(self.bounds) and end <= self.bounds[number]


def describe(path: Path) -> Archive:
    """Describe a file of `torch.save`, after checking that it is complete and harmless.

    Raises:
        MissingInputError: There is no such file.
        InputError: The file cannot be read, is damaged, or holds more than tensors and plain data.
    """
    bounds = _check_members(path)
    try:
        with FakeTensorMode():
            data = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _unsafe(path) from error
    except Exception as error:  # a hostile pickle can fail anywhere inside torch
        raise _broken(path, str(error).partition("\n")[0] or type(error).__name__) from error
    return Archive(data, bounds)


def _check_members(path: Path) -> list[int]:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise InputError(
                f"{path}: expected a file, found {stat.filemode(status.st_mode)}. Remove it."
            )
        with path.open("rb") as file:
            start = file.read(64)
            if not zipfile.is_zipfile(file):
                raise _broken(path, _guess(start))
            with zipfile.ZipFile(file) as archive:
                members = archive.infolist()
                directory = archive.start_dir
    except zipfile.BadZipFile as error:
        raise _broken(path, str(error)) from error
    except FileNotFoundError as error:
        raise MissingInputError(f"{path}: expected a file, found nothing.") from error
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{path}: expected a readable file, found: {reason}.") from error
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise InputError(
            f"{path}: expected an archive as torch.save writes it, found compressed members. "
            f"Save its tensors anew: {_SAVE}."
        )
    return [*sorted(member.header_offset for member in members), directory]


def _guess(start: bytes) -> str:
    """What a file that is no complete archive seems to be, from its first bytes."""
    if not start:
        return "an empty file"
    if start.startswith(b"PK"):
        return "a truncated archive"
    if start.startswith(b"\x80"):
        return "a plain pickle, or a file in torch's format before 1.6"
    return "text" if start.isascii() else "something else"


def _broken(path: Path, found: str) -> InputError:
    return InputError(
        f"{path}: expected a file written by torch.save, found {found.rstrip('.')}. "
        f"Make the file again, or load it where you trust it and save its tensors: {_SAVE}."
    )


def _unsafe(path: Path) -> InputError:
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # the file is too damaged for that, too
        names = []
    if not names:
        return _broken(path, "a damaged pickle")
    return InputError(
        f"{path}: expected tensors alone, found Python objects ({', '.join(names[:5])}). "
        "Nothing was executed. If you trust the file, load it yourself and save its tensors: "
        f"{_SAVE}."
    )
