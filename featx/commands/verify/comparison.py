"""Compare a feature file with what its inputs give now."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from featx.data.batches import VideoBatch, VideoDataset, VideoItem
from featx.data.manifest import UNLABELLED, Manifest
from featx.errors import InputError, shorten
from featx.extraction.extractor import FeatureExtractor
from featx.extraction.temporal import output_length
from featx.features.dataset import FeatureDataset
from featx.progress import make_bar

_MAX_EXPLAINED = 5  # each explanation may read the whole file


def compare_rows(
    data: FeatureDataset,
    manifest: Manifest,
    split: str,
    rows: Sequence[int],
    scales: Sequence[float],
) -> list[str]:
    """What differs in names, labels and lengths, for which no feature has to be computed.

    Args:
        data: The feature file.
        manifest: Its inputs.
        split: Which split of them.
        rows: The index in the split of the video of each row.
        scales: Temporal scales.
    """
    problems = []
    names, labels = manifest.video_ids(split), manifest.labels(split).tolist()
    category_of = {label: name for name, label in manifest.categories.items()}
    start = manifest.positions[split].start
    expected: dict[str, Sequence[Any]] = {
        # By name: other splits, extracted together, may have more categories.
        "labels": [_relabel(labels[i], category_of, data.categories) for i in rows],
        "num_frames": [output_length(int(manifest.lengths[start + i]), scales) for i in rows],
    }
    if data.has_names:
        expected["video_ids"] = [names[i] for i in rows]
    columns = manifest.select_columns(split)
    if columns.keys() != data.columns.keys():
        problems.append(
            f"columns: expected {shorten([*columns])}, as the inputs have, found "
            f"{shorten([*data.columns])}"
        )
    for name in columns.keys() & data.columns.keys():
        expected[f"columns/{name}"] = columns[name][[*rows]].tolist()
    for name, values in expected.items():
        column = name.removeprefix("columns/")
        found = getattr(data, name) if column == name else data.columns[column].tolist()
        if off := [row for row, value in enumerate(values) if not _are_same(value, found[row])]:
            problems.append(
                f"{name}: expected those of the inputs, found others in {len(off)} rows "
                f"({shorten(off)}): row {off[0]} has {found[off[0]]} instead of {values[off[0]]}"
            )
    if _are_numbered(manifest.categories):
        fits = _are_numbered(data.categories) and manifest.categories.keys() <= {*data.categories}
    else:  # integers of a table
        fits = manifest.categories.items() <= data.categories.items()
    if not fits:
        problems.append(
            f"category_mapping: expected that of {shorten([*manifest.categories])}, sorted by "
            f"name, found {data.categories}"
        )
    return problems


def _are_same(value: object, found: object) -> bool:
    """Whether two cells are the same: NaN is NaN."""
    return value == found or (value != value and found != found)


def _relabel(
    label: int, category_of: Mapping[int, str], categories: Mapping[str, int]
) -> int | None:
    """The label that a file should have for a label of its inputs."""
    return UNLABELLED if label == UNLABELLED else categories.get(category_of[label])


def _are_numbered(categories: Mapping[str, int]) -> bool:
    return categories == {name: label for label, name in enumerate(sorted(categories))}


def recompute(
    data: FeatureDataset,
    videos: VideoDataset,
    extractor: FeatureExtractor,
    positions: dict[int, int],
    tolerance: float,
) -> tuple[dict[int, float], list[str]]:
    """Compute the features of some rows again.

    Args:
        data: The feature file.
        videos: Its inputs.
        extractor: On the device that is to compute.
        positions: The position in `videos` of each row to compute.
        tolerance: Relative error up to which features count as equal.

    Returns:
        The relative error of each row, and what is wrong with those that are off.
    """
    errors: dict[int, float] = {}
    problems: list[str] = []
    for row, position in make_bar(positions.items(), "Recomputing", len(positions), "video"):
        batch = videos[position]
        for error in batch.errors.values():
            raise error
        [video] = batch.videos
        expected = _extract(extractor, video)
        found = _read(data, row)
        errors[row] = relative_error(found, expected)
        times, known = video.times, _read_times(data, row)
        are_told = times is not None and known is not None
        if are_told and not np.array_equal(known, times, equal_nan=True):  # type: ignore[arg-type]
            problems.append(f"times[{row}]: expected those of {data.video_ids[row]}, found others")
        if not errors[row] <= tolerance:  # NaN is off, too
            reason = ""
            if len(problems) < _MAX_EXPLAINED:
                made_of = video.made_of
                if made_of and made_of.file_digest and data.input_sha256:
                    is_other = made_of.sha256 != data.input_sha256[row]
                    reason = ": it was made of another clip, or otherwise" * is_other
                reason = reason or _explain(data, row, found, expected, tolerance)
            problems.append(
                f"features[{row}]: expected those of {data.video_ids[row]}, found a relative error "
                f"of {errors[row]:.1e}{reason}"
            )
    return errors, problems


def relative_error(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """Norm of the difference, relative to the norm of what is expected; infinite for two shapes."""
    if found.shape != expected.shape:
        return float("inf")
    return float(np.linalg.norm(found - expected)) / (float(np.linalg.norm(expected)) or 1)


def _extract(extractor: FeatureExtractor, video: VideoItem) -> NDArray[np.float32]:
    """Extract the features of one video."""
    device, index = extractor.device, video.frame_index
    moved = video._replace(
        frames=video.frames.to(device), frame_index=None if index is None else index.to(device)
    )
    with torch.inference_mode():
        [features] = extractor.predict_step(VideoBatch([moved]))
    return features.cpu().numpy()


def _read_times(data: FeatureDataset, row: int) -> NDArray[np.float32] | None:
    """When the frames of a row are shown, if the file tells, and can be read."""
    try:
        times = data[row].times
    except InputError:
        return None
    return None if times is None else times.numpy()


def _read(data: FeatureDataset, row: int) -> NDArray[np.float32]:
    """Features of a row; none at all if they cannot be read, which the check of the file tells."""
    try:
        return data[row].features.numpy()
    except InputError:
        return np.empty((0, data.feature_dim), np.float32)


def _explain(
    data: FeatureDataset,
    row: int,
    found: NDArray[np.float32],
    expected: NDArray[np.float32],
    tolerance: float,
) -> str:
    """What stands in a row, if that can be told."""
    if not found.any():
        return ": all zeros" if len(found) else ": it cannot be read"
    for other in range(len(data)):
        if other != row and relative_error(_read(data, other), expected) <= tolerance:
            return f": they stand in row {other}"
    return ""
