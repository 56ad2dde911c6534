"""`featx probe`: how good features are, by what simple classifiers make of them."""

import json
from collections.abc import Sequence
from pathlib import Path

from featx.analysis.pooling import PoolName
from featx.analysis.probing import probe
from featx.commands.parser import ConciseParser
from featx.commands.plotting import check_plot
from featx.commands.probe.report import Entry, describe, find_best, format_report
from featx.durable import expand
from featx.errors import UsageError, check_at_least, check_installed, shorten
from featx.features.folder import open_feature_files


def main(args: Sequence[str], summary: str) -> int:
    """Run `featx probe`; returns its exit status."""
    parser = ConciseParser(prog="featx probe", description=summary)
    parser.add_argument(
        "features",
        nargs="+",
        metavar="FEATURES",
        help="folders that featx predict wrote to, or feature files, to be told side by side",
    )
    parser.add_function_arguments(probe_all, skip={"features", "as_json"})
    parser.add_argument("--json", dest="as_json", action="store_true", help="print JSON")
    probe_all(**vars(parser.parse_args(args)))
    return 0


def probe_all(
    features: Sequence[Path | str],
    pool: PoolName = "mean",
    max_videos: int = 20_000,
    seed: int = 0,
    multi_scale: bool | None = None,
    plot: Path | None = None,
    as_json: bool = False,
) -> None:
    """Print how good features are, side by side.

    The probes are trained on train, chosen on val and told on test; where there is one split, they
    are cross-validated. kNN: the 20 nearest neighbours by cosine. linear: logistic regression on
    standardized features.

    Args:
        features: Folders that featx predict wrote to, or feature files.
        pool: How the frames of a video become one vector: mean, mean+std, or thirds (the means of
            the beginning, the middle and the end, so that the order counts).
        max_videos: Of more videos, as many are read, evenly spaced.
        seed: Of all that is drawn: folds and bootstrap.
        multi_scale: Which files of a folder, where there are both; by default, those that there
            are.
        plot: A PNG to draw: the confusion matrix of the linear probe on the best of them.
        as_json: Print one JSON object instead of text.

    Raises:
        InputError: A file is no feature file, or there is nothing to learn.
        UsageError: A setting is out of its range.
        MissingDependencyError: scikit-learn is not installed, or matplotlib, for a plot.
        OutputError: The plot cannot be written.
    """
    check_at_least(2, max_videos=max_videos)
    check_at_least(0, seed=seed)
    check_installed("sklearn", "scikit-learn", "probe")
    if plot is not None:
        plot = expand(plot)
        check_plot(plot)
    paths = [expand(path) for path in features]
    if twice := [path for path in paths if [p.resolve() for p in paths].count(path.resolve()) > 1]:
        raise UsageError(
            f"features: expected different folders or files, found {shorten(twice)} more than "
            "once. Give each of them once."
        )
    entries = []
    for path in paths:
        datasets = open_feature_files(path, multi_scale)
        first = next(iter(datasets.values()))
        found = probe(datasets, pool, max_videos, seed)
        entries.append(Entry(path, first.provenance, first.feature_dim, found))
    report = describe(entries, pool, seed)
    if plot is not None:
        from featx.commands.probe.figures import draw_confusions

        draw_confusions(find_best(entries), plot)
    print(json.dumps(report, indent=2) if as_json else format_report(report))
