"""`featx inspect`: what a feature file holds, and whether it is valid."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from featx.analysis import describe_structure
from featx.errors import InputError, first_line, shorten
from featx.validation import DAMAGE, find_problems, open_feature_file

_JSON_ATTRIBUTES = ("category_mapping", "config", "skipped")
_SHOWN_ATTRIBUTES = (
    "multi_scale",
    "scales",
    "backbone",
    "weights",
    "weights_sha256",
    "featx_version",
)


def inspect(file: Path, as_json: bool = False) -> bool:
    """Print the structure, statistics and attributes of a feature file, and check it.

    Args:
        file: A feature file.
        as_json: Print one JSON object instead of text.

    Returns:
        Whether the file is valid.

    Raises:
        InputError: It is not a feature file.
    """
    summary = summarize(Path(file).expanduser())
    print(json.dumps(summary, indent=2, default=str) if as_json else _format(summary))
    return not summary["problems"]


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
        except DAMAGE as error:
            raise InputError(
                f"{path}: expected a readable feature file, found: {first_line(error)}. "
                "Extract the features again."
            ) from error
    return {
        **structure,
        "valid": not problems,
        "problems": problems,
        "bytes": path.stat().st_size,
        "videos_per_category": {
            category: int((labels == label).sum())
            for category, label in attributes["category_mapping"].items()
        },
        "attributes": attributes,
    }


def _to_json(name: str, value: Any) -> Any:  # noqa: ANN401  # whatever an attribute holds
    """An attribute in JSON's own types."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if name in _JSON_ATTRIBUTES:
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value if isinstance(value, (str, int, float, bool)) else str(value)


def _format(summary: dict[str, Any]) -> str:
    statistics = ", ".join(f"{name} {value:g}" for name, value in summary["num_frames"].items())
    counts = summary["videos_per_category"].values()
    rows = {
        "features": f"{summary['features_shape']} float32",
        "compression": f"{summary['compression']} level {summary['compression_level']}",
        "size": f"{summary['bytes'] / 2**20:.2f} MB",
        "num_frames": statistics or "no videos",
        "categories": f"{len(counts)}, with {min(counts)} to {max(counts)} videos each"
        if counts
        else "none",
    }
    rows |= {name: summary["attributes"].get(name, "not recorded") for name in _SHOWN_ATTRIBUTES}
    lines = [summary["file"], *(f"  {name:<15} {value}" for name, value in rows.items())]
    if skipped := summary["attributes"].get("skipped"):
        lines.append(f"  {'left out':<15} {len(skipped)} inputs: {shorten([*skipped])}")
    lines += [f"  invalid: {problem}" for problem in summary["problems"]]
    return "\n".join([*lines, "valid" if summary["valid"] else "not valid"])
