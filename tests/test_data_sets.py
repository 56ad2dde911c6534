"""Whatever data set a person has: flat folders, tables, folders of frames; the whole way."""

import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import jobs
import numpy as np
import pytest
import torch
from clips import encode, moving_frames
from helpers import TINY_JOB
from PIL import Image

import featx
from featx.cli import main
from featx.commands.inspect.statistics import survey
from featx.commands.preprocess import preprocess
from featx.commands.verify.command import verify

pytestmark = [
    pytest.mark.usefixtures("tiny"),
    pytest.mark.filterwarnings("ignore:.*categories have no videos:UserWarning"),
]

TABLE = """\
path,label,split,start,end,left,top,right,bottom,signer,take
b.mp4,zebra,train,0.2,1.1,,,,,anna,1
a.mp4,ape,train,,,,,,,ben,2
b.mp4,ape,train,0.7,,4,4,40,44,anna,3
frames/x,cat,train,,,,,,,,4
a.mp4,zebra,dev,0.5,0.75,,,,,ben,5
b.mp4,ape,dev,,,,,,,,6
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two clips and a folder of frames, in no order at all, and a table of segments of them."""
    root = tmp_path / "clips"
    (root / "frames/x").mkdir(parents=True)
    encode(root / "a.mp4", "libx264", options={"x264-params": "keyint=12:bframes=3"})
    encode(root / "b.mp4", "libx264", start=20, count=30)
    for number, image in enumerate(moving_frames(9, 48, 64)):
        Image.fromarray(image).save(root / f"frames/x/{number}.png")
    (root / "table.csv").write_text(TABLE)
    return root


def extract(root: Path | None, out: Path, **settings: Any) -> dict[str, Path]:  # noqa: ANN401
    """The whole job, small, at a single scale."""
    job: dict[str, Any] = TINY_JOB | {"multi_scale": False} | settings
    return featx.extract(root, out, **job)


def rows(path: Path) -> dict[str, dict[str, Any]]:
    """What a file has of each video, by its name."""
    found: dict[str, dict[str, Any]] = {}
    with h5py.File(path) as file:
        categories = json.loads(file.attrs["category_mapping"])
        names = {label: name for name, label in categories.items()}
        for row, name in enumerate(file["video_ids"].asstr()[:]):
            length = file["num_frames"][row]
            found[name] = {
                "features": file["features"][row, :length].tolist(),
                "label": int(file["labels"][row]),
                "category": names.get(file["labels"][row]),
                "times": str(np.round(file["times"][row, :length], 6).tolist()),  # NaN, too
                **{name: column[row] for name, column in file.get("columns", {}).items()},
            }
    return found


@pytest.mark.parametrize(
    "settings",
    [
        {"num_frames": 5},
        {"stride": 3, "resize": "crop"},
        {"fps": 10.0},
        {"fps": 40.0, "frame_rate": 5.0},
    ],
    ids=str,
)
def test_straight_and_by_way_of_files(
    folder: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    """The rows of a table are the same through `predict`, and through `preprocess` before it."""
    settings = {"image_size": 16, "table": folder / "table.csv", **settings}
    if "fps" in settings:
        settings.setdefault("frame_rate", 25.0)
    straight = extract(None, tmp_path / "a", **settings)
    assert [*straight] == ["train", "dev"]
    assert preprocess(folder, tmp_path / "processed", **settings) == []
    assert preprocess(folder, tmp_path / "processed", **settings) == []  # nothing is left to do
    by_way = extract(tmp_path / "processed", tmp_path / "b")
    for split, path in straight.items():
        found = rows(path)
        assert found == rows(by_way[split])
        assert len(found) == {"train": 4, "dev": 2}[split]
        assert featx.FeatureDataset(path).columns["take"].dtype == np.int64
        assert verify(path, table=folder / "table.csv", all=True)
        assert verify(by_way[split], tmp_path / "processed", all=True)


def test_labels_and_their_way_through_files(folder: Path, tmp_path: Path) -> None:
    """Integers stay what they are, and rows without a label have none, in either way."""
    (folder / "table.csv").write_text("path,label\na.mp4,10\nb.mp4,2\nframes/x,-1\n")
    settings: dict[str, Any] = {"num_frames": 3, "image_size": 16, "table": folder / "table.csv"}
    assert preprocess(folder, tmp_path / "processed", **settings) == []
    for number, paths in enumerate(
        [
            extract(None, tmp_path / "a", **settings),
            extract(tmp_path / "processed", tmp_path / "b"),
        ]
    ):
        found = rows(paths["all"])
        assert {name: row["label"] for name, row in found.items()} == {
            "a.mp4": 10,
            "b.mp4": 2,
            "frames/x": -1,
        }, number
        with h5py.File(paths["all"]) as file:
            assert json.loads(file.attrs["category_mapping"]) == {"2": 2, "10": 10}
    assert verify(tmp_path / "a/all_features.h5", table=folder / "table.csv", all=True)
    assert verify(tmp_path / "b/all_features.h5", tmp_path / "processed", all=True)


def test_what_verify_and_inspect_see(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A cell or a time that has changed is wrong; videos without a category have their own bar."""
    (folder / "table.csv").write_text("path,label,note,age\na.mp4,3,x,1\nb.mp4,-1,y,\n")
    settings: dict[str, Any] = {"num_frames": 3, "image_size": 16, "table": folder / "table.csv"}
    path = extract(None, tmp_path / "out", **settings)["all"]
    assert verify(path, table=folder / "table.csv", all=True)
    assert main(["inspect", str(path), "--plot", str(tmp_path / "plot.png")]) == 0
    counts = survey(featx.FeatureDataset(path)).counts
    assert counts.tolist() == [1, 1]
    unlabelled = extract(folder, tmp_path / "flat", source="clips", layout="flat", num_frames=2)
    assert main(["inspect", str(unlabelled["all"]), "--plot", str(tmp_path / "flat.png")]) == 0
    with h5py.File(path, "r+") as file:
        file["columns/note"][0] = "z"
        file["times"][1, 0] = 0.5
    capsys.readouterr()
    assert not verify(path, table=folder / "table.csv", all=True)
    out = capsys.readouterr().out
    assert "wrong: columns/note: expected those of the inputs, found others in 1 rows (0)" in out
    assert "wrong: times[1]: expected those of b.mp4, found others" in out


def test_a_table_that_is_edited(folder: Path, tmp_path: Path) -> None:
    """What is no longer in it is no longer there, and the others keep the labels that they have."""
    table, processed = folder / "table.csv", tmp_path / "processed"
    settings: dict[str, Any] = {"num_frames": 3, "image_size": 16, "table": table}
    for text, expected in {
        "path,label\na.mp4,5\nb.mp4,9\nframes/x,7\n": {"a.mp4": 5, "b.mp4": 9, "frames/x": 7},
        "path,label\na.mp4,5\nb.mp4,9\n": {"a.mp4": 5, "b.mp4": 9},
        "path,label\na.mp4,9\nb.mp4,9\n": {"a.mp4": 9, "b.mp4": 9},
        "path,label\na.mp4,p\nb.mp4,q\n": {"a.mp4": 0, "b.mp4": 1},
    }.items():
        table.write_text(text)
        assert preprocess(folder, processed, **settings) == []
        found = rows(extract(processed, tmp_path / "out", overwrite=True)["all"])
        assert {name: row["label"] for name, row in found.items()} == expected


def test_what_somebody_else_has_made_stays(folder: Path, tmp_path: Path) -> None:
    """A file at a place that a table would have, but of which there is no record."""
    theirs = tmp_path / "processed/train/other/table/processed_data.pt"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("theirs")
    settings: dict[str, Any] = {"num_frames": 3, "image_size": 16, "table": folder / "table.csv"}
    with pytest.warns(UserWarning, match="1 files are of other clips, and were kept"):
        preprocess(folder, tmp_path / "processed", **settings)
    assert theirs.read_text() == "theirs"


def test_a_table_beside_another(folder: Path, tmp_path: Path) -> None:
    """A folder is for one table: files of another one are kept with a warning, without labels."""
    (folder / "other.csv").write_text("path,label,split\na.mp4,12,dev\n")
    (folder / "table.csv").write_text("path,label,split\na.mp4,5,dev\nb.mp4,0,train\n")
    settings: dict[str, Any] = {"num_frames": 3, "image_size": 16}
    processed = tmp_path / "processed"
    assert preprocess(folder, processed, table=folder / "table.csv", **settings) == []
    assert [*extract(processed, tmp_path / "out")] == ["dev", "train"]
    with pytest.warns(UserWarning, match="2 files are of other clips, and were kept"):
        preprocess(folder, processed, table=folder / "other.csv", **settings)
    with pytest.raises(featx.FeatxError, match="expected the label of each category, found none"):
        extract(processed, tmp_path / "more")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"source": "processed"}, "source: expected clips or frames, found processed"),
        ({"layout": "flat", "table": "t.csv"}, "layout: expected tree with a table, found flat"),
        ({"columns": {"path": "x"}}, "columns: expected a table that has them"),
    ],
)
def test_settings_that_do_not_fit(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    """`preprocess` refuses them at once."""
    with pytest.raises(featx.FeatxError, match=message):
        preprocess(tmp_path, tmp_path / "out", **settings)


@pytest.mark.parametrize(
    "columns",
    [{"a/b": 1}, {"..": 1}, {"": 1}, {"a": "x\0"}, {"a": "\ud800"}, {"a": [1]}, {1: "a"}, "text"],
    ids=repr,
)
def test_notes_that_a_file_cannot_hold(tmp_path: Path, columns: object) -> None:
    """Columns of a file that somebody made: they are not taken, and its videos are."""
    path = tmp_path / "root/train/a/b/processed_data.pt"
    path.parent.mkdir(parents=True)
    videos = torch.zeros(1, 2, 3, 8, 8, dtype=torch.uint8)
    torch.save({"videos": videos, "columns": [columns], "times": [["soon", 1.0]]}, path)
    dataset = featx.FeatureDataset(extract(tmp_path / "root", tmp_path / "out")["train"])
    assert dataset.columns == {}
    assert dataset[0].times is None
    torch.save({"videos": videos, "columns": [{"a": "x"}], "times": [[0.0, 1.0]]}, path)
    dataset = featx.FeatureDataset(extract(tmp_path / "root", tmp_path / "more")["train"])
    assert dataset[0].columns == {"a": "x"}
    assert str(dataset[0].times) == "tensor([0., 1.])"


def test_clips_beside_folders_of_images(folder: Path, tmp_path: Path) -> None:
    """They are of another source, and not misplaced."""
    shutil.move(folder / "frames", folder / "train")
    (folder / "train/a/b").mkdir(parents=True)
    shutil.move(folder / "train/x", folder / "train/a/x")
    settings: dict[str, Any] = {"source": "frames", "image_size": 16, "fps": 10, "frame_rate": 20}
    assert preprocess(folder, tmp_path / "processed", **settings) == []
    straight = extract(folder, tmp_path / "a", **settings)["train"]
    assert rows(straight) == rows(extract(tmp_path / "processed", tmp_path / "b")["train"])
    assert verify(straight, folder, source="frames", all=True)


def test_a_category_that_no_folder_can_be_named_after(folder: Path, tmp_path: Path) -> None:
    """`predict` takes it; `preprocess` says why it cannot."""
    (folder / "table.csv").write_text("path,label\na.mp4,to/from\nb.mp4,b\n")
    settings: dict[str, Any] = {"num_frames": 3, "image_size": 16, "table": folder / "table.csv"}
    paths = extract(None, tmp_path / "a", **settings)
    with h5py.File(paths["all"]) as file:
        assert json.loads(file.attrs["category_mapping"]) == {"b": 0, "to/from": 1}
    [failure] = preprocess(folder, tmp_path / "processed", **settings)
    assert failure.startswith("a.mp4: expected a category that a folder can be named after")


def test_files_that_are_out_of_date(folder: Path, tmp_path: Path) -> None:
    """Another segment, box, sampling or column is another file."""
    made = tmp_path / "processed/train/ape/table/processed_data.pt"
    settings: dict[str, Any] = {"image_size": 16, "table": folder / "table.csv", "num_frames": 4}
    preprocess(folder, tmp_path / "processed", **settings)
    changes: dict[str, Any] = {
        "segment": lambda: (folder / "table.csv").write_text(TABLE.replace("0.7,", "0.71,")),
        "box": lambda: (folder / "table.csv").write_text(TABLE.replace("40,44", "41,44")),
        "column": lambda: (folder / "table.csv").write_text(TABLE.replace("ben", "carl")),
        "resize": lambda: settings.update(resize="crop"),
        "sampling": lambda: settings.update(num_frames=None, stride=2),
    }
    for what, change in changes.items():
        change()
        before = made.stat().st_mtime_ns, made.stat().st_ino
        preprocess(folder, tmp_path / "processed", **settings)
        after = made.stat().st_mtime_ns, made.stat().st_ino
        assert after != before, what
        preprocess(folder, tmp_path / "processed", **settings)
        assert (made.stat().st_mtime_ns, made.stat().st_ino) == after, what


def test_a_flat_folder(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every clip below it, in natural order, in one split; as a shell's user has it."""
    (folder / "deep/er").mkdir(parents=True)
    shutil.copy(folder / "a.mp4", folder / "deep/er/a10.mp4")
    shutil.copy(folder / "a.mp4", folder / "deep/er/a9.mp4")
    out = tmp_path / "out"
    args = ["predict", f"--data.root={folder}", "--data.source=clips", "--data.layout=flat"]
    args += ["--data.fps=5", "--data.image_size=16", f"--writer.output_dir={out}"]
    args += ["--model.backbone=resnet50", "--model.weights=random", "--model.multi_scale=false"]
    assert main([*args, "--trainer.accelerator=cpu"]) == 0
    path = out / "all_features.h5"
    names = ["a.mp4", "b.mp4", "deep/er/a9.mp4", "deep/er/a10.mp4"]
    dataset = featx.FeatureDataset(path)
    assert dataset.video_ids == names
    assert dataset.labels.tolist() == [-1] * 4
    assert dataset.categories == {}
    assert dataset.num_frames.tolist() == [8, 6, 8, 8]
    assert main(["inspect", str(path)]) == 0
    text = capsys.readouterr().out
    assert "fps 5" in text
    assert "0 to 1.4 s" in text
    assert "0, and 4 videos without one" in text
    args = ["verify", str(path), "--root", str(folder), "--source=clips", "--layout=flat"]
    assert main([*args, "--device=cpu"]) == 0
    processed = tmp_path / "processed"
    args = ["preprocess", str(folder), str(processed), "--layout=flat", "--fps=5"]
    assert main([*args, "--image_size=16"]) == 0
    by_way = extract(processed, tmp_path / "b")
    assert rows(by_way["all"]) == rows(path)
    capsys.readouterr()
    assert main(["scan", str(folder), "--layout=flat"]) == 0
    assert capsys.readouterr().out.splitlines()[2:] == [
        "  4 videos, 0 categories: all 4",
        "  left out: 1 of .csv: table.csv",
        "  left out: 9 of .png: frames/x/0.png, frames/x/1.png, frames/x/2.png and 6 more",
    ]


@pytest.mark.processes
@pytest.mark.parametrize("multi_scale", [False, True])
def test_killed_and_resumed(folder: Path, tmp_path: Path, multi_scale: bool) -> None:
    """Of a table, too: by one process and by two, killed or not, the bytes are the same."""
    data = {"table": str(folder / "table.csv"), "fps": 10, "frame_rate": 25, "image_size": 16}
    job: dict[str, Any] = {"data": data, "delay": 0, "multi_scale": multi_scale}
    expected = jobs.run(folder, tmp_path / "one", **job)
    with h5py.File(next((tmp_path / "one").glob("train*.h5"))) as file:
        assert ("times" in file) != multi_scale
        assert [*file["columns"]] == ["signer", "take"]
    killed = tmp_path / "killed"
    assert jobs.end(jobs.start(folder, killed, fault="0:kill", **job), 60) != 0
    assert [*(killed / ".featx").rglob("part-*.h5")]
    assert jobs.run(folder, killed, **job) == expected
    if not multi_scale:
        assert jobs.run(folder, tmp_path / "two", **job, **jobs.TWO) == expected


def test_another_table(folder: Path, tmp_path: Path) -> None:
    """Another segment, label, name or column is another file; another spelling is the same."""
    settings: dict[str, Any] = {"num_frames": 3, "image_size": 16}
    lines = TABLE.splitlines()
    paths = extract(None, tmp_path / "out", table=folder / "table.csv", **settings)
    before = {split: path.read_bytes() for split, path in paths.items()}
    (folder / "same.tsv").write_text("\n".join(line.replace(",", "\t") for line in lines))
    extract(None, tmp_path / "out", table=folder / "same.tsv", **settings)
    for old, new in (
        ("0.2,1.1", "0.2,1.0"),
        ("zebra", "yak"),
        ("ben", "bea"),
        ("4,4,40", "5,4,40"),
    ):
        (folder / "table.csv").write_text(TABLE.replace(old, new))
        if old == "0.2,1.1":  # the name of the row tells its segment
            with pytest.raises(featx.FeatxError, match=r"1 row without one: b.mp4#t=0\.2,1\.1\. "):
                extract(None, tmp_path / "out", table=folder / "table.csv", **settings)
            assert {split: path.read_bytes() for split, path in paths.items()} == before
        settings["overwrite"] = True
        extract(None, tmp_path / "out", table=folder / "table.csv", **settings)
        fresh = extract(None, tmp_path / new, table=folder / "table.csv", **settings)
        after = {split: path.read_bytes() for split, path in paths.items()}
        assert after != before
        assert after == {split: path.read_bytes() for split, path in fresh.items()}
    for number, row in enumerate(("0,1,,,,", "0,0.9,,,,", "0,1,1,1,9,9")):
        text = f"path,id,start,end,left,top,right,bottom\na.mp4,one,{row}\n"
        (folder / "table.csv").write_text(text)
        if number == 0:
            extract(None, tmp_path / "id", table=folder / "table.csv", **settings)
            continue
        found, expected = (
            extract(None, tmp_path / name, table=folder / "table.csv", **settings)["all"]
            for name in ("id", row)
        )
        assert found.read_bytes() == expected.read_bytes()
