"""What the numbers of floating pixels mean: what they can be, and what they look like.

uint8 is raw RGB, whatever is said here.
"""

from typing import Literal, NamedTuple

PixelsName = Literal["normalized", "unit", "raw"]

Span = tuple[float, float]
"""The lowest and the highest of some pixels."""


class Pixels(NamedTuple):
    """A meaning of floating pixels."""

    low: float  # the lowest value that there is
    high: float
    white: float | None  # the value of white; None if each channel has another one
    words: str


PIXELS: dict[PixelsName, Pixels] = {
    # Of RGB from 0 to 1: the darkest red and the brightest blue.
    "normalized": Pixels(-2.118, 2.64, None, "pixels normalized with ImageNet's mean and std"),
    "unit": Pixels(0, 1, 1.0, "RGB from 0 to 1"),
    "raw": Pixels(0, 255, 255.0, "RGB from 0 to 255"),
}

# Where resizing sharpens an edge, it goes beyond the pixels that there are: by up to 0.69 of their
# range for Lanczos's kernel in two dimensions, 0.44 for the sharpest bicubic one.
_OVERSHOOT = 0.7

_FIRST_VIDEOS = 4  # of a file, which tell what all are


def find_misfit(span: Span, name: PixelsName) -> str:
    """What is wrong with pixels that cannot be what they are taken for; empty if they can."""
    if _fits(span, name):
        return ""
    low, high, _, words = PIXELS[name]
    return f"expected {words}, which lie within {low:g} and {high:g}, found {_describe(span, name)}"


def _fits(span: Span, name: PixelsName) -> bool:
    low, high, _, _ = PIXELS[name]
    margin = _OVERSHOOT * (high - low)
    return low - margin <= span[0] and span[1] <= high + margin


class PixelWatch:
    """Looks at the first videos of each file, for what no single one tells.

    A dark or a pale video of one kind may look like another kind; hardly all of them do.

    Args:
        name: What the pixels are taken for.
    """

    def __init__(self, name: PixelsName) -> None:
        self._name = name
        self._path: str | None = None
        self._spans: list[Span] = []
        self._told = False

    def look(self, path: str, num_videos: int, span: Span) -> str:
        """Look at one video of a file.

        Returns:
            What its first videos look like, once for all files; mostly nothing.
        """
        warning = ""
        if path != self._path:
            warning = self.judge()
            self._path, self._spans = path, []
        self._spans.append(span)
        if len(self._spans) == min(num_videos, _FIRST_VIDEOS):
            warning = warning or self.judge()
        return warning

    def judge(self) -> str:
        """What the videos at hand look like, if that is not what they are taken for."""
        lows, highs = zip(*self._spans, strict=True) if self._spans else ((0.0,), (0.0,))
        span = min(lows), max(highs)
        looks = _guess(span)
        if self._told or span[0] == span[1] or looks == self._name or looks is None:
            return ""
        self._told = True
        count = len(self._spans)
        return (
            f"{self._path}: expected {PIXELS[self._name].words}, found in "
            f"{'its first video' if count == 1 else f'its first {count} videos'} "
            f"{_describe(span, self._name)}"
        )


def _guess(span: Span) -> PixelsName | Literal["signed"] | None:
    """What pixels look like; None if they could be anything."""
    low, high = span
    if low >= -0.25 and high <= 1.25:
        return "unit"
    if low >= -1.1 and high <= 1.1:
        return "signed"
    if low >= 0:
        return "raw" if _fits(span, "raw") else None
    return "normalized" if _fits(span, "normalized") else None


def _describe(span: Span, name: PixelsName) -> str:
    looks = _guess(span)
    found = f"{span[0]:.4g} to {span[1]:.4g}"
    if looks == "signed":
        return (
            f"{found}, as of a mean and std of 0.5. If so, save (videos + 1) / 2, and set pixels "
            "to unit."
        )
    if looks is None or looks == name:
        return f"{found}. Save the frames in uint8, or normalize them so."
    return f"{found}, which looks like {PIXELS[looks].words}. If so, set pixels to {looks}."
