"""What a person sees of a run: a bar where somebody watches, a line a minute in a log."""

import logging
import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

_BAR = "{desc}{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}"
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
    """Videos, frames a second, and the time left over all splits and all processes.

    It counts frames, so that the time left is right for videos of any length.

    Args:
        num_videos: Number of videos that are to be done.
        num_frames: Their frames.
        found: Number of videos that an earlier run has finished.
    """

    def __init__(self, num_videos: int, num_frames: int, found: int) -> None:
        self._num_videos, self._num_frames = num_videos, num_frames
        self._notes = f", {found:,} found from an earlier run" * (found > 0)
        self._start = self._last_line = time.monotonic()
        self._bar = make_bar(None, "", num_frames, "frame")

    def show(self, videos: int, frames: int, speed: str) -> None:
        """Show what is done, and how fast; see `format_speed`."""
        text = f"{videos:,}/{self._num_videos:,} videos{self._notes}"
        if not self._bar.disable:
            self._bar.set_description(text, refresh=False)
            self._bar.bar_format = f"{_BAR}{speed}]"
            self._bar.update(frames - self._bar.n)
            return
        now = time.monotonic()
        if now - self._last_line >= _LINE_SECONDS:
            self._last_line = now
            elapsed = tqdm.format_interval(now - self._start)
            share = frames / max(self._num_frames, 1)
            print(f"{text}: {share:.0%} [{elapsed}{speed}]", file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.refresh()
        self._bar.close()


def format_speed(rate: float, seconds_left: float | None) -> str:
    """Frames a second and the time left, as it follows the time that has passed."""
    left = "?" if seconds_left is None else tqdm.format_interval(seconds_left)
    return f"<{left}, {rate:,.1f} frames/s"


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
