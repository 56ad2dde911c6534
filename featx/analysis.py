"""`configuration_analysis.json`: how the videos were made, and the structure of every split."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from featx.feature_file import open_feature_file
from featx.manifest import Manifest
from featx.staging import replace_file, writing

ANALYSIS_FILE = "configuration_analysis.json"


def read_preprocessing(manifest: Manifest) -> dict[str, Any]:
    """How the videos of a data set were made.

    What `featx preprocess` left beside the data comes first; for data made otherwise, what the
    headers tell: a value is null where the videos differ, or nothing tells it.
    """
    info = _read(manifest.root / ANALYSIS_FILE).get("preprocessing_info")
    if isinstance(info, dict):
        return info
    shapes = {block.shape for file in manifest.files for block in file.header.blocks}
    lengths, sizes = {shape[0] for shape in shapes}, {shape[2:] for shape in shapes}
    return {
        "frames_per_video": lengths.pop() if len(lengths) == 1 else None,
        "image_size": [*sizes.pop()] if len(sizes) == 1 else None,
        "processing_mode": None,
    }


def write_analysis(
    folder: Path, paths: Mapping[str, Path], preprocessing: Mapping[str, Any]
) -> None:
    """Write, or bring up to date, the analysis beside feature files.

    Args:
        folder: Where the feature files lie.
        paths: The file of each split; splits of earlier runs keep their entries.
        preprocessing: See `read_preprocessing`.
    """
    path = folder / ANALYSIS_FILE
    splits = _read(path).get("splits")
    analysis = {
        "preprocessing_info": preprocessing,
        "splits": {
            **(splits if isinstance(splits, dict) else {}),
            **{split: describe_structure(file) for split, file in paths.items()},
        },
    }
    with writing(path):
        replace_file(path, json.dumps(analysis, indent=2, ensure_ascii=False).encode())


def describe_structure(path: Path) -> dict[str, Any]:
    """Shapes, statistics of num_frames, and compression of a feature file, for JSON."""
    with open_feature_file(path) as file:
        num_frames = file["num_frames"][:]
        return {
            "file": path.name,
            "features_shape": [*file["features"].shape],
            "labels_shape": [*file["labels"].shape],
            "num_frames": {
                "min": int(num_frames.min()),
                "max": int(num_frames.max()),
                "mean": float(num_frames.mean()),
            },
            "feature_dim": int(file.attrs["feature_dim"]),
            "multi_scale": bool(file.attrs["multi_scale"]),
            "compression": file["features"].compression,
            "compression_level": file["features"].compression_opts,
        }


def _read(path: Path) -> dict[str, Any]:
    """The object in a JSON file; an empty one if there is none, for the file is but a report."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
