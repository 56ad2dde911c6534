"""Bad inputs, from the scan to the file: reported together, or left out and listed."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import h5py
import pytest
import torch
from helpers import TINY, Save, TinyCNN, problems, random_video, random_videos, scan
from torch import Tensor

import featx
from featx import FeatureExtractor
from featx.backbones import architectures
from featx.data.batches import VideoBatch
from featx.errors import ChangedInputError, IncompleteError, InputError

NAN = torch.full((2, 3, 8, 8), float("nan"))


@pytest.fixture
def bad_root(root: Path, save: Save) -> Path:
    """Good videos, and one of each kind of bad input."""
    save("train/a/good", random_videos(2, 4))
    save("train/a/list", [random_video(3), torch.zeros(2, 1, 8, 8), random_video(5)])
    save("train/b/empty", 0).write_bytes(b"")
    (root / "train/b/gone").symlink_to(root / "nowhere")
    (root / "train/c").symlink_to("c")  # a link to itself
    save("train/d", random_videos(1, 2))
    save("train/d/good", random_videos(1, 9))
    (root / "train/d/pipe").mkdir()
    os.mkfifo(root / "train/d/pipe/processed_data.pt")
    return root


BAD = {
    "train/a/list/1": "'videos'[1]: expected [T, 3, H, W], found [2, 1, 8, 8]",
    "train/b/empty": "found an empty file",
    "train/b/gone": "found a link without a target",
    "train/c": "expected a readable folder, found: Too many levels of symbolic links",
    "train/d": "found it in the category's own folder",
    "train/d/pipe": "expected a file, found prw",
}


def extract(root: Path, on_error: str = "skip", overwrite: bool = False) -> Path:
    """The features of the split train."""
    return featx.extract(
        root,
        root.parent / "out",
        backbone="resnet50",
        weights="random",
        accelerator="cpu",
        num_workers=0,
        batch_size=2,
        on_error=on_error,  # type: ignore[arg-type]
        overwrite=overwrite,
    )["train"]


def test_all_that_is_wrong_is_reported_together(bad_root: Path) -> None:
    """A line for each bad input, after a line that says how many they are and the way out."""
    with pytest.raises(InputError) as caught:
        scan(bad_root)
    summary, *lines = str(caught.value).splitlines()
    assert summary.startswith(f"{bad_root}: expected inputs that featx accepts, found 6 others.")
    assert "on_error to skip" in summary
    assert len(lines) == len(BAD)
    for message in BAD.values():
        assert sum(message in line for line in lines) == 1, message


@pytest.mark.filterwarnings("ignore:.* 2 of 4 categories have no videos")
@pytest.mark.usefixtures("tiny")
def test_bad_inputs_are_left_out(bad_root: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The file has the good videos, and lists the bad ones; so does the log."""
    path = extract(bad_root)
    assert problems(path) == []
    with h5py.File(path) as file:
        assert [*file["video_ids"].asstr()] == [
            *("train/a/good/0", "train/a/good/1", "train/a/list/0", "train/a/list/2"),
            "train/d/good/0",
        ]
        skipped = json.loads(file.attrs["skipped"])
        assert json.loads(file.attrs["category_mapping"]) == {"a": 0, "b": 1, "c": 2, "d": 3}
    assert skipped.keys() == BAD.keys()
    for name, message in BAD.items():
        assert message in skipped[name]
        assert message in caplog.text


class Overflowing(TinyCNN):
    """Its features are finite, but for white frames."""

    def forward(self, frames: Tensor) -> Tensor:
        """Features of frames `[B, 3, H, W]`."""
        return super().forward(frames) + (100 * frames.mean(dim=(2, 3)).amax(1, True)).exp()


def test_bad_pixels_are_left_out(
    root: Path,
    save: Save,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What only reading shows is left out too, be it the longest video or most of them."""
    overflowing = TINY._replace(build=lambda weights: Overflowing())
    monkeypatch.setitem(architectures.ARCHITECTURES, "resnet50", overflowing)
    white = torch.full((2, 3, 8, 8), 255, dtype=torch.uint8)
    save("train/a/x", [NAN, random_videos(1, 4)[0], NAN.repeat(5, 1, 1, 1), white])
    path = extract(root)
    assert problems(path) == []
    with h5py.File(path) as file:
        assert [*file["video_ids"].asstr()] == ["train/a/x/1"]
        assert file.attrs["num_videos"] == 1
        assert file["features"].shape[1] == file.attrs["max_frames"] == 5  # of 4 frames, scaled
        skipped = json.loads(file.attrs["skipped"])
    assert [*skipped] == [f"train/a/x/{i}" for i in (0, 2, 3)]
    assert "found NaN or infinity in video 0, frame 0" in skipped["train/a/x/0"]
    assert "expected finite features" in skipped["train/a/x/3"]
    assert caplog.text.count("Left out: ") == 3
    content = path.read_bytes()
    assert extract(root).read_bytes() == content  # nothing is left to do
    with pytest.raises(InputError, match="video 0, frame 0"):
        extract(root, on_error="stop")
    with pytest.raises(InputError, match="video 0, frame 0"):
        extract(root, on_error="stop", overwrite=True)
    assert path.read_bytes() == content


@pytest.mark.usefixtures("tiny")
def test_nothing_but_bad_inputs(root: Path, save: Save) -> None:
    """A file without a row is not published."""
    save("train/a/x", [NAN])
    with pytest.raises(IncompleteError, match=r"expected one good video .* none: .*NaN"):
        extract(root)
    save("train/a/x", 0)
    with pytest.raises(InputError, match="found int"):
        extract(root)
    assert not [*root.parent.glob("out/*.h5")]


def test_verified_inputs(root: Path, save: Save) -> None:
    """A flipped bit in a pixel is found by the checksums, and by nothing else."""
    path = save("train/a/x", random_videos(2, 4))
    scan(root, verify=True)
    content = bytearray(path.read_bytes())
    content[content.index(random_videos(2, 4)[1].numpy().tobytes()) + 5] ^= 1
    path.write_bytes(content)
    assert len(scan(root)) == 2
    with pytest.raises(InputError, match=r"x/processed_data\.pt: .* other bytes than were written"):
        scan(root, verify=True)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that an ordinary user can reach."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def ordinary_user() -> Iterator[None]:
    """Without the superuser's rights, which read everything."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield
    os.seteuid(user)


def test_unreadable(open_folder: Path, request: pytest.FixtureRequest) -> None:
    """A file, a subcategory and a category without permission are named, and not overlooked."""
    for place in ("a/x", "b/y", "c/z", "d/good"):
        folder = open_folder / "train" / place
        folder.mkdir(parents=True)
        torch.save(random_videos(1, 2), folder / "processed_data.pt")
    closed = ["a/x/processed_data.pt", "b/y", "c"]
    for place in closed:
        (open_folder / "train" / place).chmod(0)
    request.getfixturevalue("ordinary_user")
    with pytest.raises(InputError, match="found 3 others") as caught:
        scan(open_folder)
    for place in closed:
        assert f"{open_folder / 'train' / place}: expected a readable f" in str(caught.value)
    manifest = scan(open_folder, on_error="skip")
    assert manifest.video_ids("train") == ["train/d/good/0"]
    assert sorted(manifest.rejected["train"]) == ["train/a/x", "train/b/y", "train/c"]


def test_odd_names(root: Path, save: Save) -> None:
    """Any name that a file system has is a name of a video, and an error stays on its line."""
    for name in ("ähm 😀", "two\nlines", "'quote\"", "日本", " "):
        save(f"train/{name}/x", random_videos(1, 2))
    manifest = scan(root)
    assert manifest.categories == {" ": 0, "'quote\"": 1, "two\nlines": 2, "ähm 😀": 3, "日本": 4}
    assert manifest.video_ids("train")[2] == "train/two\nlines/x/0"
    save("train/two\nlines/y", 0)
    with pytest.raises(InputError, match=r"two\\nlines/y/processed_data\.pt: "):
        scan(root)


def test_names_that_are_not_unique(root: Path, save: Save) -> None:
    """Names of clips that do not tell the videos apart give way to places in the data set."""
    for place in ("x", "y"):
        save(f"train/a/{place}", {"videos": random_videos(2, 2), "clips": ["1.mp4", "2.mp4"]})
    places = [f"train/a/{place}/{i}" for place in ("x", "y") for i in (0, 1)]
    assert scan(root).video_ids("train") == places
    shutil.rmtree(root / "train/a/y")
    assert scan(root).video_ids("train") == ["1.mp4", "2.mp4"]


def test_many_categories(root: Path, save: Save) -> None:
    """A thousand categories and more are labelled in the order of their names."""
    first = save("train/0000/x", random_videos(1, 1))
    for number in range(1, 1200):
        folder = root / f"train/{number:04d}/x"
        folder.mkdir(parents=True)
        os.link(first, folder / first.name)
    manifest = scan(root)
    assert manifest.labels("train").tolist() == [*range(1200)]
    assert manifest.video_ids("train")[1199] == "train/1199/x/0"


@pytest.mark.usefixtures("tiny")
def test_a_disk_that_is_lost_is_no_bad_video(root: Path, save: Save) -> None:
    """Where a file has gone or changed since the scan, the run stops, and can go on later."""
    for number in range(8):  # some of which are read ahead
        save(f"train/{number}/x", random_videos(1, 3, seed=number))
    original = FeatureExtractor.predict_step
    lost = root.with_name("lost")

    def predict_step(self: FeatureExtractor, batch: VideoBatch, batch_idx: int = 0) -> list[Tensor]:
        if root.exists():
            root.rename(lost)
        return original(self, batch, batch_idx)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FeatureExtractor, "predict_step", predict_step)
        with pytest.raises(ChangedInputError, match=r"found: No such file.*start again"):
            extract(root)
    lost.rename(root)
    with h5py.File(extract(root)) as file:
        assert file.attrs["num_videos"] == 8


@pytest.mark.usefixtures("tiny")
def test_a_bad_split_does_not_keep_the_others_back(root: Path, save: Save) -> None:
    """The good split is published, and the bad one is an error all the same."""
    save("train/a/x", [NAN])
    save("val/a/x", random_videos(2, 3))
    with pytest.raises(IncompleteError, match=r"train_features_multiscale\.h5: expected one good"):
        extract(root)
    out = root.parent / "out"
    assert problems(out / "val_features_multiscale.h5") == []
    assert [*json.loads((out / "configuration_analysis.json").read_text())["splits"]] == ["val"]


@pytest.mark.usefixtures("tiny")
def test_a_bad_input_that_came_later(root: Path, save: Save) -> None:
    """The file lists it from then on; its rows are not made again."""
    save("train/a/x", random_videos(2, 3))
    extract(root)
    save("train/a/y", 0)
    with h5py.File(extract(root)) as file:
        assert json.loads(file.attrs["skipped"]).keys() == {"train/a/y"}
        assert file.attrs["num_videos"] == 2


def test_an_empty_split_is_reported_with_the_rest(root: Path, save: Save) -> None:
    """It does not hide what is wrong elsewhere."""
    save("train/a/x", 0)
    (root / "val").mkdir()
    with pytest.raises(InputError) as caught:
        scan(root)
    assert "train/a/x" in str(caught.value)
    assert "val: expected videos" in str(caught.value)
    with pytest.raises(InputError, match="and no good one beside them"):
        scan(root, on_error="skip")
