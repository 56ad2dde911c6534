"""Scan a data set's folder: every file, its header read and checked; no pixels are decoded."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

from tqdm import tqdm

from featx.archive import verify_checksums
from featx.errors import InputError, MissingInputError, combine, first_line
from featx.headers import FILE_NAME, Header, is_name, read_header
from featx.manifest import Manifest, VideoFile

STANDARD_SPLITS = ("train", "val", "test")

OnError = Literal["stop", "skip"]
Rejected = dict[str, InputError]

T = TypeVar("T")

_READ_AHEAD_THREADS = 4
_END_BYTES = 2**14


def scan(
    root: Path,
    splits: Sequence[str] | None = None,
    on_error: OnError = "stop",
    verify: bool = False,
    progress: bool = False,
) -> Manifest:
    """List the videos under `ROOT/<split>/<category>/<subcategory>/processed_data.pt`.

    Folders whose name begins with a dot are ignored: editors and file systems make them.

    Args:
        root: The data set's folder.
        splits: Which splits; by default, whichever of train, val and test exist.
        on_error: Whether bad inputs stop the scan, all of them reported together, or are left out.
        verify: Read every byte, and compare it with the files' own checksums.
        progress: Show a progress bar while the headers are read.

    Raises:
        MissingInputError: The folder or a split does not exist, or a split has no videos.
        InputError: Files are damaged, or not what featx accepts; or a split has no others.
    """
    splits = choose_splits(root, splits)
    mapped = [folder for folder in list_folders(root) if folder.name in {*STANDARD_SPLITS, *splits}]
    names = {category.name for folder in mapped for category in list_folders(folder)}
    categories = {name: label for label, name in enumerate(sorted(names))}
    rejected: dict[str, Rejected] = {split: {} for split in splits}
    paths = [path for split in splits for path in _list_split(root, split, rejected[split])]
    files = []
    for path, header in _read_headers(paths, verify, progress):
        if isinstance(header, InputError):
            rejected[path.parts[-4]]["/".join(path.parts[-4:-1])] = header
            continue
        file = VideoFile(path, header)
        places = file.name_places(header.rejected)
        rejected[file.split] |= zip(places, header.rejected.values(), strict=True)
        if header.num_videos:
            files.append(file)
    filled = {file.split for file in files} if on_error == "skip" else set()
    errors = [
        error
        for split in splits
        if split not in filled
        for _, error in sorted(rejected[split].items())
    ]
    if errors:
        found, way_out = f"{len(errors)} others", "Mend or remove them"
        if on_error == "skip":
            found += " and no good one beside them"
        else:
            way_out += ", or set on_error to skip to leave them out"
        raise combine(
            f"{root}: expected inputs that featx accepts, found {found}. {way_out}.", errors
        )
    return Manifest(root, categories, files, rejected)


def choose_splits(root: Path, splits: Sequence[str] | None) -> list[str]:
    """The splits asked for, or the standard ones.

    Raises:
        MissingInputError: The folder or a split does not exist.
    """
    found = [path.name for path in list_folders(root)]
    if splits is None:
        splits = [split for split in STANDARD_SPLITS if split in found]
        if not splits:
            raise MissingInputError(
                f"{root}: expected a folder train, val or test, found {_listing(found)}. "
                "Give the folder that holds the splits, or set splits to your own."
            )
    for split in splits:
        if split not in found:
            raise MissingInputError(
                f"{root}: expected a folder for the split {split!r}, found {_listing(found)}. "
                "Choose from these, or create it."
            )
    return [*dict.fromkeys(splits)]


def _list_split(root: Path, split: str, rejected: Rejected) -> list[Path]:
    """The files of one split, in row order; what is wrong with its folders is added."""
    paths = []
    for category in list_folders(root / split):
        with _collect(rejected, f"{split}/{category.name}"):
            subcategories = list_folders(category)
            for subcategory in subcategories:
                with _collect(rejected, f"{split}/{category.name}/{subcategory.name}"):
                    if _has_file(subcategory):
                        paths.append(subcategory / FILE_NAME)
            if _has_file(category):
                raise InputError(
                    f"{category / FILE_NAME}: expected "
                    f"{root}/<split>/<category>/<subcategory>/{FILE_NAME}, "
                    "found it in the category's own folder. Move it into a subcategory's."
                )
    if not paths and not rejected:
        rejected[split] = MissingInputError(
            f"{root / split}: expected videos at <category>/<subcategory>/{FILE_NAME}, found "
            "none. Make them from clips with: featx preprocess RAW_DIR PROCESSED_DIR."
        )
    return paths


@contextmanager
def _collect(rejected: Rejected, place: str) -> Iterator[None]:
    """Keep an error for later, by the place where it is."""
    try:
        yield
    except InputError as error:
        rejected[place] = error


def _read_headers(
    paths: Sequence[Path], verify: bool, progress: bool
) -> Iterator[tuple[Path, Header | InputError]]:
    """The header of each file, or what is wrong with it.

    Threads read ahead, which hides the latency of a network disk. One alone interprets what was
    read, because several would only contend for the interpreter.
    """
    pool = ThreadPoolExecutor(_READ_AHEAD_THREADS, "read-ahead")
    try:
        ahead = pool.map(partial(_attempt, verify_checksums if verify else _read_ends), paths)
        for path in tqdm(paths, desc="Scanning", unit="file", disable=not progress):
            found = next(ahead)
            yield path, _attempt(_read_header, path) if found is None else found
    finally:
        pool.shutdown(cancel_futures=True)


def _read_ends(path: Path) -> None:
    """Have the system cache the two ends of a file, which describe what is in it."""
    with suppress(OSError):  # it comes again when the file is read
        if path.is_file():  # and not a pipe, which would wait
            with path.open("rb", buffering=0) as file:
                file.read(_END_BYTES)
                file.seek(-min(_END_BYTES, path.stat().st_size), os.SEEK_END)
                file.read(_END_BYTES)


def _attempt(read: Callable[[Path], T], path: Path) -> T | InputError:
    """What is read from a file, or what is wrong with it."""
    try:
        return read(path)
    except InputError as error:
        return error


def _read_header(path: Path) -> Header:
    """The header of a file, after a check of the names of its folders."""
    check_name(path, "/".join(path.parts[-4:]))
    return read_header(path)


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


def _has_file(folder: Path) -> bool:
    """Whether a folder has a `processed_data.pt`, be it a link without a target."""
    try:
        (folder / FILE_NAME).lstat()
    except FileNotFoundError as error:
        if not folder.exists():
            raise _broken_link(folder) from error
        return False
    except OSError as error:
        raise _unreadable(folder, error) from error
    return True


def list_folders(path: Path) -> list[Path]:
    """The folders in a folder, sorted by name, without those whose name begins with a dot.

    A link without a target counts as a folder, so that it is not overlooked: listing it fails.

    Raises:
        MissingInputError: The folder does not exist, or is a link without a target.
        InputError: It cannot be read.
    """
    try:
        entries = [entry for entry in path.iterdir() if entry.name[0] != "."]
        folders = [entry for entry in entries if entry.is_dir() or not entry.exists()]
    except FileNotFoundError as error:
        if path.is_symlink():
            raise _broken_link(path) from error
        raise MissingInputError(
            f"{path}: expected a folder, found nothing. Check the path."
        ) from error
    except OSError as error:
        raise _unreadable(path, error) from error
    return sorted(folders, key=lambda entry: entry.name)


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
