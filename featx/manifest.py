"""Which videos a data set holds, in which order and with which label, before any pixel is read."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch._subclasses.fake_tensor import FakeTensorMode
from tqdm import tqdm

from featx.errors import InputError, MissingInputError
from featx.videos import FILE_NAME, Header, read_header

STANDARD_SPLITS = ("train", "val", "test")

_SCAN_THREADS = 4  # they hide the latency of a network disk; more only fight for the interpreter


@dataclass(frozen=True, slots=True)
class VideoFile:
    """One `processed_data.pt`: where it lies, and what it holds."""

    path: Path
    header: Header

    @property
    def split(self) -> str:
        """The folder above the category's."""
        return self.path.parts[-4]

    @property
    def category(self) -> str:
        """The folder above the subcategory's."""
        return self.path.parts[-3]

    @property
    def video_ids(self) -> Sequence[str]:
        """Name of each video: its clip where the file tells, else its place in the data set."""
        place = "/".join(self.path.parts[-4:-1])
        return self.header.clips or [f"{place}/{i}" for i in range(len(self.header.lengths))]


class Manifest:
    """All videos of the splits asked for, in row order: one position for each.

    The splits follow each other in the order asked for; inside a split, categories and
    subcategories are sorted by name, and videos keep their order in the file.

    Attributes:
        root: The data set's folder.
        categories: Label of each category, the same for all splits.
        files: The files, in row order.
        lengths: Number of frames `[num_videos]` of each video, int64.
    """

    def __init__(self, root: Path, categories: dict[str, int], files: Sequence[VideoFile]) -> None:
        self.root = root
        self.categories = categories
        self.files = tuple(files)
        counts = [len(file.header.lengths) for file in files]
        self._starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        lengths = [length for file in files for length in file.header.lengths]
        self.lengths: NDArray[np.int64] = np.array(lengths, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def splits(self) -> list[str]:
        """The splits, in the order asked for."""
        return list(dict.fromkeys(file.split for file in self.files))

    def locate(self, position: int) -> tuple[VideoFile, int]:
        """The file that holds the video at `position`, and its index inside that file."""
        number = int(np.searchsorted(self._starts, position, side="right")) - 1
        return self.files[number], position - int(self._starts[number])

    def positions(self, split: str) -> range:
        """Positions of a split's videos: its rows, in order."""
        numbers = [number for number, file in enumerate(self.files) if file.split == split]
        return range(int(self._starts[numbers[0]]), int(self._starts[numbers[-1] + 1]))

    def labels(self, split: str) -> NDArray[np.int64]:
        """Label `[rows]` of each video of a split."""
        files = [file for file in self.files if file.split == split]
        counts = [len(file.header.lengths) for file in files]
        return np.repeat([self.categories[file.category] for file in files], counts)

    def video_ids(self, split: str) -> list[str]:
        """Name of each video of a split."""
        return [name for file in self.files if file.split == split for name in file.video_ids]


def scan(root: Path, splits: Sequence[str] | None = None, progress: bool = False) -> Manifest:
    """List the videos under `ROOT/<split>/<category>/<subcategory>/processed_data.pt`.

    Names that begin with a dot are left out, for they are an editor's or a file system's.

    Args:
        root: The data set's folder.
        splits: Which splits; by default those of train, val and test that are there.
        progress: Show a progress bar while the headers are read.

    Raises:
        MissingInputError: The folder, a split, or every video of a split is missing.
        InputError: A file is damaged, or not what featx accepts.
    """
    found = [path.name for path in list_folders(root)]
    if splits is None:
        splits = [split for split in STANDARD_SPLITS if split in found]
        if not splits:
            raise MissingInputError(
                f"{root}: expected a folder train, val or test, found {_listing(found)}. "
                "Give the folder above the splits, or name your splits."
            )
    for split in splits:
        if split not in found:
            raise MissingInputError(
                f"{root}: expected a folder for the split {split!r}, found {_listing(found)}. "
                "Name one of these, or make it."
            )
    mapped = [split for split in found if split in {*STANDARD_SPLITS, *splits}]
    names = {folder.name for split in mapped for folder in list_folders(root / split)}
    categories = {name: label for label, name in enumerate(sorted(names))}
    paths = [path for split in dict.fromkeys(splits) for path in _list_split(root, split)]
    # The mode sets a flag of the whole process. Entered here first and left last, the threads
    # that enter it too restore the flag in whatever order they end.
    with FakeTensorMode(), ThreadPoolExecutor(_SCAN_THREADS) as pool:
        bar = tqdm(
            pool.map(read_header, paths),
            total=len(paths),
            desc="Scanning",
            unit="file",
            disable=not progress,
        )
        headers = list(bar)
    files = [VideoFile(path, header) for path, header in zip(paths, headers, strict=True)]
    return Manifest(root, categories, files)


def missing_categories(manifest: Manifest) -> dict[str, list[str]]:
    """Categories without a video, by split; splits that have them all are left out."""
    held = {
        split: {file.category for file in manifest.files if file.split == split}
        for split in manifest.splits
    }
    missing = {
        split: [name for name in manifest.categories if name not in names]
        for split, names in held.items()
    }
    return {split: names for split, names in missing.items() if names}


def _list_split(root: Path, split: str) -> Iterator[Path]:
    """The files of one split, in row order."""
    found = False
    for category in list_folders(root / split):
        misplaced = category / FILE_NAME
        if misplaced.exists():
            raise InputError(
                f"{misplaced}: expected {root}/<split>/<category>/<subcategory>/{FILE_NAME}, "
                "found it in the category's own folder. Move it into a subcategory's."
            )
        for subcategory in list_folders(category):
            if (subcategory / FILE_NAME).exists():
                found = True
                yield subcategory / FILE_NAME
    if not found:
        raise MissingInputError(
            f"{root / split}: expected videos at <category>/<subcategory>/{FILE_NAME}, found "
            "none. Make them from clips with: featx preprocess RAW_DIR PROCESSED_DIR."
        )


def list_folders(path: Path) -> list[Path]:
    """The folders in a folder, sorted by name; those whose name begins with a dot are left out.

    Raises:
        MissingInputError: There is no such folder.
        InputError: It cannot be read.
    """
    try:
        found = [entry for entry in path.iterdir() if entry.name[0] != "." and entry.is_dir()]
    except FileNotFoundError as error:
        raise MissingInputError(f"{path}: expected a folder, found nothing.") from error
    except OSError as error:
        raise InputError(f"{path}: expected a readable folder, found: {error.strerror}.") from error
    return sorted(found, key=lambda entry: entry.name)


def _listing(names: Sequence[str]) -> str:
    return f"the folders {', '.join(names)}" if names else "no folder"
