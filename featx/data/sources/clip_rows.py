"""Clips and videos of them, in columns."""

import json
from array import array
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import closing, suppress
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from featx.data.columns import (
    NOTHING,
    Column,
    Texts,
    constant,
    get_hex,
    is_constant,
    shrink,
    to_digests,
)
from featx.data.manifest import Files
from featx.data.media.clip import Box, ClipFile, Opened, identify
from featx.data.media.cut import Cut
from featx.data.media.lazy import LazyClip
from featx.data.media.preprocessing import Preprocessing, to_fraction
from featx.data.media.survey import ClipSurvey
from featx.data.media.timeline import Segment
from featx.data.media.video_file import Home
from featx.data.scan_cache import CacheEntry, FileStamp
from featx.data.storage import Place, is_below, join
from featx.data.summary import Examples
from featx.errors import ChangedInputError
from featx.parallel import map_ahead
from featx.progress import make_bar

_DIGEST_THREADS = 4
_STAMP = ("size", "time", "inode", "status", "settled")
_EXAMPLES = 3


class ClipColumns:
    """The columns of clips while a scan runs: what all videos of a clip share."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._surveys: dict[str, int] = {}  # few, and each of many clips
        self._codes, self._digests = array("i"), bytearray()
        self._numbers = {name: array("q") for name in (*_STAMP, "packets", "frames")}

    def __len__(self) -> int:
        return len(self._names)

    def append(self, clip: Opened) -> None:
        """Add a clip."""
        survey, stamp = clip.complete_survey(), clip.stamp
        counts = survey.num_packets, survey.num_frames
        numbers = (*stamp.stats, *stamp.file, stamp.is_settled, *counts)
        self._append(clip.name, survey, numbers, clip.digest)

    def append_unopened(self, name: str) -> None:
        """Add a clip of which only the name is known."""
        self._append(name, ClipSurvey(0, ""), (0,) * len(self._numbers))

    def _append(
        self, name: str, survey: ClipSurvey, numbers: Iterable[int], digest: str = ""
    ) -> None:
        self._names.append(name)
        self._digests += bytes.fromhex(digest) or bytes(32)
        for column, number in zip(self._numbers.values(), numbers, strict=True):
            column.append(number)
        text = json.dumps([*survey._replace(num_packets=0, num_frames=0)])
        self._codes.append(self._surveys.setdefault(text, len(self._surveys)))

    def freeze(self) -> dict[str, Column]:
        """Return the columns; their names begin with `clip.`."""
        surveys = pa.array(self._surveys, pa.large_string())
        codes = pa.array(np.frombuffer(self._codes, np.int32))
        return {
            **{
                f"clip.{name}": shrink(np.frombuffer(column, np.int64))
                for name, column in self._numbers.items()
            },
            "clip.name": Texts.of(self._names),
            "clip.survey": Texts(pa.DictionaryArray.from_arrays(codes, surveys)),
            "clip.digest": to_digests(self._digests),
        }


class ClipFiles(Files):
    """Videos of clips, one a file; several of them may be of one clip.

    Columns of a clip begin with `clip.`; see `Files`. Those of a video are, beside the usual ones:
    `clip`, the number of its clip; `first` and `stop`, `begin` and `end` of its segment; the sides
    of its box; and `lazy`, whether its clip is opened when it is read.
    """

    kind = "featx.data.sources.clip_rows:ClipFiles"
    shared = "clip"

    def __init__(self, columns: Mapping[str, Column], notes: Mapping[str, Any]) -> None:
        super().__init__(columns, notes)
        self._root: str = notes["root"]
        self._preprocessing = Preprocessing(**notes["preprocessing"])

    @classmethod
    def build(
        cls,
        root: Place,
        preprocessing: Preprocessing,
        clips: ClipColumns,
        homes: Collection[Home],
        videos: Mapping[str, Column],
    ) -> "ClipFiles":
        """Make the files from the results of a scan.

        Args:
            root: The data set's folder.
            preprocessing: The settings that turn clips into videos.
            clips: The clips.
            homes: The homes of the videos.
            videos: The columns of the videos, beside those that follow.
        """
        columns = {**videos, **clips.freeze()}
        count, size = len(videos["home"]), preprocessing.image_size
        columns.setdefault("clip", shrink(np.arange(count)))
        columns |= {"height": constant(size, count), "width": constant(size, count)}
        columns["made_of"] = constant(np.zeros(32, np.uint8), count)
        settings = {name: getattr(preprocessing, name) for name in preprocessing.__slots__}
        notes = {"root": str(root), "homes": [*homes], "preprocessing": settings}
        files = cls(columns, notes)
        digests = files.numbers("clip.digest")
        files._identify(np.flatnonzero(digests[files.numbers("clip")].any(axis=1)))
        return files

    def texts(self, name: str) -> Texts:
        """Return a column of texts; videos without names of their own have those of their clips."""
        return super().texts("clip.name" if name == "name" and name not in self.columns else name)

    def _identify(self, numbers: NDArray[np.int64]) -> None:
        """Compute the content hashes of videos, after the digests of their clips are known."""
        if not len(numbers):
            return
        made_of = np.array(self.numbers("made_of"), order="C")
        digests = self.numbers("clip.digest")
        for number in numbers.tolist():
            digest = get_hex(digests, int(self.numbers("clip")[number]))
            segment, box = self._find_segment(number), self._find_box(number)
            found = identify(digest, self._preprocessing, segment, box)
            made_of[number] = np.frombuffer(bytes.fromhex(found), np.uint8)
        self.columns["made_of"] = made_of

    def make(self, number: int) -> ClipFile | LazyClip:
        """Return one video."""
        return self._make_lazy(number) if self._are_lazy[number] else self._make(number)

    @property
    def _are_lazy(self) -> NDArray[Any]:
        """True for videos whose clips are opened when they are read."""
        return self.numbers("lazy") if "lazy" in self.columns else constant(False, len(self))

    def _make_lazy(self, number: int) -> LazyClip:
        clip_name, name = (
            self.texts("clip.name")[int(self.numbers("clip")[number])],
            self.texts("name")[number],
        )
        cut: dict[str, Any] = {}
        for side in ("first", "stop", "begin", "end"):
            if side in self.columns:
                value = self.numbers(side)[number].item()
                cut[side] = None if value == NOTHING or np.isnan(value) else value
        path = join(self._root, clip_name)
        return LazyClip(
            path,
            self.texts("place")[number] if "place" in self.columns else name,
            "",
            name,
            self._preprocessing,
            self.homes[int(self.numbers("home")[number])],
            int(self.numbers("length")[number]),
            clip_name,
            Cut(**cut, box=self._find_box(number)),
            self._root if is_below(self._root, path) else None,
        )

    def _make(self, number: int) -> ClipFile:
        clip = int(self.numbers("clip")[number])
        clip_name, name = self.texts("clip.name")[clip], self.texts("name")[number]
        packets, frames = (int(self.numbers(f"clip.{n}")[clip]) for n in ("packets", "frames"))
        return ClipFile(
            join(self._root, clip_name),
            self.texts("place")[number] if "place" in self.columns else name,
            get_hex(self.numbers("clip.digest"), clip),
            name,
            self._preprocessing,
            self._read_survey(self.texts("clip.survey")[clip], packets, frames),
            self.homes[int(self.numbers("home")[number])],
            int(self.numbers("length")[number]),
            clip_name,
            self._find_stamp(clip),
            self._find_segment(number),
            self._find_box(number),
        )

    @staticmethod
    def _read_survey(text: str, packets: int = 0, frames: int = 0) -> ClipSurvey:
        survey = ClipSurvey(*json.loads(text))
        traits = tuple(survey.traits)
        return survey._replace(num_packets=packets, num_frames=frames, traits=traits)

    def _find_stamp(self, clip: int) -> FileStamp:
        size, time, inode, status, settled = (
            int(self.numbers(f"clip.{name}")[clip]) for name in _STAMP
        )
        return FileStamp((size, time), (inode, status), bool(settled))

    def _find_segment(self, number: int) -> Segment | None:
        if "first" not in self.columns or self.numbers("first")[number] == NOTHING:
            return None
        first, stop = (int(self.numbers(name)[number]) for name in ("first", "stop"))
        begin, end = (
            float(self.numbers(name)[number]) if name in self.columns else np.nan
            for name in ("begin", "end")
        )
        return Segment(
            first,
            stop,
            None if np.isnan(begin) else to_fraction(begin),
            None if np.isnan(end) else to_fraction(end),
        )

    def _find_box(self, number: int) -> Box | None:
        if "right" not in self.columns:
            return None
        box = Box(*(int(self.numbers(name)[number]) for name in Box._fields))
        return box if box.right > box.left else None

    def find_traits(self) -> dict[str, Examples]:
        """Return the traits of videos that 8-bit RGB cannot show, such as HDR, with examples."""
        surveys = self.texts("clip.survey")
        traits = {text: self._read_survey(text).traits for text in surveys.different}
        found: dict[str, Examples] = {}
        if any(traits.values()):
            for clip in self.numbers("clip").tolist():
                for trait in traits[surveys[clip]]:
                    some = found.setdefault(trait, Examples())
                    some.count += 1
                    if some.count <= _EXAMPLES:
                        some.examples.append(self.texts("clip.name")[clip])
        return found

    def find_digests(
        self,
        positions: NDArray[np.int64],
        sizes: NDArray[np.int64] | None,
        note: Callable[[str, CacheEntry], object],
        progress: bool,
    ) -> None:
        """Hash the clips of some videos; see `Manifest`."""
        digests = self.numbers("clip.digest")
        clips = self.numbers("clip")
        numbers = positions[~self._are_lazy[positions].astype(bool)]  # lazy clips stay closed
        is_known: NDArray[np.bool_] = np.asarray(digests.any(axis=1))
        wanted, firsts = np.unique(clips[numbers], return_index=True)
        is_wanted = ~is_known[wanted]
        if sizes is not None:
            of_clips = self.numbers("clip.size")
            known = np.unique(np.concatenate([of_clips[is_known], sizes]))
            is_wanted &= np.isin(of_clips[wanted], known)
        wanted, firsts = wanted[is_wanted], numbers[firsts[is_wanted]]
        if not len(wanted):
            return
        order = np.argsort(firsts)

        def find(number: int) -> ClipFile:
            return self._make(number).find_digest()

        if is_constant(digests) or not digests.flags.writeable:
            self.columns["clip.digest"] = digests = np.array(digests, order="C")
        with closing(map_ahead(find, firsts[order].tolist(), _DIGEST_THREADS, "digests")) as ahead:
            bar = make_bar(ahead, "Reading", len(wanted), "clip", progress)
            for clip, (_, finding) in zip(wanted[order].tolist(), bar, strict=True):
                with suppress(ChangedInputError):
                    found = finding.result()
                    digests[clip] = np.frombuffer(bytes.fromhex(found.digest), np.uint8)
                    note(*found.cache_entry)
        is_found = np.zeros(len(digests), bool)
        is_found[wanted] = digests[wanted].any(axis=1)
        self._identify(np.flatnonzero(is_found[clips]))
