"""Open feature files, and find what is wrong with them."""

import json
from pathlib import Path

import h5py
import numpy as np

from featx.errors import InputError, MissingInputError, first_line

DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError)
"""What h5py raises on damaged files; it has no error of its own."""

_DATASETS = {"features": "float32", "labels": "int64", "num_frames": "int32"}
_ATTRIBUTES = ("num_videos", "max_frames", "feature_dim", "category_mapping", "multi_scale")


def open_feature_file(path: Path) -> h5py.File:
    """Open a feature file to read it.

    Raises:
        MissingInputError: The file does not exist.
        InputError: It is not an HDF5 file, or lacks a dataset or attribute.
    """
    if not path.is_file():
        raise MissingInputError(f"{path}: expected a feature file, found no file. Check the path.")
    try:
        file = h5py.File(path, "r", locking=False)
    except OSError as error:
        raise InputError(
            f"{path}: expected an HDF5 file, found: {first_line(error)}. "
            "Extract the features again."
        ) from error
    try:
        found = _find_differences(file)
    except DAMAGE as error:
        found = [f"a damaged file ({first_line(error)})"]
    if found:
        file.close()
        raise InputError(
            f"{path}: expected a feature file, found {', '.join(found)}. "
            "Give a file named <split>_features.h5 or <split>_features_multiscale.h5."
        )
    return file


def _find_differences(file: h5py.File) -> list[str]:
    """What distinguishes an HDF5 file from a feature file; nothing, if it is one."""
    found = [f"no dataset {name}" for name in _DATASETS if name not in file]
    found += [f"no attribute {name}" for name in _ATTRIBUTES if name not in file.attrs]
    if found:
        return found
    for name, dimensions in {"features": 3, "labels": 1, "num_frames": 1}.items():
        if not isinstance(file[name], h5py.Dataset) or file[name].ndim != dimensions:
            found.append(f"{name} with other than {dimensions} dimensions")
    for name in ("num_videos", "max_frames", "feature_dim"):
        if not isinstance(file.attrs[name], np.integer):
            found.append(f"{name} that is not an integer")
    if not isinstance(file.attrs["multi_scale"], np.bool_):
        found.append("multi_scale that is not a boolean")
    if not _is_mapping(file.attrs["category_mapping"]):
        found.append("category_mapping that is not a JSON object of integers")
    return found


def _is_mapping(text: object) -> bool:
    try:
        mapping = json.loads(str(text))
    except ValueError:
        return False
    return isinstance(mapping, dict) and all(type(label) is int for label in mapping.values())


def find_problems(file: h5py.File, read_features: bool = True) -> list[str]:
    """What is wrong with a feature file; an empty list if it is valid.

    A file without `video_ids`, or with chunks across videos, is valid too.

    Args:
        file: An open feature file.
        read_features: Also read all features, one video at a time, and not just the structure.
    """
    try:
        return _find_problems(file, read_features)
    except DAMAGE as error:
        return [f"expected readable datasets and attributes, found: {first_line(error)}"]


def _find_problems(file: h5py.File, read_features: bool) -> list[str]:
    features, labels, num_frames = file["features"], file["labels"], file["num_frames"]
    count, max_frames = int(file.attrs["num_videos"]), int(file.attrs["max_frames"])
    dim = int(file.attrs["feature_dim"])
    problems = [
        f"{name}: expected {dtype}, found {file[name].dtype}"
        for name, dtype in _DATASETS.items()
        if file[name].dtype != dtype
    ]
    shapes = {"features": (count, max_frames, dim), "labels": (count,), "num_frames": (count,)}
    if "video_ids" in file:
        shapes["video_ids"] = (count,)
    problems += [
        f"{name}: expected shape {[*shape]} by the attributes, found {[*file[name].shape]}"
        for name, shape in shapes.items()
        if file[name].shape != shape
    ]
    if problems:
        return problems
    lengths = num_frames[:]
    mapping = json.loads(file.attrs["category_mapping"])
    if count and not (lengths.min() >= 1 and lengths.max() == max_frames):
        found = f"{lengths.min()} to {lengths.max()}"
        problems.append(f"num_frames: expected 1 to {max_frames}, found {found}")
    if unknown := sorted({*labels[:].tolist()} - {*mapping.values()}):
        problems.append(f"labels: expected those of category_mapping, found also {unknown[:5]}")
    if features.chunks and features.chunks[0] == 1:
        expected = int((-(-lengths // features.chunks[1])).sum())
        if (stored := features.id.get_num_chunks()) != expected:
            problems.append(f"features: expected {expected} chunks, found {stored}")
    if read_features and not problems:
        for row, length in enumerate(lengths):
            problems += _row_problems(features, row, int(length))
    return problems


def _row_problems(features: h5py.Dataset, row: int, length: int) -> list[str]:
    try:
        values = features[row]
    except OSError as error:
        return [f"features[{row}]: expected readable chunks, found: {error}"]
    problems = []
    if not np.isfinite(values).all():
        problems.append(f"features[{row}]: expected finite values, found NaN or infinity")
    if values[length:].any():
        problems.append(f"features[{row}]: expected zeros after frame {length}, found others")
    return problems
