"""`configuration_analysis.json`: how the videos were made, and the structure of every split."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py

from featx.disk import replace_file, writing
from featx.manifest import Manifest
from featx.staging import STAGING_FOLDER
from featx.validation import open_feature_file

ANALYSIS_FILE = "configuration_analysis.json"


def describe_preprocessing(num_frames: int, image_size: int, dtype: str) -> dict[str, Any]:
    """How videos are made from clips, as the analysis words it."""
    return {
        "frames_per_video": num_frames,
        "image_size": [image_size, image_size],
        "processing_mode": "cpu",
        "dtype": dtype,
    }


def read_preprocessing(manifest: Manifest, split: str | None = None) -> dict[str, Any]:
    """How the videos of a data set, or of one split, were made.

    `featx preprocess` records it beside the data. For other data it follows from the headers; a
    value is None where the videos differ, or where it is unknown.
    """
    if manifest.preprocessing:
        return dict(manifest.preprocessing)
    info = _read(manifest.root / ANALYSIS_FILE).get("preprocessing_info")
    if isinstance(info, dict):
        return info
    files = manifest.select(split) if split else manifest.files
    shapes = {block.shape for file in files for block in file.header.blocks}
    lengths, sizes = {shape[0] for shape in shapes}, {shape[2:] for shape in shapes}
    return {
        "frames_per_video": lengths.pop() if len(lengths) == 1 else None,
        "image_size": [*sizes.pop()] if len(sizes) == 1 else None,
        "processing_mode": None,
    }


def write_analysis(
    folder: Path, paths: Mapping[str, Path], preprocessing: Mapping[str, Any]
) -> None:
    """Write or update the analysis beside feature files.

    Args:
        folder: The folder of the feature files; its staging folder exists.
        paths: The file of each split; splits of earlier runs keep their entries.
        preprocessing: See `read_preprocessing`.
    """
    path = folder / ANALYSIS_FILE
    splits = _read(path).get("splits")
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


def _read(path: Path) -> dict[str, Any]:
    """The object in a JSON file; an empty one if there is none: the file is only a report."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
