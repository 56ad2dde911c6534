"""Which videos a data set holds, in which order and with which labels.

What every kind of source shares is here: a scanner is a function from `ScanSettings` to a
`Manifest`, whose files are of a class of their own that is a `VideoFile`.
"""

import hashlib
from abc import ABC, abstractmethod
from bisect import bisect
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featx.console import make_bar
from featx.data.choices import LayoutName, OnError
from featx.data.folders import natural_key, normalize_name
from featx.data.known import Facts, Known
from featx.data.pixels import PixelsName, Span
from featx.data.preprocessing import Preprocessing
from featx.data.summary import ScanSummary, Used, summarize
from featx.errors import ChangedInputError, InputError, combine
from featx.parallel import map_ahead

ANALYSIS_FILE = "configuration_analysis.json"
"""In a data set's folder, `preprocessing_info` says how its videos were made."""

_TOLD = 200  # bad inputs that a person is told of at once
_DIGEST_THREADS = 4

UNLABELLED = -1
"""The label of a video without a category."""

CPU = torch.device("cpu")


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
        known: What earlier scans have found.
    """

    root: Path
    splits: Sequence[str] | None = None
    on_error: OnError = "stop"
    verify: bool = False
    preprocessing: Preprocessing = Preprocessing()  # noqa: RUF009  # it is frozen
    progress: bool = False
    pixels: PixelsName = "normalized"
    thorough: bool = False
    strict: bool = True
    layout: LayoutName = "tree"
    table: Path | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    known: Known = field(default_factory=Known)


class Home(NamedTuple):
    """Where a video belongs.

    Attributes:
        split: Its split.
        category: Its category; None if it has none.
    """

    split: str
    category: str | None


class Video(NamedTuple):
    """A video as it was read.

    Attributes:
        frames: Pixels `[T, 3, H, W]`.
        span: The lowest and the highest of floating pixels.
        damage: What is missing or damaged; empty for nearly all.
        times: When each frame is shown, float32 `[T]`, in seconds from the beginning of its clip;
            NaN where that is not known; None if nobody has noted it.
        made_of: What it is made of.
    """

    frames: Tensor
    span: Span | None = None
    damage: str = ""
    times: NDArray[np.float32] | None = None
    made_of: "MadeOf | None" = None


class MadeOf(NamedTuple):
    """What a video is made of.

    Attributes:
        sha256: Of its content, and of what was taken of it: segment, box, sampling and size. Names,
            places and labels are no part of it.
        file_digest: SHA-256 of its file, if all of that has been read.
    """

    sha256: str
    file_digest: str = ""


@dataclass(frozen=True, slots=True)
class VideoFile(ABC):
    """One file of videos, of whatever kind.

    Attributes:
        path: Its path.
        place: Where it is in the data set: split, category and subcategory.
        digest: SHA-256 that changes with the content; empty if nobody has read it yet.
    """

    path: Path
    place: str
    digest: str

    @property
    @abstractmethod
    def shapes(self) -> Sequence[tuple[int, ...]]:
        """`[T, 3, H, W]` of each video, without those rejected."""

    @property
    @abstractmethod
    def names(self) -> Sequence[str]:
        """Name of each video, as the file has it."""

    @property
    @abstractmethod
    def places(self) -> Sequence[str]:
        """Place of each video in the data set, which tells it from all others."""

    @property
    def pixels(self) -> PixelsName:
        """What its pixels are, where they are floating point; uint8 is raw RGB."""
        return "normalized"

    @property
    def traits(self) -> Sequence[str]:
        """What its videos are that RGB of 8 bits is not, such as HDR."""
        return ()

    @property
    def is_plain(self) -> bool:
        """Whether it was always converted to RGB as it is now."""
        return True

    @property
    @abstractmethod
    def identities(self) -> Sequence[str]:
        """What each video is made of, see `MadeOf`; empty as long as it is not known."""

    def find_digest(self) -> "VideoFile":
        """The same file with its digest, for which all of it may have to be read.

        Raises:
            ChangedInputError: It has changed since the scan, or cannot be read any more.
        """
        return self

    @property
    def size(self) -> int | None:
        """Bytes of it, if that is worth knowing."""
        return self.facts[1].stats[0] if self.facts else None

    @property
    def facts(self) -> tuple[str, Facts] | None:
        """Its name, and what is worth knowing of it the next time; None if nothing is."""
        return None

    @abstractmethod
    def read(self, index: int, device: torch.device = CPU) -> Video:
        """Read one video.

        Args:
            index: Which of those in `shapes`.
            device: Where it may be decoded; its frames are on the CPU then.

        Raises:
            InputError: The video is bad.
            ChangedInputError: The file has changed since the scan, or cannot be read any more.
        """

    @property
    def lengths(self) -> list[int]:
        """Number of frames of each video."""
        return [shape[0] for shape in self.shapes]

    @property
    def split(self) -> str:
        """The folder of the split."""
        return self.place.split("/")[0]

    @property
    def category(self) -> str | None:
        """The category: the name of its folder; None if there is none."""
        return normalize_name(self.place.split("/")[1])

    @property
    def identity(self) -> tuple[object, ...]:
        """What tells it from others, in the data set or out of it."""
        return self.place, self.path.name, self.digest

    def name_place(self, index: int) -> str:
        """The place in the data set of what is at an index of the file."""
        return f"{self.place}/{index}"


class Rejections(dict[str, dict[str, InputError]]):
    """What a scan leaves out of each split: by its place, what is wrong with it."""

    def __init__(self, splits: Sequence[str]) -> None:
        super().__init__({split: {} for split in splits})

    @contextmanager
    def collect(self, split: str, place: str) -> Iterator[None]:
        """Keep an error for later, by the place where it is."""
        try:
            yield
        except InputError as error:
            self[split][place] = error

    def check(self, settings: ScanSettings, files: Sequence[VideoFile]) -> None:
        """Check that nothing is rejected; or, if that is left out, that each split has others.

        Raises:
            InputError: All that is wrong, together.
        """
        if not settings.strict:
            return
        skips = settings.on_error == "skip"
        filled = {file.split for file in files} if skips else set()
        errors = [
            error
            for split, found in self.items()
            if split not in filled
            for _, error in sorted(found.items(), key=lambda item: natural_key(item[0]))
        ]
        if errors:
            others, way_out = f"{len(errors)} others", "Mend or remove them"
            if skips:
                others += " and no good one beside them"
            else:
                way_out += ", or set on_error to skip to leave them out"
            found = f"expected inputs that featx accepts, found {others}. {way_out}."
            raise combine(f"{settings.root}: {found}", errors, _TOLD)


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
        summary: What the scan has found, and what it has left out; None if nobody has looked.
        columns: What else is known of each video, by name `[num_videos]`: text or numbers.
        has_times: Whether it is worth recording when frames are shown.
    """

    def __init__(
        self,
        root: Path,
        categories: dict[str, int],
        files: Sequence[VideoFile],
        rejected: Mapping[str, Mapping[str, InputError]],
        preprocessing: Mapping[str, Any] | None = None,
        summary: ScanSummary | None = None,
        columns: Mapping[str, NDArray[Any]] | None = None,
        has_times: bool = False,
    ) -> None:
        self.root = root
        self.columns = columns or {}
        self.has_times = has_times
        self.summary = summary
        self.rejected = rejected
        self._preprocessing = preprocessing
        self.categories = categories
        self.files = tuple(files)
        lengths = chain.from_iterable(file.lengths for file in files)
        self.lengths: NDArray[np.int64] = np.fromiter(lengths, np.int64)
        counts = np.fromiter((len(file.shapes) for file in files), np.int64)
        self._starts: NDArray[np.int64] = np.concatenate([[0], np.cumsum(counts)])
        self.positions: dict[str, range] = {}
        for file, start, stop in zip(files, self._starts, self._starts[1:], strict=False):
            first = self.positions.get(file.split, range(int(start), 0)).start
            self.positions[file.split] = range(first, int(stop))

    def __len__(self) -> int:
        return len(self.lengths)

    def locate(self, position: int) -> tuple[VideoFile, int]:
        """The file that holds the video at `position`, and its index in that file."""
        number = bisect(self._starts, position) - 1
        return self.files[number], position - int(self._starts[number])

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
        counts = [len(file.shapes) for file in files]
        labels = [self.categories.get(file.category or "", UNLABELLED) for file in files]
        return np.repeat(np.array(labels, np.int64), counts)

    def identities(self, split: str) -> list[str]:
        """What each video of a split is made of, as far as it is known; see `MadeOf`."""
        return [identity for file in self.select(split) for identity in file.identities]

    def find_digests(
        self,
        split: str,
        rows: Collection[int],
        sizes: Collection[int] | None = None,
        progress: bool = False,
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
        """
        start = self.positions[split].start
        starts = self._starts.tolist()
        numbers = sorted({bisect(starts, start + row) - 1 for row in rows})
        numbers = [number for number in numbers if not self.files[number].digest]
        if sizes is not None:
            known = {*sizes, *(file.size for file in self.files if file.digest)}
            numbers = [number for number in numbers if self.files[number].size in known]
        by_path: dict[Path, list[int]] = {}
        for number in numbers:
            by_path.setdefault(self.files[number].path, []).append(number)
        files = [*self.files]

        def find(path: Path) -> VideoFile:
            return files[by_path[path][0]].find_digest()

        with closing(map_ahead(find, [*by_path], _DIGEST_THREADS, "digests")) as ahead:
            for path, finding in make_bar(ahead, "Reading", len(by_path), "clip", progress):
                with suppress(ChangedInputError):
                    digest = finding.result().digest
                    for number in by_path[path]:
                        files[number] = replace(files[number], digest=digest)
        self.files = tuple(files)

    def select_columns(self, split: str) -> dict[str, NDArray[Any]]:
        """What else is known of the videos of a split, by name `[rows]`."""
        rows = self.positions[split]
        return {name: values[rows.start : rows.stop] for name, values in self.columns.items()}

    def digest(
        self, split: str, left_out: Collection[str] = (), absent: Collection[str] = ()
    ) -> str:
        """SHA-256 that identifies the files of a split and their content, and what is rejected.

        It is what feature files of format 1 record of their inputs.

        Args:
            split: The split.
            left_out: Names of files that count as rejected.
            absent: Names of files that count as not there.
        """
        # That of `repr((identities, rejected))`, which may be long.
        digest = hashlib.sha256(b"([")
        files = self.select(split)
        if out := {*left_out, *absent}:
            files = [file for file in files if not {*file.names} <= out]
        for number, file in enumerate(files):
            digest.update((", " * (number > 0) + repr(file.identity)).encode())
        digest.update(f"], {sorted({*self.rejected[split], *left_out})!r})".encode())
        for name, values in self.select_columns(split).items():
            digest.update(repr((name, values.tolist())).encode())
        return digest.hexdigest()

    def video_ids(self, split: str) -> list[str]:
        """Name of each video of a split; that of its clip, if they tell all videos apart."""
        files = self.select(split)
        names = [name for file in files for name in file.names]
        if len(set(names)) == len(names):
            return names
        return [place for file in files for place in file.places]

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
        files = self.select(split) if split else self.files
        shapes = {shape for file in files for shape in file.shapes}
        lengths, sizes = {shape[0] for shape in shapes}, {shape[2:] for shape in shapes}
        return {
            "frames_per_video": lengths.pop() if len(lengths) == 1 else None,
            "image_size": [*sizes.pop()] if len(sizes) == 1 else None,
            "processing_mode": None,
        }


def summarize_scan(
    settings: ScanSettings,
    files: Sequence[VideoFile],
    rejected: Rejections,
    known: Collection[Path],
    is_input: Callable[[str], bool],
    found: Iterable[tuple[str, ...]],
) -> ScanSummary:
    """What a scan has found and left out; see `summarize`."""
    used = (
        Used(file.path, file.split, file.category, len(file.shapes), file.traits) for file in files
    )
    in_splits = settings.layout == "tree" and settings.table is None
    return summarize(settings.root, [*rejected], used, rejected, known, is_input, found, in_splits)


def missing_categories(manifest: Manifest) -> dict[str, list[str]]:
    """Categories without a video, for each split that lacks some."""
    missing = {}
    for split in manifest.positions:
        present = {file.category for file in manifest.select(split)}
        if absent := [name for name in manifest.categories if name not in present]:
            missing[split] = absent
    return missing
