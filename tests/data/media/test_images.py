"""Clips that are folders of images: the same videos as the lossless clips made of them."""

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from clips import moving_frames, open_video
from helpers import TINY_JOB
from PIL import Image

import featx
from featx import VideoDataModule
from featx.data.media.clip import open_clip
from featx.data.media.images import frames_sha256, list_images, survey_frames
from featx.data.media.preprocessing import Preprocessing
from featx.errors import ChangedInputError, InputError, MissingInputError, UsageError

COUNT = 12


def save(folder: Path, count: int = COUNT, suffix: str = ".png", size: Any = (48, 64)) -> Path:  # noqa: ANN401
    """A clip as images whose names have numbers without leading zeros."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(moving_frames(count, *size), start=1):
        Image.fromarray(image).save(folder / f"frame_{number}{suffix}")
    return folder


def encode_losslessly(path: Path, count: int = COUNT) -> Path:
    """The same frames as a clip of RGB."""
    with av.open(path, "w") as output:
        stream: Any = output.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "bgr0"
        for image in moving_frames(count, 48, 64):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        output.mux(stream.encode())
    return path


@pytest.mark.parametrize("resize", ["squash", "crop"])
@pytest.mark.parametrize(
    "sampling",
    [{"num_frames": 7}, {"num_frames": None, "stride": 5}, {"fps": 10, "num_frames": None}],
)
def test_the_same_videos_as_the_lossless_clip(
    tmp_path: Path,
    sampling: dict[str, Any],
    resize: Any,  # noqa: ANN401
) -> None:
    """To the last bit, by every way of sampling and resizing; and the same times."""
    settings = Preprocessing(**sampling, image_size=24, resize=resize, frame_rate=25.0)
    images = open_video(save(tmp_path / "clip"), settings).read()
    clip = open_video(encode_losslessly(tmp_path / "clip.mkv"), settings).read()
    assert torch.equal(images.frames, clip.frames)
    assert images.times is not None
    assert clip.times is not None
    np.testing.assert_allclose(images.times, clip.times, atol=2e-3)  # of Matroska's milliseconds


def test_natural_order(tmp_path: Path) -> None:
    """frame_2 before frame_10, in whatever case and with whatever beside them."""
    names = ["a1b10.png", "a1b2.jpg", "a01b3.png", "b.bmp", "A1.png", "10.PNG", "9.webp"]
    for name in names:
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    (tmp_path / "notes.txt").touch()
    (tmp_path / ".hidden.png").touch()
    (tmp_path / "Thumbs.db").touch()
    found = [Path(path).name for path, _ in list_images(tmp_path)]
    assert found == ["9.webp", "10.PNG", "A1.png", "a1b2.jpg", "a01b3.png", "a1b10.png", "b.bmp"]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(tmp_path: Path, orientation: int) -> None:
    """A camera's note which way is up is applied, also to the size."""
    levels = np.array([[20, 90], [160, 235]], np.uint8)
    image = Image.fromarray(levels.repeat(24, axis=0).repeat(32, axis=1)).convert("RGB")
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = image.transpose(undo[orientation]) if orientation > 1 else image
    exif = Image.Exif()
    exif[0x0112] = orientation
    (tmp_path / "clip").mkdir()
    stored.save(tmp_path / "clip/1.png", exif=exif)
    assert survey_frames(tmp_path / "clip", thorough=False)[1] == (48, 64)
    found = open_video(tmp_path / "clip", Preprocessing(1, 16)).read().frames[0]
    assert found.float().mean(dim=0)[[3, 12]][:, [3, 12]].numpy().tolist() == levels.tolist()


@pytest.mark.parametrize("kind", ["L", "LA", "P", "RGBA", "1", "CMYK", "I;16"])
def test_kinds_of_pixels(tmp_path: Path, kind: str) -> None:
    """Grey, palettes, alpha and 16 bits become RGB of 8 bits."""
    grey = Image.fromarray(np.full((8, 8), 255, np.uint8))
    if kind == "I;16":
        image = Image.fromarray(np.full((8, 8), 128 * 256 + 77, np.uint16))
    else:
        image = grey.convert(kind)
    image.save(tmp_path / ("1.tif" if kind == "CMYK" else "1.png"))
    video = open_video(tmp_path, Preprocessing(2, 8)).read().frames
    assert sorted({*video.flatten().tolist()}) == [128 if kind == "I;16" else 255]


def test_what_is_wrong(tmp_path: Path) -> None:
    """Frames of several sizes, one that is none, a folder without any: on one line each."""
    save(tmp_path / "sizes", 3)
    Image.new("RGB", (10, 20)).save(tmp_path / "sizes/frame_2.png")
    save(tmp_path / "broken", 3)
    (tmp_path / "broken/frame_2.png").write_bytes(b"no image")
    (tmp_path / "empty").mkdir()
    (tmp_path / "float").mkdir()
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "float/1.tif")
    (tmp_path / "float/2.png").mkdir()  # which is no image, whatever its name
    save(tmp_path / "cut", 3)
    content = (tmp_path / "cut/frame_2.png").read_bytes()
    (tmp_path / "cut/frame_2.png").write_bytes(content[: len(content) // 2])
    for name, message in {
        "sizes": "frame_2.png: expected an image of 48 x 64, as frame_1.png is, found one of 20 x",
        "broken": "frame_2.png: expected an image that decodes, found: cannot identify",
        "float": "1.tif: expected an image that decodes, found: pixels in floating point",
        "empty": "empty: expected images, found none",
        "cut": "frame_2.png: expected an image that decodes, found: ",
    }.items():
        with pytest.raises(InputError, match=message) as caught:
            open_video(tmp_path / name, Preprocessing(3, 8)).read()
        assert not isinstance(caught.value, ChangedInputError)
        assert "\n" not in str(caught.value)


def test_by_time_without_a_rate(tmp_path: Path) -> None:
    """How many frames there are in a second has to be said."""
    folder = save(tmp_path / "clip", 3)
    with pytest.raises(InputError, match=r"found no frame rate\. Set frame_rate, or sample by"):
        open_video(folder, Preprocessing.choose(None, None, 5))
    assert len(open_video(folder, Preprocessing.choose(None, 2, None)).read().frames) == 2
    data = VideoDataModule(tmp_path, source="frames", layout="flat", fps=5)
    with pytest.raises(UsageError, match="frame_rate: expected one for folders of images"):
        data.setup("predict")


def test_it_changes_after_the_scan(tmp_path: Path) -> None:
    """A frame more, or another one."""
    video = open_clip(save(tmp_path / "clip"), Preprocessing(3, 8)).take(
        "a/a/a", "a", featx.data.media.video_file.Home("a", "a")
    )
    video.read()
    Image.new("RGB", (64, 48)).save(tmp_path / "clip/frame_3.png")
    with pytest.raises(ChangedInputError, match="expected the clip that was scanned"):
        video.read()


def test_content_is_what_counts(tmp_path: Path) -> None:
    """Not the names, as long as these keep the order; a copy is the same."""
    first = frames_sha256(save(tmp_path / "a"))
    folder = save(tmp_path / "b")
    for number, (path, _) in enumerate(list_images(folder)):
        Path(path).rename(folder / f"{number:05d}.png")
    assert frames_sha256(folder) == first
    (folder / "00003.png").rename(folder / "99999.png")
    assert frames_sha256(folder) != first


def test_a_tree_of_folders(tmp_path: Path, tiny: None) -> None:
    """In categories and subcategories, beside each other; verified and resumed as clips are."""
    root = tmp_path / "root"
    for place in ("train/bye/x", "train/bye/sub/y", "train/hello/z", "val/bye/v"):
        save(root / place, 5)
    (root / "train/bye/notes.txt").touch()
    job: Any = TINY_JOB | {"source": "frames", "num_frames": 4, "image_size": 16}
    with pytest.warns(UserWarning, match="1 of 2 categories have no videos: hello"):
        paths = featx.extract(root, tmp_path / "out", frame_rate=12.5, multi_scale=False, **job)
    dataset = featx.FeatureDataset(paths["train"])
    assert dataset.video_ids == ["train/bye/x", "train/bye/sub/y", "train/hello/z"]
    assert dataset.labels.tolist() == [0, 0, 1]
    times = dataset[0].times
    assert times is not None
    np.testing.assert_allclose(times, [0, 0.08, 0.16, 0.32])
    data = VideoDataModule(root, source="frames")
    with pytest.warns(UserWarning, match="have no videos"):
        data.setup("predict")
    assert data.manifest.summary
    lines = data.manifest.summary.to_lines()
    assert "left out: 1 of .txt: train/bye/notes.txt" in lines
    assert not [line for line in lines if ".png" in line]


def test_images_that_are_in_no_folder_of_their_own(tmp_path: Path) -> None:
    """They are no clip, and it is said where they are."""
    save(tmp_path / "train/hello/x")
    Image.new("RGB", (4, 4)).save(tmp_path / "train/hello/stray.png")
    with pytest.raises(InputError, match=r"hello: expected clips at .*found one elsewhere"):
        VideoDataModule(tmp_path, source="frames").setup("predict")
    (tmp_path / "none/train").mkdir(parents=True)
    data = VideoDataModule(tmp_path / "none", ["train"], source="frames")
    with pytest.raises(MissingInputError, match="expected folders of images at <split>/<category>"):
        data.setup("predict")
