"""Files: durable writes, what tells two apart, and what torch.save wrote, without running it.

A path that is written durably holds the old content or the new one.
"""

import hashlib
import json
import os
import pickle
import re
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import IO, Any

from featx.errors import FeatxError, OutputError, UsageError, first_line

ADDRESS = re.compile(r"([a-z][a-z0-9+.\-]+):/+(.*)", re.DOTALL)
"""An address of something remote, such as s3://bucket/folder: its protocol, and the rest.

A Path makes one slash of the two.
"""


def conceal(address: str) -> str:
    """What may be shown of an address: neither a password nor a query."""
    shown, mark, _ = address.partition("?")
    return re.sub(r"(:/+)[^/]*:[^/]*@", r"\1...@", shown) + f"{mark}..." * bool(mark)


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


def expand(path: Path | str) -> Path:
    """A local path as a person gives it: `~` is a home.

    Raises:
        UsageError: It is that of nobody, or an address.
    """
    if ADDRESS.match(str(path)):
        raise UsageError(
            f"{conceal(str(path))}: expected a path on this machine, found an address. Only "
            "the videos, and a table of them, may be elsewhere."
        )
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UsageError(
            f"{path}: expected the home of a user, found none of that name. Give another path."
        ) from error


def check_replaceable(path: Path) -> None:
    """Check that a path is free, or a file that can be replaced.

    Raises:
        OutputError: Something else is there, or the path cannot be one.
    """
    with writing(path):
        is_other = path.exists() and not path.is_file()
    if is_other:
        raise OutputError(f"{path}: expected a file or nothing, found a folder. Remove it.")


def remove(path: Path) -> None:
    """Remove a file or a folder."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def file_stats(status: os.stat_result) -> tuple[int, int]:
    """Size in bytes and time of the last change in nanoseconds."""
    return status.st_size, to_int64(status.st_mtime_ns)


def to_int64(number: int) -> int:
    """A number of the file system, of which 64 bits are kept, as all but odd ones have no more."""
    return (number + 2**63) % 2**64 - 2**63


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
    sync(temporary)
    temporary.replace(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Make a file's content, or the renames in a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Ignored:
    """Stands for a value beside tensors that featx does not need, whatever a pickle makes it of."""

    def __init__(self, *args: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        """Ignore what it is made of."""


class NumpyValue(Ignored):
    """An array, a number or a dtype of NumPy."""


class PathValue(Ignored):
    """A path of pathlib."""


class NamespaceValue(Ignored):
    """Arguments of a command line."""


_HARMLESS: dict[str, type[Ignored]] = {
    **{
        f"numpy.{core}.{name}": NumpyValue
        for core in ("core", "_core")
        for name in ("multiarray._reconstruct", "multiarray.scalar", "numeric._frombuffer")
    },
    **dict.fromkeys(("numpy.ndarray", "numpy.dtype"), NumpyValue),
    **{
        f"{module}.{name}": PathValue
        for module in ("pathlib", "pathlib._local")
        for name in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")
    },
    "argparse.Namespace": NamespaceValue,
}
"""What people keep beside tensors, and what is made instead: NumPy's own functions would run."""

_one_load = Lock()  # because the list of safe globals is one for the process


def load_tensors(file: Path | str | IO[bytes]) -> Any:  # noqa: ANN401  # whatever is in it
    """Return what `torch.save` wrote, on the CPU: tensors, plain values, and `Ignored` for others.

    Nothing in the file is executed.

    Raises:
        pickle.UnpicklingError: An object of another class is in it; the message names the class.
        Exception: The file is of another kind; torch raises whatever it meets.
    """
    import torch

    harmless = [(kind, name) for name, kind in _HARMLESS.items()]
    with (
        _one_load,
        torch.serialization.safe_globals(harmless),  # type: ignore[arg-type]  # pairs are taken, too
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", "Detected pickle protocol")
        # Of TorchScript, which is a program: torch says so just before it would load one.
        warnings.filterwarnings("error", "'torch.load' received a zip file")
        try:
            return torch.load(file, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:  # its message is a page long
            named = re.search(r"(?:GLOBAL|class|function) ([\w.]+\.\w+)", str(error))
            found = f"a Python object ({named[1]})" if named else "a pickle that torch refuses"
            raise pickle.UnpicklingError(f"{found}; nothing was executed") from error
