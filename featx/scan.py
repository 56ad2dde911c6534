"""Scan a data set's folder: every file, its header read and checked; no pixels are decoded."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

from featx.archive import verify_checksums
from featx.errors import InputError, MissingInputError, combine
from featx.folders import STANDARD_SPLITS, check_name, choose_splits, has_file, list_folders
from featx.headers import FILE_NAME, Header, read_header
from featx.manifest import Manifest, VideoFile
from featx.progress import make_bar

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
    categories = _list_categories(root, splits)
    rejected: dict[str, Rejected] = {split: {} for split in splits}
    paths = [path for split in splits for path in _list_split(root, split, rejected[split])]
    files = []
    for path, header in _read_headers(paths, verify, progress):
        if isinstance(header, InputError):
            rejected[path.parts[-4]]["/".join(path.parts[-4:-1])] = header
            continue
        file = VideoFile(path, header, "/".join(path.parts[-4:-1]))
        places = file.name_places(header.rejected)
        rejected[file.split] |= zip(places, header.rejected.values(), strict=True)
        if header.num_videos:
            files.append(file)
    check_rejected(root, files, rejected, on_error)
    return Manifest(root, categories, files, rejected)


def _list_categories(root: Path, splits: Sequence[str]) -> dict[str, int]:
    """Label of each category of the standard splits and of others: one mapping for all of them."""
    mapped = [folder for folder in list_folders(root) if folder.name in {*STANDARD_SPLITS, *splits}]
    names = {category.name for folder in mapped for category in list_folders(folder)}
    return {name: label for label, name in enumerate(sorted(names))}


def check_rejected(
    root: Path,
    files: Sequence[VideoFile],
    rejected: Mapping[str, Rejected],
    on_error: OnError,
) -> None:
    """Check that nothing is rejected; or, if bad inputs are left out, that each split has others.

    Raises:
        InputError: All that is wrong, together.
    """
    filled = {file.split for file in files} if on_error == "skip" else set()
    errors = [
        error
        for split, found in rejected.items()
        if split not in filled
        for _, error in sorted(found.items())
    ]
    if errors:
        others, way_out = f"{len(errors)} others", "Mend or remove them"
        if on_error == "skip":
            others += " and no good one beside them"
        else:
            way_out += ", or set on_error to skip to leave them out"
        raise combine(
            f"{root}: expected inputs that featx accepts, found {others}. {way_out}.", errors
        )


def _list_split(root: Path, split: str, rejected: Rejected) -> list[Path]:
    """The files of one split, in row order; what is wrong with its folders is added."""
    paths = []
    for category in list_folders(root / split):
        with _collect(rejected, f"{split}/{category.name}"):
            subcategories = list_folders(category)
            for subcategory in subcategories:
                with _collect(rejected, f"{split}/{category.name}/{subcategory.name}"):
                    if has_file(subcategory, FILE_NAME):
                        paths.append(subcategory / FILE_NAME)
            if has_file(category, FILE_NAME):
                raise InputError(
                    f"{category / FILE_NAME}: expected "
                    f"{root}/<split>/<category>/<subcategory>/{FILE_NAME}, "
                    "found it in the category's own folder. Move it into a subcategory's."
                )
    if not paths and not rejected:
        rejected[split] = MissingInputError(
            f"{root / split}: expected videos at <category>/<subcategory>/{FILE_NAME}, found "
            "none. Make them from clips with: featx preprocess RAW_DIR PROCESSED_DIR; or set "
            "source to clips."
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
        for path in make_bar(paths, "Scanning", len(paths), "file", progress):
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
