"""matplotlib, which is optional: whether it is there, and how its figures become files."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from featx.durable import check_replaceable, replace_file, writing
from featx.errors import OutputError, UsageError, check_installed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DPI = 150
_WIDE_FONTS = (  # those that systems have with Chinese, Japanese, Korean, Arabic, Indian letters
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "WenQuanYi Zen Hei",
    "Droid Sans Fallback",
    "PingFang SC",
    "Hiragino Sans",
    "Microsoft YaHei",
    "Arial Unicode MS",
    "Noto Sans Arabic",
    "Noto Sans Devanagari",
)


def check_plot(path: Path) -> None:
    """Check before the hours of reading whether a plot can be drawn at a path."""
    check_output("plot", path, (".png",))
    check_installed("matplotlib.figure", "matplotlib", "plot")


def check_output(option: str, path: Path, suffixes: Sequence[str]) -> None:
    """Check whether a file of some kind can be written at a path.

    Raises:
        UsageError: The name is that of another kind.
        OutputError: The folder does not exist, or something else than a file is there.
    """
    if path.suffix.lower() not in suffixes:
        raise UsageError(
            f"{option}: expected a name that ends in {suffixes[0]}, found {path.name}."
        )
    if not path.parent.is_dir():
        raise OutputError(f"{path}: expected its folder to exist, found none. Make the folder.")
    check_replaceable(path)


@contextmanager
def plain_text() -> Iterator[None]:
    r"""Draw and save inside: names are shown letter by letter, whatever is in them.

    By default matplotlib takes `$` for mathematics, and warns of letters that a font lacks. These
    are looked for in the fonts of the system, and otherwise drawn as a box.
    """
    import matplotlib
    from matplotlib.font_manager import fontManager

    installed = {font.name for font in fontManager.ttflist}
    fonts = ["DejaVu Sans", *(font for font in _WIDE_FONTS if font in installed)]
    with (
        matplotlib.rc_context(
            {"text.parse_math": False, "text.usetex": False, "font.family": fonts}
        ),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", ".*Glyph", UserWarning)
        warnings.filterwarnings("ignore", ".*Matplotlib currently does not support", UserWarning)
        yield


def save_png(figure: "Figure", path: Path) -> None:
    """Write a figure as a PNG; a path never holds half of one."""
    content = BytesIO()
    figure.savefig(content, dpi=_DPI, format="png")
    with writing(path):
        replace_file(path, content.getbuffer())
