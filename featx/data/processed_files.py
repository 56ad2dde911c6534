"""`processed_data.pt` files that were scanned, in columns; their headers are read once more."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from featx.data.columns import (
    Column,
    DigestColumn,
    NumberColumn,
    TextColumn,
    Texts,
    are_unique,
    get_hex,
)
from featx.data.folders import normalize_name
from featx.data.manifest import Files
from featx.data.pixels import PixelsName
from featx.data.processed_file import (
    FILE_NAME,
    ProcessedFile,
    open_processed_file,
    unreadable,
)
from featx.data.scan_cache import Stats
from featx.data.storage import Place, join, open_file
from featx.data.video_file import CPU, Home, Video, VideoFile
from featx.errors import ChangedInputError, InputError, first_line


class Header(NamedTuple):
    """What a scan has to know of a file.

    Attributes:
        digest: See `VideoFile`.
        stats: See `file_stats`.
        videos: For each video its index in the file, and `T`, `H` and `W` of it.
        names: What each is called, if the file says so.
        made_of: What each is made of.
        rejected: Index of each video that featx does not accept, and why.
        columns: What else a table has said of each.
        has_times: Whether the file has notes of when frames are shown.
        tells_content: Whether what a video is made of follows from its own content alone.
    """

    digest: str
    stats: Stats
    videos: Sequence[tuple[int, int, int, int]]
    names: Sequence[str] | None
    made_of: Sequence[str]
    rejected: Mapping[int, InputError]
    columns: Sequence[Mapping[str, Any]] | None
    has_times: bool
    tells_content: bool

    @classmethod
    def of(cls, file: ProcessedFile) -> "Header":
        """Of a file that was opened."""
        shapes = zip(file.indices, file.shapes, strict=True)
        return cls(
            file.digest,
            file.stats,
            [(index, length, height, width) for index, (length, _, height, width) in shapes],
            file.names if file.clips else None,
            file.identities,
            file.rejected,
            [file.columns[index] for index in file.indices] if file.columns else None,
            bool(file.times),
            bool(file.sha256),
        )

    def to_json(self) -> dict[str, Any]:
        """What is kept of it for the next time, beside digest and stats.

        Nothing is of a file with videos that are rejected: the errors name its path.
        """
        if self.rejected:
            return {}
        runs: list[list[int]] = []  # videos of one shape that follow each other
        for index, *shape in self.videos:
            if runs and runs[-1][2:] == shape and runs[-1][0] + runs[-1][1] == index:
                runs[-1][1] += 1
            else:
                runs.append([index, 1, *shape])
        kept: dict[str, Any] = {
            "videos": runs,
            "made_of": [*self.made_of],
            "notes": [self.has_times, self.tells_content],
        }
        if self.names is not None:
            kept["names"] = [*self.names]
        if self.columns is not None:
            kept["columns"] = [dict(cells) for cells in self.columns]
        return {"header": kept}

    @classmethod
    def from_json(cls, kept: Mapping[str, Any], digest: str, stats: Stats) -> "Header | None":
        """What was kept; None if it is nothing of the kind."""
        try:
            header = kept["header"]
            videos = [
                (index + i, length, height, width)
                for index, count, length, height, width in header["videos"]
                for i in range(count)
            ]
            has_times, tells_content = header["notes"]
            names, columns, made_of = header.get("names"), header.get("columns"), header["made_of"]
        except (KeyError, TypeError, ValueError, AttributeError):
            return None
        return cls(digest, stats, videos, names, made_of, {}, columns, has_times, tells_content)


class ProcessedColumns:
    """What a scan keeps of files, while they are found."""

    def __init__(self) -> None:
        self._places, self._digests = TextColumn(), DigestColumn()
        self._files = {name: NumberColumn() for name in ("home", "size", "time", "start")}
        self._homes: dict[Home, int] = {}
        self._names, self._made_of = TextColumn(), DigestColumn()
        self._videos = {name: NumberColumn() for name in ("index", "length", "height", "width")}
        self._have_times = self._tells_content = True

    def append(self, place: str, header: Header) -> None:
        """Add a file."""
        split, category, _ = place.split("/")
        home = Home(split, normalize_name(category))
        self._have_times = self._have_times and header.has_times
        self._tells_content = self._tells_content and header.tells_content
        self._places.append(place)
        self._digests.append(header.digest)
        code = self._homes.setdefault(home, len(self._homes))
        start = len(self._videos["index"])
        for column, value in zip(self._files.values(), (code, *header.stats, start), strict=True):
            column.append(value)
        for number, video in enumerate(header.videos):
            for column, value in zip(self._videos.values(), video, strict=True):
                column.append(value)
            self._names.append(header.names[number] if header.names else f"{place}/{video[0]}")
            self._made_of.append(header.made_of[number])

    def freeze(self, root: Place, pixels: PixelsName) -> "ProcessedFiles":
        """All of them."""
        self._files["start"].append(len(self._videos["index"]))
        files, names = self._places.freeze(), self._names.freeze()
        columns: dict[str, Column] = {
            name: column.freeze() for name, column in (self._files | self._videos).items()
        }
        starts = columns["start"]
        if len(self._videos["index"]) == len(files):  # one a file
            del columns["start"]
        columns |= {
            "file": files,
            "digest": self._digests.freeze(),
            "name": names,
            "made_of": self._made_of.freeze(),
        }
        if not are_unique(names):
            counts = np.diff(np.asarray(starts).astype(np.int64)).tolist()
            of_videos = (place for place, n in zip(files, counts, strict=True) for _ in range(n))
            places = zip(of_videos, columns["index"], strict=True)
            columns["place"] = Texts.of(f"{place}/{index}" for place, index in places)
        notes = {
            "root": str(root),
            "homes": [*self._homes],
            "pixels": pixels,
            "have_times": self._have_times,
            "tells_content": self._tells_content,
        }
        return ProcessedFiles(columns, notes)


class ProcessedFiles(Files):
    """`processed_data.pt` files.

    Columns of a file are, beside the usual ones, `file`, its place; `digest`; and `size` and `time`
    of change. Those of a video are `index`, in the file.
    """

    kind = "featx.data.processed_files:ProcessedFiles"

    def __init__(self, columns: Mapping[str, Column], notes: Mapping[str, Any]) -> None:
        super().__init__(columns, notes)
        self._root = notes["root"]
        self._pixels: PixelsName = notes["pixels"]

    @property
    def tells_content(self) -> bool:
        """Whether all files have notes of what their videos are made of."""
        return bool(self.notes["tells_content"])

    @property
    def have_times(self) -> bool:
        """Whether all files have notes of when frames are shown."""
        return bool(self.notes["have_times"])

    def make(self, number: int) -> "ListedFile":
        """One file."""
        place = self.texts("file")[number]
        return ListedFile(
            join(self._root, f"{place}/{FILE_NAME}"),
            place,
            get_hex(self.numbers("digest"), number),
            (int(self.numbers("size")[number]), int(self.numbers("time")[number])),
            self,
            self.span(number),
            self._pixels,
        )


@dataclass(frozen=True, slots=True)
class ListedFile(VideoFile):
    """A `processed_data.pt` that was scanned; its header is read again when a video of it is.

    Attributes:
        stats: See `file_stats`.
        files: All files of the scan.
        positions: The positions of its videos.
        pixels: What they are, where they are floating point.
    """

    stats: Stats
    files: ProcessedFiles
    positions: range
    pixels: PixelsName = "normalized"

    def _select(self, name: str) -> NDArray[Any]:
        return self.files.numbers(name)[self.positions.start : self.positions.stop]

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """`[T, 3, H, W]` of each video."""
        columns = (self._select(name).tolist() for name in ("length", "height", "width"))
        sizes = zip(*columns, strict=True)
        return [(length, 3, height, width) for length, height, width in sizes]

    @property
    def names(self) -> list[str]:
        """Name of each video."""
        return [*self.files.texts("name")[self.positions.start : self.positions.stop]]

    @property
    def places(self) -> list[str]:
        """Place of each video in the data set."""
        return [self.name_place(index) for index in self._select("index")]

    @property
    def identities(self) -> list[str]:
        """What each video is made of."""
        made_of = self._select("made_of")
        return [get_hex(made_of, number) for number in range(len(made_of))]

    def read(self, index: int, device: torch.device = CPU) -> Video:
        """Read one video; see `ProcessedFile.read`.

        Raises:
            InputError: The video is bad.
            ChangedInputError: The file has changed since the scan, or cannot be read any more.
        """
        return _open(self.path, self.pixels, self.digest, self.stats).read(index, device)


@lru_cache(2)
def _open(path: str, pixels: PixelsName, digest: str, stats: Stats) -> ProcessedFile:
    """A file as it was scanned.

    Raises:
        ChangedInputError: It is another by now.
    """
    try:
        with open_file(path):
            file = open_processed_file(path, pixels=pixels)
    except OSError as error:
        raise unreadable(path, error) from error
    except InputError as error:
        raise ChangedInputError(
            f"{path}: expected the file that was scanned, found: {first_line(error)}. "
            "It was good when it was scanned: check the disk, and start again."
        ) from error
    if file.digest != digest:
        raise ChangedInputError(
            f"{path}: expected the file that was scanned, found another. "
            "It has changed since: start again."
        )
    return file
