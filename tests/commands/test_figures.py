"""The figures of a feature file: the numbers behind them, and what a reader sees."""

from collections.abc import Callable
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from featx.commands.inspect.figures import draw
from featx.commands.inspect.statistics import Survey, choose, project, survey
from featx.commands.plotting import check_plot
from featx.errors import OutputError, UsageError
from featx.features.dataset import FeatureDataset
from featx.features.feature_file import FileLayout, create, encode, write_row
from featx.features.provenance import Provenance

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DIM = 5


def write(
    path: Path,
    names: list[str],
    labels: list[int],
    lengths: list[int],
    make: Callable[[int, int], NDArray[np.float64]] | None = None,
) -> FeatureDataset:
    """A feature file; `make(row, length)` makes the features of a row, by default random ones."""
    rng = np.random.default_rng(0)
    layout = FileLayout.plan(
        np.array(labels),
        np.array(lengths, np.int32),
        [f"{names[label]}/{row}.mp4" for row, label in enumerate(labels)],
        DIM,
        Provenance({name: i for i, name in enumerate(names)}, multi_scale=False),
    )
    with h5py.File(path, "w") as file:
        create(file, layout)
        for row, length in enumerate(lengths):
            features = make(row, length) if make else rng.random((length, DIM))
            write_row(file, row, encode(features.astype(np.float32), layout))
    return FeatureDataset(path)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Survey], "Figure"]:
    """Draws, and returns the figure that went into the PNG."""
    figures: list[Figure] = []

    def keep(figure: "Figure", path: Path) -> None:
        figure.savefig(BytesIO(), dpi=100)  # the layout is settled in two passes, as here
        figures.append(figure)

    def render(found: Survey) -> "Figure":
        draw(found, tmp_path / "a.png")
        return figures[-1]

    monkeypatch.setattr("featx.commands.inspect.figures.save_png", keep)
    return render


def all_axes(figure: "Figure") -> list["Axes"]:
    """The panels that have an axis label: not those that are switched off."""
    return [axes for axes in figure.axes if axes.axison]


def legend_names(figure: "Figure") -> list[str]:
    """What the legends of all parts of a figure say."""
    from matplotlib.legend import Legend

    return [text.get_text() for legend in figure.findobj(Legend) for text in legend.get_texts()]


def test_numbers_are_those_of_a_plain_loop(tmp_path: Path) -> None:
    """Counts, norms and cosines equal what plain numpy finds, padding left out."""
    dataset = write(tmp_path / "a.h5", ["a", "b", "empty"], [0, 0, 1], [2, 4, 3])
    found = survey(dataset)
    rows = [dataset[row].features.numpy().astype(float) for row in range(3)]
    assert found.counts.tolist() == [2, 1, 0]
    assert found.times.tolist() == [0, 1, 2, 3]
    for time in range(4):
        norms = [np.sqrt((row[time] ** 2).sum()) for row in rows if len(row) > time]
        assert found.norms[2, time] == pytest.approx(np.median(norms))
    a, b = rows[2][0], rows[2][2]
    shown = next(s for s in found.similarities if s.category == 1)
    assert shown.cosines[0, 2] == pytest.approx(a @ b / np.sqrt((a @ a) * (b @ b)))
    assert np.diag(shown.cosines) == pytest.approx(np.ones(3))


def test_projection_of_points_on_a_line() -> None:
    """All of their variance is that of the first component, whose distances are the points'."""
    line = np.outer([0.0, 1.0, 3.0], [3.0, 4.0]) + 7
    places, shares = project(line)
    assert shares == pytest.approx((1.0, 0.0))
    assert np.abs(np.diff(places[:, 0])) == pytest.approx([5.0, 10.0])
    assert places[:, 1] == pytest.approx(np.zeros(3), abs=1e-12)
    assert places[2, 0] > 0


def test_shares_of_the_variance() -> None:
    """The components are those of the covariance matrix, the larger one first."""
    points = np.random.default_rng(0).standard_normal((50, 3)) * [1.0, 5.0, 2.0]
    eigenvalues = np.sort(np.linalg.eigvalsh(np.cov(points.T)))[::-1]
    places, shares = project(points)
    assert shares == pytest.approx(tuple(eigenvalues[:2] / eigenvalues.sum()))
    assert places.var(axis=0, ddof=1) == pytest.approx(eigenvalues[:2])


@pytest.mark.parametrize("points", [np.full((3, 2), 0.1), np.ones((1, 4)), np.zeros((2, 2))])
def test_points_without_variance(points: NDArray[np.float64]) -> None:
    """They lie at the origin, and no share is made up."""
    places, shares = project(points)
    assert shares is None
    assert not places.any()


@pytest.mark.parametrize(
    ("categories", "rows"),
    [
        ([0, 0, 1, 1, 2, 3, 4, 5, 6, 7], [0, 4, 6, 8]),
        ([0, 0, 0, 2, 2, 2], [0, 1, 3, 4]),
        ([0, 0], [0, 1]),
        ([5], [0]),
    ],
)
def test_videos_of_different_categories(categories: list[int], rows: list[int]) -> None:
    """One video of each of four categories, or more of these where there are fewer."""
    assert choose(np.array(categories), 4) == rows


def test_a_large_file_is_sampled(tmp_path: Path, drawn: Callable[[Survey], "Figure"]) -> None:
    """Only so many videos and frames are read, evenly spaced, and the titles say so."""
    dataset = write(tmp_path / "a.h5", ["a", "b"], [0] * 5 + [1] * 5, [6] * 10)
    found = survey(dataset, max_videos=4, max_times=3)
    assert found.sampled.tolist() == [0, 0, 1, 1]
    assert found.times.tolist() == [0, 2, 4]
    assert {s.cosines.shape for s in found.similarities} == {(3, 3)}
    assert found.counts.tolist() == [5, 5]
    titles = " ".join(axes.get_title() for axes in all_axes(drawn(found)))
    assert titles.count("4 of 10 videos, evenly spaced") == 2


@pytest.mark.parametrize(
    "count", [3, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 12, 60, 101))]
)
def test_axes_have_names(tmp_path: Path, drawn: Callable[[Survey], "Figure"], count: int) -> None:
    """Every panel has names on both axes, with units, and the colour bar has one too."""
    names = [f"c{i:03d}" for i in range(count)]
    labels = [i for i in range(count) for _ in range(2)]
    figure = drawn(survey(write(tmp_path / "a.h5", names, labels, [3, 5] * count)))
    labelled = [(axes.get_xlabel(), axes.get_ylabel()) for axes in all_axes(figure)]
    bar = ("", "cosine similarity (no unit)")
    assert labelled.count(bar) == 1
    assert all(x and y for x, y in labelled if (x, y) != bar)
    text = str(labelled)
    for unit in ("number of videos", "frames", "time (frame number)", "% of the variance"):
        assert unit in text


@pytest.mark.slow
def test_sixty_categories_can_be_told_apart(
    tmp_path: Path, drawn: Callable[[Survey], "Figure"]
) -> None:
    """Each has its own pair of colour and marker, its name in the legend, and a named bar."""
    names = [f"c{i:02d}" for i in range(60)]
    labels = [i for i in range(60) for _ in range(2)]
    figure = drawn(survey(write(tmp_path / "a.h5", names, labels, [3] * 120)))
    points = next(axes for axes in figure.axes if "component" in axes.get_xlabel())
    looks = {
        (str(c.get_facecolor()), np.asarray(c.get_paths()[0].vertices).tobytes())
        for c in points.collections
    }
    assert len(looks) == 60
    assert [name for name in legend_names(figure) if name in names] == names
    bars = next(axes for axes in figure.axes if axes.get_ylabel() == "category")
    boxes = [tick.get_window_extent() for tick in bars.get_yticklabels()]
    assert [tick.get_text() for tick in bars.get_yticklabels()] == names
    assert all(upper.y0 >= lower.y1 for upper, lower in pairwise(boxes))


@pytest.mark.parametrize(
    "count", [12, *(pytest.param(n, marks=pytest.mark.slow) for n in (3, 30, 60, 120))]
)
def test_legends_cover_no_data(
    tmp_path: Path, drawn: Callable[[Survey], "Figure"], count: int
) -> None:
    """They stand beside the panels, and inside the picture."""
    from matplotlib.legend import Legend

    names = [f"a rather long name of {i:03d}" for i in range(count)]
    labels = list(range(count))
    figure = drawn(
        survey(write(tmp_path / "a.h5", names, labels, [3 + label % 2 for label in labels]))
    )
    for legend in figure.findobj(Legend):
        box = legend.get_window_extent()
        assert not any(box.overlaps(axes.get_window_extent()) for axes in all_axes(figure))
        assert figure.bbox.y0 <= box.y0
        assert box.x1 <= figure.bbox.x1


@pytest.mark.slow
def test_beyond_the_markers(tmp_path: Path, drawn: Callable[[Survey], "Figure"]) -> None:
    """The smallest of very many categories share a colour, and the legend tells how many."""
    names = [f"c{i:02d}" for i in range(70)]
    labels = sorted([*range(70), *range(10, 70)])
    figure = drawn(survey(write(tmp_path / "a.h5", names, labels, [2] * 130)))
    shown = legend_names(figure)
    assert "6 smaller categories" in shown
    assert "c69" in shown
    assert "c09" not in shown


def test_similarities_share_a_scale(tmp_path: Path, drawn: Callable[[Survey], "Figure"]) -> None:
    """A colour means the same in every video."""
    figure = drawn(survey(write(tmp_path / "a.h5", list("abcd"), [0, 1, 2, 3], [3, 4, 5, 6])))
    images = [image for axes in figure.axes for image in axes.images]
    assert len(images) == 4
    assert len({image.get_clim() for image in images}) == 1
    lowest = min(float(np.min(image.get_array())) for image in images)  # type: ignore[arg-type]
    assert images[0].get_clim()[0] <= lowest


@pytest.mark.parametrize("value", [0.0, 1.0, 1e-30, 3e38], ids=["zeros", "ones", "tiny", "huge"])
@pytest.mark.parametrize(
    "lengths", [[3, 5, 5], *(pytest.param(n, marks=pytest.mark.slow) for n in ([1], [4], [1, 1]))]
)
def test_constant_features(tmp_path: Path, value: float, lengths: list[int]) -> None:
    """A file of one video, of single frames, or without any variance is drawn all the same."""
    dataset = write(
        tmp_path / "a.h5",
        ["a"],
        [0] * len(lengths),
        lengths,
        lambda row, length: np.full((length, DIM), value),
    )
    found = survey(dataset)
    assert found.shares is None
    draw(found, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_names_are_shown_letter_by_letter(
    tmp_path: Path, drawn: Callable[[Survey], "Figure"]
) -> None:
    """A dollar is no mathematics, a missing letter no warning, and a line break no line."""
    names = ["$a_b$ $\\frac$", "日本語", "Ärger", "مرحبا", "two\nlines", "\ud800", "x" * 99]
    dataset = write(tmp_path / "a.h5", names[:5], [0, 1, 2, 3, 4], [2] * 5)
    dataset.categories = {name: label for label, name in enumerate(names)}
    dataset.labels = np.array([0, 1, 5, 6, 4])
    figure = drawn(survey(dataset))
    bars = next(axes for axes in figure.axes if axes.get_ylabel() == "category")
    ticks = bars.get_yticklabels()
    assert [tick.get_text() for tick in ticks[:5]] == [*names[:4], "two\\nlines"]
    assert not any(tick.get_parse_math() for tick in ticks)
    assert ticks[6].get_text() == "x" * 23 + "…"
    assert "$a_b$ $\\frac$" in legend_names(figure)


def test_where_a_plot_can_be(tmp_path: Path) -> None:
    """Another ending, a folder that is not there and a folder in its place are told beforehand."""
    check_plot(tmp_path / "a.PNG")
    with pytest.raises(UsageError, match=r"ends in \.png, found a\.h5"):
        check_plot(tmp_path / "a.h5")
    with pytest.raises(OutputError, match="expected its folder to exist"):
        check_plot(tmp_path / "none" / "a.png")
    (tmp_path / "b.png").mkdir()
    with pytest.raises(OutputError, match="found a folder"):
        check_plot(tmp_path / "b.png")
