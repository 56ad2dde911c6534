"""Which videos a data set holds, in which order and with which labels; no pixels are read."""

import hashlib
from bisect import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch._subclasses.fake_tensor import FakeTensorMode
from tqdm.contrib.concurrent import thread_map

from featx.errors import InputError, MissingInputError, first_line
from featx.videos import FILE_NAME, Header, read_header

STANDARD_SPLITS = ("train", "val", "test")

_SCAN_THREADS = 4  # enough to hide the latency of a network disk; more would contend for the GIL


@dataclass(frozen=True, slots=True)
class VideoFile:
    """One `processed_data.pt` file: its path, and what it holds."""

    path: Path
    header: Header

    @property
    def split(self) -> str:
        """The folder of the split."""
        return self.path.parts[-4]

    @property
    def category(self) -> str:
        """The folder of the category."""
        return self.path.parts[-3]

    @property
    def video_ids(self) -> Sequence[str]:
        """Name of each video: its clip if the file has it, else its place in the data set."""
        place = "/".join(self.path.parts[-4:-1])
        return self.header.clips or [f"{place}/{i}" for i in range(self.header.num_videos)]


class Manifest:
    """All videos of the splits asked for, each at its position.

    The splits follow each other in the order asked for. Within a split, categories and
    subcategories are sorted by name, and videos keep their order in the file.

    Attributes:
        root: The data set's folder.
        categories: Label of each category, the same for all splits.
        files: The files, in order.
        lengths: Number of frames `[num_videos]` of each video, int64.
        positions: Positions of the videos of each split: its rows, in order.
    """

    def __init__(self, root: Path, categories: dict[str, int], files: Sequence[VideoFile]) -> None:
        self.root = root
        self.categories = categories
        self.files = tuple(files)
        lengths = [length for file in files for length in file.header.lengths]
        self.lengths: NDArray[np.int64] = np.array(lengths, dtype=np.int64)
        self._starts = [0, *accumulate(file.header.num_videos for file in files)]
        self.positions: dict[str, range] = {}
        for file, start, stop in zip(files, self._starts, self._starts[1:], strict=False):
            first = self.positions.get(file.split, range(start, start)).start
            self.positions[file.split] = range(first, stop)

    def __len__(self) -> int:
        return len(self.lengths)

    def locate(self, position: int) -> tuple[VideoFile, int]:
        """The file that holds the video at `position`, and its index in that file."""
        number = bisect(self._starts, position) - 1
        return self.files[number], position - self._starts[number]

    def select(self, split: str) -> list[VideoFile]:
        """The files of a split."""
        return [file for file in self.files if file.split == split]

    def labels(self, split: str) -> NDArray[np.int64]:
        """Label `[rows]` of each video of a split."""
        files = self.select(split)
        counts = [file.header.num_videos for file in files]
        return np.repeat([self.categories[file.category] for file in files], counts)

    def digest(self, split: str) -> str:
        """SHA-256 that identifies the files of a split and their content."""
        content = [(file.path.parts[-4:], file.header.digest) for file in self.select(split)]
        return hashlib.sha256(repr(content).encode()).hexdigest()

    def video_ids(self, split: str) -> list[str]:
        """Name of each video of a split."""
        return [name for file in self.select(split) for name in file.video_ids]


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


def missing_categories(manifest: Manifest) -> dict[str, list[str]]:
    """Categories without a video, for each split that lacks some."""
    missing = {}
    for split in manifest.positions:
        present = {file.category for file in manifest.select(split)}
        if absent := [name for name in manifest.categories if name not in present]:
            missing[split] = absent
    return missing


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
