"""The feature files of a folder, by split."""

from dataclasses import replace
from pathlib import Path

import pytest
from helpers import plan, write_feature_file

from featx.errors import InputError, MissingInputError, UsageError
from featx.features.feature_file import file_name
from featx.features.folder import (
    find_feature_files,
    list_feature_files,
    open_feature_files,
)


def touch(folder: Path, *names: str) -> None:
    """Empty files: what is in them is not looked at."""
    for name in names:
        (folder / name).touch()


def test_the_order_of_splits(tmp_path: Path) -> None:
    """Train, val and test come first, then others by name, of whatever kind each is."""
    touch(tmp_path, *(file_name(split, True) for split in ("test", "dev", "train")))
    touch(tmp_path, *(file_name(split, False) for split in ("val", "all")))
    expected = {
        "train": tmp_path / "train_features_multiscale.h5",
        "val": tmp_path / "val_features.h5",
        "test": tmp_path / "test_features_multiscale.h5",
        "all": tmp_path / "all_features.h5",
        "dev": tmp_path / "dev_features_multiscale.h5",
    }
    assert [*expected.items()] == [*find_feature_files(tmp_path).items()]


def test_names_of_splits(tmp_path: Path) -> None:
    """Any that a table may give; what only looks like a feature file is none."""
    touch(tmp_path, "a_features_features.h5", "b c_features_multiscale.h5", "x_features.h5")
    touch(tmp_path, "._x_features.h5", "_features.h5", "x_features.h5.tmp", "features.h5")
    (tmp_path / "folder_features.h5").mkdir()
    (tmp_path / "gone_features.h5").symlink_to(tmp_path / "nowhere")
    assert [*find_feature_files(tmp_path)] == ["a_features", "b c", "x"]


def test_both_kinds(tmp_path: Path) -> None:
    """One has to be asked for, unless the split is none of those that are wanted."""
    touch(tmp_path, "dev_features.h5", "dev_features_multiscale.h5", "train_features.h5")
    with pytest.raises(
        UsageError,
        match=r"one file of dev, found dev_features_multiscale\.h5 and dev_features\.h5\. Set mul",
    ):
        find_feature_files(tmp_path)
    multi = {"dev": tmp_path / "dev_features_multiscale.h5"}
    single = {name: tmp_path / f"{name}_features.h5" for name in ("train", "dev")}
    assert multi == find_feature_files(tmp_path, multi_scale=True)
    assert single == find_feature_files(tmp_path, multi_scale=False)
    assert [*find_feature_files(tmp_path, splits=["val", "train"])] == ["train"]


def test_no_such_files(tmp_path: Path) -> None:
    """It is told which are there, and the way out fits that."""
    empty = (
        r"expected train_features_multiscale\.h5 or train_features\.h5, or those of val or test, "
    )
    with pytest.raises(MissingInputError, match=rf"{empty}found none\. .* or give the folder"):
        find_feature_files(tmp_path)
    touch(tmp_path, "all_features_multiscale.h5")
    with pytest.raises(MissingInputError, match=r"found all_\S+\.h5\. .* set multi_scale to what"):
        find_feature_files(tmp_path, multi_scale=False)
    with pytest.raises(
        MissingInputError,
        match=r"expected dev_features_m\S+ or dev_features\.h5, found all_.* ask for",
    ):
        find_feature_files(tmp_path, splits=["dev"])


def test_no_such_folder(tmp_path: Path) -> None:
    """It is told in a line, as is a file in its place."""
    with pytest.raises(MissingInputError, match=r"nowhere: expected a folder of .*, found none"):
        find_feature_files(tmp_path / "nowhere")
    touch(tmp_path, "train_features.h5")
    with pytest.raises(InputError, match=r"expected a folder of .*, found: Not a directory\. Give"):
        find_feature_files(tmp_path / "train_features.h5")


def test_all_files(tmp_path: Path) -> None:
    """Of both kinds, in the order of splits; others are none, and without any it is told."""
    for name in ("b_features.h5", "val_features.h5", "val_features_multiscale.h5", "a.h5"):
        (tmp_path / name).touch()
    names = ["val_features.h5", "val_features_multiscale.h5", "b_features.h5"]
    assert [path.name for path in list_feature_files(tmp_path)] == names
    with pytest.raises(MissingInputError, match=r"expected train_features_multiscale.h5 or"):
        list_feature_files(make_empty(tmp_path))


def make_empty(folder: Path) -> Path:
    """A folder without a file."""
    (folder / "empty").mkdir()
    return folder / "empty"


def test_categories_that_differ(tmp_path: Path) -> None:
    """A few of those that do are named, however many there are."""
    many = {f"category {i}": i for i in range(3000)}
    for split, categories in {"train": many, "val": many | {"another": 3000}}.items():
        provenance = replace(plan([3]).provenance, categories=categories)
        write_feature_file(tmp_path / f"{split}_features_multiscale.h5", [3], provenance=provenance)
    with pytest.raises(InputError, match="found another: 'another': 3000 instead of nothing"):
        open_feature_files(tmp_path)
