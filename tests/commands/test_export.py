"""A file for each video, as other tools read it: with numpy alone."""

import csv
from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers import make_rows, write_feature_file
from hypothesis import given
from hypothesis import strategies as st

from featx.cli import main
from featx.commands.export import name_files

LENGTHS = [3, 9, 1]
LONG = "/".join(["x" * 190] * 30)


@pytest.mark.parametrize("transpose", [False, True])
def test_what_numpy_reads(
    tmp_path: Path, transpose: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Features without padding, one way or the other, and an index of them."""
    path = write_feature_file(tmp_path / "train_features.h5", LENGTHS)
    out = tmp_path / "out"
    args = ["export", str(path), str(out), *["--transpose"] * transpose]
    assert main(args) == 0
    assert f"3 videos in {out}, which index.csv lists" in capsys.readouterr().out
    for row, features in enumerate(make_rows(LENGTHS)):
        found = np.load(out / f"video {row}.npy")
        np.testing.assert_array_equal(found, features.T if transpose else features)
        assert found.flags.c_contiguous
    with (out / "index.csv").open(newline="") as file:
        lines = [*csv.DictReader(file)]
    assert lines[1] == {
        "file": "video 1.npy",
        "video_id": "video 1",
        "label": "1",
        "category": "b",
        "num_frames": "9",
    }
    assert len([*out.iterdir()]) == 4
    assert main(args) == 1
    assert "expected no file, found one" in capsys.readouterr().err
    assert main([*args, "--overwrite"]) == 0


def test_rows_that_do_not_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As many names as rows, or none."""
    path = write_feature_file(tmp_path / "train_features.h5", LENGTHS)
    with h5py.File(path, "r+") as file:
        del file["video_ids"]
        file.create_dataset("video_ids", data=["a"], dtype=h5py.string_dtype())
    assert main(["export", str(path), str(tmp_path / "out")]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert "video_ids: expected shape [3] by the attributes, found [1]" in line


def test_a_damaged_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is told in one line."""
    path = write_feature_file(tmp_path / "train_features.h5", LENGTHS)
    with h5py.File(path, "r+") as file:
        offset = file["features"].id.get_chunk_info(0).byte_offset
    with path.open("r+b") as raw:
        raw.seek(offset + 10)
        raw.write(b"xxxx")
    assert main(["export", str(path), str(tmp_path / "out")]) == 1
    [line] = capsys.readouterr().err.splitlines()[-1:]
    assert "expected a readable feature file" in line


@pytest.mark.parametrize(
    ("ids", "names"),
    [
        (["train/a/1.mp4", "train/a/2.mp4"], ["train/a/1", "train/a/2"]),
        (["1.mp4", "1.mkv"], ["1.mp4", "1.mkv"]),
        (["v1.5", "b"], ["v1.5", "b"]),
        (["x#t=0,5", "x#t=5,9"], ["x#t=0,5", "x#t=5,9"]),
        (["../../etc/passwd", "/etc/passwd"], ["%2E%2E/%2E%2E/etc/passwd", "etc/passwd"]),
        (["a", "a", "A"], ["a", "a-2", "A-3"]),
        (["", ".", ".."], ["%25", "%2E", "%2E%2E"]),
        (["a:b\\c", "%3A"], ["a%3Ab%5Cc", "%253A"]),
        (
            ["a", "a.npy/b", "index.csv/x", "index.csv"],
            ["a-2", "a.npy/b", "%69ndex.csv/x", "%69ndex"],
        ),
    ],
)
def test_names(ids: list[str], names: list[str]) -> None:
    """Those of the videos, as far as they are names of files."""
    assert name_files(ids) == names


@given(
    st.lists(
        st.text(max_size=300)
        | st.just("/".join(["x" * 190] * 30))
        | st.text("./a%A\\:", max_size=8),
        max_size=8,
    )
)
def test_no_name_leaves_the_folder(ids: list[str]) -> None:
    """Names come from strangers: each has a place of its own below the folder."""
    names = name_files(ids)
    assert len({name.casefold() for name in names}) == len(ids)
    for name in names:
        parts = name.split("/")
        assert all(part not in ("", ".", "..") and "\0" not in part for part in parts)
        assert all(len(f"{part}.npy".encode()) < 255 for part in parts)
        assert len(name.encode()) < 2000
