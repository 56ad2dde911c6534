"""When the frames of a clip are shown."""

from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Segment(NamedTuple):
    """Some frames of a clip that follow each other: from the first one to that before `stop`.

    If it was cut by time, `begin` and `end` are in seconds from the beginning of the clip: it may
    begin while the first frame is shown already.
    """

    first: int
    stop: int
    begin: Fraction | None = None
    end: Fraction | None = None


@dataclass(frozen=True)
class Timeline:
    """The frames of a clip, in the order in which they are shown, and when.

    Attributes:
        ticks: When each frame is shown first `[num_frames]`, int64, rising.
        unit: Seconds of a tick.
        begin: The tick at which the clip begins: its sound may do so before its first frame.
        end: The tick at which the last frame ends.
        is_timed: Whether the times are known; otherwise ticks just count.
    """

    ticks: NDArray[np.int64]
    unit: Fraction
    begin: int
    end: int
    is_timed: bool = True

    @classmethod
    def count_up(cls, num_frames: int, rate: Fraction | None) -> "Timeline":
        """Frames that follow each other at a rate, in frames a second; None if it is not known."""
        return cls(
            np.arange(num_frames, dtype=np.int64),
            1 / rate if rate else Fraction(1),
            begin=0,
            end=num_frames,
            is_timed=bool(rate),
        )

    def __len__(self) -> int:
        return len(self.ticks)

    def to_json(self) -> dict[str, Any]:
        """All of it, as JSON has it: frames that follow each other evenly take little room."""
        steps = np.diff(self.ticks)
        bounds = np.flatnonzero(np.diff(steps)) + 1
        starts = np.concatenate([[0], bounds]) if len(steps) else np.empty(0, np.int64)
        counts = np.diff(np.concatenate([starts, [len(steps)]]))
        return {
            "first": int(self.ticks[0]) if len(self) else None,
            "steps": [*zip(steps[starts].tolist(), counts.tolist(), strict=True)],
            "unit": str(self.unit),
            "begin": self.begin,
            "end": self.end,
            "is_timed": self.is_timed,
        }

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> "Timeline":
        """What `to_json` gives."""
        steps = [step for step, count in kept["steps"] for _ in range(count)]
        first = [] if kept["first"] is None else [kept["first"]]
        return cls(
            np.cumsum(np.array([*first, *steps], np.int64)),
            Fraction(kept["unit"]),
            kept["begin"],
            kept["end"],
            kept["is_timed"],
        )

    @cached_property
    def duration(self) -> Fraction:
        """Seconds from the beginning of the clip to the end of its last frame."""
        return (self.end - self.begin) * self.unit

    @cached_property
    def seconds(self) -> float:
        """The duration, rounded."""
        return float(self.duration)

    @property
    def whole(self) -> Segment:
        """All of its frames."""
        return Segment(0, len(self))

    def cut(self, begin: Fraction | None, end: Fraction | None) -> Segment:
        """The frames that are shown between two moments, in seconds from the beginning.

        A frame is shown until the next one, so that the first one may have begun before.
        """
        first, stop = 0, len(self)
        count, of = self.unit.denominator, self.unit.numerator  # ticks, in so many seconds
        if begin is not None:
            tick = self.begin + begin.numerator * count // (begin.denominator * of)
            first = bisect_right(self.ticks, tick) - 1
        if end is not None:
            tick = self.begin - (-end.numerator * count // (end.denominator * of))
            stop = bisect_left(self.ticks, tick)
        first = max(first, 0)
        # Before the first frame, which is all that there is to show, the sound may begin.
        return Segment(first, max(stop, first + 1), begin, end)

    def sample(self, segment: Segment, fps: Fraction) -> NDArray[np.int64]:
        """The frames that are shown when a segment begins, and every `1 / fps` seconds then."""
        begin, end = self._to_ticks(segment)
        step = 1 / (fps * self.unit)
        count = max(-(-(end - begin) // step), 1)
        # Floors of fractions, without an error of floating point.
        common = begin.denominator * step.denominator
        base, each = int(begin * common), int(step * common)
        ticks = (base + np.arange(count, dtype=object) * each) // common
        shown = np.searchsorted(self.ticks, ticks.astype(np.int64), side="right") - 1
        numbers: NDArray[np.int64] = np.clip(shown, segment.first, segment.stop - 1)
        return numbers

    def _to_ticks(self, segment: Segment) -> tuple[Fraction, Fraction]:
        """When a segment begins and ends, in ticks."""
        begin = Fraction(int(self.ticks[segment.first]))
        end = Fraction(int(self.ticks[segment.stop]) if segment.stop < len(self) else self.end)
        if segment.begin is not None:
            begin = max(begin, self.begin + segment.begin / self.unit)
        if segment.end is not None:
            end = min(end, self.begin + segment.end / self.unit)
        return begin, end

    def to_seconds(self, numbers: NDArray[np.int64]) -> NDArray[np.float32]:
        """When frames are shown, in seconds from the beginning; NaN if that is not known."""
        if not self.is_timed:
            return np.full(len(numbers), np.nan, np.float32)
        since = (self.ticks[numbers] - self.begin).astype(np.float64)
        seconds: NDArray[np.float32] = (since * float(self.unit)).astype(np.float32)
        return seconds
