"""Only the frames that are wanted are decoded and converted, and they are those of a whole pass."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from clips import decode_clip, encode

from featx.data.media import decoder as clip_decoder
from featx.data.media import survey as clip_survey
from featx.data.media.decoder import Decoded
from featx.data.media.survey import open_container
from featx.data.media.timeline import Timeline

LONG: dict[str, Any] = {"count": 300, "size": (48, 64)}
CLIPS: dict[str, dict[str, Any]] = {
    "closed.mp4": {"codec": "libx264", "options": {"x264-params": "keyint=20:bframes=3"}},
    "open.mp4": {"codec": "libx264", "options": {"x264-params": "open-gop=1:keyint=20:bframes=3"}},
    "open.mkv": {"codec": "libx264", "options": {"x264-params": "open-gop=1:keyint=20:bframes=3"}},
    "tiny groups.mp4": {"codec": "libx264", "options": {"x264-params": "keyint=2:bframes=1"}},
    "hevc.mp4": {"codec": "libx265", "options": {"x265-params": "log-level=none:keyint=30"}},
    "one group.mkv": {"codec": "libx264", "options": {"x264-params": "keyint=600"}},
    "stream.ts": {"codec": "libx264", "options": {"x264-params": "keyint=20:bframes=3"}},
    "mpeg2.mpg": {"codec": "mpeg2video", "b_frames": 2},
    "vp9.webm": {"codec": "libvpx-vp9"},
    "late.mp4": {"codec": "libx264", "start": 50, "options": {"x264-params": "keyint=20"}},
    "ntsc.mkv": {"codec": "libx264", "rate": Fraction(30000, 1001)},
    "variable.mp4": {"codec": "libx264", "times": [n * n for n in range(300)]},
    "intra.mov": {"codec": "mjpeg", "pixels": "yuvj420p"},
    "no times.avi": {"codec": "libx264", "options": {"x264-params": "keyint=20:bframes=3"}},
}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Clips with many groups of frames, by name."""
    folder = tmp_path_factory.mktemp("clips")
    return {name: encode(folder / name, **LONG | settings) for name, settings in CLIPS.items()}


def spread(num_frames: int) -> clip_decoder.Choose:
    """The sampling of featx."""
    return lambda timeline: np.linspace(0, len(timeline) - 1, num_frames).astype(int).tolist()


def same(found: Decoded, expected: Decoded) -> bool:
    """Whether two ways of decoding agree to the last bit."""
    return found.count == expected.count and all(
        torch.equal(found.frames[number], frame) for number, frame in expected.frames.items()
    )


def decode_by_time(path: Path, choose: clip_decoder.Choose) -> Decoded | None:
    """The frames that are wanted; None if it takes a pass over all of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            clip_decoder, "_decode_all", lambda *args: Decoded({}, Timeline.count_up(0, None))
        )
        decoded = decode_clip(path, choose, torch.clone)
    return decoded if decoded.count else None


@pytest.mark.parametrize(("kept", "worth"), [(10**6, 0), (0, 4), (0, 10**6)])
@pytest.mark.parametrize("num_frames", [1, 5, 64, 400])
def test_the_same_frames(
    clips: dict[str, Path],
    num_frames: int,
    kept: int,
    worth: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Packets are kept, left out, or skipped by a seek: the frames are the same."""
    monkeypatch.setattr(clip_survey, "KEPT_BYTES", kept)
    monkeypatch.setattr(clip_decoder, "_WORTH_A_SEEK", worth)
    found = {name: decode_by_time(path, spread(num_frames)) for name, path in clips.items()}
    assert [name for name, decoded in found.items() if decoded is None] == ["no times.avi"]
    for name, path in clips.items():
        whole = decode_clip(path, spread(num_frames), torch.clone, whole=True)
        assert whole.count == 300
        assert same(found[name] or decode_clip(path, spread(num_frames), torch.clone), whole)


@pytest.mark.parametrize("numbers", [[299], [0], [150, 151, 152], [19, 20, 21, 22], [298, 299]])
def test_any_frames(clips: dict[str, Path], numbers: list[int]) -> None:
    """At the ends, beside each other, and around a key frame."""
    for path in clips.values():
        whole = decode_clip(path, lambda count: numbers, torch.clone, whole=True)
        assert [*whole.frames] == numbers
        assert same(decode_clip(path, lambda count: numbers, torch.clone), whole)


def test_a_clip_is_opened_once(clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A large stream, where one cannot go back to a packet, is opened twice."""
    opened: list[str] = []

    def open_and_count(path: Path) -> Any:  # noqa: ANN401  # of PyAV
        opened.append(path.name)
        return open_container(path)

    for module in (clip_survey, clip_decoder):
        monkeypatch.setattr(module, "open_container", open_and_count)
    names = ["closed.mp4", "open.mkv", "stream.ts"]
    for kept in (10**6, 0):
        monkeypatch.setattr(clip_survey, "KEPT_BYTES", kept)
        for name in names:
            decode_clip(clips[name], spread(8), torch.clone)
    assert opened == [*names, *names, "stream.ts"]


def test_what_is_converted(clips: dict[str, Path]) -> None:
    """No frame that nobody wants."""
    made: list[torch.Tensor] = []

    def make(image: torch.Tensor) -> torch.Tensor:
        made.append(image)
        return image

    decode_clip(clips["closed.mp4"], spread(8), make)
    assert len(made) == 8


def test_when_it_lands_elsewhere(clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a container leads to another packet than it was asked for, all frames are decoded."""
    path = clips["closed.mp4"]
    expected = decode_clip(path, spread(8), torch.clone)
    monkeypatch.setattr(clip_decoder, "_WORTH_A_SEEK", 4)

    class Astray:
        """A container that seeks too far."""

        def __init__(self, container: Any) -> None:  # noqa: ANN401
            self._container = container

        def __getattr__(self, name: str) -> Any:  # noqa: ANN401
            return getattr(self._container, name)

        def seek(self, offset: int, **settings: Any) -> None:  # noqa: ANN401
            self._container.seek(offset + 15360, **settings)

    @contextmanager
    def open_astray(path: Path) -> Iterator[Astray]:
        with open_container(path) as container:
            yield Astray(container)

    monkeypatch.setattr(clip_survey, "open_container", open_astray)
    monkeypatch.setattr(clip_survey, "KEPT_BYTES", 0)
    assert same(decode_clip(path, spread(8), torch.clone), expected)


def test_frames_are_what_pyav_decodes(clips: dict[str, Path]) -> None:
    """The reference: a plain loop over all frames, converted one by one."""
    for name in ("open.mp4", "hevc.mp4", "stream.ts"):
        with av.open(clips[name]) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        found = decode_clip(clips[name], spread(16), torch.clone).frames
        assert len(found) == 16
        for number, frame in found.items():
            assert np.array_equal(frame.permute(1, 2, 0).numpy(), frames[number])


H265 = {"x265-params": "log-level=none"}
FORMATS: dict[str, dict[str, Any]] = {
    "h264 4:2:0.mp4": {"codec": "libx264"},
    "h264 4:2:2.mp4": {"codec": "libx264", "pixels": "yuv422p"},
    "h264 4:4:4.mp4": {"codec": "libx264", "pixels": "yuv444p"},
    "h264 10 bits.mp4": {"codec": "libx264", "pixels": "yuv420p10le"},
    "h264 4:2:2 10 bits.mkv": {"codec": "libx264", "pixels": "yuv422p10le"},
    "h264 odd 4:4:4.mp4": {"codec": "libx264", "pixels": "yuv444p", "size": (47, 63)},
    "h264 full range.mp4": {"codec": "libx264", "options": {"color_range": "pc"}},
    "h264 bt709.mp4": {"codec": "libx264", "options": {"colorspace": "bt709"}},
    "h264 open gop.ts": {"codec": "libx264", "options": {"x264-params": "open-gop=1:keyint=9"}},
    "h264 interlaced.mp4": {"codec": "libx264", "options": {"x264-params": "tff=1"}},
    "h264 variable rate.mkv": {"codec": "libx264", "times": [n * n for n in range(24)]},
    "hevc.mkv": {"codec": "libx265", "options": H265},
    "hevc bt2020 10 bits.mp4": {
        "codec": "libx265",
        "pixels": "yuv420p10le",
        "options": {**H265, "colorspace": "bt2020nc"},
    },
    "hevc 12 bits.mp4": {"codec": "libx265", "pixels": "yuv420p12le", "options": H265},
    "vp9.webm": {"codec": "libvpx-vp9"},
    "vp9 odd.webm": {"codec": "libvpx-vp9", "size": (47, 63)},
    "vp8.webm": {"codec": "libvpx"},
    "mpeg2.mpg": {"codec": "mpeg2video", "b_frames": 2},
    "mpeg2 4:2:2.mkv": {"codec": "mpeg2video", "pixels": "yuv422p"},
    "mpeg2 odd.mkv": {"codec": "mpeg2video", "size": (47, 63)},
    "mpeg4.avi": {"codec": "mpeg4", "b_frames": 2},
    "mjpeg.mov": {"codec": "mjpeg", "pixels": "yuvj420p"},
    "prores.mov": {"codec": "prores_ks", "pixels": "yuv422p10le"},
    "ffv1 4:1:1.mkv": {"codec": "ffv1", "pixels": "yuv411p"},
    "dv.avi": {"codec": "dvvideo", "size": (576, 720), "count": 4},
    "animation.gif": {"codec": "gif", "pixels": "rgb8"},
}


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="there is no ffmpeg to compare with")
@pytest.mark.parametrize("name", FORMATS)
def test_frames_are_what_ffmpeg_shows(tmp_path: Path, name: str) -> None:
    """Each frame, before it is resized, is that of ffmpeg's own command line, to the last bit."""
    settings: dict[str, Any] = {"count": 24, "size": (48, 64)} | FORMATS[name]
    path = encode(tmp_path / name, **settings)
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-vsync", "passthrough"]
    command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    shown = subprocess.run(command, capture_output=True, check=True).stdout
    expected = np.frombuffer(shown, np.uint8).reshape(-1, *settings["size"], 3)
    for choose in (lambda timeline: [*range(len(timeline))], spread(5)):
        found = decode_clip(path, choose, torch.clone)
        assert found.count == len(expected) == settings["count"]
        for number, frame in found.frames.items():
            assert np.array_equal(frame.permute(1, 2, 0).numpy(), expected[number])
