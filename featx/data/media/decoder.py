"""The frames of a clip that are wanted, in RGB and upright; by PyAV, in one pass over the clip."""

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featx.data.media.survey import (
    ONE_FRAME_A_PACKET,
    OpenClip,
    demux,
    find_video,
    hear_damage,
    lay_out,
    open_container,
    refuse_clip,
)
from featx.data.media.timeline import Timeline
from featx.data.storage import Source
from featx.errors import first_line, parsing, require

with require("av", "clips"):
    import av
    import av.error
    import av.filter

_WITH_TIMES = {"mov", "matroska", "mpegts", "mpeg", "flv"}  # at which frames are shown
_PROGRESSIVE = (0, 1)  # orders of fields: not known, and none
_SEEKABLE = {"mov", "matroska"}  # where one can go to a packet, by the time at which it is shown
_FRAMES_OFF = 2  # by which a good clip may have more packets than frames
_WORTH_A_SEEK = 200  # packets that need not be read then


@dataclass(frozen=True, slots=True)
class Decoded:
    """The frames of a clip that are wanted."""

    frames: dict[int, Tensor]  # what was made of each, by its number
    timeline: Timeline  # of all frames of the clip
    damage: str = ""  # what is wrong with them; empty if nothing is

    @property
    def count(self) -> int:
        """How many frames the clip has."""
        return len(self.timeline)


Choose = Callable[[Timeline], Sequence[int]]
"""From the frames that there are, to the numbers of those that are wanted."""

Make = Callable[[Tensor], Tensor]
"""From a frame, uint8 RGB `[3, height, width]`, to what is kept of it."""


def decode(clip: OpenClip, choose: Choose, make: Make, whole: bool = False) -> Decoded:
    """Decode the frames that are wanted, and make something of each.

    Frames that nobody wants are decoded only where others refer to them, and none after the last
    one that is wanted. A few frames of the clip's own size are in memory at a time.

    Args:
        clip: The clip.
        choose: Tells which frames are wanted.
        make: Makes something of each.
        whole: Decode all frames, to see what is wrong with any.

    Raises:
        InputError: The clip cannot be read to its end.
    """
    count, are_frames = len(clip.packets), _are_frames(clip)
    if are_frames and not whole:
        found = _decode_by_time(clip, choose, make)
        if found:
            return found
    # Some packets may hold no frame, or be damaged: to decode all of them tells.
    numbers = [*choose(clip.timeline)] if count else []
    decoded = _decode_all(clip, numbers, make)
    if decoded.count and numbers != (wanted := [*choose(decoded.timeline)]):
        decoded = _decode_all(clip, wanted, make)
    if not decoded.damage and are_frames and decoded.count < count - _FRAMES_OFF:
        damage = f"{decoded.count} frames in {count} packets"
        return Decoded(decoded.frames, decoded.timeline, damage)
    return decoded


@contextmanager
def _open_again(source: Source) -> Iterator[tuple[Any, av.VideoStream]]:
    """Open a clip whose packets are not kept, or were decoded already."""
    with open_container(source) as container:
        stream = find_video(source, container)
        stream.codec_context.thread_count = 1
        yield container, stream


def _are_frames(clip: OpenClip) -> bool:
    """Whether packets tell for certain which frames there are, and when each is shown."""
    packets, context = clip.packets, clip.stream.codec_context
    return (
        clip.format in _WITH_TIMES
        and context.name in ONE_FRAME_A_PACKET
        and context.field_order in _PROGRESSIVE
        and clip.begins
        and not any(packet.pts is None for packet in packets)
        and len({packet.pts for packet in packets}) == len(packets)
    )


def _decode_by_time(clip: OpenClip, choose: Choose, make: Make) -> Decoded | None:
    """The frames of some numbers, by when they are shown; None if one is not there, or damaged."""
    timeline, packets, path = clip.timeline, clip.packets, clip.source
    places = {packet.pts: place for place, packet in enumerate(packets) if packet.pts is not None}
    times: list[int] = timeline.ticks.tolist()
    keys = [time for time in times if packets[places[time]].is_key]

    def find_start(time: int) -> int:
        """The place of the packet from which on a frame can be decoded."""
        return places[keys[max(bisect_right(keys, time) - 1, 0)]]

    wanted = {times[number]: number for number in choose(timeline)}
    left = deque(sorted(wanted))
    is_kept = clip.is_kept
    can_seek = not is_kept and clip.format in _SEEKABLE
    container, stream = clip.container, clip.stream
    frames: dict[int, Tensor] = {}
    convert = _Converter(path, make)
    place, decoded = 0, -1  # of the packet that comes, and of the last one that was decoded
    with hear_damage() as heard, ExitStack() as stack:
        while left:
            start = find_start(left[0])
            if is_kept:
                following, place = clip.take(start), start
            elif can_seek:
                container.seek(packets[start].pts, stream=stream)
                following, place = demux(path, container, stream), start
            else:
                container, stream = stack.enter_context(_open_again(path))
                following = demux(path, container, stream)
            for packet in following:
                if packet.size:
                    if packet.pts != packets[place].pts:  # it has gone elsewhere
                        return None
                    place += 1
                    if place <= start:  # no frame that is wanted refers to it
                        continue
                    if decoded != place - 2:
                        stream.codec_context.flush_buffers()
                    decoded = place - 1
                    stream.codec_context.skip_frame = (
                        "DEFAULT" if packet.pts in wanted else "NONREF"
                    )
                try:
                    shown = packet.decode()
                except av.error.MemoryError as error:
                    raise refuse_clip(path, error) from error
                except av.error.FFmpegError:
                    return None
                for frame in shown:
                    if left and frame.pts == left[0]:
                        if frame.is_corrupt:
                            return None
                        frames[wanted[left.popleft()]] = convert(frame)
                if not left:
                    break
                start = find_start(left[0])
                if can_seek and start - place > _WORTH_A_SEEK:
                    break
            else:
                return None  # the end has come before the last frame that is wanted
    return Decoded(frames, timeline) if not heard else None


def _decode_all(clip: OpenClip, numbers: Sequence[int], make: Make) -> Decoded:
    """Decode all frames, whatever is wrong with some of them.

    A recording that does not begin with a key frame begins with what cannot be decoded.
    """
    path = clip.source
    wanted, frames = {*numbers}, dict[int, Tensor]()
    convert = _Converter(path, make)
    times: list[int | None] = []
    num_corrupt = 0
    failed, known = "", ""  # the first failure, and the first one that is damage
    with hear_damage() as heard, ExitStack() as stack:
        if clip.is_kept:
            packets = clip.take()
        else:
            packets = demux(path, *stack.enter_context(_open_again(path)))
        for packet in packets:
            try:
                shown = packet.decode()
            except av.error.MemoryError as error:
                raise refuse_clip(path, error) from error
            except av.error.FFmpegError as error:
                failed = failed or first_line(error)
                known = known or first_line(error) * (clip.begins or len(times) > 0)
                continue
            for frame in shown:
                num_corrupt += frame.is_corrupt
                if len(times) in wanted:
                    frames[len(times)] = convert(frame)
                times.append(frame.pts)
    timeline = lay_out(clip.container, clip.stream, clip.packets, times)
    count = len(times)
    damage = heard.tell(count)
    if num_corrupt:
        damage = f"{num_corrupt} damaged frames among {count}"
    elif known or not count:
        damage = f"{count or 'none'}{' frames' * bool(count)}, and what does not decode: {failed}"
    return Decoded(frames, timeline, damage)


class _Converter:
    """From the frames of a clip to RGB, as ffmpeg's own command line makes it by default.

    One filter graph serves all frames. It knows where chroma lies between luma, and fields between
    lines, which `VideoFrame.to_ndarray` does not ask for.

    Args:
        path: The clip.
        make: What is made of each frame then.
    """

    def __init__(self, path: Source, make: Make) -> None:
        self._path = path
        self._make = make
        self._kind: tuple[object, ...] = ()

    def __call__(self, frame: av.VideoFrame) -> Tensor:
        """What is made of a frame, upright."""
        with parsing(lambda error: refuse_clip(self._path, error)):
            pixels = self._convert(frame)
        image = torch.from_numpy(pixels).permute(2, 0, 1)
        return self._make(_turn_upright(image, frame))

    def _convert(self, frame: av.VideoFrame) -> NDArray[np.uint8]:
        """The frame in RGB, `[H, W, 3]`."""
        width, height, name = frame.width, frame.height, frame.format.name
        kind = (width, height, name, frame.colorspace, frame.color_range)
        if kind != self._kind:
            self._kind = kind
            graph: Any = av.filter.Graph()
            graph.threads = 1
            self._source = graph.add_buffer(
                width=width, height=height, format=name, time_base=frame.time_base
            )
            rgb, self._sink = graph.add("format", "rgb24"), graph.add("buffersink")
            self._source.link_to(rgb)
            rgb.link_to(self._sink)
            graph.configure()
            self._graph = graph  # what is in it lives as long as it does
        self._source.push(frame)
        plane = self._sink.pull().planes[0]
        # A view where lines follow each other without a gap; `to_ndarray` always copies.
        lines = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[:height, : 3 * width]
        return lines.reshape(height, width, 3)


def _turn_upright(image: Tensor, frame: av.VideoFrame) -> Tensor:
    """Apply the display matrix of a frame, at the nearest right angle, to `[3, H, W]`.

    Source: ISO/IEC 14496-12, 6.2.2: x' = a x + c y and y' = b x + d y, with a, b and c, d in the
    first and the second row of three.
    """
    matrix: Any = frame.side_data.get("DISPLAYMATRIX")  # a buffer
    if matrix is None:
        return image
    (a, b, _), (c, d, _), _ = np.frombuffer(matrix, np.int32).reshape(3, 3).tolist()
    if abs(a) + abs(d) < abs(b) + abs(c):
        image = image.transpose(1, 2)
        a, d = c, b
    mirrored = [dim for dim, factor in ((2, a), (1, d)) if factor < 0]
    return image.flip(mirrored) if mirrored else image
