"""`featx scan`: what predict would take, told without weights."""

import json
from pathlib import Path

import pytest
from helpers import Save, grey_levels, random_videos

from featx.cli import main
from featx.data.media.clip import write_clip


@pytest.mark.parametrize("options", [[], ["--source", "clips"]])
def test_clips(raw: Path, capsys: pytest.CaptureFixture[str], options: list[str]) -> None:
    """They are found by themselves, where there is no processed_data.pt."""
    assert main(["scan", str(raw), *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{raw}, source clips"
    assert "  5 videos, 2 categories: train 4, test 1" in lines
    assert "  left out: 1 of .txt: train/hello/notes.txt" in lines


def test_processed_files(small_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """These are found by themselves, too."""
    assert main(["scan", str(small_root)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{small_root}, source processed"
    assert lines[2:] == ["  9 videos in 7 files, 2 categories: train 5, val 2, test 2"]


def test_the_splits_asked_for(small_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Others are named, but the usual ones among them are known."""
    assert main(["scan", str(small_root), "--splits", "[train]"]) == 0
    out = capsys.readouterr().out
    assert "  5 videos in 3 files, 2 categories: train 5\n" in out
    assert "To take them, too: --data.splits '[train,test,val]'" in out


def test_as_json(small_root: Path, save: Save, capsys: pytest.CaptureFixture[str]) -> None:
    """One object, for a program."""
    save("val/bye/b", 0)
    assert main(["scan", str(small_root), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["source"] == "processed"
    assert found["videos"] == {"train": 5, "val": 2, "test": 2}
    assert found["rejected"] == {"train": 0, "val": 1, "test": 0}
    [line] = found["bad_inputs"]
    assert "found int" in line


def test_a_split_without_a_video(
    root: Path, save: Save, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is told like any bad input."""
    save("train/a/x", random_videos(1, 2))
    (root / "val").mkdir()
    assert main(["scan", str(root)]) == 1
    assert f"bad: {root / 'val'}: expected videos at" in capsys.readouterr().out


def test_no_such_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line, and status 1."""
    assert main(["scan", str(tmp_path / "none")]) == 1
    assert "expected a folder, found nothing" in capsys.readouterr().err


def test_damaged_clips(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Those that end early are found without decoding a frame."""
    path = raw / "train/hello/cut.mkv"
    write_clip(path, grey_levels(60))
    path.write_bytes(path.read_bytes()[:-800])
    assert main(["scan", str(raw)]) == 1
    assert f"bad: {path}: expected a whole clip, found " in capsys.readouterr().out
