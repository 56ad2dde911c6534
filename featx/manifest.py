"""Which videos a data set holds, in which order and with which labels."""

import hashlib
from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featx.headers import Header


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


def missing_categories(manifest: Manifest) -> dict[str, list[str]]:
    """Categories without a video, for each split that lacks some."""
    missing = {}
    for split in manifest.positions:
        present = {file.category for file in manifest.select(split)}
        if absent := [name for name in manifest.categories if name not in present]:
            missing[split] = absent
    return missing
