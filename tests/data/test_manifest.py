"""The scan: which videos, in which order, with which label."""

import os
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import Save, random_videos, scan

from featx.data.manifest import ScanSettings, missing_categories
from featx.data.sources.processed import scan_processed
from featx.errors import InputError, MissingInputError


def test_rows_are_in_the_order_of_names(root: Path, save: Save) -> None:
    """Categories, then subcategories, then the order inside the file; labels by category."""
    for place in ("b/2", "b/10", "a/x", "B/x"):  # made in no order
        save(f"train/{place}", random_videos(2, 3))
    manifest = scan(root)
    assert manifest.categories == {"B": 0, "a": 1, "b": 2}
    assert manifest.video_ids("train") == [
        f"train/{place}/{i}" for place in ("B/x", "a/x", "b/10", "b/2") for i in range(2)
    ]
    assert manifest.labels("train").tolist() == [0, 0, 1, 1, 2, 2, 2, 2]
    assert manifest.labels("train").dtype == np.int64


def test_positions_lead_to_files(small_root: Path) -> None:
    """Every position leads to its file and the index in it; splits follow each other."""
    manifest = scan(small_root)
    assert [*manifest.positions] == ["train", "val", "test"]
    assert manifest.positions == {"train": range(5), "val": range(5, 7), "test": range(7, 9)}
    found = [
        (Path(file.path).relative_to(small_root).parent.as_posix(), index)
        for file, index in map(manifest.locate, range(len(manifest)))
    ]
    assert found == [
        ("train/bye/a", 0),
        ("train/hello/a", 0),
        ("train/hello/a", 1),
        ("train/hello/b", 0),
        ("train/hello/b", 1),
        ("val/bye/a", 0),
        ("val/hello/a", 0),
        ("test/bye/a", 0),
        ("test/hello/a", 0),
    ]
    assert manifest.lengths.tolist() == [5, 7, 7, 3, 12, 7, 1, 7, 9]


def test_one_mapping_for_all_splits(root: Path, save: Save) -> None:
    """Labels are the same in every split, also where a split lacks categories; that is told."""
    save("train/b/x", random_videos(1, 2))
    save("train/c/x", random_videos(1, 2))
    save("test/a/x", random_videos(1, 2))
    (root / "val" / "d").mkdir(parents=True)  # not asked for, and mapped all the same
    (root / "other" / "e").mkdir(parents=True)  # neither a standard split nor asked for
    mapping = {"a": 0, "b": 1, "c": 2, "d": 3}
    for splits in (["train"], ["test"], ["test", "train"]):
        assert scan(root, splits).categories == mapping
    assert scan(root, ["test"]).labels("test").tolist() == [0]
    assert missing_categories(scan(root, ["train", "test"])) == {
        "train": ["a", "d"],
        "test": ["b", "c", "d"],
    }


def test_splits_that_are_asked_for(root: Path, save: Save) -> None:
    """Splits come in the order asked for, and of any name; by default the standard ones."""
    for split in ("extra", "test", "train"):
        save(f"{split}/a/x", random_videos(1, 2))
    assert [*scan(root).positions] == ["train", "test"]
    assert [*scan(root, ["test", "extra", "test"]).positions] == ["test", "extra"]


def test_hidden_folders_are_no_categories(root: Path, save: Save) -> None:
    """What an editor leaves behind is neither a category nor a subcategory."""
    save("train/a/x", random_videos(1, 2))
    (root / "train" / ".ipynb_checkpoints").mkdir()
    (root / "train" / "a" / ".cache").mkdir()
    manifest = scan(root)
    assert manifest.categories == {"a": 0}
    assert len(manifest) == 1


def test_clips_name_the_videos(root: Path, save: Save) -> None:
    """Where the file tells the clips, they are the names."""
    save("train/a/x", {"videos": random_videos(2, 2), "clips": ["train/a/1.mp4", "train/a/2.mp4"]})
    assert scan(root).video_ids("train") == ["train/a/1.mp4", "train/a/2.mp4"]


def test_no_root(tmp_path: Path) -> None:
    """The folder that is missing is named."""
    with pytest.raises(MissingInputError, match=r"nowhere: expected a folder, found nothing"):
        scan(tmp_path / "nowhere")


def test_no_split(small_root: Path, tmp_path: Path) -> None:
    """A split that isn't there: those that are get listed."""
    with pytest.raises(MissingInputError, match="'dev', found the folders test, train, val"):
        scan(small_root, ["train", "dev"])
    with pytest.raises(MissingInputError, match="train, val or test, found the folders bye, hello"):
        scan(small_root / "train")
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingInputError, match="train, val or test, found no folder"):
        scan(tmp_path / "empty")


def test_no_videos(root: Path) -> None:
    """A split without a video is an error, not an empty file."""
    (root / "train" / "a" / "x").mkdir(parents=True)
    with pytest.raises(MissingInputError, match=r"train: expected videos .* found none"):
        scan(root)


def test_a_misplaced_file_is_not_lost(root: Path, save: Save) -> None:
    """A file one level too high would never be read, so it is an error."""
    save("train/a/x", random_videos(1, 2))
    save("train/a", random_videos(1, 2))
    with pytest.raises(InputError, match=r"a/processed_data\.pt: .* Move it"):
        scan(root)


def test_a_bad_file_is_named(small_root: Path, save: Save) -> None:
    """A bad header anywhere stops the scan, and the process is left as it was."""
    bad = save("val/hello/a", torch.zeros(1, 2, 3, 8))
    flag = torch._C._only_lift_cpu_tensors()
    with pytest.raises(InputError, match=str(bad)):
        scan(small_root)
    assert torch._C._only_lift_cpu_tensors() == flag
    assert type(torch.zeros(1)) is torch.Tensor


def test_names_that_a_feature_file_cannot_hold(root: Path, save: Save) -> None:
    """Those of clips do not count as names; those of folders are refused by the scan."""
    for clips in (["a\0b", "c"], ["a\udcffb", "c"]):
        save("train/a/x", {"videos": random_videos(2, 2), "clips": clips})
        assert scan(root).video_ids("train") == ["train/a/x/0", "train/a/x/1"]
    save("train/a/x", random_videos(1, 2))
    (root / "train" / "a" / "x").rename(os.fsdecode(os.fsencode(root / "train/a/x") + b"\xff"))
    with pytest.raises(InputError, match="expected a name in UTF-8") as caught:
        scan(root)
    str(caught.value).encode()


def test_links_without_a_target_are_not_lost(root: Path, save: Save) -> None:
    """A folder or a file that is a broken link is an error, not one video less."""
    save("train/a/x", random_videos(1, 2))
    (root / "train" / "a" / "y").symlink_to(root / "nowhere")
    with pytest.raises(MissingInputError, match="y: expected a folder, found a link without"):
        scan(root)
    (root / "train" / "a" / "y").unlink()
    (root / "train" / "a" / "z").mkdir()
    (root / "train" / "a" / "z" / "processed_data.pt").symlink_to(root / "nowhere")
    with pytest.raises(MissingInputError, match=r"z/processed_data\.pt: expected a file"):
        scan(root)


def test_an_interruption_ends_the_threads(
    small_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scan that is stopped reads nothing any more, also where a bar shows how far it is."""

    def stop(path: Path, **settings: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("featx.data.sources.processed.open_processed_file", stop)
    monkeypatch.setattr("featx.progress.is_watched", lambda: True)
    with pytest.raises(KeyboardInterrupt) as kept:
        scan_processed(ScanSettings(small_root, progress=True))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("read-ahead")]
    assert kept.traceback


COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"


def test_names_that_look_the_same(root: Path, save: Save) -> None:
    """A copy from macOS writes accents in another way: it is the same category, and split."""
    save(f"train/{COMPOSED}/x", random_videos(1, 2))
    save(f"train/{DECOMPOSED}/y", random_videos(2, 2))
    save("train/cafz/x", random_videos(1, 2))
    save(f"val/{DECOMPOSED}/x", random_videos(1, 2))
    save(f"{DECOMPOSED}/zoo/x", random_videos(1, 2))
    manifest = scan(root, ["train", "val"])
    assert manifest.categories == {"cafz": 0, COMPOSED: 1}
    assert manifest.labels("train").tolist() == [0, 1, 1, 1]
    assert manifest.labels("val").tolist() == [1]
    assert missing_categories(manifest) == {"val": ["cafz"]}
    assert len({*manifest.video_ids("train")}) == 4
    for split in (COMPOSED, DECOMPOSED):
        assert [*scan(root, [split]).positions] == [DECOMPOSED]
    with pytest.raises(MissingInputError, match="for the split 'cafe'"):
        scan(root, ["cafe"])
