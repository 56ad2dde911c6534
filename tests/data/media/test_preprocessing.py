"""Which frames of a clip are taken, and how they are cut: against ffmpeg's own choice."""

import shutil
import subprocess
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from clips import encode, moving_frames, open_video, sample_clip
from numpy.typing import NDArray
from torchvision.transforms.v2.functional import center_crop, resize

from featx.data.media.clip import write_clip
from featx.data.media.preprocessing import Preprocessing

SIZE = (48, 64)
CLIPS: dict[str, dict[str, Any]] = {
    "b frames.mp4": {"codec": "libx264", "options": {"x264-params": "keyint=20:bframes=3"}},
    "late.mkv": {"codec": "libx264", "start": 50},
    "late.ts": {"codec": "libx264", "start": 50},
    "variable.mp4": {"codec": "libx264", "times": [n * n // 4 + n for n in range(40)]},
    "variable.mkv": {"codec": "libx264", "times": [n * n // 4 + n for n in range(40)]},
    "ntsc.mp4": {"codec": "libx264", "rate": Fraction(30000, 1001)},
    "slow.webm": {"codec": "libvpx-vp9", "rate": 3, "count": 12},
    "mpeg2.mpg": {"codec": "mpeg2video", "b_frames": 2},
}
needs_ffmpeg = pytest.mark.skipif(
    shutil.which("ffmpeg") is None, reason="there is no ffmpeg to compare with"
)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of steady and of changing rates, some of which begin late."""
    folder = tmp_path_factory.mktemp("clips")
    for name, special in CLIPS.items():
        settings: dict[str, Any] = {"count": 40, "size": SIZE} | special
        encode(folder / name, **settings)
    return folder


def run_ffmpeg(path: Path, *options: str) -> NDArray[np.uint8]:
    """The frames that ffmpeg's command line shows, `[num_frames, height, width, 3]`."""
    command = ["ffmpeg", "-v", "error", "-i", str(path), *options, "-vsync", "passthrough"]
    command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    shown = subprocess.run(command, capture_output=True, check=True).stdout
    return np.frombuffer(shown, np.uint8).reshape(-1, *SIZE, 3)


def sample(path: Path, **sampling: Any) -> torch.Tensor:  # noqa: ANN401  # int or float
    """The frames that are taken of a clip, squashed to a square."""
    settings = Preprocessing.choose(
        sampling.get("num_frames"), sampling.get("stride"), sampling.get("fps"), image_size=24
    )
    return open_video(path, settings).read().frames


def shrink(frames: NDArray[np.uint8]) -> torch.Tensor:
    """Frames of ffmpeg as featx resizes them."""
    images = [torch.from_numpy(frame.copy()).permute(2, 0, 1) for frame in frames]
    return torch.stack([resize(image, [24, 24], antialias=True) for image in images])


@needs_ffmpeg
@pytest.mark.parametrize("name", CLIPS)
def test_every_frame(clips: Path, name: str) -> None:
    """A stride of 1 takes what a loop over all of ffmpeg's frames takes, and one of 7 a seventh."""
    frames = run_ffmpeg(clips / name)
    assert len(frames) == CLIPS[name].get("count", 40)
    assert torch.equal(sample(clips / name, stride=1), shrink(frames))
    assert torch.equal(sample(clips / name, stride=7), shrink(frames[::7]))


@needs_ffmpeg
@pytest.mark.parametrize("fps", [1.0, 7.5, 12.0, 25.0, 60.0])
@pytest.mark.parametrize("name", CLIPS)
def test_frames_by_time(clips: Path, name: str, fps: float) -> None:
    """Ffmpeg's filter, rounding up, shows the last frame that has begun; so does featx."""
    frames = run_ffmpeg(clips / name, "-vf", f"fps=fps={fps}:round=up:eof_action=pass")
    found, expected = sample(clips / name, fps=fps), shrink(frames)
    # How long the last frame of all is shown is a guess, and not the same one.
    assert abs(len(found) - len(expected)) <= 1 + fps * float(_last_gap(name))
    common = min(len(found), len(expected))
    assert torch.equal(found[:common], expected[:common])


def _last_gap(name: str) -> Fraction:
    """Seconds between the last two frames."""
    settings = CLIPS[name]
    times = settings.get("times", [0, 1])
    return Fraction(times[-1] - times[-2]) / Fraction(settings.get("rate", 25))


def test_the_old_sampling_is_as_it_was(clips: Path) -> None:
    """By number, also where the rate varies; and 64 frames if nothing is said."""
    for name in CLIPS:
        assert torch.equal(sample(clips / name, num_frames=9), sample_clip(clips / name, 9, 24))
    assert len(sample(clips / "late.mkv")) == 64


@pytest.mark.parametrize("shape", [(64, 96), (96, 64), (64, 64), (56, 160)])
def test_crop(tmp_path: Path, shape: tuple[int, int]) -> None:
    """The shorter side is resized, and the middle of the longer one is cut out."""
    path = tmp_path / "clip.mp4"
    write_clip(path, np.stack(moving_frames(3, *shape)), rate=5)
    found = open_video(path, Preprocessing(3, 32, resize="crop")).read().frames
    plain = open_video(path, Preprocessing(3, 32)).read().frames
    assert found.shape == plain.shape == (3, 3, 32, 32)
    with av.open(path) as container:
        arrays = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    frames = [torch.from_numpy(array).permute(2, 0, 1) for array in arrays]
    height, width = shape
    shorter = 32 / min(shape)
    expected = torch.stack(
        [
            center_crop(
                resize(frame, [int(height * shorter), int(width * shorter)], antialias=True),
                [32, 32],
            )
            for frame in frames
        ]
    )
    assert torch.equal(found, expected)
    if height == width:
        assert torch.equal(found, plain)
