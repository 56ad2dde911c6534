"""The manifest: the videos of a data set, their order and their labels.

A source has a function from `ScanSettings` to a `Manifest`, and a subclass of `Files`, whose
columns hold what the scan found, and which makes a `VideoFile` from them.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from featx.data.choices import LayoutName, OnError, ScanName
from featx.data.columns import Column, Texts, is_constant, open_columns, save_columns, to_hex
from featx.data.media.pixels import PixelsName
from featx.data.media.preprocessing import Preprocessing
from featx.data.media.video_file import Home, VideoFile
from featx.data.scan_cache import CacheEntry, ScanCache
from featx.data.storage import Place
from featx.data.summary import ScanSummary
from featx.errors import InputError, MissingInputError

ANALYSIS_FILE = "configuration_analysis.json"
"""In a data set's folder, `preprocessing_info` says how its videos were made."""

_ERRORS = {kind.__name__: kind for kind in (InputError, MissingInputError)}
_GIVEN = "given/"  # begins the names of columns that a table has beside those with a meaning

UNLABELLED = -1
"""The label of a video without a category."""


@dataclass(frozen=True, slots=True)
class ScanSettings:
    """The settings of a scan.

    Attributes:
        root: The data set's folder.
        splits: The splits to scan; by default, whichever of train, val and test exist.
        on_error: `stop` reports all bad inputs together as one error; `skip` leaves them out.
        verify: Read every byte, and compare it with the files' own checksums, where they have some.
        preprocessing: The settings that turn clips into videos.
        progress: Show a progress bar.
        pixels: The range of floating pixels, where files do not record it.
        thorough: Read every packet of a clip, which tells most damage; otherwise, what can wait is
            found when a clip is read.
        strict: If False, bad inputs are collected and never raised.
        layout: `tree` (split, category and subcategory), or `flat`.
        table: A table of the videos, instead of folders.
        columns: The names of the columns in the table, by their meaning.
        scan_cache: The results of earlier scans.
        scan: `full` opens every input. `lazy` leaves clips that are not in the scan cache closed
            until they are read; bad ones are found then.
    """

    root: Place
    splits: Sequence[str] | None = None
    on_error: OnError = "stop"
    verify: bool = False
    preprocessing: Preprocessing = Preprocessing()  # noqa: RUF009  # it is frozen
    progress: bool = False
    pixels: PixelsName = "normalized"
    thorough: bool = False
    strict: bool = True
    layout: LayoutName = "tree"
    table: Place | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    scan_cache: ScanCache = field(default_factory=ScanCache)
    scan: ScanName = "full"


class Files(ABC):
    """The files of a scan as columns; a `VideoFile` is made from them when it is asked for.

    Columns of a video are `length`, `height` and `width` of its frames; `home`, the number of its
    home; `name`; `place`, where that is another; and `made_of`, see `MadeOf`. What several videos
    share is in columns of its own, whose names begin with that of the column that tells which of
    these rows belongs to a video: `clip` and `clip.size`, for example.

    Args:
        columns: The columns.
        notes: All other data, as JSON: `root`, and `homes`, pairs of a split and a category.
    """

    kind: str
    """The import path of the class, `module:name`."""

    shared: str
    """The column that numbers what videos share."""

    def __init__(self, columns: Mapping[str, Column], notes: Mapping[str, Any]) -> None:
        self.columns = dict(columns)
        self.notes = dict(notes)
        self.homes = [Home(*home) for home in notes["homes"]]

    @abstractmethod
    def make(self, number: int) -> VideoFile:
        """Return one file."""

    @property
    def tells_content(self) -> bool:
        """True if what a video is made of follows from its content alone."""
        return True

    @abstractmethod
    def find_digests(
        self,
        positions: NDArray[np.int64],
        sizes: NDArray[np.int64] | None,
        note: Callable[[str, CacheEntry], object],
        progress: bool,
    ) -> None:
        """Hash the files of some videos, whose digests the scan did not find; see `Manifest`."""

    def numbers(self, name: str) -> NDArray[Any]:
        """Return a column of numbers."""
        column = self.columns[name]
        assert isinstance(column, np.ndarray)
        return column

    def texts(self, name: str) -> Texts:
        """Return a column of texts."""
        column = self.columns[name]
        assert isinstance(column, Texts)
        return column

    def __len__(self) -> int:
        return len(self.columns["home"])

    def __iter__(self) -> Iterator[VideoFile]:
        return (self.make(number) for number in range(len(self)))

    def __getitem__(self, number: int) -> VideoFile:
        return self.make(range(len(self))[number])

    def locate(self, position: int) -> tuple[int, int]:
        """Return the number of the file that has the video at a position, and its index there."""
        return position, 0

    def span(self, number: int) -> range:
        """Return the positions of the videos of a file."""
        return range(number, number + 1)


class Manifest:
    """The videos of the splits that were asked for, each at its position.

    The splits follow each other in the order asked for. Within a split, categories and
    subcategories are sorted by name, and videos keep their order in the file.

    Attributes:
        root: The data set's folder.
        categories: Label of each category, the same for all splits.
        files: The files, in order; each is made when it is asked for.
        lengths: Number of frames `[num_videos]` of each video, integers.
        numbers: Numbers of the files of each split, in order.
        positions: Positions of the videos of each split: its rows, in order.
        rejected: For each split, the videos, files and folders that are left out, and why.
        summary: Counts of what the scan used and left out; None before they are made.
        columns: The other columns of the table, text or numbers, by name `[num_videos]`.
        has_times: True if the feature file records the times of frames.
    """

    def __init__(
        self,
        categories: dict[str, int],
        files: Files,
        rejected: Mapping[str, Mapping[str, InputError]],
        preprocessing: Mapping[str, Any] | None = None,
        summary: ScanSummary | None = None,
        columns: Mapping[str, Column] | None = None,
        has_times: bool = False,
    ) -> None:
        self.root: str = files.notes["root"]
        self.columns = columns or {}
        self.has_times = has_times
        self.summary = summary
        self.rejected = rejected
        self._preprocessing = preprocessing
        self.categories = categories
        self.files = files
        self._path: Path | None = None
        self.lengths = files.numbers("length")
        if "splits" not in files.notes:
            files.notes["splits"] = _find_splits(files)
        self.positions = {split: range(*rows) for split, rows in files.notes["splits"].items()}
        self.numbers = {
            split: range(files.locate(rows[0])[0], files.locate(rows[-1])[0] + 1)
            for split, rows in self.positions.items()
        }
        named = files.notes.setdefault("named", {})  # the splits whose videos names tell apart
        self._ids: dict[str, Texts] = {}
        for split, rows in self.positions.items():
            self._ids[split] = files.texts("name")[rows.start : rows.stop]
            if split not in named:
                named[split] = self._ids[split].are_unique
            if "place" in files.columns and not named[split]:
                self._ids[split] = files.texts("place")[rows.start : rows.stop]

    def save(self, path: Path) -> None:
        """Write the manifest as one Arrow file, which other processes map into memory.

        Raises:
            OSError: It cannot be written.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        errors = {
            split: {place: [type(error).__name__, *error.args] for place, error in found.items()}
            for split, found in self.rejected.items()
        }
        notes = {
            "kind": self.files.kind,
            "files": self.files.notes,
            "categories": self.categories,
            "rejected": errors,
            "preprocessing": self._preprocessing,
            "summary": self.summary and self.summary.to_json(),
            "has_times": self.has_times,
        }
        given = {f"{_GIVEN}{name}": column for name, column in self.columns.items()}
        save_columns(path, {**self.files.columns, **given}, self.files.shared, notes)

    @classmethod
    def open(cls, path: Path) -> "Manifest":
        """Map a saved manifest into memory.

        Raises:
            OSError: It cannot be read.
        """
        columns, notes = open_columns(path)
        given = {name for name in columns if name.startswith(_GIVEN)}
        module, _, name = notes["kind"].partition(":")
        files = getattr(import_module(module), name)(
            {name: column for name, column in columns.items() if name not in given}, notes["files"]
        )
        rejected = {
            split: {place: _ERRORS[kind](*args) for place, (kind, *args) in found.items()}
            for split, found in notes["rejected"].items()
        }
        summary = notes["summary"]
        manifest = cls(
            notes["categories"],
            files,
            rejected,
            notes["preprocessing"],
            summary and ScanSummary.from_json(summary),
            {name.removeprefix(_GIVEN): columns[name] for name in sorted(given)},
            notes["has_times"],
        )
        manifest._path = path
        return manifest

    def __reduce_ex__(self, protocol: Any) -> Any:  # noqa: ANN401  # whatever a pickle takes
        if self._path:  # workers map the file, instead of copying it
            return Manifest.open, (self._path,)
        return super().__reduce_ex__(protocol)

    def __len__(self) -> int:
        return len(self.lengths)

    def locate(self, position: int) -> tuple[VideoFile, int]:
        """Return the file that holds the video at `position`, and its index in that file."""
        number, index = self.files.locate(position)
        return self.files.make(number), index

    def locate_row(self, position: int) -> tuple[str, int]:
        """Return the split of the video at `position`, and its row in the split's feature file."""
        for split, rows in self.positions.items():
            if position in rows:
                return split, position - rows.start
        raise IndexError(position)

    def find_rows(self, split: str, rows: range | None = None) -> range:
        """Return the positions of rows of a split; by default, of all."""
        found = self.positions[split]
        return found if rows is None else found[rows.start : rows.stop]

    def find_categories(self, split: str) -> set[str]:
        """Return the categories that a split has videos of."""
        rows = self.positions[split]
        codes = self.files.numbers("home")[rows.start : rows.stop]
        found = (self.files.homes[code].category for code in np.unique(codes).tolist())
        return {category for category in found if category is not None}

    def labels(self, split: str, rows: range | None = None) -> NDArray[np.int64]:
        """Return the label `[rows]` of each video of a split, or of some of its rows."""
        chosen = self.find_rows(split, rows)
        homes = self.files.numbers("home")[chosen.start : chosen.stop]
        categories = (home.category for home in self.files.homes)
        labels = [self.categories.get(category or "", UNLABELLED) for category in categories]
        found: NDArray[np.int64] = np.array(labels, np.int64)[homes]
        return found

    def identities(self, split: str, rows: range | None = None) -> NDArray[np.bytes_]:
        """Return the content hash of each video of a split; see `MadeOf`.

        Returns:
            SHA-256 in hexadecimal digits `[rows]`, S64; empty where it is not known.
        """
        chosen = self.find_rows(split, rows)
        return to_hex(self.files.numbers("made_of")[chosen.start : chosen.stop])

    def find_digests(
        self,
        split: str,
        rows: Collection[int],
        sizes: NDArray[np.int64] | None = None,
        progress: bool = False,
        note: Callable[[str, CacheEntry], object] = lambda name, entry: None,
    ) -> None:
        """Hash the files of some videos of a split.

        A scan does not read all bytes of a clip, and so its digest may not be known. A file that
        has changed since the scan, or cannot be read, is skipped here and refused when it is read.

        Hashes that a process finds after the manifest was saved stay in this process; workers find
        them again when they read a clip.

        Args:
            split: The split.
            rows: The videos.
            sizes: Hash only files of one of these sizes in bytes, or of the size of a file whose
                digest is known, as only these may be copies; by default, hash all.
            progress: Show a progress bar.
            note: Is called with the name and the cache entry of each input that was hashed.
        """
        positions = self.positions[split].start + np.fromiter(rows, np.int64, len(rows))
        self.files.find_digests(positions, sizes, note, progress)

    def select_columns(self, split: str, rows: range | None = None) -> dict[str, NDArray[Any]]:
        """Return the other columns of a split, by name `[rows]`: numbers, or objects for text."""
        chosen = self.find_rows(split, rows)
        found = {}
        for name, column in self.columns.items():
            values = column[chosen.start : chosen.stop]
            found[name] = values.to_array() if isinstance(values, Texts) else values
        return found

    def video_ids(self, split: str, rows: range | None = None) -> Texts:
        """Return the id of each video of a split: its name, or its place if names recur."""
        ids = self._ids[split]
        return ids if rows is None else ids[rows.start : rows.stop]

    def preprocessing(self, split: str | None = None) -> dict[str, Any]:
        """Return the preprocessing of the data set, or of one split.

        What is recorded counts, where it is true of the videos. Otherwise it follows from them; a
        value is None where they differ, or where it is unknown.
        """
        found = self._find_preprocessing(split)
        recorded = self._preprocessing
        return found if recorded is None else {**recorded, **self._find_untrue(found)}

    @property
    def untrue(self) -> dict[str, Any]:
        """The recorded settings that are not true of the videos."""
        untrue = self._find_untrue(self._find_preprocessing())
        return {name: (self._preprocessing or {}).get(name) for name in untrue}

    def _find_untrue(self, found: Mapping[str, Any]) -> dict[str, Any]:
        """Return the true values of the recorded settings that are not true of the videos."""
        recorded, untrue = self._preprocessing or {}, {}
        for name in ("frames_per_video", "image_size"):
            value = recorded.get(name)
            square = [value, value] if name == "image_size" else value
            if value is not None and found[name] not in (value, square):
                untrue[name] = found[name]
        return untrue

    def _find_preprocessing(self, split: str | None = None) -> dict[str, Any]:
        lengths, heights, widths = (
            self.find_values(name, split) for name in ("length", "height", "width")
        )
        size = [*heights, *widths]
        return {
            "frames_per_video": lengths.pop() if len(lengths) == 1 else None,
            "image_size": size if len(size) == 2 and heights and widths else None,
            "processing_mode": None,
        }

    def find_values(
        self, name: Literal["length", "height", "width"], split: str | None = None
    ) -> set[int]:
        """Return the different lengths, heights or widths of all videos, or of one split."""
        rows = self.positions[split] if split else range(len(self))
        values = self.files.numbers(name)[rows.start : rows.stop]
        return {*np.unique(values[:1] if is_constant(values) else values).tolist()}


def _find_splits(files: Files) -> dict[str, tuple[int, int]]:
    """Return the position of the first video of each split, and of the one after its last."""
    homes = files.numbers("home")
    bounds = [0, len(homes)]
    if len(homes) and not is_constant(homes):
        splits = [home.split for home in files.homes]
        codes = np.array([splits.index(split) for split in splits])[homes]
        bounds = [0, *(np.flatnonzero(np.diff(codes)) + 1).tolist(), len(homes)]
    return {
        files.homes[homes[start]].split: (start, stop)
        for start, stop in pairwise(bounds)
        if start < stop
    }


def missing_categories(manifest: Manifest) -> dict[str, list[str]]:
    """Return the categories without a video, for each split that has such categories."""
    missing = {}
    for split in manifest.positions:
        present = manifest.find_categories(split)
        if absent := [name for name in manifest.categories if name not in present]:
            missing[split] = absent
    return missing
