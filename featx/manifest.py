"""Which videos a data set holds, in which order and with which labels."""

import hashlib
from bisect import bisect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featx.errors import InputError
from featx.headers import Header


@dataclass(frozen=True, slots=True)
class VideoFile:
    """One file of videos.

    Attributes:
        path: Its path.
        header: What it holds.
        place: Where it is in the data set: split, category and subcategory.
    """

    path: Path
    header: Header
    place: str

    @property
    def split(self) -> str:
        """The folder of the split."""
        return self.place.split("/")[0]

    @property
    def category(self) -> str:
        """The folder of the category."""
        return self.place.split("/")[1]

    def name_places(self, indices: Iterable[int]) -> list[str]:
        """Name of each of some videos of the file by its place in the data set."""
        return [f"{self.place}/{index}" for index in indices]

    def name_videos(self, indices: Iterable[int]) -> list[str]:
        """Name of each of some videos of the file: its clip if the file has it, else its place."""
        clips = self.header.clips
        return [clips[index] for index in indices] if clips else self.name_places(indices)


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
        rejected: For each split, the videos, files and folders that are left out, and why.
        preprocessing: How the videos are made, where that happens on the way.
    """

    def __init__(
        self,
        root: Path,
        categories: dict[str, int],
        files: Sequence[VideoFile],
        rejected: Mapping[str, Mapping[str, InputError]],
        preprocessing: Mapping[str, Any] | None = None,
    ) -> None:
        self.root = root
        self.rejected = rejected
        self.preprocessing = preprocessing
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

    def locate_row(self, position: int) -> tuple[str, int]:
        """The split of the video at `position`, and its row in the split's feature file."""
        split = self.locate(position)[0].split
        return split, position - self.positions[split].start

    def select(self, split: str) -> list[VideoFile]:
        """The files of a split."""
        return [file for file in self.files if file.split == split]

    def labels(self, split: str) -> NDArray[np.int64]:
        """Label `[rows]` of each video of a split."""
        files = self.select(split)
        counts = [file.header.num_videos for file in files]
        return np.repeat([self.categories[file.category] for file in files], counts)

    def digest(self, split: str) -> str:
        """SHA-256 that identifies the files of a split and their content, and what is rejected."""
        content = [(file.place, file.path.name, file.header.digest) for file in self.select(split)]
        rejected = sorted(self.rejected[split])
        return hashlib.sha256(repr((content, rejected)).encode()).hexdigest()

    def video_ids(self, split: str) -> list[str]:
        """Name of each video of a split; that of its clip, if they tell all videos apart."""
        files = self.select(split)
        names = [name for file in files for name in file.name_videos(file.header.indices)]
        if len(set(names)) == len(names):
            return names
        return [name for file in files for name in file.name_places(file.header.indices)]


def missing_categories(manifest: Manifest) -> dict[str, list[str]]:
    """Categories without a video, for each split that lacks some."""
    missing = {}
    for split in manifest.positions:
        present = {file.category for file in manifest.select(split)}
        if absent := [name for name in manifest.categories if name not in present]:
            missing[split] = absent
    return missing
