"""What a person sees of a run: a bar where somebody watches, a line a minute in a log."""

import logging
import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

_LINE_SECONDS = 60  # between two lines where there is no bar

# What Lightning says of itself.
_LOGGER = "lightning.pytorch.utilities.rank_zero"
_LINES = ("💡 Tip:", "TPU available:")
_WARNINGS = (
    ".*does not have many workers",  # as many as were measured to be best
    ".*LeafSpec",
)


def is_watched() -> bool:
    """Whether a person sees how a line changes: on a terminal, or in a notebook."""
    return sys.stderr.isatty() or "ipykernel" in sys.modules


def make_bar(
    items: Iterable[Any] | None, name: str, total: int, unit: str, show: bool = True
) -> "tqdm[Any]":
    """A progress bar over items, or to be moved by hand; it stays invisible in a log."""
    hidden = not (show and is_watched())
    return tqdm(items, name, total, unit=unit, disable=hidden, dynamic_ncols=True)


class Progress:
    """Videos, frames a second, and the time left over all splits.

    It counts frames, so that the time left is right for videos of any length.

    Args:
        lengths: Number of frames `[num_videos]` of each video that this process will take.
        found: Number of videos that an earlier run has finished.
        num_ranks: Number of processes that share the work; each takes as many frames.
    """

    def __init__(self, lengths: NDArray[np.int64], found: int, num_ranks: int) -> None:
        self._num_videos, self._num_frames = len(lengths), int(lengths.sum())
        self._videos = self._frames = 0
        self._notes = f", process 1 of {num_ranks}" * (num_ranks > 1)
        self._notes += f", {found} found from an earlier run" * (found > 0)
        self._start = self._last_line = time.monotonic()
        self._bar = make_bar(None, "", self._num_frames, "frame")
        self.advance(0, 0)

    def advance(self, videos: int, frames: int) -> None:
        """Count videos, and their frames, as done."""
        self._videos += videos
        self._frames += frames
        text = f"{self._videos}/{self._num_videos} videos{self._notes}"
        self._bar.set_description(text, refresh=False)
        self._bar.update(frames)
        now = time.monotonic()
        if self._bar.disable and now - self._last_line >= _LINE_SECONDS:
            self._last_line = now
            meter = tqdm.format_meter(
                self._frames,
                self._num_frames,
                now - self._start,
                prefix=text,
                unit="frame",
                bar_format="{desc}: {percentage:.0f}% [{elapsed}<{remaining}, {rate_fmt}]",
            )
            print(meter, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()


@contextmanager
def without_chatter() -> Iterator[None]:
    """Run Lightning without advertisements, and without warnings that are none of the user's."""
    logger = logging.getLogger(_LOGGER)
    logger.addFilter(_is_of_the_run)
    try:
        with warnings.catch_warnings():
            for message in _WARNINGS:
                warnings.filterwarnings("ignore", message)
            yield
    finally:
        logger.removeFilter(_is_of_the_run)


def _is_of_the_run(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(_LINES)
