"""One clip, or a segment of one: checked, and read as a video."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2.functional import center_crop, resize

from featx.data.media.decoder import Decoded, decode
from featx.data.media.images import (
    FRAMES,
    decode_frames,
    frames_sha256,
    lay_out_frames,
    stamp_frames,
    survey_frames,
)
from featx.data.media.preprocessing import SLOWER, Preprocessing
from featx.data.media.survey import (
    ClipSurvey,
    OpenClip,
    demux_clip,
    refuse_clip,
    survey_header,
    survey_packets,
)
from featx.data.media.timeline import Segment, Timeline
from featx.data.media.video_file import CPU, Home, MadeOf, Video, VideoFile, changed, unreadable
from featx.data.scan_cache import CacheEntry, FileStamp, ScanCache, Stats, stamp_file
from featx.data.storage import Place, Source, fetch, is_remote, name_of, stat
from featx.durable import file_sha256
from featx.errors import InputError, OutputError, first_line, require

with require("av", "clips"):
    import av

_FRAMES_OFF = 2  # by which a good clip may have more packets than frames


class Box(NamedTuple):
    """A part of each frame, in pixels of the frame as it is shown."""

    left: int
    top: int
    right: int
    bottom: int


class OneVideo(VideoFile):
    """A file of one video, which says itself where that belongs."""

    __slots__ = ()

    name: str
    preprocessing: Preprocessing
    home: Home
    length: int

    @property
    def split(self) -> str:
        """The split."""
        return self.home.split

    @property
    def category(self) -> str | None:
        """The category; None if it has none."""
        return self.home.category

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """`[T, 3, H, W]` of the video."""
        size = self.preprocessing.image_size
        return [(self.length, 3, size, size)]

    @property
    def names(self) -> list[str]:
        """Name of the video."""
        return [self.name]

    @property
    def places(self) -> list[str]:
        """The name again: there may be other clips at the same place."""
        return [self.name]


@dataclass(frozen=True, slots=True)
class ClipFile(OneVideo):
    """A clip as a file of one video, which is decoded when asked for."""

    name: str  # of the video, such as the path of the clip below the folder of all clips
    preprocessing: Preprocessing
    survey: ClipSurvey
    home: Home
    length: int  # frames of the video
    clip_name: str
    stamp: FileStamp
    segment: Segment | None = None  # None for all frames
    box: Box | None = None  # None for all of each frame

    @property
    def identity(self) -> tuple[object, ...]:
        """What tells it from others: in a tree, its place and its content."""
        content = name_of(self.path), self.digest
        if self.place != self.name:
            return self.place, *content
        return *self.home, self.name, *content, self.segment, self.box

    @property
    def identities(self) -> list[str]:
        """What the video is made of, once the clip has been read."""
        return [self._identify(self.digest) if self.digest else ""]

    def _identify(self, digest: str) -> str:
        return identify(digest, self.preprocessing, self.segment, self.box)

    def find_digest(self) -> Self:
        """The same clip with its digest.

        Raises:
            ChangedInputError: It has changed since the scan, or cannot be read any more.
        """
        try:
            digest = _find_digest(self.path)
            if _stamp(self.path).stats != self.stats:
                raise changed(self.path, "clip")
        except OSError as error:
            raise unreadable(self.path, error, "clip") from error
        return replace(self, digest=digest)

    @property
    def stats(self) -> Stats:
        """See `file_stats`."""
        return self.stamp.stats

    @property
    def cache_entry(self) -> tuple[str, CacheEntry]:
        """Its name, and what is worth knowing of it the next time."""
        stats, file, is_settled = self.stamp
        return self.clip_name, CacheEntry(stats, self.digest, {}, file, is_settled)

    @property
    def traits(self) -> tuple[str, ...]:
        """What it is that RGB of 8 bits is not."""
        return self.survey.traits

    def read(self, index: int = 0, device: torch.device = CPU) -> Video:
        """Decode the frames that are sampled.

        Each is turned upright, and resized with antialiasing as soon as it is decoded, so that few
        frames of the clip's own size are in memory.

        Args:
            index: 0, the only one.
            device: Where torchcodec decodes.

        Returns:
            uint8 RGB `[length, 3, image_size, image_size]`, and when each frame is shown.

        Raises:
            InputError: The clip does not decode, or is damaged.
            ChangedInputError: It has changed since the scan, or cannot be read any more.
        """
        try:
            return self._read(device)
        except OSError as error:
            raise unreadable(self.path, error, "clip") from error

    def _read(self, device: torch.device) -> Video:
        is_folder = self.survey.container == FRAMES
        clip = None if is_folder else fetch(self.path)
        before = stamp_frames(self.path) if clip is None else stamp_file("", clip.status)
        is_same = before[:2] == self.stamp[:2]
        digest = (self.digest if is_same else "") or (clip.sha256 if clip else "")
        try:
            if clip is None:
                survey = self.survey
                decoded, digest = self._decode_frames(digest)
            else:
                self._check_digest(digest, before)
                with demux_clip(clip) as opened:
                    survey = self._find_survey(opened)
                    decoded = self._decode(opened, survey, device)
        except InputError as error:
            # Of the system, not of the clip.
            if isinstance(error.__cause__, (OSError, MemoryError)):
                raise unreadable(self.path, error.__cause__, "clip") from error
            if is_folder and not is_same:
                raise changed(self.path, "clip") from error
            raise
        self._check_digest(digest, before)
        if not is_remote(self.path) and _stamp(self.path).stats != before.stats:
            raise changed(self.path, "clip")
        numbers = self._choose(decoded.timeline)
        return Video(
            _stack([decoded.frames[number] for number in numbers]),
            damage=survey.damage or decoded.damage,
            times=decoded.timeline.to_seconds(np.array(numbers)),
            made_of=MadeOf(self._identify(digest), digest),
        )

    def _check_digest(self, digest: str, stamp: FileStamp) -> None:
        """Check that the clip is the one that was scanned.

        Raises:
            ChangedInputError: It is another.
        """
        # A clip that nobody has read before is told from another by its size and time alone.
        if digest != self.digest and (self.digest or stamp.stats != self.stats):
            raise changed(self.path, "clip")

    def _decode_frames(self, digest: str) -> tuple[Decoded, str]:
        """Read a folder of images; returns its digest, too."""
        rate, is_checked = self.preprocessing.frame_rate, self.survey.is_thorough
        decoded, digest = decode_frames(
            self.path, rate, self._choose, self._make, digest, not is_checked
        )
        self._check_decoded(decoded)
        return decoded, digest

    def _find_survey(self, clip: OpenClip) -> ClipSurvey:
        """What the clip holds, as far as its packets tell.

        Raises:
            InputError: Less than it declares.
        """
        if self.survey.is_thorough:
            return self.survey
        survey, _ = survey_packets(clip)
        if survey.damage and not self.preprocessing.keep_damaged:
            raise _damaged(self.path, survey.damage)
        return survey

    def _choose(self, timeline: Timeline) -> list[int]:
        """The numbers of the frames that are taken, of those that there turn out to be."""
        chosen = self.preprocessing.sample(timeline, self.segment or timeline.whole)
        if len(chosen) != self.length:  # a frame or two more, or fewer, than there are packets
            chosen = np.pad(chosen, (0, self.length), mode="edge")[: self.length]
        numbers: list[int] = np.clip(chosen, 0, len(timeline) - 1).tolist()
        return numbers

    def _make(self, image: Tensor) -> Tensor:
        """A frame of the video from one of the clip."""
        if self.box:
            left, top, right, bottom = self.box
            image = image[:, top:bottom, left:right]
        size = self.preprocessing.image_size
        if self.preprocessing.resize == "crop":
            resized: Tensor = center_crop(resize(image, [size], antialias=True), [size, size])
        else:
            resized = resize(image, [size, size], antialias=True)
        return resized

    def _decode(self, clip: OpenClip, survey: ClipSurvey, device: torch.device) -> Decoded:
        """The frames, and what is damaged, if that is to be kept."""
        decoded = None
        if self.preprocessing.decoder == "torchcodec":
            from featx.data.media import torchcodec  # it is optional

            decoded = torchcodec.decode(clip, survey, self._choose, self._make, device)
        if decoded is None:
            whole = bool(survey.damage)
            decoded = decode(clip, self._choose, self._make, whole)
        self._check_decoded(decoded)
        return decoded

    def _check_decoded(self, decoded: Decoded) -> None:
        """Check that there are frames, whole ones, and as many as the sampling was planned for.

        Raises:
            InputError: There are not.
        """
        if decoded.count == 0:
            raise InputError(
                f"{self.path}: expected frames, found {decoded.damage}. "
                "Encode it again, or leave it out."
            )
        if self.preprocessing.keep_damaged:
            return
        if decoded.damage:
            raise _damaged(self.path, decoded.damage)
        is_planned = self.segment is not None or not self.preprocessing.is_uniform
        expected = self.survey.num_frames
        if is_planned and abs(decoded.count - expected) > _FRAMES_OFF:
            raise InputError(
                f"{self.path}: expected {expected} frames by its packets, found {decoded.count}. "
                "Encode it again, or leave it out."
            )


def identify(
    digest: str, preprocessing: Preprocessing, segment: Segment | None, box: Box | None
) -> str:
    """SHA-256 of what a video is made of: a clip, and what is taken of it."""
    recipe = {
        "clip": digest,
        **preprocessing.sampling,
        "image_size": preprocessing.image_size,
        "resize": preprocessing.resize,
        "frame_rate": preprocessing.frame_rate,
        "segment": segment and [*map(str, segment)],
        "box": box,
    }
    return hashlib.sha256(json.dumps(recipe).encode()).hexdigest()


def _stack(frames: Sequence[Tensor]) -> Tensor:
    """Stack frames `[3, H, W]`, of which some may follow themselves; returns `[T, 3, H, W]`.

    NumPy takes half of the time of torch where a frame has its channels last in memory.
    """
    stacked = np.empty((len(frames), *frames[0].shape), np.uint8)
    for number, frame in enumerate(frames):
        repeats = number > 0 and frame is frames[number - 1]
        stacked[number] = stacked[number - 1] if repeats else frame.numpy()
    return torch.from_numpy(stacked)


class Needs(NamedTuple):
    """What somebody has to know of a clip before it is read."""

    thorough: bool = False  # what its packets tell of damage
    times: bool = False  # when its frames are shown
    size: bool = False  # how large its frames are, as they are shown


class Found(NamedTuple):
    """What a clip says of itself; None is what nobody has asked for."""

    survey: ClipSurvey
    timeline: Timeline | None = None
    size: tuple[int, int] | None = None  # height and width of its frames as they are shown

    def to_json(self) -> dict[str, Any]:
        """All of it, as it is kept for the next time; a setting says when frames are shown."""
        is_folder = self.survey.container == FRAMES
        return {
            "survey": [*self.survey],
            **({"timeline": self.timeline.to_json()} if self.timeline and not is_folder else {}),
            **({} if self.size is None else {"size": [*self.size]}),
        }

    @classmethod
    def from_json(cls, kept: Any) -> Self | None:  # noqa: ANN401
        """What was kept; None if it is nothing of the kind."""
        try:
            survey = ClipSurvey(*kept["survey"])
            survey = survey._replace(traits=tuple(survey.traits))
            timeline = Timeline.from_json(kept["timeline"]) if "timeline" in kept else None
            height, width = kept.get("size", (0, 0))
        except (KeyError, TypeError, ValueError, IndexError, AttributeError):
            return None
        usual = ClipSurvey(0, "")
        fits = all(type(value) is type(other) for value, other in zip(survey, usual, strict=True))
        return cls(survey, timeline, (height, width) if height else None) if fits else None

    def meets(self, needs: Needs) -> bool:
        """Whether it is all that somebody has to know."""
        return (
            (self.survey.is_thorough or not needs.thorough)
            and (self.timeline is not None or not needs.times or self.survey.container == FRAMES)
            and (self.size is not None or not needs.size)
        )


class Opened(NamedTuple):
    """A clip that was checked: what its videos share."""

    path: Place
    name: str
    digest: str  # SHA-256 of its content; empty if nobody has read it yet
    stamp: FileStamp
    found: Found
    preprocessing: Preprocessing
    is_new: bool = True  # whether the scan cache did not know what was found

    @property
    def cache_entry(self) -> CacheEntry:
        """What is worth knowing of it the next time."""
        stats, file, is_settled = self.stamp
        return CacheEntry(stats, self.digest, self.found.to_json(), file, is_settled)

    def count_frames(self, segment: Segment | None = None) -> int:
        """Frames of a video of it, or of a segment of it."""
        if self.preprocessing.num_frames is not None:
            return self.preprocessing.num_frames
        timeline = cast(Timeline, self.found.timeline)
        return len(self.preprocessing.sample(timeline, segment or timeline.whole))

    def complete_survey(self) -> ClipSurvey:
        """What it holds, with what its timeline tells."""
        survey, timeline, _ = self.found
        survey = survey._replace(num_frames=len(timeline) if timeline else survey.num_packets)
        if timeline and self.preprocessing.repeats(timeline):
            survey = survey._replace(traits=(*survey.traits, SLOWER))
        return survey

    def take(
        self,
        place: str,
        name: str,
        home: Home,
        segment: Segment | None = None,
        box: Box | None = None,
    ) -> ClipFile:
        """A video of it."""
        return ClipFile(
            str(self.path),
            place,
            self.digest,
            name,
            self.preprocessing,
            self.complete_survey(),
            home,
            self.count_frames(segment),
            self.name,
            self.stamp,
            segment,
            box,
        )


def open_clip(
    path: Place,
    preprocessing: Preprocessing,
    needs: Needs = Needs(),  # noqa: B008  # a tuple
    name: str = "",
    cache: ScanCache | None = None,
) -> Opened:
    """Check a clip, as far as that can be done without reading its pictures.

    Its packets are read only where somebody has to know more than its header tells, and it is
    decoded only where these do not tell it.

    Args:
        path: The clip, or its folder of frames.
        preprocessing: How it is to become a video.
        needs: What has to be known of it.
        name: What it is called.
        cache: The scan cache.

    Raises:
        InputError: It cannot be opened, has no video in it, or holds less than it declares.
    """
    needs = needs._replace(times=needs.times or not preprocessing.is_uniform)
    try:
        stamp = _stamp(path)  # as it is before it is read
        entry = cache.find(name, stamp.stats, stamp.file) if cache else None
        found = Found.from_json(entry.survey) if entry else None
        is_new = not (found and found.meets(needs))
        if found is None or is_new:
            found = _survey_steady(path, needs, stamp) if is_remote(path) else _survey(path, needs)
        if found.survey.container == FRAMES:
            rate = preprocessing.frame_rate
            found = found._replace(timeline=lay_out_frames(found.survey.num_packets, rate))
    except OutputError:  # no room for a copy of a remote clip is no fault of the clip
        raise
    except OSError as error:
        raise InputError(
            f"{path}: expected a readable clip, found: {first_line(error)}. "
            "Check its permissions, or leave it out."
        ) from error
    if found.survey.damage and not preprocessing.keep_damaged:
        raise _damaged(path, found.survey.damage)
    timeline = found.timeline
    if needs.times and not (timeline and len(timeline)):
        raise InputError(f"{path}: expected frames, found none. Leave it out.")
    if preprocessing.fps and timeline and not timeline.is_timed:
        raise InputError(
            f"{path}: expected to know when frames are shown, to sample them by fps, found no "
            "frame rate. Set frame_rate, or sample by num_frames or stride."
        )
    digest = entry.digest if entry else ""
    return Opened(path, name, digest, stamp, found, preprocessing, is_new)


def is_known(
    path: Place, preprocessing: Preprocessing, needs: Needs, name: str, cache: ScanCache
) -> bool:
    """Whether a clip need not be opened to be checked; see `open_clip`."""
    if name not in cache:
        return False
    try:
        stamp = _stamp(path)
    except OSError:  # which is told when its turn comes
        return False
    entry = cache.find(name, stamp.stats, stamp.file)
    found = Found.from_json(entry.survey) if entry else None
    needs = needs._replace(times=needs.times or not preprocessing.is_uniform)
    return found is not None and found.meets(needs)


def _survey_steady(path: Place, needs: Needs, stamp: FileStamp) -> Found:
    """Survey a remote clip, whose parts come one by one.

    Raises:
        ChangedInputError: Its parts do not fit because it is another one by now.
    """
    try:
        return _survey(path, needs)
    except InputError as error:
        status = stat(path, fresh=True)
        if status.is_file and status.stats != stamp.stats:
            raise changed(path, "clip") from error
        raise


def _survey(path: Place, needs: Needs) -> Found:
    """What a clip says of itself; of a folder of frames, all but when they are shown.

    Raises:
        InputError: It does not decode.
    """
    size = None
    if stat(path).is_folder:
        survey, size = survey_frames(path, needs.thorough)
        return Found(survey, None, size)
    reads_all = needs.thorough or needs.times or needs.size
    source: Source = fetch(path) if reads_all and is_remote(path) else path
    if not reads_all:
        return Found(survey_header(path))
    with demux_clip(source) as clip:
        survey, timeline = survey_packets(clip)
        if needs.times and timeline is None:
            timeline = decode(clip, lambda timeline: [], torch.clone, whole=True).timeline
        if needs.size:
            frames = decode(clip, lambda timeline: [0], torch.clone).frames
            if 0 not in frames:
                raise refuse_clip(path, "no frame")
            size = frames[0].shape[1], frames[0].shape[2]
    return Found(survey, timeline, size)


def write_clip(
    path: Path, frames: NDArray[np.uint8], codec: str = "libx264", rate: int = 24
) -> None:
    """Encode a clip.

    Args:
        path: The clip; its suffix decides the container.
        frames: RGB `[num_frames, height, width, 3]`, of even height and width.
        codec: FFmpeg's name of the codec.
        rate: Frames per second.
    """
    with av.open(path, "w") as container:
        stream = cast(av.VideoStream, container.add_stream(codec, rate=rate))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt, stream.bit_rate = "yuv420p", 2_000_000
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def _find_digest(path: Place) -> str:
    if stat(path).is_folder:
        return frames_sha256(path)
    return fetch(path).sha256 if is_remote(path) else file_sha256(Path(path))


def _stamp(path: Place) -> FileStamp:
    status = stat(path)
    return stamp_frames(path) if status.is_folder else stamp_file(path, status)


def _damaged(path: Place, damage: str) -> InputError:
    return InputError(
        f"{path}: expected a whole clip, found {damage.rstrip('.')}. Get it again, leave it out, "
        "or set keep_damaged to true to keep what decodes."
    )
