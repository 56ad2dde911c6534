"""`featx inspect`: what a feature file holds, and whether it is valid."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from featx.commands.inspect.table import format_summary
from featx.commands.parser import ConciseParser
from featx.commands.plotting import check_output, check_plot
from featx.data.settings import FRAME_SETTINGS, VideoSettings
from featx.durable import expand
from featx.errors import InputError, UsageError, check_installed
from featx.features.feature_file import (
    DAMAGE,
    RUN,
    TIMES,
    UNLABELLED,
    open_feature_file,
    read_columns,
    refuse_damage,
)
from featx.features.provenance import JSON_ATTRIBUTES, Provenance
from featx.features.shards import describe_structure, find_shards, find_size
from featx.features.validation import find_problems

if TYPE_CHECKING:
    from featx.training.checkpoint import InputSize


def main(args: Sequence[str], summary: str) -> int:
    """Run `featx inspect`; returns its exit status."""
    parser = ConciseParser(prog="featx inspect", description=summary)
    skipped: set[str | int] = {"as_json", "duplicates", "splits", *FRAME_SETTINGS}
    parser.add_function_arguments(inspect, as_positional=True, skip=skipped)
    parser.add_argument("--json", dest="as_json", action="store_true", help="print JSON")
    parser.add_argument(
        "--duplicates",
        action="store_true",
        help="tell which videos are there twice, in two splits or in one",
    )
    return 0 if inspect(**vars(parser.parse_args(args))) else 1


def inspect(
    file: Path,
    as_json: bool = False,
    plot: Path | None = None,
    expect_dim: int | None = None,
    checkpoint: Path | None = None,
    duplicates: bool = False,
    html: Path | None = None,
    multi_scale: bool | None = None,
    **inputs: Any,  # noqa: ANN401  # fields of VideoSettings
) -> bool:
    """Print the structure, statistics and attributes of feature files, and check them.

    Args:
        file: A feature file, or a folder of them.
        as_json: Print one JSON object instead of text.
        plot: A PNG to draw of a file: videos per category, their lengths, feature norms over time,
            mean features in two dimensions, and the similarity of frames.
        expect_dim: The feature_dim that the file should have.
        checkpoint: The checkpoint of a model, or its state dict, that the features should fit.
        duplicates: Also tell which videos are there twice: for certain, by what they were made of,
            and nearly, by their features.
        html: A page to write: a map of all videos, their neighbours, and what looks wrong.
        multi_scale: Which files of a folder, where there are both.
        **inputs: For the page, which videos the features were made from, so that it shows frames;
            see `VideoSettings`.

    Returns:
        Whether the files are valid, and fit what they should.

    Raises:
        InputError: One is not a feature file, or the checkpoint cannot be read.
        UsageError: A name is not that of a PNG or of a page, or an option does not fit.
        MissingDependencyError: A package that a plot or a page needs is not installed.
        OutputError: The plot or the page cannot be written.
    """
    path, plot, html = expand(file), plot and expand(plot), html and expand(html)
    checkpoint = checkpoint and expand(checkpoint)
    videos = VideoSettings(**inputs)
    _check_options(path, plot, html, duplicates, videos)
    size = None
    if checkpoint is not None:
        from featx.training.checkpoint import read_input_size  # it needs torch, which takes seconds

        size = read_input_size(checkpoint)
    is_compared = duplicates or html is not None
    summaries: dict[str, dict[str, Any]] = {}
    for found in _list_files(path, multi_scale, is_compared) if path.is_dir() else [path]:
        try:
            summary = summarize(found)
        except InputError as error:
            if not path.is_dir():
                raise
            summaries[found.name] = {"valid": False, "problems": [str(error)], "misfits": []}
            continue
        summary["misfits"] = _find_misfits(summary, expect_dim, checkpoint, size)
        summary["expect_dim"] = expect_dim
        summary["checkpoint"] = checkpoint and {
            "path": str(checkpoint),
            "feature_dim": size and size.feature_dim,
            "source": size and size.source,
        }
        summary["plot"] = plot and {"path": str(plot), "drawn": _plot(summary, found, plot)}
        summaries[found.name] = summary
    report: dict[str, Any] = {"files": summaries} if path.is_dir() else {**summaries[path.name]}
    lines = [format_summary(summary) for summary in summaries.values()]
    are_valid = not any(summary["problems"] for summary in summaries.values())
    if is_compared and not are_valid:
        lines.append("duplicates and page: not made, as not all files are valid")
        report |= {"duplicates": None} if duplicates else {}
        report |= {"html": None} if html is not None else {}
    elif is_compared:
        from featx.commands.inspect.comparison import compare_videos

        compared, first, last = compare_videos(path, multi_scale, duplicates, html, videos)
        report |= compared
        lines = [*first, *lines, *last]
    print(json.dumps(report, indent=2, default=str) if as_json else "\n\n".join(lines))
    return are_valid and not any(summary["misfits"] for summary in summaries.values())


def _check_options(
    path: Path, plot: Path | None, html: Path | None, duplicates: bool, inputs: VideoSettings
) -> None:
    """Find out before the reading whether all that is asked for can be made."""
    if html is not None:
        check_output("html", html, (".html", ".htm"))
        check_installed("plotly.offline", "plotly", "html")
    if plot is not None:
        if path.is_dir():
            raise UsageError(f"plot: expected a feature file, found a folder: {path}. Give a file.")
        check_plot(plot)
    if duplicates or html is not None:
        check_installed("sklearn", "scikit-learn", "duplicates" if duplicates else "html")
    default = asdict(VideoSettings())
    given = [name for name, value in asdict(inputs).items() if value != default[name]]
    if given and html is None:
        raise UsageError(
            f"{given[0]}: expected it with html, as a page alone shows frames, found no html. Set "
            "html, or leave it out."
        )
    if given and inputs.root is None and inputs.table is None:
        raise UsageError(
            f"{given[0]}: expected it with root or table, found neither. Say where the videos are."
        )


def _list_files(folder: Path, multi_scale: bool | None, is_compared: bool) -> list[Path]:
    """The feature files of a folder: of both kinds, unless they are compared."""
    from featx.features.folder import find_feature_files, list_feature_files

    if multi_scale is None and not is_compared:
        return list_feature_files(folder)
    return [*find_feature_files(folder, multi_scale).values()]


def summarize(path: Path) -> dict[str, Any]:
    """Structure, statistics, attributes and problems of a feature file, for JSON."""
    with open_feature_file(path) as file:
        try:
            structure, problems = describe_structure(file), find_problems(file)
            attributes = {name: _to_json(name, value) for name, value in file.attrs.items()}
            labels = file["labels"][:]
            recorded = {"dtype": str(file["features"].dtype), **_describe_sampling(file)}
            num_bytes = find_size(path, find_shards(file))
        except DAMAGE as error:
            raise refuse_damage(path, error) from error
    return {
        **structure,
        "valid": not problems,
        "problems": problems,
        "bytes": num_bytes,
        "videos_per_category": {
            category: int((labels == label).sum())
            for category, label in attributes["category_mapping"].items()
        },
        "unlabelled": int((labels == UNLABELLED).sum()),
        **recorded,
        "attributes": attributes,
    }


def _describe_sampling(file: h5py.File) -> dict[str, Any]:
    """How frames were sampled, when they are shown, and what else is known of the videos."""
    made = Provenance.from_attributes(file.attrs)
    times: dict[str, float] | None = None
    if TIMES in file:
        times = {}
        for row in file[TIMES]:  # one at a time: there may be many
            if (known := row[np.isfinite(row)]).size:
                times["min"] = min(times.get("min", np.inf), float(known.min()))
                times["max"] = max(times.get("max", -np.inf), float(known.max()))
    columns = {
        name: sorted({str(cell) for cell in cells}) for name, cells in read_columns(file).items()
    }
    counts = np.bincount(file[RUN][:]).tolist() if RUN in file else []
    return {
        "videos_per_run": counts,
        "sampling": made.sampling,
        "resize": made.resize or "squash",
        "times": times,
        "columns": {
            name: {"values": len(values), "examples": values[:3]}
            for name, values in columns.items()
        },
    }


def _to_json(name: str, value: Any) -> Any:  # noqa: ANN401  # whatever an attribute holds
    """An attribute in JSON's own types."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if name in JSON_ATTRIBUTES:
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value if isinstance(value, (str, int, float, bool)) else str(value)


def _find_misfits(
    summary: Mapping[str, Any],
    expect_dim: int | None,
    checkpoint: Path | None,
    size: "InputSize | None",
) -> list[str]:
    """Why the features are not those that someone is about to train on."""
    name, dim = summary["file"], summary["feature_dim"]
    misfits = []
    if expect_dim not in (None, dim):
        misfits.append(
            f"{name}: expected feature_dim {expect_dim}, found {dim}. "
            "Choose a file of another backbone, or make the model for this one."
        )
    if checkpoint is not None and size is None:
        misfits.append(
            f"{checkpoint}: expected a stored feature_dim or input_dim, or the weight of a first "
            "layer, found none of them. Give the feature_dim that the model takes as --expect-dim."
        )
    if size is not None and size.feature_dim != dim:
        misfits.append(
            f"{name}: expected feature_dim {size.feature_dim} by {size.source} in {checkpoint}, "
            f"found {dim}. Choose a file of the backbone that the checkpoint was trained on."
        )
    return misfits


def _plot(summary: Mapping[str, Any], path: Path, plot: Path) -> bool:
    """Draw the figures, unless the file has nothing sound to show."""
    if summary["problems"] or 0 in summary["features_shape"]:
        return False
    from featx.commands.inspect.figures import draw  # these need torch, which takes seconds
    from featx.commands.inspect.statistics import survey
    from featx.features.dataset import FeatureDataset

    draw(survey(FeatureDataset(path)), plot)
    return True
