"""The folders of a data set: splits, categories, subcategories, and what may be wrong with them."""

import os
import re
import unicodedata
from collections.abc import Iterator, Sequence

from featx.data.storage import Item, Place, exists, is_remote, join, list_folder, stat
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


def choose_splits(root: Place, splits: Sequence[str] | None) -> list[str]:
    """The splits asked for, or the standard ones.

    Raises:
        MissingInputError: The folder or a split does not exist.
    """
    found = list_folders(root)
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


def list_folders(folder: Place) -> list[str]:
    """Return the names of the folders in a folder, sorted, without hidden and systems' ones.

    A link without a target counts as a folder, so that it is not overlooked: listing it fails.

    Raises:
        MissingInputError: The folder does not exist, or is a link without a target.
        InputError: It cannot be read.
    """
    return [item.name for item in list_entries(folder) if item.is_folder or not item.exists]


def list_entries(folder: Place) -> list[Item]:
    """Return what is in a folder, sorted by name, without hidden entries and systems' ones.

    Raises:
        MissingInputError: The folder does not exist, or is a link without a target.
        InputError: It cannot be read.
    """
    try:
        items = [item for item in list_folder(folder) if not is_hidden(item.name)]
    except FileNotFoundError as error:
        if os.path.lexists(folder):
            raise _broken_link(folder) from error
        raise MissingInputError(
            f"{folder}: expected a folder, found nothing. Check the path."
        ) from error
    except OSError as error:
        raise _unreadable(folder, error) from error
    return sorted(items, key=lambda item: (normalize_name(item.name), item.name))


def walk_files(
    root: Place, parts: tuple[str, ...] = (), seen: frozenset[tuple[int, int]] = frozenset()
) -> Iterator[tuple[str, ...]]:
    """Yield the files in a folder and below, by the parts of their paths below it, sorted by name.

    Hidden files are among them, but for those that systems make; hidden folders are not entered,
    nor those that cannot be read. Links are followed, but never around.
    """
    folder = join(root, "/".join(parts)) if parts else str(root)
    try:
        if not is_remote(folder):
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:
                return
            seen |= {(status.st_dev, status.st_ino)}
        items = sorted(list_folder(folder), key=lambda item: item.name)
    except OSError:
        return
    for item in items:
        if item.name in _JUNK or item.name.startswith("._"):
            continue
        if not item.is_folder:
            yield (*parts, item.name)
        elif not is_hidden(item.name):
            yield from walk_files(root, (*parts, item.name), seen)


def is_hidden(name: str) -> bool:
    """Whether a file or folder is hidden, or made by a system for itself."""
    return name.startswith(".") or name in _JUNK


def has_file(folder: Place, name: str) -> bool:
    """Return True where a folder has a file, or a link of its name without a target."""
    path = join(folder, name)
    try:
        if is_remote(path):
            stat(path)
        else:
            os.lstat(path)
    except FileNotFoundError as error:
        if not exists(folder):
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


def check_name(path: Place, name: str) -> None:
    """Check that HDF5 can hold the name of a video.

    Raises:
        InputError: It cannot.
    """
    if not is_name(name):
        raise InputError(
            f"{path}: expected a name in UTF-8 without NUL, found {name!r}. "
            "Rename the clip or the folder."
        )


def _broken_link(path: Place) -> InputError:
    return MissingInputError(
        f"{path}: expected a folder, found a link without a target. Repair or remove it."
    )


def _unreadable(path: Place, error: OSError) -> InputError:
    return InputError(
        f"{path}: expected a readable folder, found: {first_line(error)}. "
        "Check the path and its permissions."
    )


def _listing(names: Sequence[str]) -> str:
    return f"the folders {', '.join(names)}" if names else "no folder"
