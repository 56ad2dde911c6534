"""The interface of all files of videos, and a video that was read from one."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featx.data.media.pixels import PixelsName, Span
from featx.data.scan_cache import CacheEntry
from featx.data.storage import Place, name_of
from featx.data.tree import normalize_name
from featx.errors import ChangedInputError, first_line

CPU = torch.device("cpu")


class Home(NamedTuple):
    """The split and the category of a video."""

    split: str
    category: str | None  # None if it has none


class Video(NamedTuple):
    """A video as it was read.

    Attributes:
        frames: Pixels `[T, 3, H, W]`.
        span: The lowest and the highest of floating pixels.
        damage: A description of missing or damaged frames; empty for nearly all videos.
        times: When each frame is shown, float32 `[T]`, in seconds from the beginning of its clip;
            NaN where that is not known; None if nobody has noted it.
        made_of: The content hash of the video.
    """

    frames: Tensor
    span: Span | None = None
    damage: str = ""
    times: NDArray[np.float32] | None = None
    made_of: "MadeOf | None" = None


class MadeOf(NamedTuple):
    """The content hash of a video.

    Attributes:
        sha256: Of its content, and of what was taken of it: segment, box, sampling and size. Names,
            places and labels are no part of it.
        file_digest: SHA-256 of its file, if all of that has been read.
        line: The entry of the file for a `Journal` of the scan cache, if no scan has made one.
    """

    sha256: str
    file_digest: str = ""
    line: str = ""


def changed(path: Place, what: str = "file") -> ChangedInputError:
    """Return the error about an input that is not the one that was scanned."""
    return ChangedInputError(
        f"{path}: expected the {what} that was scanned, found another. "
        "It has changed since: start again."
    )


def unreadable(path: Place, error: BaseException, what: str = "file") -> ChangedInputError:
    """Return the error about an input that could be read when it was scanned."""
    return ChangedInputError(
        f"{path}: expected a readable {what}, found: {first_line(error)}. "
        "It was readable when it was scanned: check the disk, and start again."
    )


@dataclass(frozen=True, slots=True)
class VideoFile(ABC):
    """One file of videos; each source has a subclass.

    Attributes:
        path: Its path.
        place: Where it is in the data set: split, category and subcategory.
        digest: SHA-256 that changes with the content; empty if nobody has read it yet.
    """

    path: str
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
        """The range of floating pixels; uint8 pixels are raw RGB."""
        return "normalized"

    @property
    def traits(self) -> Sequence[str]:
        """The traits of its videos that 8-bit RGB cannot show, such as HDR."""
        return ()

    @property
    @abstractmethod
    def identities(self) -> Sequence[str]:
        """Content hash of each video, see `MadeOf`; empty as long as it is not known."""

    def find_digest(self) -> "VideoFile":
        """Return the same file with its digest; this may read all of it.

        Raises:
            ChangedInputError: It has changed since the scan, or cannot be read any more.
        """
        return self

    @property
    def size(self) -> int | None:
        """Its size in bytes; None if it needs no digest."""
        return self.cache_entry[1].stats[0] if self.cache_entry else None

    @property
    def cache_entry(self) -> tuple[str, CacheEntry] | None:
        """Its name and its entry for the scan cache; None if it has none."""
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
        """The values that tell it from all other files."""
        return self.place, name_of(self.path), self.digest

    def name_place(self, index: int) -> str:
        """The place in the data set of what is at an index of the file."""
        return f"{self.place}/{index}"
