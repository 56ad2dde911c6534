"""The list of videos in columns: what comes out of a folder is what a scan has found."""

import csv
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import Save, grey_levels, random_videos, scan

from featx.data.columns import Texts
from featx.data.manifest import Manifest, ScanSettings, missing_categories
from featx.data.media.clip import write_clip
from featx.data.media.preprocessing import Preprocessing
from featx.data.media.processed_file import save_videos
from featx.data.sources.clips import scan_clips
from featx.data.sources.table import scan_table

Make = Callable[[Path], Manifest]


def make_processed(folder: Path) -> Manifest:
    """Files of several videos, whose clips have the same names, and one that is bad."""
    for split, category in (("train", "a"), ("train", "b"), ("test", "b")):
        path = folder / split / category / "x" / "processed_data.pt"
        path.parent.mkdir(parents=True)
        notes = ({"clips": f"{number}.mp4", "columns": {"take": number}} for number in range(3))
        save_videos(path, zip(notes, random_videos(3, 4), strict=True))
    (folder / "train" / "a" / "bad").mkdir()
    (folder / "train" / "a" / "bad" / "processed_data.pt").write_text("bad")
    return scan(folder, on_error="skip")


def make_clips(folder: Path) -> Manifest:
    """Clips in a tree."""
    for name in ("train/a/1.mp4", "train/a/x/2.mp4", "test/b/3.mp4"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_clip(folder / name, grey_levels(6))
    return scan_clips(ScanSettings(folder, preprocessing=Preprocessing(4, 16)))


def make_table(folder: Path) -> Manifest:
    """A table of segments and of a box, two of them of one clip."""
    folder.mkdir(exist_ok=True)
    for name in "ab":
        write_clip(folder / f"{name}.mp4", grey_levels(9))
    header = "path,split,label,start,end,left,top,right,bottom,signer,note"
    rows = [
        "a.mp4,train,x,0,0.2,,,,,1,é",
        "b.mp4,test,y,,,0,0,32,32,2,",
        "a.mp4,train,,0.1,,,,,,3,n",
    ]
    (folder / "t.csv").write_text("\n".join([header, *rows[:2], "a.mp4,train,y,0.1,,,,,,3,n", ""]))
    given = Preprocessing(None, 16, fps=10.0)
    return scan_table(ScanSettings(folder, preprocessing=given, table=folder / "t.csv"))


@pytest.mark.parametrize("make", [make_processed, make_clips, make_table])
def test_what_is_kept_is_what_was_found(tmp_path: Path, make: Make) -> None:
    """By all that anybody asks of it; so it is in a process that gets it as a pickle."""
    manifest = make(tmp_path / "root")
    manifest.save(tmp_path / "kept.arrow")
    opened = Manifest.open(tmp_path / "kept.arrow")
    for again in (opened, pickle.loads(pickle.dumps(opened)), pickle.loads(pickle.dumps(manifest))):
        assert again.positions == manifest.positions
        assert again.lengths.tolist() == manifest.lengths.tolist()
        assert again.categories == manifest.categories
        assert repr(again.rejected) == repr(manifest.rejected)
        assert again.summary == manifest.summary
        assert again.has_times == manifest.has_times
        assert missing_categories(again) == missing_categories(manifest)
        for split in manifest.positions:
            assert again.labels(split).tolist() == manifest.labels(split).tolist()
            assert again.video_ids(split) == manifest.video_ids(split)
            assert again.identities(split).tolist() == manifest.identities(split).tolist()
            assert again.preprocessing(split) == manifest.preprocessing(split)
            columns = again.select_columns(split)
            for name, values in manifest.select_columns(split).items():
                assert columns[name].tolist() == values.tolist()
        for position in range(len(manifest)):
            (file, index), (before, same) = again.locate(position), manifest.locate(position)
            assert index == same
            assert repr(file.identity) == repr(before.identity)
            assert torch.equal(file.read(index).frames, before.read(index).frames)
    assert len(pickle.dumps(opened)) < 500  # the path alone


@pytest.mark.parametrize("make", [make_processed, make_clips, make_table])
def test_some_rows_of_a_split(tmp_path: Path, make: Make) -> None:
    """What is asked of a range of rows is a part of what is asked of all."""
    manifest = make(tmp_path / "root")
    for split, positions in manifest.positions.items():
        for start in range(len(positions) + 1):
            for stop in range(start, len(positions) + 1):
                rows = range(start, stop)
                for ask in (manifest.labels, manifest.identities, manifest.video_ids):
                    assert [*ask(split, rows)] == [*ask(split)][start:stop]
                for name, values in manifest.select_columns(split, rows).items():
                    assert [*values] == [*manifest.select_columns(split)[name]][start:stop]


def test_names_that_do_not_tell_videos_apart(tmp_path: Path) -> None:
    """Of such a split, videos are called by their places; of another, by their names."""
    manifest = make_processed(tmp_path / "root")
    assert manifest.video_ids("train")[2:4] == ["train/a/x/2", "train/b/x/0"]
    assert manifest.video_ids("test") == ["0.mp4", "1.mp4", "2.mp4"]


def test_a_video_takes_little_room(tmp_path: Path, root: Path, save: Save) -> None:
    """Some two hundred bytes at most, its path included, where the list is long."""
    write_clip(tmp_path / "a clip of a name that is rather long.mp4", grey_levels(16))
    with (tmp_path / "t.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "split", "label", "id", "start_frame", "end_frame", "signer"])
        for row in range(2000):
            where = row % 8, row % 8 + 8
            name = f"a video of a name that is rather long {row}"
            path = "a clip of a name that is rather long.mp4"
            writer.writerow([path, "train", f"sign {row % 9}", name, *where, row % 5])
    given = ScanSettings(tmp_path, preprocessing=Preprocessing(4, 16), table=tmp_path / "t.csv")
    manifest = scan_table(given)
    manifest.save(tmp_path / "kept.arrow")
    assert (tmp_path / "kept.arrow").stat().st_size < 200 * 2000
    one = save("train/category/x", random_videos(1, 2, size=2))
    for number in range(300):
        copy = root / "train" / "a category" / f"folder {number}" / one.name
        copy.parent.mkdir(parents=True)
        copy.hardlink_to(one)
    manifest = scan(root)
    manifest.save(tmp_path / "others.arrow")
    assert (tmp_path / "others.arrow").stat().st_size < 200 * 301
    assert isinstance(manifest.video_ids("train"), Texts)
    assert np.unique(manifest.lengths).tolist() == [2]


def test_what_all_rows_have_in_common(tmp_path: Path) -> None:
    """Segments and boxes that are the same everywhere are those of every row."""
    for name in "ab":
        write_clip(tmp_path / f"{name}.mp4", grey_levels(9))
    header = "path,start,end,left,top,right,bottom"
    rows = [f"{name}.mp4,0.1,0.2,0,0,32,16" for name in "ab"]
    (tmp_path / "t.csv").write_text("\n".join([header, *rows, ""]))
    given = Preprocessing(None, 16, fps=24.0)
    settings = ScanSettings(tmp_path, preprocessing=given, table=tmp_path / "t.csv")
    segments = {str(file.segment) for file in scan_table(settings).files}  # type: ignore[attr-defined]  # of clips
    boxes = {file.box for file in scan_table(settings).files}  # type: ignore[attr-defined]  # likewise
    assert boxes == {(0, 0, 32, 16)}
    assert len(segments) == 1
    assert "Fraction(1, 10)" in segments.pop()
