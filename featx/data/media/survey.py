"""What a clip says that it holds, and what it does hold, without decoding it; by PyAV."""

import math
import os
import re
import struct
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from featx.data.media.timeline import Timeline
from featx.data.storage import (
    Content,
    Place,
    RangeReader,
    Source,
    is_remote,
    open_file,
    open_source,
    stat,
)
from featx.errors import InputError, first_line, parse_each, parsing, require

with require("av", "clips"):
    import av
    import av.logging

# Since PyAV 19, metadata that is not UTF-8 is no error, and there is no such argument.
_ANY_ENCODING: dict[str, Any] = (
    {"metadata_errors": "ignore"} if int(av.__version__.split(".")[0]) < 19 else {}
)

# Of these alone the duration is written down when they are made. Of others, FFmpeg takes it from
# the last packet that there is, or reckons it from the size of the file.
_DECLARING = {"mov", "matroska", "avi", "asf", "flv", "mxf", "rm", "ivf", "gxf"}
_FROM_ZERO = {"matroska", "asf", "avi"}  # their duration counts from zero, not from a start
_FRAMES_OFF, _SECONDS_OFF = 3, 0.1  # by which a good clip's declared duration may be wrong

# Of ASF (wmv), FFmpeg believes the duration only if the file has the size that its header says.
_ASF_PROPERTIES = uuid.UUID("8cabdca1-a947-11cf-8ee4-00c00c205365").bytes_le
# Its fields: GUID, size, id, size of the file, four more, flags.
_ASF_FIELDS = struct.Struct("<16s Q 16s Q 5Q I")
_ASF_BROADCAST = 1  # a flag: sizes and times are not known

_TRAITS = {16: "HDR (PQ)", 18: "HDR (HLG)"}  # by the code of their transfer characteristics
_INTERLACED = (2, 3, 4, 5)  # orders of fields; 1 is progressive, and 0 unknown

ONE_FRAME_A_PACKET = {"h264", "hevc", "mpeg4", "mpeg2video", "mpeg1video", "vp9", "mjpeg"}
"""Codecs each of whose packets is one frame, and where one that no other refers to can be left out.

MPEG-4 has packets without a frame, too, but those are of a few bytes.
"""

_AND_MORE = {"av1", "libdav1d", "flv1", "h263", "wmv1", "wmv2", "msmpeg4v2", "msmpeg4v3"}
_AND_MORE |= {"prores", "dnxhd", "ffv1", "dvvideo", "huffyuv", "png", "rawvideo", "gif", "qtrle"}
_NO_FRAME = 8  # bytes of a packet without one, at most

KEPT_BYTES = 2**25
"""Of the packets of a clip that are kept in memory."""

# What FFmpeg says of damaged bytes, but not of a recording that begins between two key frames.
_DAMAGE = re.compile(
    r"error at mb|error while decoding (mb|block)|(tex|matrix|mb incr) damaged|illegal [ad]c "
    r"|lzw decode failed"
    r"|invalid mb type|skipped mb in i-frame|run overflow|slice (crc|pointer)"
    r"|concealing|invalid nal unit size|splitting the input into nal|parse temporal unit"
    r"|parsing obu|inflate returned error|chunk too big|header size larger"
    r"|invalid buffer size"
    r"|no jpeg data|truncating packet|invalid as first byte of an ebml"
    r"|exceeds (containing master|max)|packet_obj_size|problem: pixel_ptr",
    re.IGNORECASE,
)


class ClipSurvey(NamedTuple):
    """What a clip holds; containers and codecs have FFmpeg's names.

    If its header alone was read, that does not tell how many packets there are, and little of
    damage: then the survey is not thorough.
    """

    num_packets: int  # of its video: nearly always the number of its frames
    damage: str  # what shows that it holds less than it should; empty if nothing does
    traits: tuple[str, ...] = ()  # what it is that RGB of 8 bits is not: HDR, or interlaced
    container: str = ""
    codec: str = ""
    begins: bool = True  # whether its first packet is a key frame: it was not cut in between two
    num_frames: int = 0  # as far as that is known
    is_thorough: bool = True


class Packet(NamedTuple):
    """What is kept of a packet."""

    pts: int | None  # when its frame is shown
    dts: int | None  # when it is decoded
    duration: int  # how long it is shown; 0 if that is not known
    is_key: bool  # whether it refers to no other


def lay_out(
    container: Any,  # noqa: ANN401  # of PyAV
    stream: av.VideoStream,
    packets: Sequence[Packet],
    times: Sequence[int | None] | None = None,
) -> Timeline:
    """When the frames of a clip are shown.

    Args:
        container: The clip.
        stream: Its video.
        packets: All that there are.
        times: When each frame is shown, as the decoder says; by default, as the packets do.
    """
    count = len(packets if times is None else times)
    shown = [packet.pts for packet in packets] if times is None else times
    for found in (shown, [packet.dts for packet in packets]):
        ticks = np.unique([tick for tick in found if tick is not None]).astype(np.int64)
        if 0 < len(ticks) == count:
            break
    else:
        return Timeline.count_up(count, stream.average_rate or None)
    unit, first, last = Fraction(stream.time_base or 1), int(ticks[0]), int(ticks[-1])
    length = max((p.duration for p in packets if last in (p.pts, p.dts)), default=0)
    if length <= 0 and count > 1:
        length = round((last - first) / (count - 1))
    elif length <= 0:
        length = round(1 / (stream.average_rate * unit)) if stream.average_rate else 1
    begin = first
    if container.start_time is not None:  # the sound may begin before the first frame
        begin = min(round(Fraction(container.start_time, av.time_base) / unit), first)
    return Timeline(ticks, unit, begin, last + max(length, 1))


class OpenClip:
    """A clip that is open, and all of whose packets were read once.

    Packets of a clip that is not large are kept, so that it is neither opened nor read again to be
    decoded.

    Args:
        source: What the clip is read from.
        container: PyAV's container of it.

    Attributes:
        stream: The video.
        packets: What is kept of each packet of the video that is whole.
        orders: When each packet of the video is decoded, in the order of the file.
        corrupt: Whether the container says that a packet is corrupt.
        is_told: Whether each packet is large enough to hold a frame.
        heard: What FFmpeg has said of damage while it read.
    """

    def __init__(self, source: Source, container: Any) -> None:  # noqa: ANN401  # of PyAV
        self.source = source
        self.container = container
        self.stream = find_video(source, container)
        self.stream.codec_context.thread_count = 1  # clips are decoded in parallel already
        self.packets: list[Packet] = []
        self.orders: list[int | None] = []
        self.corrupt: list[bool] = []
        self.is_told = True
        self.heard = Heard()
        # When frames begin and end, when the first is decoded, and when any stream ends: seconds.
        self._times: list[tuple[float, float]] = []
        self._first, self._last = math.inf, 0.0
        self._kept: list[Any] | None = []
        self._places: list[int] = []  # of `packets` in what is kept
        self._is_fresh = True  # nothing was decoded yet
        self._read()

    def _read(self) -> None:
        stream, kept, num_bytes = self.stream, self._kept, 0
        for packet in demux(self.source, self.container):
            is_video = packet.stream.index == stream.index
            if is_video and kept is not None:
                num_bytes += packet.size
                # Parameters that change on the way are given again only after a seek.
                changes = getattr(packet, "has_sidedata", None)
                if num_bytes > KEPT_BYTES or (changes and changes("new_extradata")):
                    kept = self._kept = None
                else:
                    kept.append(packet)
            if not packet.size:
                continue
            order, time, unit = packet.dts, packet.pts, float(packet.time_base)
            if time is None:
                time = order
            if time is not None:
                end = (time + (packet.duration or 0)) * unit
                self._last = max(self._last, end)
            if is_video:
                self.orders.append(order)
                self.corrupt.append(packet.is_corrupt)
                if not (packet.is_corrupt or packet.is_discard):
                    duration = packet.duration or 0
                    self.packets.append(Packet(packet.pts, order, duration, packet.is_keyframe))
                    self._places.append(len(kept or ()) - 1)
                    self.is_told = self.is_told and packet.size > _NO_FRAME
                if time is not None:
                    self._times.append((time * unit, end))
                if order is not None:
                    self._first = min(self._first, order * unit)

    @property
    def format(self) -> str:
        """FFmpeg's name of the container."""
        name: str = self.container.format.name.partition(",")[0]
        return name

    @property
    def begins(self) -> bool:
        """True if the first packet is a key frame: the clip was not cut between two."""
        return bool(self.packets) and self.packets[0].is_key

    @cached_property
    def timeline(self) -> Timeline:
        """When the frames are shown, as the packets say."""
        return lay_out(self.container, self.stream, self.packets)

    def find_missing(self) -> str:
        """Return how much less there is than is declared; empty if nothing is, or all is there."""
        container, stream, times = self.container, self.stream, self._times
        if self.format not in _DECLARING or not times:
            return ""
        begin, end = min(times)[0], max(end for _, end in times)
        if stream.duration is not None and stream.time_base is not None:
            declared, start = float(stream.duration * stream.time_base), 0.0
            if stream.start_time is not None:
                start = float(stream.start_time * stream.time_base)
        elif container.duration is not None:
            # Of no stream in particular: the longest one may be sound.
            declared, end, start = container.duration / av.time_base, self._last, self._first
        else:
            return ""
        found = end if self.format in _FROM_ZERO else end - min(start, begin)
        frame = (end - begin) / len(times)
        gaps = [after - before for before, after in pairwise(sorted(begin for begin, _ in times))]
        # A clip whose frames are far apart may end with one that lasts as long.
        if declared - found <= max(_FRAMES_OFF * frame, *gaps, _SECONDS_OFF):
            return ""
        return f"{len(times)} frames up to {found:.4g} s of the {declared:.4g} s that it declares"

    @property
    def is_kept(self) -> bool:
        """True if the packets are kept, and a decoder is ready for them."""
        return self._kept is not None and self._is_fresh

    def take(self, start: int = 0) -> Iterator[Any]:
        """Yield the kept packets of the video from one on, as PyAV has them.

        A decoder remembers more than a flush clears, so that this can be done once.
        """
        assert self._kept is not None
        self._is_fresh = False
        return iter(self._kept[self._places[start] if start else 0 :])


@contextmanager
def demux_clip(source: Source) -> Iterator[OpenClip]:
    """Open a clip, and read all of its packets.

    Raises:
        InputError: It cannot be opened, has no video in it, or cannot be read to its end.
    """
    with ExitStack() as stack:
        with hear_damage() as heard:
            container = stack.enter_context(open_container(source))
            clip = OpenClip(source, container)
        clip.heard = heard
        yield clip


def survey_header(path: Place) -> ClipSurvey:
    """Read the header of a clip, and compare it with the size of its file.

    Raises:
        InputError: It cannot be opened, or has no video in it.
    """
    source: Source = cast(RangeReader, open_file(path)) if is_remote(path) else path
    with open_container(source) as container:
        stream = find_video(path, container)
        ends = [
            entries[-1].pos + entries[-1].size
            for each in container.streams
            if container.format.name.startswith("mov") and len(entries := each.index_entries)
        ]
        survey = _describe(container, stream)
    found, declared = stat(path).size, max(ends, default=0)
    damage = _find_missing_bytes(source)
    if found < declared:
        damage = f"{found} bytes of the {declared} that it declares"
    return survey._replace(damage=damage, is_thorough=False)


def survey_packets(clip: OpenClip) -> tuple[ClipSurvey, Timeline | None]:
    """Compare the packets of a clip with what it declares.

    Returns:
        What it holds; and when its frames are shown, if the packets tell which there are.
    """
    count = len(clip.orders)
    damage = clip.find_missing() or _find_missing_bytes(clip.source)
    if not damage and (num_corrupt := _count_corrupt(clip.orders, clip.corrupt)):
        damage = f"{num_corrupt} damaged packets among {count}"
    survey = _describe(clip.container, clip.stream)
    # What comes before the first key frame may not decode.
    is_told = clip.is_told and clip.begins
    is_told = is_told and survey.codec in ONE_FRAME_A_PACKET | _AND_MORE
    survey = survey._replace(
        num_packets=count, damage=damage or clip.heard.tell(count), begins=clip.begins
    )
    return survey, clip.timeline if is_told else None


def _describe(
    container: Any,  # noqa: ANN401  # of PyAV
    stream: av.VideoStream,
) -> ClipSurvey:
    """What the header of a clip tells."""
    codec = stream.codec_context
    traits = [_TRAITS[trc] for trc in [codec.color_trc] if trc in _TRAITS]
    traits += ["interlaced"] * (codec.field_order in _INTERLACED)
    return ClipSurvey(
        num_packets=0,
        damage="",
        traits=tuple(traits),
        container=container.format.name.partition(",")[0],
        codec=str(codec.name),
    )


def _find_missing_bytes(source: Source) -> str:
    """What a file of ASF or GIF lacks; empty if nothing, or if it is another."""
    with open_source(source) as file:
        found = file.seek(0, os.SEEK_END)
        file.seek(0)
        content = file.read(2**14)
        if content.startswith(b"GIF8"):
            file.seek(max(found - 2**10, 0))
            if not file.read().rstrip(b"\0").endswith(b";"):
                return "an animation without its end"
    place = content.find(_ASF_PROPERTIES)
    if place < 0 or len(content) < place + _ASF_FIELDS.size:
        return ""
    _, _, _, declared, *_, flags = _ASF_FIELDS.unpack_from(content, place)
    if flags & _ASF_BROADCAST or found >= 0.95 * declared:
        return ""
    return f"{found} bytes of the {declared} that it declares"


def _count_corrupt(orders: Sequence[int | None], corrupt: Sequence[bool]) -> int:
    """How many packets are damaged: not those at which a clip begins anew, joined of several."""
    count = 0
    for number in (number for number, is_corrupt in enumerate(corrupt) if is_corrupt):
        following = [order for order in orders[number : number + 4] if order is not None]
        count += all(order < after for order, after in pairwise(following))
    return count


@contextmanager
def open_container(source: Source) -> Iterator[Any]:
    """Open a clip for reading; its titles and other metadata may be in any encoding.

    Raises:
        InputError: It cannot be opened.
        NetworkError: The server cannot be reached.
    """
    is_file = isinstance(source, (str, Path)) and not is_remote(source)
    if is_file or (isinstance(source, Content) and source.data is None):
        file: Any = str(source)  # FFmpeg reads local files itself
    else:
        file = open_source(source)
    try:
        with parsing(lambda error: refuse_clip(source, error)):
            container: Any = av.open(file, **_ANY_ENCODING)
        with container:
            yield container
    finally:
        # FFmpeg goes on after an error of a request, as if the clip ended there.
        if isinstance(file, RangeReader) and file.failure:
            raise file.failure


def demux(path: Source, container: Any, *streams: Any) -> Iterator[Any]:  # noqa: ANN401  # of PyAV
    """The packets of some streams of an open clip; by default, of all.

    Raises:
        InputError: The clip cannot be read to its end.
    """
    return parse_each(container.demux(*streams), lambda error: refuse_clip(path, error))


def refuse_clip(path: Source, found: Exception | str) -> InputError:
    """Make the error about a clip that does not decode."""
    text = found if isinstance(found, str) else first_line(found)
    return InputError(
        f"{path}: expected a clip that decodes, found: {text}. Encode it again, or leave it out."
    )


def find_video(path: Source, container: Any) -> av.VideoStream:  # noqa: ANN401  # of PyAV
    """The video stream that FFmpeg takes for the best: not a picture, such as the cover of a song.

    Raises:
        InputError: There is none.
    """
    picture = av.stream.Disposition.attached_pic
    streams = [stream for stream in container.streams.video if not stream.disposition & picture]
    best = container.streams.best("video")
    if not streams:
        still = " but a still picture" if container.streams.video else ""
        raise refuse_clip(path, f"no video stream{still}")
    stream = cast(av.VideoStream, best if best in streams else streams[0])
    if stream.codec_context is None:
        raise refuse_clip(path, "a codec that FFmpeg does not know")
    return stream


class Heard(list[str]):
    """What FFmpeg has said of damage."""

    def tell(self, num_frames: int) -> str:
        """How much there is, and the first of what it has said; empty if it has said nothing."""
        return f"{num_frames} frames, of which FFmpeg says: {self[0].rstrip('.')}" if self else ""


@contextmanager
def hear_damage() -> Iterator[Heard]:
    """Hear what FFmpeg says of damage in this thread: decoders that go on do not raise.

    FFmpeg's log is one for the process: it is on while any thread listens.
    """
    heard = Heard()
    with _log_of_errors(), av.logging.Capture() as logs:
        try:
            yield heard
        finally:
            lines = (f"{name}: {text.strip()}" for _, name, text in logs)
            heard += [line for line in lines if _DAMAGE.search(line)]


_lock = threading.Lock()
_listening = 0
_before: tuple[int | None, bool] = (None, True)


@contextmanager
def _log_of_errors() -> Iterator[None]:
    global _listening, _before
    with _lock:
        if not _listening:
            _before = av.logging.get_level(), av.logging.get_skip_repeated()
            av.logging.set_level(av.logging.ERROR)
            av.logging.set_skip_repeated(False)  # repeated may also be what another clip has said
        _listening += 1
    try:
        yield
    finally:
        with _lock:
            _listening -= 1
            if not _listening:
                av.logging.set_level(_before[0])
                av.logging.set_skip_repeated(_before[1])
