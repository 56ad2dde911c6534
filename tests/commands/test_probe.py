"""`featx probe`: a table, JSON and a figure of how good features are."""

import json
from pathlib import Path

import numpy as np
import pytest
from analysis import known
from analysis.test_probing import Kind

from featx.cli import main
from featx.features.folder import open_feature_files

pytestmark = pytest.mark.usefixtures("one_thread")


def make(folder: Path, kind: Kind, categories: int = 4) -> Path:
    """A small data set."""
    rng = np.random.default_rng(0)
    for split, count in {"train": 48, "val": 16, "test": 32}.items():
        labels = [i % categories for i in range(count)]
        known.write(folder, split, kind(rng, labels), labels)
    return folder


def test_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both are in the table, and whether the better one is better by more than chance."""
    names = [str(make(tmp_path / kind.__name__, kind)) for kind in (known.noise, known.separable)]
    assert main(["probe", *names]) == 0
    out = capsys.readouterr().out
    assert "trained on train (48 videos), chosen on val (16), told on test (32)" in out
    assert "4 categories; chance 25.0 %, always the largest 25.0 %" in out
    assert "separable   resnet50, 16  kNN      100.0 (89.3 to 100.0)" in out  # as Wilson has it
    assert "separable is better than noise by" in out
    assert "on the same 32 videos (linear): more than chance" in out
    assert "no mistakes" in out
    assert "top-5" not in out


def test_for_a_program(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One object, with what was found, by which settings, and what was mistaken."""
    folder = make(tmp_path / "features", known.noise, categories=8)
    assert main(["probe", str(folder), "--json", "--pool", "thirds", "--seed", "3"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["pool"], report["seed"], report["comparison"]) == ("thirds", 3, None)
    [found] = report["features"]
    assert found["name"] == "features"
    assert found["backbone"] == "resnet50"
    assert found["weights_sha256"] is None
    assert (found["tested"], found["categories"]) == (32, 8)
    linear = found["probes"]["linear"]
    assert linear["accuracy"]["low"] <= linear["accuracy"]["value"] <= linear["accuracy"]["high"]
    assert linear["top_5"]["value"] >= linear["accuracy"]["value"]
    assert linear["settings"][0]["C"] in (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    assert len(found["worst"]) == len(found["confusions"]) == 5
    assert main(["probe", str(folder), "--json", "--pool", "thirds", "--seed", "3"]) == 0
    assert json.loads(capsys.readouterr().out) == report


def test_a_confusion_matrix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is a PNG; of few categories and of many, and whatever their names are."""
    for count in (3, 70):
        rng = np.random.default_rng(0)
        labels = [i % count for i in range(4 * count)]
        names = {f"${i} <b>\n": i for i in range(count)}
        path = known.write(
            tmp_path / f"{count}", "all", known.noise(rng, labels), labels, categories=names
        )
        assert main(["probe", str(path), "--plot", str(tmp_path / f"{count}.png")]) == 0
        assert (tmp_path / f"{count}.png").read_bytes().startswith(b"\x89PNG")
    assert "\\n" in capsys.readouterr().out


def test_what_is_said_of_the_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Leaks, samples, missing labels and categories that nobody learned have a line each."""
    rng = np.random.default_rng(0)
    categories = {"a": 0, "b": 1, "c": 2}
    for split, labels in {"train": [0, 1] * 20, "test": [0, 1, 2, -1] * 5}.items():
        contents = [f"{split if i else 'both'} {i}" for i in range(len(labels))]
        videos = known.noise(rng, labels)
        known.write(tmp_path, split, videos, labels, contents=contents, categories=categories)
    assert main(["probe", str(tmp_path), "--max-videos", "50"]) == 0
    out = capsys.readouterr().out
    assert "an even sample: 50 of 55 videos (--max-videos)" in out
    assert "left out: 5 videos without a label" in out
    assert "leak: 1 of the 13 tested videos are also learned from" in out
    assert "never learned, and so always wrong: c" in out


def test_other_videos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Sets of different videos stand side by side, and are not compared."""
    rng = np.random.default_rng(0)
    labels = [0, 1] * 10
    for name in ("a", "b"):
        ids = [f"{name} {i}" for i in range(20)]
        known.write(tmp_path / name, "all", known.noise(rng, labels), labels, ids)
    assert main(["probe", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    assert "cannot be compared: the videos" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        ([], 2, "required"),
        (["nowhere"], 1, "expected a folder of feature files, found none"),
        ([".", "--pool", "max"], 2, "one of"),
        ([".", "--max-videos", "1"], 2, "max_videos: expected 2 or more, found 1"),
        ([".", "--plot", "a.jpg"], 2, "expected a name that ends in .png"),
    ],
)
def test_wrong_usage(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    status: int,
    words: str,
) -> None:
    """One line on standard error, and its exit status."""
    monkeypatch.chdir(make(tmp_path, known.noise))
    try:
        found = main(["probe", *arguments])
    except SystemExit as error:
        found = int(str(error.code))
    assert found == status
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1


def test_both_kinds_of_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Which of them is asked for; and files that do not belong together are refused."""
    rng = np.random.default_rng(0)
    labels = [0, 1] * 10
    for multi_scale in (True, False):
        videos = known.separable(rng, labels)
        known.write(tmp_path, "all", videos, labels, multi_scale=multi_scale)
    assert main(["probe", str(tmp_path)]) == 2
    assert "Set multi_scale" in capsys.readouterr().err
    assert main(["probe", str(tmp_path), "--multi-scale", "false"]) == 0
    known.write(tmp_path, "val", known.noise(rng, labels), labels, categories={"x": 0, "y": 1})
    assert main(["probe", str(tmp_path), "--multi-scale", "true"]) == 1
    assert "expected the categories of" in capsys.readouterr().err
    path = tmp_path / "all_features.h5"
    assert [*open_feature_files(path)] == ["all"]


def test_the_same_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is refused by whatever path; equal features of two folders are called that."""
    folder = make(tmp_path / "a", known.separable)
    (tmp_path / "link").symlink_to(folder)
    assert main(["probe", str(folder), str(tmp_path / "link")]) == 2
    assert "found" in (err := capsys.readouterr().err)
    assert "more than once" in err
    other = make(tmp_path / "b", known.separable)
    assert main(["probe", str(folder), str(other)]) == 0
    assert "a and b are right on the same videos (linear)" in capsys.readouterr().out


def test_better_on_its_own_videos_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is said to be better is so on the videos that both were tested on."""
    rng = np.random.default_rng(0)
    categories = {"a": 0, "b": 1}
    for name, first, spoiled in (("one", 0, range(30, 40)), ("two", 30, range(10, 30))):
        labels = [i % 2 for i in range(40)]
        train = known.separable(rng, labels)
        known.write(tmp_path / name, "train", train, labels, categories=categories)
        shown = [1 - label if i in spoiled else label for i, label in enumerate(labels)]
        names = [f"x{first + i}" for i in range(40)]
        test = known.separable(rng, shown)
        known.write(tmp_path / name, "test", test, labels, names, categories=categories)
    assert main(["probe", str(tmp_path / "one"), str(tmp_path / "two"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    accuracies = [each["probes"]["linear"]["accuracy"]["value"] for each in found["features"]]
    assert accuracies == [0.75, 0.5]
    assert found["comparison"]["best"] == "two"
    assert found["comparison"]["difference"]["value"] == 1
    assert found["comparison"]["videos"] == 10
