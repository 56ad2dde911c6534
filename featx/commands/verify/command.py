"""`featx verify`: recompute rows of a feature file from the inputs, and compare."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import torch
from tabulate import tabulate

from featx.backbones.architectures import find_architecture
from featx.commands.inputs import open_inputs
from featx.commands.parser import ConciseParser
from featx.commands.verify.comparison import compare_rows, recompute
from featx.data.media.preprocessing import NVDEC
from featx.data.media.video_file import CPU
from featx.data.settings import FRAME_SETTINGS, VideoSettings
from featx.data.storage import join
from featx.durable import expand
from featx.errors import InputError, UsageError, check_at_least, first_line
from featx.extraction.extractor import FeatureExtractor
from featx.extraction.temporal import DEFAULT_SCALES
from featx.features.dataset import FeatureDataset
from featx.features.feature_file import DAMAGE, open_feature_file
from featx.features.provenance import Provenance
from featx.features.validation import find_problems

_TOLERANCES = {"32-true": 1e-4, "64-true": 1e-4, "16-mixed": 1e-2, "16-true": 1e-2}
_COARSE = 0.15  # bfloat16: with trained weights, 3e-2 (real clips) to 1e-1 (drawn ones)
_TF32 = 1e-2  # also where the precision is unknown: it is torch's default for convolutions


class Recipe(NamedTuple):
    """How a feature file says that it was made, as far as it does.

    Attributes:
        split: Which split it is of.
        settings: Arguments of `FeatureExtractor`.
        weights_sha256: Digest of its weights; empty if it is not recorded.
        tolerance: Relative error up to which features count as equal.
        skipped: Names of the videos that were left out.
        made: All that it records.
        by_nvdec: Whether a GPU decoded the clips.
    """

    split: str
    settings: dict[str, Any]
    weights_sha256: str
    tolerance: float
    skipped: Sequence[str]
    made: Provenance
    by_nvdec: bool


def main(args: Sequence[str], summary: str) -> int:
    """Run `featx verify`; returns its exit status."""
    parser = ConciseParser(prog="featx verify", description=summary)
    skipped: set[str | int] = {"all", "root", "splits", *FRAME_SETTINGS}
    parser.add_function_arguments(verify, as_positional=True, skip=skipped)
    parser.add_argument(
        "--root", help="the data set that the file was made from; by default the table's folder"
    )
    parser.add_argument("--all", action="store_true", help="recompute every row")
    return 0 if verify(**vars(parser.parse_args(args))) else 1


def verify(
    file: Path,
    root: Path | None = None,
    rows: int = 8,
    all: bool = False,
    backbone: str | None = None,
    weights: str | None = None,
    tolerance: float | None = None,
    device: str | None = None,
    **inputs: Any,  # noqa: ANN401  # fields of VideoSettings
) -> bool:
    """Recompute rows of a feature file from the inputs, and print how far they are off.

    Names, labels and lengths are compared for all rows. Features are recomputed in float32.

    Args:
        file: A feature file.
        root: The data set that it was made from; with a table, by default the table's folder.
        rows: How many rows to recompute, evenly spaced.
        all: Recompute every row.
        backbone: Which CNN; by default the recorded one.
        weights: Which weights; by default the recorded ones, if they have a name. For others, give
            the path of the state dict.
        tolerance: Relative error up to which features count as equal; by default 1e-4 for features
            made in float32, 1e-2 for float16 and TF32, and 0.15 for bfloat16.
        device: Where to compute: cpu, cuda, ...; by default a GPU if there is one.
        **inputs: Which videos the file was made from; see `VideoSettings`.

    Returns:
        Whether everything is as it should be.

    Raises:
        FeatxError: The file or the inputs cannot be read, or the recipe is not known.
    """
    check_at_least(1, rows=rows)
    path = expand(file)
    with open_feature_file(path) as opened:
        problems = find_problems(opened)
        if problems and not _has_rows(opened):
            raise InputError(
                f"{path}: expected a feature file whose rows can be compared, found {problems[0]}. "
                "Extract the features again."
            )
        recipe = read_recipe(opened, backbone, weights)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    on_cuda = device.startswith("cuda")
    if recipe.by_nvdec and tolerance is None and not on_cuda:
        raise UsageError(
            f"{path}: expected a GPU, as one decoded the clips, to pixels that differ slightly "
            f"from a CPU's; found {device}. Set device, or say with tolerance what may differ."
        )
    tolerance = recipe.tolerance if tolerance is None else tolerance
    data = FeatureDataset(path)
    videos = open_inputs(
        VideoSettings(root=root, **inputs),
        recipe.made,
        [recipe.split],
        on_error="skip" if recipe.skipped else "stop",
        decoder="torchcodec" if recipe.by_nvdec and on_cuda else "pyav",
    )
    manifest, split = videos.manifest, recipe.split
    names, skipped = manifest.video_ids(split), {*recipe.skipped}
    indices = [index for index, name in enumerate(names) if name not in skipped]
    if len(indices) != len(data):
        raise InputError(
            f"{path}: expected {len(indices)} videos, as {join(manifest.root, split)} has, found "
            f"{len(data)}. Give the root that the file was made from."
        )
    extractor = FeatureExtractor(**recipe.settings)
    problems += compare_rows(data, manifest, split, indices, extractor.scales)
    problems += compare_backbones(data, recipe, extractor)
    errors: dict[int, float] = {}
    if extractor.feature_dim == data.feature_dim:
        try:
            extractor.to(device)
        except (RuntimeError, AssertionError) as error:  # torch raises both for want of a device
            raise UsageError(
                f"device: expected one that torch finds, such as cpu, found {device}: "
                f"{first_line(error)}."
            ) from error
        count = len(data)
        chosen = range(count) if all else np.linspace(0, count - 1, min(rows, count)).astype(int)
        start = manifest.positions[split].start
        positions = {int(row): start + indices[row] for row in chosen}
        dataset = videos.make_dataset(
            [*positions.values()], extractor.device if recipe.by_nvdec else CPU
        )
        errors, off = recompute(data, dataset, extractor, positions, tolerance)
        problems += off
    print(_format(data, errors, tolerance, problems))
    return not problems


def read_recipe(file: h5py.File, backbone: str | None, weights: str | None) -> Recipe:
    """How an open feature file was made, by what it records and what the user says.

    Raises:
        UsageError: The backbone or the weights are not recorded, and not given.
    """
    path = Path(file.filename)
    made = Provenance.from_attributes(file.attrs)
    recorded = None if made.damaged else made.backbone
    backbone = backbone or recorded
    if backbone is None:
        raise UsageError(f"{path}: expected a recorded backbone, found none. Give --backbone.")
    if weights is None:
        weights = "DEFAULT" if backbone != recorded else str(made.weights)
        if weights != "random" and weights not in find_architecture(backbone, weights).weights:
            raise UsageError(
                f"{path}: expected weights that can be found by name, found {weights!r}, of a "
                "state dict. Give its path with --weights."
            )
    tolerance = _TOLERANCES.get(made.precision, _COARSE) if made.precision else _TF32
    if made.allow_tf32:
        tolerance = max(tolerance, _TF32)
    return Recipe(
        split=made.split or path.name.partition("_features")[0],
        settings={
            "backbone": backbone,
            "weights": weights,
            "multi_scale": made.multi_scale,
            "scales": made.scales if made.multi_scale and made.scales else DEFAULT_SCALES,
            "scale_average": made.scale_average,
            "scale_align": made.scale_align,
            "frames_per_forward": made.frames_per_forward or 32,
            "input_size": made.input_size if backbone == recorded else None,
        },
        weights_sha256=made.weights_sha256 or "",
        tolerance=tolerance,
        skipped=[*(made.skipped or {})],
        made=made,
        by_nvdec=made.decoder == NVDEC,
    )


def _has_rows(file: h5py.File) -> bool:
    """Whether the datasets are of as many rows, and the features of as many frames."""
    names = [name for name in ("features", "labels", "num_frames", "video_ids") if name in file]
    try:
        fits = file["num_frames"][:] <= file["features"].shape[1]
    except DAMAGE:
        return False
    return len({len(file[name]) for name in names}) == 1 and bool(fits.all())


def compare_backbones(
    data: FeatureDataset, recipe: Recipe, extractor: FeatureExtractor
) -> list[str]:
    """What differs between the backbone that made a file and the one at hand."""
    problems = []
    if extractor.feature_dim != data.feature_dim:
        problems.append(
            f"feature_dim: expected {extractor.feature_dim}, of {extractor.backbone_name}, found "
            f"{data.feature_dim}: another backbone made the file"
        )
    if recipe.weights_sha256 not in ("", extractor.weights_sha256):
        problems.append(
            f"weights: expected those of {extractor.backbone_name} with {extractor.weights}, "
            "found other values: other weights made the file"
        )
    return problems


def _format(
    data: FeatureDataset, errors: Mapping[int, float], tolerance: float, problems: Sequence[str]
) -> str:
    lines = [str(data.path), ""]
    if errors:
        rows = [(row, data.video_ids[row], error) for row, error in errors.items()]
        headers = ("row", "video", "relative error")
        lines += [tabulate(rows, headers, floatfmt=".1e", disable_numparse=[1]), ""]
    lines += [f"  wrong: {problem}" for problem in problems]
    largest = f", largest error {max(errors.values()):.1e}" if errors else ""
    lines.append(
        f"{'not verified' if problems else 'verified'}: {len(errors)} of {len(data)} rows "
        f"recomputed{largest}, tolerance {tolerance:g}"
    )
    return "\n".join(lines)
