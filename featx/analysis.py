"""`configuration_analysis.json`, beside the feature files: the structure of every split."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py

from featx.disk import read_json, replace_file, writing
from featx.manifest import ANALYSIS_FILE
from featx.staging import STAGING_FOLDER
from featx.validation import open_feature_file


def write_analysis(
    folder: Path, paths: Mapping[str, Path], preprocessing: Mapping[str, Any]
) -> None:
    """Write or update the analysis beside feature files.

    Args:
        folder: The folder of the feature files; its staging folder exists.
        paths: The file of each split; splits of earlier runs keep their entries.
        preprocessing: See `Manifest.preprocessing`.
    """
    path = folder / ANALYSIS_FILE
    splits = read_json(path).get("splits")
    structures = {**splits} if isinstance(splits, dict) else {}
    for split, feature_path in paths.items():
        with open_feature_file(feature_path) as file:
            structures[split] = describe_structure(file)
    analysis = {"preprocessing_info": preprocessing, "splits": structures}
    content = json.dumps(analysis, indent=2).encode()
    with writing(path):  # what a killed run leaves of the temporary file, the next one replaces
        replace_file(path, content, folder / STAGING_FOLDER / ANALYSIS_FILE)


def describe_structure(file: h5py.File) -> dict[str, Any]:
    """Shapes, statistics of num_frames, and compression of an open feature file, for JSON."""
    features, num_frames = file["features"], file["num_frames"][:]
    statistics = {}
    if len(num_frames):
        statistics = {
            "min": int(num_frames.min()),
            "max": int(num_frames.max()),
            "mean": float(num_frames.mean()),
        }
    return {
        "file": Path(file.filename).name,
        "features_shape": [*features.shape],
        "labels_shape": [*file["labels"].shape],
        "num_frames": statistics,
        "feature_dim": int(file.attrs["feature_dim"]),
        "multi_scale": bool(file.attrs["multi_scale"]),
        "compression": features.compression,
        "compression_level": features.compression_opts,
    }
