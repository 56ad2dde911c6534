"""The figure of a probe: which categories it takes for which."""

from pathlib import Path

import numpy as np

from featx.analysis.probing import confusion_matrix
from featx.commands.plotting import plain_text, save_png
from featx.commands.probe.report import LINEAR, Entry, cut

_MAX_NAMED = 60  # categories whose names fit
_MAX_COUNTED = 25  # categories whose numbers of videos fit


def draw_confusions(entry: Entry, path: Path) -> None:
    """Draw the confusion matrix of the linear probe as a PNG.

    A row is a category, and shows which share of its videos is taken for each category.

    Raises:
        OutputError: The PNG cannot be written.
    """
    from matplotlib.figure import Figure

    probed = entry.probed
    counts = confusion_matrix(probed, LINEAR)
    sizes = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, sizes, out=np.full(counts.shape, np.nan), where=sizes > 0)
    number = len(probed.categories)
    side = float(np.clip(2.5 + 0.28 * number, 5, 16 if number <= _MAX_NAMED else 12))
    with plain_text():
        figure = Figure(figsize=(side + 1.2, side), layout="constrained")
        axes = figure.subplots()
        image = axes.imshow(shares, vmin=0, vmax=1, cmap="Blues", interpolation="nearest")
        axes.set_facecolor("0.8")
        accuracy = probed.scores[LINEAR].accuracy.value
        axes.set_title(
            f"{cut(entry.path.name)}: {accuracy:.1%} of {len(probed.truth):,} videos right "
            f"({LINEAR}, chance {probed.chance:.1%})",
            fontsize=11,
        )
        if number <= _MAX_NAMED:
            names = [cut(name) for name in probed.categories]
            size = 9 if number <= 30 else 7
            axes.set_xticks(range(number), names, rotation=90, fontsize=size)
            axes.set_yticks(range(number), names, fontsize=size)
            axes.set(xlabel="predicted category", ylabel="category")
        else:
            axes.set(xlabel="predicted category (label)", ylabel="category (label)")
        if number <= _MAX_COUNTED:
            for row, column in zip(*np.nonzero(counts), strict=True):
                dark = shares[row, column] > 0.5
                axes.text(
                    column,
                    row,
                    f"{counts[row, column]:,}",
                    ha="center",
                    va="center",
                    fontsize=8,
                    color="white" if dark else "black",
                )
        figure.colorbar(
            image,
            ax=axes,
            label="share of the category's videos",
            shrink=0.8,
        )
        save_png(figure, path)
