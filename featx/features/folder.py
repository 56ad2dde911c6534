"""The feature files of a folder, by split."""

import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from featx.errors import InputError, MissingInputError, UsageError, first_line, shorten
from featx.features.feature_file import file_name

if TYPE_CHECKING:
    from featx.features.dataset import FeatureDataset

_FIRST = ("train", "val", "test")
_NAME = re.compile(r"([^.].*)_features(?:_multiscale)?\.h5", re.DOTALL)  # a hidden file is none


def find_feature_files(
    folder: Path,
    multi_scale: bool | None = None,
    splits: Collection[str] | None = None,
) -> dict[str, Path]:
    """The feature files of a folder by split: train, val and test, then others sorted by name.

    Args:
        folder: The folder that featx predict wrote to.
        multi_scale: Which files, where there are both kinds; by default, those that there are.
        splits: Which splits, as far as they have a file; by default, all.

    Raises:
        UsageError: A split has files of both kinds, and `multi_scale` does not say which.
        MissingInputError: There is no such folder, or no such file in it.
        InputError: The folder cannot be read.
    """
    kinds = (True, False) if multi_scale is None else (multi_scale,)
    known = _list_files(folder)
    paths = {}
    for split in known:
        if splits is not None and split not in splits:
            continue
        found = [name for multi in kinds if (name := file_name(split, multi)) in known[split]]
        if len(found) > 1:
            raise UsageError(
                f"{folder}: expected one file of {split}, found {' and '.join(found)}. "
                "Set multi_scale."
            )
        if found:
            paths[split] = folder / found[0]
    if not paths:
        raise _tell_missing(folder, kinds, splits, known)
    return paths


def list_feature_files(folder: Path) -> list[Path]:
    """All feature files of a folder, of both kinds, in the order of `find_feature_files`.

    Raises:
        MissingInputError: There is no such folder, or no such file in it.
        InputError: The folder cannot be read.
    """
    known = _list_files(folder)
    if not known:
        raise _tell_missing(folder, (True, False), None, known)
    return [folder / name for names in known.values() for name in names]


def open_feature_files(
    path: Path,
    multi_scale: bool | None = None,
    splits: Collection[str] | None = None,
) -> "dict[str, FeatureDataset]":
    """Open the feature files of a folder by split, as `find_feature_files` finds them, or one file.

    Raises:
        UsageError: A split has files of both kinds, and `multi_scale` does not say which.
        MissingInputError: There is no such file.
        InputError: One is no feature file, or files do not belong together.
    """
    if path.is_dir() or not path.exists():
        paths = find_feature_files(path, multi_scale, splits)
    else:
        match = _NAME.fullmatch(path.name)
        paths = {match[1] if match else path.stem: path}
    from featx.features.dataset import FeatureDataset  # it needs torch, which takes seconds

    datasets = {split: FeatureDataset(found) for split, found in paths.items()}
    check_together([*datasets.values()])
    return datasets


def check_together(datasets: "Sequence[FeatureDataset]") -> None:
    """Check that files were made in one way, of one set of categories.

    Raises:
        InputError: They do not belong together.
    """
    first = datasets[0]
    for dataset in datasets:
        for name in ("feature_dim", "categories", "recipe"):
            if getattr(dataset, name) != getattr(first, name):
                here, there = _tell_apart(getattr(dataset, name), getattr(first, name))
                raise InputError(
                    f"{dataset.path}: expected the {name} of {first.path.name}, found another: "
                    f"{here} instead of {there}. Extract all splits together."
                )


def _tell_apart(here: object, there: object) -> tuple[object, object]:
    """Two different values; of two mappings, a few of the entries that differ."""
    if not isinstance(here, dict) or not isinstance(there, dict):
        return here, there
    entries = (here.items() - there.items(), there.items() - here.items())
    shown = (shorten([f"{name!r}: {value!r}" for name, value in sorted(e)]) for e in entries)
    first, second = (text or "nothing" for text in shown)
    return first, second


def _list_files(folder: Path) -> dict[str, list[str]]:
    """Names of the feature files of each split; a link without a target is none."""
    try:
        names = sorted(path.name for path in folder.iterdir() if path.is_file())
    except FileNotFoundError as error:
        raise MissingInputError(
            f"{folder}: expected a folder of feature files, found none. Check the path."
        ) from error
    except OSError as error:
        raise InputError(
            f"{folder}: expected a folder of feature files, found: {first_line(error)}. "
            "Give the folder that featx predict wrote to."
        ) from error
    known: dict[str, list[str]] = {split: [] for split in _FIRST}
    for name in names:
        if match := _NAME.fullmatch(name):
            known.setdefault(match[1], []).append(name)
    return {split: found for split, found in known.items() if found}


def _tell_missing(
    folder: Path,
    kinds: Collection[bool],
    splits: Collection[str] | None,
    known: dict[str, list[str]],
) -> MissingInputError:
    """An error about a folder that has no such file, but may have others."""
    first, *others = splits or _FIRST
    wanted = " or ".join(file_name(first, multi) for multi in kinds)
    if others:
        wanted += f", or those of {' or '.join(others)}"
    way_out = "set multi_scale to what there is"
    if not known:
        way_out = "give the folder that it wrote to"
    elif splits is not None and known.keys().isdisjoint(splits):
        way_out = "ask for a split that there is"
    found = shorten([name for names in known.values() for name in names]) or "none"
    return MissingInputError(
        f"{folder}: expected {wanted}, found {found}. "
        f"Extract them with featx predict, or {way_out}."
    )
