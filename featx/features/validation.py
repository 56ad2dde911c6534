"""What is wrong with a feature file."""

import json
from pathlib import Path

import h5py
import numpy as np

from featx.errors import InputError, first_line
from featx.features.feature_file import (
    COLUMNS,
    DAMAGE,
    DATASETS,
    RUN,
    TIMES,
    UNLABELLED,
    find_shape,
    has_dtype,
)
from featx.features.provenance import Provenance
from featx.features.shards import find_shards, open_shard
from featx.progress import make_bar


def find_problems(
    file: h5py.File, read_features: bool = True, folder: Path | None = None
) -> list[str]:
    """What is wrong with a feature file; an empty list if it is valid.

    A file without `video_ids`, or with chunks across videos, is valid too.

    Args:
        file: An open feature file.
        read_features: Also read all features, one video at a time, and not just the structure.
        folder: The folder whose shards the file is of; by default, its own.
    """
    try:
        return _find_problems(file, read_features, folder)
    except DAMAGE as error:
        return [f"expected readable datasets and attributes, found: {first_line(error)}"]


def _find_problems(file: h5py.File, read_features: bool, folder: Path | None) -> list[str]:
    features, labels, num_frames = file["features"], file["labels"], file["num_frames"]
    count, max_frames = int(file.attrs["num_videos"]), int(file.attrs["max_frames"])
    specs = {name: spec for name, spec in DATASETS.items() if name in file}
    problems = [
        f"{name}: expected {' or '.join(spec.dtypes)}, found {file[name].dtype}"
        for name, spec in specs.items()
        if not has_dtype(file[name], spec)
    ]
    shapes = {name: find_shape(file, spec) for name, spec in specs.items()}
    shapes |= {f"{COLUMNS}/{name}": (count,) for name in file.get(COLUMNS, ())}
    if features.ndim == 4 and not {"views", "grid"} & {*file.attrs}:
        problems.append("features: expected the attribute views or grid with rank 4, found none")
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
    if unknown := sorted({*labels[:].tolist()} - {*mapping.values(), UNLABELLED}):
        problems.append(f"labels: expected those of category_mapping, found also {unknown[:5]}")
    if RUN in file and count:
        runs, num_runs = file[RUN][:], len(Provenance.from_attributes(file.attrs).runs)
        if not (runs.min() >= 0 and runs.max() < num_runs):
            found = f"{runs.min()} to {runs.max()}"
            problems.append(f"{RUN}: expected 0 to {num_runs - 1}, of runs, found {found}")
    if features.chunks and features.chunks[0] == 1:
        expected = int((-(-lengths // features.chunks[1])).sum())
        if (stored := features.id.get_num_chunks()) != expected:
            problems.append(f"features: expected {expected} chunks, found {stored}")
    if problems:
        return problems
    if shards := find_shards(file, folder):
        for shard in shards:
            try:
                with open_shard(shard, file) as opened:
                    inner = find_problems(opened, read_features)
            except InputError as error:
                problems.append(str(error))
            else:
                where = f"{shard.path.name}, from row {shard.start:,}"
                problems += [f"{where}: {problem}" for problem in inner]
    elif read_features:
        for row, length in enumerate(make_bar(lengths, "Checking", count, "video")):
            problems += find_row_problems(features, row, int(length))
            if TIMES in file and not np.isnan(file[TIMES][row, length:]).all():
                problems.append(f"{TIMES}[{row}]: expected NaN after frame {length}, found times")
    return problems


def find_row_problems(features: h5py.Dataset, row: int, length: int) -> list[str]:
    """What is wrong with the features of a row of so many frames."""
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
