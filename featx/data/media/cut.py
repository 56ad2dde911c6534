"""What is taken of a clip: a segment, and a part of each frame."""

from fractions import Fraction
from typing import NamedTuple

from featx.data.media.clip import Box, Opened
from featx.data.media.preprocessing import to_fraction
from featx.data.media.timeline import Segment
from featx.errors import InputError

_SECONDS_OFF = 0.1  # by which a segment may end after its clip: its end was rounded


class Cut(NamedTuple):
    """What is to be taken of a clip, as somebody has asked for it."""

    begin: float | None = None  # in seconds
    end: float | None = None
    first: int | None = None  # with which frame it begins
    stop: int | None = None  # before which frame it ends
    box: Box | None = None

    @property
    def is_timed(self) -> bool:
        """Whether its segment is in seconds."""
        return self.begin is not None or self.end is not None

    @property
    def is_segment(self) -> bool:
        """Whether it is less than its clip."""
        return self.is_timed or self.first is not None or self.stop is not None

    def to_fragment(self) -> str:
        """What is taken of a clip, as a fragment of its address.

        Source: W3C, Media Fragments URI 1.0, section 4.2; frames are not in it.
        """
        parts = []
        if self.is_timed:
            begin, end = ("" if value is None else show(value) for value in (self.begin, self.end))
            parts.append(f"t={begin or 0}" + f",{end}" * bool(end))
        elif self.is_segment:
            end = "" if self.stop is None else f",{self.stop}"
            parts.append(f"frame={self.first or 0}{end}")
        if self.box:
            left, top, right, bottom = self.box
            parts.append(f"xywh={left},{top},{right - left},{bottom - top}")
        return f"#{'&'.join(parts)}" * bool(parts)


def find_part(cut: Cut, clip: Opened) -> Segment | None:
    """The segment of a clip that is asked for, after a check that it and the box are there.

    Returns:
        Its frames; None for all.

    Raises:
        InputError: They are not.
    """
    segment = _find_segment(cut, clip) if cut.is_segment else None
    if cut.box and clip.found.size:
        height, width = clip.found.size
        left, top, right, bottom = cut.box
        if left < 0 or top < 0 or right > width or bottom > height:
            raise InputError(
                f"expected a box in the frame of {width} x {height} pixels, found left {left}, "
                f"top {top}, right {right}, bottom {bottom}. Fix the row."
            )
    return segment


def _find_segment(cut: Cut, clip: Opened) -> Segment:
    timeline = clip.found.timeline
    assert timeline is not None
    count = len(timeline)
    if cut.is_timed:
        if not timeline.is_timed:
            raise InputError(
                f"expected to know when the frames of {clip.path} are shown, to find a segment in "
                "seconds, found no frame rate. Set frame_rate, or give start_frame and end_frame."
            )
        seconds = timeline.seconds
        latest = seconds + max(_SECONDS_OFF, seconds / count)
        for name, moment, limit in (("start", cut.begin, seconds), ("end", cut.end, latest)):
            if moment is not None and moment >= limit:
                raise InputError(
                    f"expected {name} within the {show(seconds)} s of {clip.path}, "
                    f"found {show(moment)}. Fix the row."
                )
        segment = timeline.cut(_to_fraction(cut.begin), _to_fraction(cut.end))
        # Only by time does it matter when, in the time of its first frame, a segment begins.
        return segment if clip.preprocessing.fps else Segment(segment.first, segment.stop)
    first, stop = cut.first or 0, count if cut.stop is None else cut.stop
    if first >= count or stop > count:
        name, value = ("start_frame", first) if first >= count else ("end_frame", stop)
        raise InputError(
            f"expected {name} within the {count} frames of {clip.path}, found {value}. Fix the row."
        )
    return Segment(first, stop)


def _to_fraction(number: float | None) -> Fraction | None:
    return None if number is None else to_fraction(number)


def show(number: float) -> str:
    """A number as a person writes it."""
    return f"{number:.6f}".rstrip("0").rstrip(".") if number < 1e9 else f"{number:g}"
