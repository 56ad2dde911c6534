"""Floating pixels: what they are counts, what they look like is told, the impossible is refused."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import reference
import torch
from helpers import TINY_JOB, Save, random_videos
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import resize

import featx
from featx.cli import main
from featx.data.media.pixels import PIXELS, PixelsName, PixelWatch
from featx.data.media.processed_file import open_processed_file
from featx.errors import InputError, UsageError

pytestmark = pytest.mark.usefixtures("tiny")

MEAN, STD = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def unit(videos: Tensor) -> Tensor:
    """RGB from 0 to 1, as ToTensor has it."""
    return videos.float() / 255


def normalized(videos: Tensor) -> Tensor:
    """As torchvision's Normalize has it."""
    return (unit(videos) - MEAN) / STD


def raw(videos: Tensor) -> Tensor:
    """RGB from 0 to 255, as .float() makes it."""
    return videos.float()


def signed(videos: Tensor) -> Tensor:
    """RGB from -1 to 1, of a mean and std of 0.5."""
    return unit(videos) * 2 - 1


Make = Callable[[Tensor], Tensor]


def extract(root: Path, out: Path, **settings: Any) -> np.ndarray[Any, Any]:  # noqa: ANN401
    """The features of the split train."""
    job: dict[str, Any] = {**TINY_JOB, "num_workers": 0, **settings}
    path = featx.extract(root, out, **job)["train"]
    with h5py.File(path) as file:
        return np.asarray(file["features"])


WAYS: dict[PixelsName, Make] = {"normalized": normalized, "unit": unit, "raw": raw}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", PIXELS)
def test_what_they_are_counts(
    root: Path, save: Save, tmp_path: Path, name: PixelsName, dtype: torch.dtype
) -> None:
    """Pixels of any kind and dtype give the features of uint8, up to the dtype's rounding."""
    videos = random_videos(3, 5)
    save("train/a/x", videos)
    expected = extract(root, tmp_path / "uint8")
    save("train/a/x", WAYS[name](videos).to(dtype))
    found = extract(root, tmp_path / "out", pixels=name)
    error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    assert error < 1e-6 + 2 * torch.finfo(dtype).eps
    if name == "raw" and dtype in (torch.float32, torch.float64):
        assert np.array_equal(found, expected)
    with h5py.File(tmp_path / "out" / "train_features_multiscale.h5") as file:
        assert json.loads(file.attrs["config"])["pixels"] == name
    path = tmp_path / "out" / "train_features_multiscale.h5"
    assert main(["verify", str(path), "--root", str(root), "--all"]) == 0


def test_another_meaning_is_another_file(root: Path, save: Save, tmp_path: Path) -> None:
    """Rows of one meaning never mix with those of another, in either order."""
    save("train/a/x", normalized(random_videos(2, 3)))
    orders: list[tuple[PixelsName, PixelsName]] = [("normalized", "unit"), ("unit", "normalized")]
    for first, second in orders:
        save("train/a/x", WAYS[first](random_videos(2, 3)))
        extract(root, tmp_path / first, pixels=first)
        with pytest.raises(featx.errors.OutputError, match="pixels"):
            extract(root, tmp_path / first, pixels=second)


IMPOSSIBLE = {
    "0 to 255": (
        lambda v: v.float(),
        "found 0 to 255, which looks like RGB from 0 to 255. If so, s",
    ),
    "dark": (lambda v: v.float() / 8, "which looks like RGB from 0 to 255"),
    "less the mean": (lambda v: v.float() - 120, "found -120 to 135. Save the frames in uint8, or"),
    "16 bit": (lambda v: v.float() * 257, "found 0 to 6.554e+04. Save the frames"),
    "twice": (lambda v: normalized(v) / 0.225, "Save the frames in uint8, or normalize"),
}


@pytest.mark.parametrize("kind", IMPOSSIBLE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_they_cannot_be(root: Path, save: Save, kind: str, dtype: torch.dtype) -> None:
    """One line says where, what was expected, what they look like, and the way out."""
    make, message = IMPOSSIBLE[kind]
    good, video = random_videos(2, 3).unbind()
    path = save("train/a/x", [normalized(good), make(video).to(dtype)])  # type: ignore[no-untyped-call]
    with pytest.raises(InputError) as caught:
        extract(root, root.parent / "out")
    line = str(caught.value)
    assert line.startswith(f"{path}: video 1: expected pixels normalized with ImageNet's mean and")
    assert message in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("name", "make"),
    [("unit", normalized), ("unit", raw), ("unit", signed), ("raw", lambda v: raw(v) - 200)],
)
def test_what_they_cannot_be_as_said(root: Path, save: Save, name: PixelsName, make: Make) -> None:
    """What a person says of them is checked in the same way."""
    save("train/a/x", make(random_videos(1, 3)))
    with pytest.raises(InputError, match=f"video 0: expected {PIXELS[name].words}, which lie w"):
        extract(root, root.parent / "out", pixels=name)


LOOKS: dict[str, tuple[Make, PixelsName, str]] = {
    "0 to 1": (unit, "normalized", "looks like RGB from 0 to 1. If so, set pixels to unit"),
    "0 to 1, sharpened": (lambda v: unit(v) * 1.2 - 0.1, "normalized", "set pixels to unit"),
    "-1 to 1": (signed, "normalized", "found in its first 4 videos -1 to 1, as"),
    "0 to 5": (lambda v: v.float() / 51, "normalized", "which looks like RGB from 0 to 255"),
    "0 to 1 as raw": (unit, "raw", "set pixels to unit"),
    "normalized as raw": (normalized, "raw", "set pixels to normalized"),
}


@pytest.mark.parametrize("look", LOOKS)
def test_what_they_look_like(root: Path, save: Save, look: str) -> None:
    """It is told once for all files, at the first videos, and the run goes on."""
    make, name, message = LOOKS[look]
    for category in "abc":
        save(f"train/{category}/x", make(random_videos(6, 2)))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        extract(root, root.parent / "out", pixels=name)
    lines = [str(w.message) for w in told if "processed_data.pt" in str(w.message)]
    assert len(lines) == 1
    assert lines[0].startswith(f"{root / 'train/a/x/processed_data.pt'}: expected ")
    assert message in lines[0]


def test_they_are_told_early() -> None:
    """After four videos of a file, or all that it has; or when the next file comes."""
    watch, half = PixelWatch("normalized"), (0.0, 0.9)
    assert [bool(watch.look("a", 9, half)) for _ in range(6)] == [False] * 3 + [True] + [False] * 2
    assert watch.look("b", 1, half) == ""  # once
    assert "its first video 0" in PixelWatch("normalized").look("a", 1, half)
    watch = PixelWatch("normalized")
    assert watch.look("a", 9, half) == ""
    assert "a: expected" in watch.look("b", 9, (-2.0, 2.0))
    watch = PixelWatch("normalized")
    assert watch.look("a", 9, half) == ""
    assert "a: expected" in watch.judge()


@pytest.mark.parametrize("span", [(-2.1, 2.6), (-1.5, 0.3), (-4.0, 4.6), (0.0, 0.0), (2.2, 2.2)])
def test_good_pixels_are_not_worth_a_word(span: tuple[float, float]) -> None:
    """Of any contrast, also with what resizing adds, and frames of one colour."""
    assert PixelWatch("normalized").look("a", 1, span) == ""


def test_a_pale_video_among_others(root: Path, save: Save) -> None:
    """One video within 0 and 1 is no reason for a warning; tests make one an error."""
    pale = random_videos(1, 3) // 12 + 130
    save("train/a/x", torch.cat([normalized(pale), normalized(random_videos(2, 3))]))
    extract(root, root.parent / "out")


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact", "bilinear", "bicubic"])
@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("size", [5, 16, 33])
def test_resized_after_normalizing(tmp_path: Path, mode: str, antialias: bool, size: int) -> None:
    """No way of resizing makes a good video bad, be it a chessboard of black and white."""
    board = (torch.arange(16).view(-1, 1) + torch.arange(16)) % 2 * 255
    board[:6], board[-6:] = 0, 255
    video = torch.stack([board, 255 - board]).to(torch.uint8).unsqueeze(1).expand(-1, 3, -1, -1)
    frames = resize(normalized(video), [size, size], InterpolationMode(mode), antialias=antialias)
    path = tmp_path / "processed_data.pt"
    torch.save([frames], path)
    found = open_processed_file(path).read(0)
    assert torch.equal(found.frames, frames)
    assert found.span
    assert PixelWatch("normalized").look(str(path), 1, found.span) == ""


def test_wrong_meaning(tmp_path: Path) -> None:
    """The ones that there are, are listed."""
    with pytest.raises(UsageError, match="pixels: expected normalized or unit or raw, found '0-1'"):
        featx.VideoDataModule(tmp_path, pixels="0-1")  # type: ignore[arg-type]


def test_the_reference_agrees() -> None:
    """The two ways to normalize that the tests have are one."""
    video = random_videos(1, 2)[0]
    torch.testing.assert_close(normalized(video), reference.normalize(video))
