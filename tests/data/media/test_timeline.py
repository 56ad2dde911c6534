"""Which frames a segment has, and which are shown at given times: against plain loops."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featx.data.media.preprocessing import Preprocessing
from featx.data.media.timeline import Timeline
from featx.errors import UsageError

GAPS = st.lists(st.integers(1, 9), min_size=1, max_size=30)
MOMENTS = st.fractions(0, 20, max_denominator=50)


def make(gaps: list[int], begin: int = 0, unit: Fraction = Fraction(1, 7)) -> Timeline:
    """Frames that last so many ticks each; the first one begins at tick 3."""
    ticks = 3 + np.cumsum([0, *gaps[:-1]])
    return Timeline(ticks.astype(np.int64), unit, begin, int(ticks[-1]) + gaps[-1])


def shown_at(timeline: Timeline, moment: Fraction) -> int:
    """The frame on the screen: the last one that has begun; the first one before that."""
    frame = 0
    for number, tick in enumerate(timeline.ticks.tolist()):
        if (tick - timeline.begin) * timeline.unit <= moment:
            frame = number
    return frame


@given(GAPS, st.integers(0, 3), MOMENTS, MOMENTS)
def test_a_segment_is_what_is_shown_in_it(
    gaps: list[int], begin: int, start: Fraction, end: Fraction
) -> None:
    """From the frame that is on the screen when it begins to the last one before it ends."""
    timeline = make(gaps, begin)
    start, end = min(start, end), max(start, end) + Fraction(1, 100)
    begins = [(tick - begin) * timeline.unit for tick in timeline.ticks.tolist()]
    found = timeline.cut(start, end)
    assert found.first == shown_at(timeline, start)
    assert found.stop == max(sum(moment < end for moment in begins), 1)
    assert timeline.cut(None, None)[:2] == (0, len(gaps)) == timeline.whole[:2]


@given(GAPS, st.integers(0, 3), st.fractions(Fraction(1, 5), 40, max_denominator=30), MOMENTS)
def test_sampling_by_time(gaps: list[int], begin: int, fps: Fraction, start: Fraction) -> None:
    """The frame on the screen at each moment, from the beginning of the segment to its end."""
    timeline = make(gaps, begin)
    first = (3 - begin) * timeline.unit
    start = min(start, timeline.duration - Fraction(1, 1000))
    moment, expected = max(start, first), []
    while moment < timeline.duration:
        expected.append(shown_at(timeline, moment))
        moment += 1 / fps
    assert timeline.sample(timeline.cut(start, None), fps).tolist() == expected


def test_a_segment_ends_before_its_end() -> None:
    """What begins at the end of a segment is no part of it, by whichever sampling."""
    timeline = Timeline.count_up(100, Fraction(25))
    segment = timeline.cut(Fraction(1), Fraction(2))
    assert segment[:2] == (25, 50)
    by_time = Preprocessing.choose(None, None, 5).sample(timeline, segment)
    assert by_time.tolist() == [25, 30, 35, 40, 45]
    by_stride = Preprocessing.choose(None, 10, None).sample(timeline, segment)
    assert by_stride.tolist() == [25, 35, 45]
    uniform = Preprocessing.choose(3, None, None).sample(timeline, segment)
    assert uniform.tolist() == [25, 37, 49]


def test_rates_that_are_no_fractions_of_two() -> None:
    """0.1 s is a tenth, not the next number of floating point: an hour of it has 36,000."""
    timeline = Timeline.count_up(90_000, Fraction(25))
    numbers = Preprocessing.choose(None, None, 0.1).sample(timeline, timeline.whole)
    assert numbers.tolist() == [*range(0, 90_000, 250)]
    ntsc = Timeline.count_up(30_000, Fraction(30_000, 1001))
    assert len(Preprocessing.choose(None, None, 29.97).sample(ntsc, ntsc.whole)) == 30_000


def test_times() -> None:
    """In seconds from the beginning of the clip, be it the sound's; NaN if nobody knows."""
    timeline = make([7, 14, 7], begin=3)
    assert timeline.to_seconds(np.array([0, 1, 2, 2])).tolist() == [0, 1, 3, 3]
    assert make([7, 14], begin=0).to_seconds(np.array([0])).tolist() == [np.float32(3 / 7)]
    assert np.isnan(Timeline.count_up(3, None).to_seconds(np.arange(3))).all()


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ((8, 2, None), "num_frames and stride: expected one way of sampling, found 2"),
        ((8, 2, 5.0), "num_frames and stride and fps: expected one way of sampling, found 3"),
        ((None, 0, None), "stride: expected 1 or more, found 0"),
        ((None, None, 0.0), "fps: expected a number above 0, found 0.0"),
        ((None, None, float("nan")), "fps: expected a number above 0, found nan"),
        ((0, None, None), "num_frames: expected 1 or more, found 0"),
    ],
)
def test_one_way_of_sampling(
    settings: tuple[int | None, int | None, float | None], found: str
) -> None:
    """Two ways, or none that makes sense, are refused."""
    with pytest.raises(UsageError, match=found):
        Preprocessing.choose(*settings)
    assert Preprocessing.choose(None, None, None) == Preprocessing()
