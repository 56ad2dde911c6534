"""The figures of a feature file: one PNG with five panels."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from featx.commands.inspect.statistics import QUANTILES, Survey
from featx.commands.plotting import plain_text, save_png
from featx.errors import shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure, SubFigure

_BLUE = "#0072B2"
# Okabe and Ito's colours, which also those tell apart who do not see red and green.
_COLOURS = (_BLUE, "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#F0E442", "#444444")
_MARKERS = "os^DvPX*"
_MAX_MARKED = len(_COLOURS) * len(_MARKERS)
_MAX_NAMED = 100  # categories that have a bar with a name
_MAX_SHORT = 30  # categories whose bars fit beside the other panels of a row
_MAX_BINS = 40
_WIDTH = 15.0  # inches


def draw(survey: Survey, path: Path) -> None:
    """Draw a feature file as a PNG.

    The panels: videos per category, frames per video, feature norm over time, the videos' mean
    features in two dimensions, and the similarity of the frames of a few videos.
    """
    from matplotlib.figure import Figure

    short = not _MAX_SHORT < len(survey.categories) <= _MAX_NAMED
    with plain_text():
        figure = Figure(layout="constrained")
        figure.suptitle(
            f"{shorten([survey.file])}: {_count(len(survey.num_frames), 'video')}, "
            f"{survey.feature_dim:,} features per frame",
            fontsize=15,
        )
        if short:
            named = len(survey.categories) * (len(survey.categories) <= _MAX_NAMED)
            heights = [max(4.2, 1.4 + 0.18 * named), 7.0]
            figure.set_size_inches(_WIDTH, sum(heights) + 0.5)
            top, bottom = _split(figure, heights=heights)
            bars, lengths, norms = _split(top, widths=[1.2, 1, 1.2])
            projection, similarity = _split(bottom, widths=[1.35, 1])
        else:
            figure.set_size_inches(_WIDTH, 16.5)
            bars, right = _split(figure, widths=[1, 2.6])
            top, projection, similarity = _split(right, heights=[4, 8, 3.8])
            lengths, norms = _split(top, widths=[1, 1])
        _draw_categories(bars, survey)
        _draw_lengths(lengths, survey)
        _draw_norms(norms, survey)
        _draw_projection(projection, survey)
        _draw_similarities(similarity, survey, columns=2 if short else 4)
        save_png(figure, path)


def _draw_categories(part: "SubFigure", survey: Survey) -> None:
    axes = _add_axes(part, f"Videos per category ({_count(len(survey.categories), 'category')})")
    axes.set_xlabel("number of videos")
    count = len(survey.categories)
    if count > _MAX_NAMED:
        ranked = np.sort(survey.counts)[::-1]
        axes.set(xlabel="categories, the largest first (rank)", ylabel="number of videos")
        axes.stairs(ranked, np.arange(count + 1) + 0.5, fill=True, color=_BLUE)
        axes.set_ylim(0, 1.05 * max(ranked[0], 1))
        return
    size = 9 if count <= 70 else 7
    axes.set_ylabel("category")
    bars = axes.barh(range(count), survey.counts, height=0.75, color=_BLUE)
    axes.bar_label(bars, fmt="{:,.0f}", padding=2, fontsize=size)
    axes.set_yticks(range(count), [_name(name) for name in survey.categories], fontsize=size)
    axes.set_ylim(max(count, 4) - 0.4, -0.6)  # downwards by label; a few bars are not stretched
    axes.set_xlim(0, 1.15 * max(survey.counts.max(initial=0), 1))
    _count_on(axes.xaxis)


def _draw_lengths(part: "SubFigure", survey: Survey) -> None:
    axes = _add_axes(part, "Length of the videos")
    shortest, longest = int(survey.num_frames.min()), int(survey.num_frames.max())
    width = -(-(longest - shortest + 1) // _MAX_BINS)
    edges = np.arange(shortest, longest + width + 1, width) - 0.5
    axes.hist(survey.num_frames, edges.tolist(), color=_BLUE, edgecolor="white", linewidth=0.5)
    if len(edges) == 2:  # a bar as wide as the panel does not look like a bar
        axes.set_xlim(max(shortest - 4.5, -0.5), shortest + 4.5)
    per_bar = f", {width} to a bar" if width > 1 else ""
    axes.set(xlabel=f"num_frames (frames{per_bar})", ylabel="number of videos")
    _count_on(axes.xaxis, axes.yaxis)


def _draw_norms(part: "SubFigure", survey: Survey) -> None:
    axes = _add_axes(part, f"Feature norm over time{_sample(survey)}")
    times, norms = survey.times, survey.norms
    if len(times) == 1:  # a line needs two ends
        times, norms = np.array([-0.4, 0.4]), norms.repeat(2, axis=1)
        axes.set_xlim(-1, 1)
    low, lower, middle, upper, high = norms
    names = [f"{quantile:.0%}" for quantile in QUANTILES]
    lengths = survey.num_frames
    if len(lengths) > 1:
        for bottom, top, alpha, label in (
            (low, high, 0.2, f"{names[0]} to {names[4]} of the videos"),
            (lower, upper, 0.4, f"{names[1]} to {names[3]}"),
        ):
            axes.fill_between(
                times, bottom, top, color=_BLUE, alpha=alpha, linewidth=0, label=label
            )
    label = "median" if len(lengths) > 1 else "the video"
    axes.plot(times, middle, color=_BLUE, label=label)
    if lengths.min() < lengths.max():
        axes.axvline(
            float(np.median(lengths)),
            color="0.4",
            linestyle=":",
            label="half of the videos are over",
        )
    axes.set(xlabel="time (frame number)", ylabel="L2 norm of a frame's features (no unit)")
    _count_on(axes.xaxis)
    axes.ticklabel_format(axis="y", useOffset=False)
    margin = 0.1 * (max(high.max() - low.min(), 0.1 * high.max()) or 1.0)
    axes.set_ylim(max(low.min() - margin, 0), high.max() + margin)
    part.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False)


def _draw_projection(part: "SubFigure", survey: Survey) -> None:
    axes = _add_axes(part, f"Mean features of the videos, in two dimensions{_sample(survey)}")
    sizes = np.bincount(survey.sampled, minlength=len(survey.categories))
    largest = np.argsort(-sizes, kind="stable")[:_MAX_MARKED]
    marked = [category for category in sorted(largest.tolist()) if sizes[category]]
    area = float(np.clip(14000 / len(survey.sampled), 20, 60))
    across, up = survey.places.T
    rest = ~np.isin(survey.sampled, marked)
    if rest.any():
        number = int((sizes > 0).sum()) - len(marked)
        axes.scatter(
            across[rest], up[rest], s=area / 2, color="0.8", label=f"{number} smaller categories"
        )
    for place, category in enumerate(marked):
        shown = survey.sampled == category
        axes.scatter(
            across[shown],
            up[shown],
            s=area,
            color=_COLOURS[place % len(_COLOURS)],
            # Along the diagonal: neighbours differ in both, and no two are alike in both.
            marker=_MARKERS[(place + place // len(_COLOURS)) % len(_MARKERS)],
            edgecolor="black",
            linewidth=0.4,
            label=_name(survey.categories[category]),
        )
    shares = survey.shares or (0.0, 0.0)
    names = [f"{share:.0%} of the variance" if survey.shares else "no variance" for share in shares]
    axes.set_xlabel(f"principal component 1 (units of the features, {names[0]})")
    axes.set_ylabel(f"principal component 2 (units of the features, {names[1]})")
    if survey.shares is None:
        axes.set(xlim=(-1, 1), ylim=(-1, 1))
    else:
        axes.set_aspect("equal", adjustable="datalim")
    part.legend(
        loc="outside right upper",
        ncols=-(-len(axes.collections) // 33),
        fontsize=9,
        title="category",
        frameon=False,
        markerscale=max(1.0, (30 / area) ** 0.5),
        columnspacing=0.8,
        handletextpad=0.2,
    )


def _draw_similarities(part: "SubFigure", survey: Survey, columns: int) -> None:
    part.suptitle("Similarity of the frames of a video", fontsize=12)
    shown = survey.similarities
    columns = min(columns, len(shown))
    grid = part.subplots(-(-len(shown) // columns), columns, squeeze=False)
    lowest = min(float(np.nanmin(s.cosines, initial=1.0)) for s in shown)
    lowest = min(np.floor(lowest * 20) / 20, 0.95)  # equal frames have no noise to magnify
    for axes, similarity in zip(grid.flat, shown, strict=False):
        image = axes.imshow(
            similarity.cosines,
            vmin=lowest,
            vmax=1.0,
            extent=(-0.5, similarity.num_frames - 0.5, similarity.num_frames - 0.5, -0.5),
            interpolation="nearest",
        )
        axes.set_facecolor("0.8")
        category, video = survey.categories[similarity.category], similarity.video_id
        axes.set_title(f"{_name(category)}\n{_name(video, tail=True)}", fontsize=9)
        axes.set(xlabel="time (frame number)", ylabel="time (frame number)")
        _count_on(axes.xaxis, axes.yaxis, nbins=5)
    for axes in grid.flat[len(shown) :]:
        axes.set_axis_off()
    undefined = any(np.isnan(s.cosines).any() for s in shown)
    label = f"cosine similarity{' (grey: features of zeros)' if undefined else ' (no unit)'}"
    part.colorbar(image, ax=grid, label=label, shrink=0.9 if columns < 4 else 0.65)


def _split(
    figure: "Figure | SubFigure", heights: Sequence[float] = (1,), widths: Sequence[float] = (1,)
) -> list["SubFigure"]:
    """The parts of a figure, of these relative sizes, row by row."""
    parts = figure.subfigures(
        len(heights), len(widths), squeeze=False, height_ratios=heights, width_ratios=widths
    )
    return [*parts.flat]


def _add_axes(part: "SubFigure", title: str) -> "Axes":
    axes = part.subplots()
    axes.set_title(title, fontsize=12)
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def _count_on(*axes: "Axis", nbins: int = 9) -> None:
    """Only whole numbers: there is no half of a frame, or of a video."""
    from matplotlib.ticker import MaxNLocator

    for axis in axes:
        locator = MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10], nbins=nbins)
        axis.set_major_locator(locator)


def _sample(survey: Survey) -> str:
    """What a title adds where not all videos were read."""
    everything, read = len(survey.num_frames), len(survey.sampled)
    return f"\n{read:,} of {everything:,} videos, evenly spaced" if read < everything else ""


def _name(name: str, limit: int = 24, tail: bool = False) -> str:
    """A name that is not too long for its place, and without newlines and the like."""
    name = shorten([name])
    if len(name) <= limit:
        return name
    return f"…{name[1 - limit :]}" if tail else f"{name[: limit - 1]}…"


def _count(number: int, what: str) -> str:
    plural = {"category": "categories"}.get(what, f"{what}s")
    return f"{number:,} {what if number == 1 else plural}"
