"""Scan a data set's folder: every file, its header read and checked; no pixels are read."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from torch._subclasses.fake_tensor import FakeTensorMode
from tqdm.contrib.concurrent import thread_map

from featx.errors import InputError, MissingInputError, first_line
from featx.headers import FILE_NAME, read_header
from featx.manifest import Manifest, VideoFile

STANDARD_SPLITS = ("train", "val", "test")

_SCAN_THREADS = 4  # enough to hide the latency of a network disk; more would contend for the GIL


def scan(root: Path, splits: Sequence[str] | None = None, progress: bool = False) -> Manifest:
    """List the videos under `ROOT/<split>/<category>/<subcategory>/processed_data.pt`.

    Folders whose name begins with a dot are ignored: editors and file systems make them.

    Args:
        root: The data set's folder.
        splits: Which splits; by default, whichever of train, val and test exist.
        progress: Show a progress bar while the headers are read.

    Raises:
        MissingInputError: The folder or a split does not exist, or a split has no videos.
        InputError: A file is damaged, or not what featx accepts.
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
    mapped = [split for split in found if split in {*STANDARD_SPLITS, *splits}]
    names = {folder.name for split in mapped for folder in list_folders(root / split)}
    categories = {name: label for label, name in enumerate(sorted(names))}
    paths = [path for split in dict.fromkeys(splits) for path in _list_split(root, split)]
    # FakeTensorMode sets a flag of the whole process. Entered here first and left last, it is
    # restored correctly, in whatever order the threads enter and leave the mode themselves.
    with FakeTensorMode():
        headers = thread_map(
            read_header,
            paths,
            max_workers=_SCAN_THREADS,
            desc="Scanning",
            unit="file",
            disable=not progress,
        )
    files = [VideoFile(path, header) for path, header in zip(paths, headers, strict=True)]
    for file in files:
        for name in file.video_ids:
            check_name(file.path, name)
    return Manifest(root, categories, files)


def _list_split(root: Path, split: str) -> Iterator[Path]:
    """The files of one split, in row order."""
    found = False
    for category in list_folders(root / split):
        misplaced = category / FILE_NAME
        if _exists(misplaced):
            raise InputError(
                f"{misplaced}: expected {root}/<split>/<category>/<subcategory>/{FILE_NAME}, "
                "found it in the category's own folder. Move it into a subcategory's."
            )
        for subcategory in list_folders(category):
            if _exists(subcategory / FILE_NAME):
                found = True
                yield subcategory / FILE_NAME
    if not found:
        raise MissingInputError(
            f"{root / split}: expected videos at <category>/<subcategory>/{FILE_NAME}, found "
            "none. Make them from clips with: featx preprocess RAW_DIR PROCESSED_DIR."
        )


def check_name(path: Path, name: str) -> None:
    """Check that HDF5 can hold the name of a video.

    Raises:
        InputError: It cannot.
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        valid = False
    else:
        valid = "\0" not in name
    if not valid:
        raise InputError(
            f"{str(path)!r}: expected a name in UTF-8 without NUL, found {name!r}. "
            "Rename the clip or the folder."
        )


def _exists(path: Path) -> bool:
    """Whether something is there; a link without a target is, and is refused when it is read."""
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _unreadable(path.parent, error) from error
    return True


def list_folders(path: Path) -> list[Path]:
    """The folders in a folder, sorted by name, without those whose name begins with a dot.

    Raises:
        MissingInputError: The folder does not exist, or one in it is a link without a target.
        InputError: It cannot be read.
    """
    try:
        entries = [entry for entry in path.iterdir() if entry.name[0] != "."]
        broken = [entry for entry in entries if entry.is_symlink() and not entry.exists()]
        folders = [entry for entry in entries if entry.is_dir()]
    except FileNotFoundError as error:
        raise MissingInputError(
            f"{path}: expected a folder, found nothing. Check the path."
        ) from error
    except OSError as error:
        raise _unreadable(path, error) from error
    if broken:
        raise MissingInputError(
            f"{broken[0]}: expected a folder, found a link without a target. Repair or remove it."
        )
    return sorted(folders, key=lambda entry: entry.name)


def _unreadable(path: Path, error: OSError) -> InputError:
    return InputError(
        f"{path}: expected a readable folder, found: {first_line(error)}. "
        "Check the path and its permissions."
    )


def _listing(names: Sequence[str]) -> str:
    return f"the folders {', '.join(names)}" if names else "no folder"
