"""Which videos a data set holds, in which order and with which labels.

What every kind of source shares is here: a scanner is a function from `ScanSettings` to a
`Manifest`. What it has found is in columns, of a class of its own that is a `Files`, which makes a
`VideoFile` when one is asked for.
"""

import json
from abc import abstractmethod
from bisect import bisect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from featx.data.choices import LayoutName, OnError, ScanName
from featx.data.columns import (
    Column,
    Texts,
    are_unique,
    is_constant,
    open_columns,
    save_columns,
    to_hex,
)
from featx.data.pixels import PixelsName
from featx.data.preprocessing import Preprocessing
from featx.data.scan_cache import CacheEntry, ScanCache
from featx.data.storage import Place
from featx.data.summary import ScanSummary
from featx.data.video_file import Home, VideoFile
from featx.errors import InputError, MissingInputError

ANALYSIS_FILE = "configuration_analysis.json"
"""In a data set's folder, `preprocessing_info` says how its videos were made."""

_COLUMNS_FILE, _NOTES_FILE = "videos.columns", "manifest.json"
_ERRORS = {kind.__name__: kind for kind in (InputError, MissingInputError)}
_GIVEN = "given/"  # begins the names of columns that a table has beside those with a meaning

UNLABELLED = -1
"""The label of a video without a category."""


@dataclass(frozen=True, slots=True)
class ScanSettings:
    """What a scanner is asked for.

    Attributes:
        root: The data set's folder.
        splits: Which splits; by default, whichever of train, val and test exist.
        on_error: Whether bad inputs stop the scan, all of them reported together, or are left out.
        verify: Read every byte, and compare it with the files' own checksums, where they have some.
        preprocessing: How clips become videos.
        progress: Show a progress bar.
        pixels: What floating pixels are, where files do not say.
        thorough: Read every packet of a clip, which tells most damage; otherwise, what can wait is
            found when a clip is read.
        strict: Whether bad inputs are an error at all, if that is what `on_error` says.
        layout: How clips lie in the folder.
        table: A table of the videos, instead of folders.
        columns: What the columns of the table are called, by what they are.
        scan_cache: What earlier scans have found.
        scan: Whether every input is opened; or, of clips whose lengths follow without it, those of
            which nothing is known are when they are read, and bad ones are found then.
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


class Files(Sequence[VideoFile]):
    """The files of a scan, in columns: each is made when it is asked for.

    Every kind has these columns, and others of its own. Of a video: `length`, `height` and `width`,
    which are those of all frames; `name`; `place`, where that is another; and `made_of`, see
    `MadeOf`. Of a file: `home`, which of the homes; and `start`, the position of its first video,
    and of the one after its last, where files have not one video each.

    Args:
        columns: The columns.
        notes: What else there is to know, as JSON has it; of every kind `homes`, the split and the
            category of each.
    """

    kind: str
    """Where the class is: `module:name`."""

    def __init__(self, columns: Mapping[str, Column], notes: Mapping[str, Any]) -> None:
        self.columns = dict(columns)
        self.notes = dict(notes)
        self.homes = [Home(*home) for home in notes["homes"]]
        self._starts = self.numbers("start").data if "start" in self.columns else None

    def __reduce__(self) -> Any:  # noqa: ANN401  # whatever a pickle takes
        return type(self), (self.columns, self.notes)

    @abstractmethod
    def make(self, number: int) -> VideoFile:
        """One file."""

    @property
    def tells_content(self) -> bool:
        """Whether what a video is made of follows from its content alone."""
        return True

    def find_digests(
        self,
        numbers: NDArray[np.int64],
        sizes: NDArray[np.int64] | None,
        note: Callable[[str, CacheEntry], object],
        progress: bool,
    ) -> None:
        """Find the digests of some files, where these are not known from the scan.

        Args:
            numbers: The files.
            sizes: Only those of files of so many bytes, or of the size of another one whose digest
                is known; by default, of all.
            note: Takes what is learned: the name of an input, and entry.
            progress: Show a progress bar.
        """

    def numbers(self, name: str) -> NDArray[Any]:
        """A column of numbers."""
        column = self.columns[name]
        assert isinstance(column, np.ndarray)
        return column

    def texts(self, name: str) -> Texts:
        """A column of texts."""
        column = self.columns[name]
        assert isinstance(column, Texts)
        return column

    def __len__(self) -> int:
        return len(self.columns["home"])

    @overload
    def __getitem__(self, numbers: int) -> VideoFile: ...

    @overload
    def __getitem__(self, numbers: slice) -> Sequence[VideoFile]: ...

    def __getitem__(self, numbers: int | slice) -> VideoFile | Sequence[VideoFile]:
        if isinstance(numbers, slice):
            return [self.make(number) for number in range(len(self))[numbers]]
        return self.make(range(len(self))[numbers])

    def locate(self, position: int) -> tuple[int, int]:
        """Which file has the video at a position, and at which index."""
        if self._starts is None:
            return position, 0
        number = bisect(self._starts, position) - 1
        return number, position - self._starts[number]

    def span(self, number: int) -> range:
        """The positions of the videos of a file."""
        if self._starts is None:
            return range(number, number + 1)
        return range(self._starts[number], self._starts[number + 1])

    def repeat(self, positions: range) -> NDArray[np.int64]:
        """The number of the file of each video."""
        if self._starts is None or not positions:
            return np.arange(positions.start, positions.stop)
        first, last = (self.locate(position)[0] for position in (positions[0], positions[-1]))
        bounds = self.numbers("start")[first : last + 2].astype(np.int64)
        counts = np.diff(bounds.clip(positions.start, positions.stop))
        return np.repeat(np.arange(first, last + 1), counts)


class Manifest:
    """All videos of the splits asked for, each at its position.

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
        summary: What the scan has found, and what it has left out; None if nobody has looked.
        columns: What else is known of each video, by name `[num_videos]`: text or numbers.
        has_times: Whether it is worth recording when frames are shown.
    """

    def __init__(
        self,
        root: Place,
        categories: dict[str, int],
        files: Files,
        rejected: Mapping[str, Mapping[str, InputError]],
        preprocessing: Mapping[str, Any] | None = None,
        summary: ScanSummary | None = None,
        columns: Mapping[str, Column] | None = None,
        has_times: bool = False,
    ) -> None:
        self.root = str(root)
        self.columns = columns or {}
        self.has_times = has_times
        self.summary = summary
        self.rejected = rejected
        self._preprocessing = preprocessing
        self.categories = categories
        self.files = files
        self._folder: Path | None = None
        self.lengths = files.numbers("length")
        if "splits" not in files.notes:
            files.notes["splits"] = _find_splits(files)
        self.numbers = {split: range(*bounds) for split, bounds in files.notes["splits"].items()}
        self.positions = {
            split: range(files.span(numbers[0]).start, files.span(numbers[-1]).stop)
            for split, numbers in self.numbers.items()
        }
        named = files.notes.setdefault("named", {})  # the splits whose videos names tell apart
        self._ids: dict[str, Texts] = {}
        for split, rows in self.positions.items():
            self._ids[split] = files.texts("name")[rows.start : rows.stop]
            if split not in named:
                named[split] = are_unique(self._ids[split])
            if "place" in files.columns and not named[split]:
                self._ids[split] = files.texts("place")[rows.start : rows.stop]

    def save(self, folder: Path) -> None:
        """Write all of it into a folder, which must not exist.

        Raises:
            OSError: It cannot be written.
        """
        folder.mkdir(parents=True)
        columns = {f"{_GIVEN}{name}": column for name, column in self.columns.items()}
        save_columns(folder / _COLUMNS_FILE, {**self.files.columns, **columns})
        errors = {
            split: {place: [type(error).__name__, *error.args] for place, error in found.items()}
            for split, found in self.rejected.items()
        }
        content = {
            "kind": self.files.kind,
            "notes": self.files.notes,
            "root": self.root,
            "categories": self.categories,
            "rejected": errors,
            "preprocessing": self._preprocessing,
            "summary": self.summary and self.summary.to_json(),
            "has_times": self.has_times,
        }
        (folder / _NOTES_FILE).write_text(json.dumps(content))

    @classmethod
    def open(cls, folder: Path) -> "Manifest":
        """What `save` has written; its columns are mapped, and shared with other processes.

        Raises:
            OSError: It cannot be read.
        """
        content = json.loads((folder / _NOTES_FILE).read_text())
        columns = open_columns(folder / _COLUMNS_FILE)
        given = {name for name in columns if name.startswith(_GIVEN)}
        module, _, name = content["kind"].partition(":")
        files = getattr(import_module(module), name)(
            {name: column for name, column in columns.items() if name not in given},
            content["notes"],
        )
        rejected = {
            split: {place: _ERRORS[kind](*args) for place, (kind, *args) in found.items()}
            for split, found in content["rejected"].items()
        }
        summary = content["summary"]
        manifest = cls(
            content["root"],
            content["categories"],
            files,
            rejected,
            content["preprocessing"],
            summary and ScanSummary.from_json(summary),
            {name.removeprefix(_GIVEN): columns[name] for name in sorted(given)},
            content["has_times"],
        )
        manifest._folder = folder
        return manifest

    def __reduce_ex__(self, protocol: Any) -> Any:  # noqa: ANN401  # whatever a pickle takes
        if self._folder:  # the columns are in it
            return Manifest.open, (self._folder,)
        return super().__reduce_ex__(protocol)

    def __len__(self) -> int:
        return len(self.lengths)

    def locate(self, position: int) -> tuple[VideoFile, int]:
        """The file that holds the video at `position`, and its index in that file."""
        number, index = self.files.locate(position)
        return self.files.make(number), index

    def locate_row(self, position: int) -> tuple[str, int]:
        """The split of the video at `position`, and its row in the split's feature file."""
        for split, rows in self.positions.items():
            if position in rows:
                return split, position - rows.start
        raise IndexError(position)

    def select(self, split: str) -> Iterator[VideoFile]:
        """The files of a split, one by one."""
        return map(self.files.make, self.numbers[split])

    def find_rows(self, split: str, rows: range | None = None) -> range:
        """The positions of rows of a split; by default, of all."""
        found = self.positions[split]
        return found if rows is None else found[rows.start : rows.stop]

    def find_categories(self, split: str) -> set[str]:
        """The categories that a split has videos of."""
        numbers = self.numbers[split]
        codes = self.files.numbers("home")[numbers.start : numbers.stop]
        found = (self.files.homes[code].category for code in np.unique(codes).tolist())
        return {category for category in found if category is not None}

    def labels(self, split: str, rows: range | None = None) -> NDArray[np.int64]:
        """Label `[rows]` of each video of a split, or of some rows of it."""
        homes = self.files.numbers("home")[self.files.repeat(self.find_rows(split, rows))]
        categories = (home.category for home in self.files.homes)
        labels = [self.categories.get(category or "", UNLABELLED) for category in categories]
        found: NDArray[np.int64] = np.array(labels, np.int64)[homes]
        return found

    def identities(self, split: str, rows: range | None = None) -> NDArray[np.bytes_]:
        """What each video of a split is made of, as far as it is known; see `MadeOf`.

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
        """Find the digests of the files of some videos of a split.

        Those of clips are not known until all of their bytes are read. A file that has changed
        since the scan, or cannot be read, stays without: that is told when its turn comes.

        Args:
            split: The split.
            rows: The videos.
            sizes: Only those of files of so many bytes, or of the size of another one whose digest
                is known: which may be copies; by default, of all.
            progress: Show a progress bar.
            note: Takes what is learned: the name of an input, and entry.
        """
        positions = self.positions[split].start + np.fromiter(rows, np.int64, len(rows))
        numbers = positions
        if "start" in self.files.columns:
            numbers = np.searchsorted(self.files.numbers("start"), positions, side="right") - 1
        self.files.find_digests(numbers, sizes, note, progress)

    def select_columns(self, split: str, rows: range | None = None) -> dict[str, NDArray[Any]]:
        """What else is known of the videos of a split, by name `[rows]`: numbers, or objects."""
        chosen = self.find_rows(split, rows)
        found = {}
        for name, column in self.columns.items():
            values = column[chosen.start : chosen.stop]
            found[name] = values.to_array() if isinstance(values, Texts) else values
        return found

    def video_ids(self, split: str, rows: range | None = None) -> Texts:
        """Name of each video of a split; that of its clip, if they tell all videos apart."""
        ids = self._ids[split]
        return ids if rows is None else ids[rows.start : rows.stop]

    def preprocessing(self, split: str | None = None) -> dict[str, Any]:
        """How the videos of the data set, or of one split, were made from clips.

        What is recorded counts, where it is true of the videos. Otherwise it follows from them; a
        value is None where they differ, or where it is unknown.
        """
        found = self._find_preprocessing(split)
        recorded = self._preprocessing
        return found if recorded is None else {**recorded, **self._find_untrue(found)}

    @property
    def untrue(self) -> dict[str, Any]:
        """What the record of the data set says that is not true of its videos."""
        untrue = self._find_untrue(self._find_preprocessing())
        return {name: (self._preprocessing or {}).get(name) for name in untrue}

    def _find_untrue(self, found: Mapping[str, Any]) -> dict[str, Any]:
        """What is true of videos instead of what is recorded, where the two differ."""
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
        """The different lengths, heights or widths of the videos of all splits, or of one."""
        rows = self.positions[split] if split else range(len(self))
        values = self.files.numbers(name)[rows.start : rows.stop]
        return {*np.unique(values[:1] if is_constant(values) else values).tolist()}


def _find_splits(files: Files) -> dict[str, tuple[int, int]]:
    """The number of the first file of each split, and of the one after its last; in order."""
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
    """Categories without a video, for each split that lacks some."""
    missing = {}
    for split in manifest.positions:
        present = manifest.find_categories(split)
        if absent := [name for name in manifest.categories if name not in present]:
            missing[split] = absent
    return missing
