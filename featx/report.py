"""`featx inspect`: what a feature file holds, and whether it is valid."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from featx.analysis import describe_structure
from featx.feature_file import find_problems, open_feature_file


def inspect(file: Path, json: bool = False) -> bool:
    """Show the structure, the attributes and the statistics of a feature file, and check it.

    Args:
        file: A feature file.
        json: Print one JSON object instead of text.

    Returns:
        Whether the file is valid.

    Raises:
        InputError: It is no feature file at all.
    """
    summary = summarize(file)
    print(_as_json(summary) if json else _as_text(summary))
    return not summary["problems"]


def summarize(path: Path) -> dict[str, Any]:
    """Structure, attributes, statistics and problems of a feature file, for JSON.

    Raises:
        InputError: It is no feature file at all.
    """
    with open_feature_file(path) as file:
        problems = find_problems(file)
        attributes = {name: _plain(value) for name, value in file.attrs.items()}
        labels = file["labels"][:]
        counts = {
            category: int((labels == label).sum())
            for category, label in attributes["category_mapping"].items()
        }
    return {
        **describe_structure(path),
        "valid": not problems,
        "problems": problems,
        "bytes": path.stat().st_size,
        "videos_per_category": counts,
        "attributes": attributes,
    }


def _plain(value: Any) -> Any:  # noqa: ANN401  # whatever an attribute holds
    """An attribute as JSON has it; JSON text is opened."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if isinstance(value, str) and value.startswith("{"):
        return json.loads(value)
    return value


def _as_json(summary: dict[str, Any]) -> str:
    return json.dumps(summary, indent=2, ensure_ascii=False)


def _as_text(summary: dict[str, Any]) -> str:
    stats, counts = summary["num_frames"], summary["videos_per_category"]
    rows = {
        "features": f"{summary['features_shape']} float32",
        "compression": f"{summary['compression']} level {summary['compression_level']}",
        "size": f"{summary['bytes'] / 2**20:.2f} MB",
        "num_frames": f"min {stats['min']}, max {stats['max']}, mean {stats['mean']:.1f}",
        "categories": f"{len(counts)}, of {min(counts.values())} to {max(counts.values())} videos",
    }
    shown = ("multi_scale", "scales", "backbone", "weights", "weights_sha256", "featx_version")
    rows |= {name: summary["attributes"].get(name, "not recorded") for name in shown}
    lines = [summary["file"], *(f"  {name:<15} {value}" for name, value in rows.items())]
    lines += [f"  invalid: {problem}" for problem in summary["problems"]]
    return "\n".join([*lines, "valid" if summary["valid"] else "not valid"])
