"""torchcodec gives the frames that PyAV gives, for the clips that it is given."""

import sys
from pathlib import Path
from typing import Any

import av
import pytest
import torch
from clips import encode, open_video, turn
from helpers import TINY_JOB

import featx
from featx.cli import main
from featx.data.media.clip import ClipFile
from featx.data.media.preprocessing import DecoderName, Preprocessing
from featx.errors import ChangedInputError, MissingDependencyError

try:
    from featx.data.media import torchcodec as torchcodec_decoder
except MissingDependencyError as error:
    pytest.skip(str(error), allow_module_level=True)

H265 = {"x265-params": "log-level=none"}
TAKEN: dict[str, dict[str, Any]] = {
    "h264.mp4": {"codec": "libx264"},
    "h264 open gop.mkv": {"codec": "libx264", "options": {"x264-params": "open-gop=1:keyint=9"}},
    "h264 late.mov": {"codec": "libx264", "start": 50},
    "h264 4:4:4 odd.mp4": {"codec": "libx264", "pixels": "yuv444p", "size": (47, 63)},
    "h264 10 bits.mkv": {"codec": "libx264", "pixels": "yuv420p10le"},
    "h264 4:2:2 bt709.mp4": {
        "codec": "libx264",
        "pixels": "yuv422p",
        "options": {"colorspace": "bt709"},
    },
    "h264 full range.mp4": {"codec": "libx264", "options": {"color_range": "pc"}},
    "h264 interlaced.mp4": {"codec": "libx264", "options": {"x264-params": "tff=1"}},
    "h264 variable rate.mkv": {"codec": "libx264", "times": [n * n for n in range(36)]},
    "hevc.mp4": {"codec": "libx265", "options": H265},
    "hevc 12 bits.mkv": {"codec": "libx265", "pixels": "yuv420p12le", "options": H265},
    "vp8.webm": {"codec": "libvpx"},
    "vp9 odd.webm": {"codec": "libvpx-vp9", "size": (47, 63)},
    "av1.mp4": {"codec": "libsvtav1", "size": (64, 64)},
    "one frame.mp4": {"codec": "libx264", "count": 1},
}
LEFT: dict[str, dict[str, Any]] = {  # to PyAV
    "h264.ts": {"codec": "libx264"},
    "h264.avi": {"codec": "libx264"},
    "mpeg2.mpg": {"codec": "mpeg2video", "b_frames": 2},
    "mpeg4.mp4": {"codec": "mpeg4"},
}


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether torchcodec has taken each clip that was read."""
    found: list[bool] = []
    decode = torchcodec_decoder.decode

    def decode_and_tell(*args: Any) -> Any:  # noqa: ANN401  # whatever it takes and gives
        decoded = decode(*args)
        found.append(decoded is not None)
        return decoded

    monkeypatch.setattr(torchcodec_decoder, "decode", decode_and_tell)
    return found


def look_at(path: Path, decoder: DecoderName, keep_damaged: bool = False) -> ClipFile:
    """A clip that becomes a small video."""
    return open_video(path, Preprocessing(11, 24, keep_damaged, decoder))


def check_equal(path: Path, keep_damaged: bool = False) -> None:
    """Both decoders agree to the last bit."""
    by_pyav, by_torchcodec = (
        look_at(path, decoder, keep_damaged).read() for decoder in ("pyav", "torchcodec")
    )
    assert torch.equal(by_pyav.frames, by_torchcodec.frames)
    assert by_pyav.damage == by_torchcodec.damage


@pytest.mark.parametrize("name", [*TAKEN, *LEFT])
def test_the_same_frames(tmp_path: Path, name: str, taken: list[bool]) -> None:
    """Of what torchcodec knows; it takes other frames of transport streams, and PyAV has these."""
    check_equal(encode(tmp_path / name, **TAKEN.get(name) or LEFT[name]))
    assert taken == [name in TAKEN]


def test_cut_between_key_frames(tmp_path: Path, taken: list[bool]) -> None:
    """A copy that begins there begins with packets that do not decode."""
    whole = encode(tmp_path / "whole.mkv", "libx264", options={"x264-params": "keyint=12"})
    path = tmp_path / "cut.mkv"
    with av.open(whole) as source, av.open(path, "w") as output:
        [stream] = source.streams.video
        copy = output.add_stream_from_template(stream)
        for number, packet in enumerate(source.demux(stream)):
            if number >= 5 and packet.dts is not None:
                packet.stream = copy
                output.mux(packet)
    check_equal(path)
    assert taken == [False]


@pytest.mark.parametrize("matrix", [(-1, 0, 0, 1), (1, 0, 0, -1), (0, -1, 1, 0)], ids=str)
def test_turned_and_mirrored(
    tmp_path: Path, matrix: tuple[int, int, int, int], taken: list[bool]
) -> None:
    """Of a display matrix, torchcodec knows the angle alone."""
    path = encode(tmp_path / "clip.mp4", "libx264")
    turn(path, *matrix)
    check_equal(path)
    assert taken == [False]


def test_damaged(tmp_path: Path, taken: list[bool]) -> None:
    """What is kept of a damaged clip is the same, too."""
    path = encode(tmp_path / "clip.mkv", "libx264", options={"x264-params": "keyint=12"})
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    check_equal(path, keep_damaged=True)
    assert taken == [False]


def test_few_frames_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many are wanted of a clip."""
    from torchcodec.decoders import VideoDecoder

    at_once: list[int] = []
    decoder: Any = VideoDecoder
    get_frames = decoder.get_frames_at

    def count_and_get(self: object, indices: list[int]) -> Any:  # noqa: ANN401  # of torchcodec
        at_once.append(len(indices))
        return get_frames(self, indices)

    monkeypatch.setattr(decoder, "get_frames_at", count_and_get)
    look_at(encode(tmp_path / "clip.mp4", "libx264"), "torchcodec").read()
    assert sum(at_once) == 11
    assert max(at_once) <= 4


def test_the_whole_job(raw: Path, tmp_path: Path, tiny: None) -> None:
    """The feature files have the same bytes."""
    job = TINY_JOB | {"source": "clips", "num_frames": 6, "image_size": 16, "splits": ["train"]}
    found = [
        featx.extract(raw, tmp_path / decoder, decoder=decoder, **job)  # type: ignore[arg-type]
        for decoder in ("pyav", "torchcodec")
    ]
    first, second = (paths["train"].read_bytes() for paths in found)
    assert first == second


def test_a_gpu_out_of_memory_is_not_a_bad_clip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the machine's; the clip is not left out, nor decoded in another way."""

    def fail(*args: object, **settings: object) -> None:
        raise torch.OutOfMemoryError("on purpose")

    monkeypatch.setattr(torchcodec_decoder, "VideoDecoder", fail)
    clip = look_at(encode(tmp_path / "clip.mp4", "libx264"), "torchcodec")
    with pytest.raises(ChangedInputError, match="on purpose"):
        clip.read()


def test_without_torchcodec(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is missed before the first clip is opened, on one line that tells both ways out."""
    monkeypatch.delitem(sys.modules, "featx.data.media.torchcodec")
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    args = ["--data.root", raw, "--data.source", "clips", "--data.decoder", "torchcodec"]
    args += ["--writer.output_dir", tmp_path / "out", "--model.weights", "random"]
    args += ["--model.backbone", "resnet50", "--trainer.accelerator", "cpu"]
    assert main(["predict", *map(str, args)]) == 1
    [line] = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert "expected torchcodec and the FFmpeg of the system" in line
    assert "set decoder to pyav" in line
