"""The folders of a data set: splits, categories, subcategories, and what may be wrong with them."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

from featx.data.far import scan_folder
from featx.errors import InputError, MissingInputError, first_line

STANDARD_SPLITS = ("train", "val", "test")

ALL = "all"
"""The one split of what has no splits."""

_JUNK = {
    "__MACOSX",
    "Thumbs.db",
    "desktop.ini",
    "@eaDir",
    "#recycle",
    "$RECYCLE.BIN",
    "System Volume Information",
    "lost+found",
    "__pycache__",
    "Icon\r",
}
"""What systems and their tools put into folders, beside what begins with a dot."""


def choose_splits(root: Path, splits: Sequence[str] | None) -> list[str]:
    """The splits asked for, or the standard ones.

    Raises:
        MissingInputError: The folder or a split does not exist.
    """
    found = [path.name for path in list_folders(root)]
    if splits is None:
        splits = [split for split in STANDARD_SPLITS if split in found]
        splits = splits or [name for name in found if name == ALL]
        if not splits:
            raise MissingInputError(
                f"{root}: expected a folder train, val or test, found {_listing(found)}. "
                "Give the folder that holds the splits, set splits to your own, or set layout to "
                "flat, for clips without splits."
            )
    chosen = []
    for split in splits:
        alike = [name for name in found if normalize_name(name) == normalize_name(split)]
        if not alike:
            raise MissingInputError(
                f"{root}: expected a folder for the split {split!r}, found {_listing(found)}. "
                "Choose from these, or create it."
            )
        chosen.append(split if split in alike else alike[0])
    return [*dict.fromkeys(chosen)]


def list_folders(path: Path) -> list[Path]:
    """The folders in a folder, sorted by name, without hidden ones and what systems make.

    A link without a target counts as a folder, so that it is not overlooked: listing it fails.

    Raises:
        MissingInputError: The folder does not exist, or is a link without a target.
        InputError: It cannot be read.
    """
    entries = list_entries(path)
    try:
        return [entry for entry in entries if entry.is_dir() or not entry.exists()]
    except OSError as error:
        raise _unreadable(path, error) from error


def list_entries(path: Path) -> list[Path]:
    """What is in a folder, sorted by name, without what is hidden and what systems make.

    Raises:
        MissingInputError: The folder does not exist, or is a link without a target.
        InputError: It cannot be read.
    """
    try:
        entries = [entry for entry in path.iterdir() if not is_hidden(entry.name)]
    except FileNotFoundError as error:
        if path.is_symlink():
            raise _broken_link(path) from error
        raise MissingInputError(
            f"{path}: expected a folder, found nothing. Check the path."
        ) from error
    except OSError as error:
        raise _unreadable(path, error) from error
    return sorted(entries, key=lambda entry: (normalize_name(entry.name), entry.name))


def walk_files(
    root: Path, parts: tuple[str, ...] = (), seen: frozenset[tuple[int, int]] = frozenset()
) -> Iterator[tuple[str, ...]]:
    """The files in a folder and below, by the parts of their paths below it, sorted by name.

    Hidden files are among them, but for those that systems make; hidden folders are not entered,
    nor those that cannot be read. Links are followed, but never around.
    """
    try:
        folder = root.joinpath(*parts)
        status = folder.stat()
        entries = sorted(scan_folder(folder), key=lambda entry: entry.name)
    except OSError:
        return
    if (status.st_dev, status.st_ino) in seen:
        return
    seen |= {(status.st_dev, status.st_ino)}
    for entry in entries:
        if entry.name in _JUNK or entry.name.startswith("._"):
            continue
        try:
            is_folder = entry.is_dir()
        except OSError:  # a link to itself
            is_folder = False
        if not is_folder:
            yield (*parts, entry.name)
        elif not is_hidden(entry.name):
            yield from walk_files(root, (*parts, entry.name), seen)


def is_hidden(name: str) -> bool:
    """Whether a file or folder is hidden, or made by a system for itself."""
    return name.startswith(".") or name in _JUNK


def has_file(folder: Path, name: str) -> bool:
    """Whether a folder has a file, be it a link without a target."""
    try:
        (folder / name).lstat()
    except FileNotFoundError as error:
        if not folder.exists():
            raise _broken_link(folder) from error
        return False
    except OSError as error:
        raise _unreadable(folder, error) from error
    return True


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sorts names with numbers in them as a person would."""
    return [
        (0, int(part), "") if part.isascii() and part.isdigit() else (1, 0, part)
        for part in re.split(r"([0-9]+)", name)
        if part
    ]


def natural_bytes(name: str) -> bytes:
    """Sorts the names of files like `natural_key`, and then as they are; it takes little memory."""
    parts = (
        b"\1" + len(digits := part.lstrip("0")).to_bytes(2, "big") + digits.encode()
        if part.isascii() and part.isdigit()
        else b"\2" + part.encode("utf-8", "surrogatepass")
        for part in re.split(r"([0-9]+)", name)
        if part
    )
    return b"".join(parts) + b"\0" + name.encode("utf-8", "surrogatepass")


def normalize_name(name: str) -> str:
    """A name as most systems write it: letters with their accents (NFC).

    A copy from macOS may have each accent as a character of its own, which looks the same.
    """
    return unicodedata.normalize("NFC", name)


def is_name(text: str) -> bool:
    """Whether HDF5 can hold a text: it is UTF-8 without NUL."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def check_name(path: Path, name: str) -> None:
    """Check that HDF5 can hold the name of a video.

    Raises:
        InputError: It cannot.
    """
    if not is_name(name):
        raise InputError(
            f"{path}: expected a name in UTF-8 without NUL, found {name!r}. "
            "Rename the clip or the folder."
        )


def _broken_link(path: Path) -> InputError:
    return MissingInputError(
        f"{path}: expected a folder, found a link without a target. Repair or remove it."
    )


def _unreadable(path: Path, error: OSError) -> InputError:
    return InputError(
        f"{path}: expected a readable folder, found: {first_line(error)}. "
        "Check the path and its permissions."
    )


def _listing(names: Sequence[str]) -> str:
    return f"the folders {', '.join(names)}" if names else "no folder"
