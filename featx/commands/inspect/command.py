"""`featx inspect`: what a feature file holds, and whether it is valid."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from featx.commands.inspect.table import format_summary
from featx.commands.parser import ConciseParser
from featx.commands.plotting import check_plot
from featx.features.feature_file import (
    DAMAGE,
    RUN,
    TIMES,
    UNLABELLED,
    describe_structure,
    open_feature_file,
    read_columns,
    refuse_damage,
)
from featx.features.provenance import JSON_ATTRIBUTES, Provenance
from featx.features.validation import find_problems
from featx.files import expand

if TYPE_CHECKING:
    from featx.training.checkpoint import InputSize


def main(args: Sequence[str], summary: str) -> int:
    """Run `featx inspect`; returns its exit status."""
    parser = ConciseParser(prog="featx inspect", description=summary)
    parser.add_function_arguments(inspect, as_positional=True, skip={"as_json"})
    parser.add_argument("--json", dest="as_json", action="store_true", help="print JSON")
    return 0 if inspect(**vars(parser.parse_args(args))) else 1


def inspect(
    file: Path,
    as_json: bool = False,
    plot: Path | None = None,
    expect_dim: int | None = None,
    checkpoint: Path | None = None,
) -> bool:
    """Print the structure, statistics and attributes of a feature file, and check it.

    Args:
        file: A feature file.
        as_json: Print one JSON object instead of text.
        plot: A PNG to draw: videos per category, their lengths, feature norms over time, mean
            features in two dimensions, and the similarity of frames.
        expect_dim: The feature_dim that the file should have.
        checkpoint: The checkpoint of a model, or its state dict, that the features should fit.

    Returns:
        Whether the file is valid, and fits what it should.

    Raises:
        InputError: It is not a feature file, or the checkpoint cannot be read.
        UsageError: The plot's name is not that of a PNG.
        MissingDependencyError: There is to be a plot, and matplotlib is not installed.
        OutputError: The plot cannot be written.
    """
    path = expand(file)
    if plot is not None:
        plot = expand(plot)
        check_plot(plot)
    size = None
    if checkpoint is not None:
        checkpoint = expand(checkpoint)
        from featx.training.checkpoint import read_input_size  # it needs torch, which takes seconds

        size = read_input_size(checkpoint)
    summary = summarize(path)
    summary["misfits"] = _find_misfits(summary, expect_dim, checkpoint, size)
    summary["expect_dim"] = expect_dim
    summary["checkpoint"] = checkpoint and {
        "path": str(checkpoint),
        "feature_dim": size and size.feature_dim,
        "source": size and size.source,
    }
    summary["plot"] = plot and {"path": str(plot), "drawn": _plot(summary, path, plot)}
    print(json.dumps(summary, indent=2, default=str) if as_json else format_summary(summary))
    return not summary["problems"] and not summary["misfits"]


def summarize(path: Path) -> dict[str, Any]:
    """Structure, statistics, attributes and problems of a feature file, for JSON.

    Raises:
        InputError: It is not a feature file.
    """
    with open_feature_file(path) as file:
        try:
            structure, problems = describe_structure(file), find_problems(file)
            attributes = {name: _to_json(name, value) for name, value in file.attrs.items()}
            labels = file["labels"][:]
            recorded = _describe_sampling(file)
        except DAMAGE as error:
            raise refuse_damage(path, error) from error
    return {
        **structure,
        "valid": not problems,
        "problems": problems,
        "bytes": path.stat().st_size,
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
    sampling = made.sampling
    if sampling is None and made.num_frames is not None:
        sampling = {"num_frames": made.num_frames}
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
        "sampling": sampling,
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
