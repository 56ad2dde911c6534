"""`processed_data.pt` files that were scanned, in columns; their headers are read once more."""

from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from featx.data.columns import Column, Texts, get_hex, shrink, to_digests
from featx.data.manifest import Files
from featx.data.media.pixels import PixelsName
from featx.data.media.processed_file import FILE_NAME, ProcessedFile, open_processed_file
from featx.data.media.video_file import CPU, Home, Video, VideoFile, changed, unreadable
from featx.data.scan_cache import CacheEntry, Stats
from featx.data.storage import Place, join, open_file
from featx.data.tree import normalize_name
from featx.errors import ChangedInputError, InputError, first_line


class Header(NamedTuple):
    """The contents of a file that a scan needs.

    Attributes:
        digest: See `VideoFile`.
        stats: See `file_stats`.
        videos: For each video its index in the file, and `T`, `H` and `W` of it.
        names: The name of each video, if the file has names.
        made_of: The content hash of each video.
        rejected: The error of each video that featx does not accept, by its index.
        columns: The other columns of a table, for each video.
        has_times: True if the file records the times of frames.
        tells_content: True if content hashes depend on the content of the video alone.
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
        """Make the header of a file that was opened."""
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
        """Return the header for the scan cache, without digest and stats.

        It is empty for a file with rejected videos, because their errors name its path.
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
        """Return a header from the scan cache; None if the entry has another form."""
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
    """The columns of files and their videos while a scan runs."""

    def __init__(self) -> None:
        self._places: list[str] = []
        self._digests, self._made_of = bytearray(), bytearray()
        self._files = {name: array("q") for name in ("size", "time", "start")}
        self._homes: dict[Home, int] = {}
        self._names: list[str] = []
        names = ("file", "home", "index", "length", "height", "width")
        self._videos = {name: array("i") for name in names}
        self._have_times = self._tells_content = True

    def append(self, place: str, header: Header) -> None:
        """Add a file."""
        split, category, _ = place.split("/")
        home = Home(split, normalize_name(category))
        self._have_times = self._have_times and header.has_times
        self._tells_content = self._tells_content and header.tells_content
        number, code = len(self._places), self._homes.setdefault(home, len(self._homes))
        self._places.append(place)
        self._digests += bytes.fromhex(header.digest) or bytes(32)
        for column, value in zip(
            self._files.values(), (*header.stats, len(self._names)), strict=True
        ):
            column.append(value)
        for row, video in enumerate(header.videos):
            for column, value in zip(self._videos.values(), (number, code, *video), strict=True):
                column.append(value)
            self._names.append(header.names[row] if header.names else f"{place}/{video[0]}")
            self._made_of += bytes.fromhex(header.made_of[row]) or bytes(32)

    def freeze(self, root: Place, pixels: PixelsName) -> "ProcessedFiles":
        """Return the files."""
        columns: dict[str, Column] = {
            **{
                f"file.{name}": shrink(np.frombuffer(column, np.int64))
                for name, column in self._files.items()
            },
            "file.place": Texts.of(self._places),
            "file.digest": to_digests(self._digests),
            **{
                name: shrink(np.frombuffer(column, np.int32))
                for name, column in self._videos.items()
            },
            "name": (names := Texts.of(self._names)),
            "made_of": to_digests(self._made_of),
        }
        if not names.are_unique:
            of_videos = zip(self._videos["file"], self._videos["index"], strict=True)
            columns["place"] = Texts.of(f"{self._places[n]}/{index}" for n, index in of_videos)
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

    Columns of a file begin with `file.`; see `Files`: its `place`, its `digest`, its `size` and the
    `time` of its change. Those of a video are, beside the usual ones, `file` and `index`: which
    video of which file it is.
    """

    kind = "featx.data.sources.processed_rows:ProcessedFiles"
    shared = "file"

    def __init__(self, columns: Mapping[str, Column], notes: Mapping[str, Any]) -> None:
        super().__init__(columns, notes)
        self._root: str = notes["root"]
        self._pixels: PixelsName = notes["pixels"]

    def find_digests(
        self,
        positions: NDArray[np.int64],
        sizes: NDArray[np.int64] | None,
        note: Callable[[str, CacheEntry], object],
        progress: bool,
    ) -> None:
        """Do nothing: the headers of files have digests, so that the scan found them all."""

    @property
    def tells_content(self) -> bool:
        """True if all files record the content hashes of their videos."""
        return bool(self.notes["tells_content"])

    @property
    def have_times(self) -> bool:
        """True if all files record the times of frames."""
        return bool(self.notes["have_times"])

    def __len__(self) -> int:
        return len(self.columns["file.place"])

    def locate(self, position: int) -> tuple[int, int]:
        """Return the number of the file that has the video at a position, and its index there."""
        number = int(self.numbers("file")[position])
        return number, position - int(self.numbers("file.start")[number])

    def span(self, number: int) -> range:
        """Return the positions of the videos of a file."""
        starts = self.numbers("file.start")
        stop = starts[number + 1] if number + 1 < len(starts) else len(self.columns["home"])
        return range(int(starts[number]), int(stop))

    def make(self, number: int) -> "ListedFile":
        """Return one file."""
        place = self.texts("file.place")[number]
        return ListedFile(
            join(self._root, f"{place}/{FILE_NAME}"),
            place,
            get_hex(self.numbers("file.digest"), number),
            (int(self.numbers("file.size")[number]), int(self.numbers("file.time")[number])),
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
        pixels: The range of floating pixels.
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
        """Content hash of each video."""
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
    """Open a file, and check that it is the one that was scanned.

    Raises:
        ChangedInputError: It is another file, or cannot be read.
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
        raise changed(path)
    return file
