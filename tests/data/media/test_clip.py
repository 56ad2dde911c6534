"""Decoding: the right frames, upright, in the right size; or one line that says why not."""

import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from clips import decode_clip, encode, open_video, sample_clip, survey_clip
from helpers import grey_levels

from featx.data.media.clip import open_clip, write_clip
from featx.data.media.preprocessing import Preprocessing
from featx.data.media.timeline import Timeline
from featx.errors import InputError, OutputError

CODECS = {
    ".mp4": "libx264",
    ".avi": "mpeg4",
    ".mkv": "libx264",
    ".webm": "libvpx-vp9",
    ".mov": "libx264",
}


def levels_of(video: torch.Tensor) -> list[int]:
    """Mean grey level of each frame."""
    return video.float().mean(dim=(1, 2, 3)).round().int().tolist()


@pytest.mark.parametrize("suffix", CODECS)
def test_frames_are_uniform_over_the_clip(tmp_path: Path, suffix: str) -> None:
    """In every container, the frames are those of a truncated linspace over the clip."""
    frames = grey_levels(40)
    path = tmp_path / f"clip{suffix}"
    write_clip(path, frames, CODECS[suffix])
    video = sample_clip(path, 16, 32)
    assert video.shape == (16, 3, 32, 32)
    assert video.dtype == torch.uint8
    wanted = frames[np.linspace(0, 39, 16).astype(int), 0, 0, 0].astype(int)
    assert np.abs(np.array(levels_of(video)) - wanted).max() <= 2  # the codec's loss; steps are 5


def test_a_short_clip_repeats_frames(tmp_path: Path) -> None:
    """A clip of five frames sampled to twelve repeats frames, byte for byte."""
    path = tmp_path / "clip.mp4"
    write_clip(path, grey_levels(5))
    video = sample_clip(path, 12, 16)
    index = np.linspace(0, 4, 12).astype(int)
    for number in range(1, 12):
        same = index[number] == index[number - 1]
        assert torch.equal(video[number], video[number - 1]) == same


def test_one_frame(tmp_path: Path) -> None:
    """A clip of one frame is that frame all along."""
    path = tmp_path / "clip.mp4"
    write_clip(path, grey_levels(1))
    video = sample_clip(path, 4, 16)
    assert all(torch.equal(frame, video[0]) for frame in video)


def test_a_wrong_count_is_mended(tmp_path: Path) -> None:
    """If the packets are not as many as the frames, the sampling is that of the frames."""
    path = encode(tmp_path / "clip.ts", "libx264", options={"x264-params": "keyint=20"}, count=90)
    content = path.read_bytes()
    start = len(content) // 6  # between two key frames: what comes before the second has no picture
    path.write_bytes(content[start - start % 188 :])
    asked: list[int] = []

    def choose(timeline: Timeline) -> list[int]:
        asked.append(len(timeline))
        return [*range(0, len(timeline), 7)]

    decoded = decode_clip(path, choose, lambda image: image)
    assert asked == [survey_clip(path)[0].num_packets, decoded.count]
    assert asked[0] > decoded.count
    assert [*decoded.frames] == [*range(0, decoded.count, 7)]


def test_every_frame_of_a_recording_that_was_cut(tmp_path: Path) -> None:
    """How many there are is found by decoding, where packets do not tell."""
    path = encode(tmp_path / "clip.ts", "libx264", options={"x264-params": "keyint=20"}, count=90)
    content = path.read_bytes()
    start = len(content) // 6
    path.write_bytes(content[start - start % 188 :])
    clip = open_video(path, Preprocessing.choose(None, 1, None, image_size=16))
    assert clip.length < survey_clip(path)[0].num_packets
    assert len(clip.read().frames) == clip.length


def test_another_number_of_frames_than_planned(tmp_path: Path) -> None:
    """One or two more, or fewer, are made to fit; of others it is said."""
    path = encode(tmp_path / "clip.mp4", "libx264", count=20)
    clip = open_video(path, Preprocessing.choose(None, 1, None, image_size=16))
    frames = clip.read().frames
    longer = replace(clip, length=22, survey=clip.survey._replace(num_frames=22)).read().frames
    assert torch.equal(longer[:20], frames)
    assert torch.equal(longer[20:], frames[[19, 19]])
    shorter = replace(clip, length=19, survey=clip.survey._replace(num_frames=19)).read().frames
    assert torch.equal(shorter, frames[:19])
    with pytest.raises(InputError, match="expected 30 frames by its packets, found 20"):
        replace(clip, length=30, survey=clip.survey._replace(num_frames=30)).read()


def test_colours_and_places(tmp_path: Path) -> None:
    """Red is channel 0, left is left, and the aspect is stretched to the square."""
    frames = np.zeros((4, 64, 96, 3), np.uint8)
    frames[:, :32, :48] = (250, 0, 0)
    frames[:, 32:, 48:] = (0, 0, 250)
    write_clip(tmp_path / "clip.mp4", frames)
    video = sample_clip(tmp_path / "clip.mp4", 2, 32).float()
    corners = video[0][:, [4, 4, 27, 27], [4, 27, 4, 27]].T.round()
    wanted = torch.tensor([[250, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 250.0]])
    assert (corners - wanted).abs().max() < 12


def test_resizing_is_antialiased(tmp_path: Path) -> None:
    """A pixel is the average of what it covers: noise fades, as in an average by area."""
    noise = np.random.default_rng(0).integers(0, 256, (128, 128, 1), np.uint8)
    frames = np.broadcast_to(noise, (2, 128, 128, 3)).copy()
    write_clip(tmp_path / "clip.mkv", frames, "ffv1")
    found = sample_clip(tmp_path / "clip.mkv", 1, 16)[0].float().mean(dim=0)
    area = torch.from_numpy(noise[..., 0]).float().reshape(16, 8, 16, 8).mean(dim=(1, 3))
    assert found.std() < 1.5 * area.std() < 20


def test_a_cover_picture_is_not_the_video(tmp_path: Path) -> None:
    """Of several video streams, the frames are those of the best one."""
    frames = grey_levels(12)
    path = tmp_path / "clip.mkv"
    with av.open(path, "w") as container:
        cover = container.add_stream("mjpeg", rate=24)
        video = container.add_stream("libx264", rate=24)
        for stream, pix_fmt in ((cover, "yuvj420p"), (video, "yuv420p")):
            stream.height, stream.width, stream.pix_fmt = 64, 96, pix_fmt
        cover.disposition = av.stream.Disposition.attached_pic
        picture = av.VideoFrame.from_ndarray(np.full((64, 96, 3), 255, np.uint8), format="rgb24")
        container.mux(cover.encode(picture))
        for image in frames:
            container.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        for stream in (cover, video):
            container.mux(stream.encode())
    found = levels_of(sample_clip(path, 12, 16))
    assert np.abs(np.array(found) - frames[:, 0, 0, 0]).max() <= 3


@pytest.mark.parametrize(
    ("matrix", "bright_corner"),
    [((0, 1, -1, 0), (0, -1)), ((-1, 0, 0, -1), (-1, -1)), ((0, -1, 1, 0), (-1, 0))],
)
def test_a_phones_clip_is_turned_upright(
    tmp_path: Path, matrix: tuple[int, ...], bright_corner: tuple[int, int]
) -> None:
    """A rotation in the container is carried out: a top left corner turns by 90, 180, 270."""
    frames = np.zeros((3, 64, 64, 3), np.uint8)
    frames[:, :32, :32] = 250
    path = tmp_path / "clip.mp4"
    write_clip(path, frames)
    a, b, c, d = (value * 65536 for value in matrix)
    identity = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)
    content = path.read_bytes()
    place = content.index(identity, content.index(b"tkhd"))
    turned = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content[:place] + turned + content[place + len(identity) :])
    video = sample_clip(path, 1, 32).float()[0].mean(dim=0)
    corners = {(y, x): video[y, x].item() for y in (0, -1) for x in (0, -1)}
    assert max(corners, key=lambda corner: corners[corner]) == bright_corner


def write_damaged(path: Path) -> None:
    """A clip cut off before its index."""
    write_clip(path, grey_levels(20))
    path.write_bytes(path.read_bytes()[:500])


def write_sound(path: Path) -> None:
    """A file with sound alone."""
    with av.open(path, "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), "fltp", "stereo")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


BAD_CLIPS: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda path: path.write_bytes(b""), "Invalid data"),
    "text": (lambda path: path.write_text("hello"), "Invalid data"),
    "cut off": (write_damaged, "Invalid data"),
    "sound": (write_sound, "no video stream"),
}


@pytest.mark.parametrize("name", BAD_CLIPS)
def test_clips_that_do_not_decode(tmp_path: Path, name: str) -> None:
    """The clip and the reason are named in one line."""
    write, found = BAD_CLIPS[name]
    path = tmp_path / "clip.mp4"
    write(path)
    with pytest.raises(InputError) as caught:
        sample_clip(path, 4, 16)
    assert str(caught.value).startswith(f"{path}: expected a clip that decodes, found: ")
    assert found in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_error_of_the_program_is_no_bad_clip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call with wrong arguments ends the run with its traceback, for it is true of all clips."""
    path = tmp_path / "clip.mp4"
    write_clip(path, grey_levels(4))

    def open_like_another_release(file: str) -> None:
        raise AssertionError("it has one argument more")

    monkeypatch.setattr("featx.data.media.survey.av.open", open_like_another_release)
    monkeypatch.setattr("featx.data.media.survey._ANY_ENCODING", {"metadata_errors": "ignore"})
    with pytest.raises(TypeError, match="unexpected keyword argument 'metadata_errors'"):
        sample_clip(path, 4, 16)


def test_a_bad_clip_keeps_its_cause(tmp_path: Path) -> None:
    """The error of PyAV is the cause of the one line."""
    path = tmp_path / "clip.mp4"
    path.write_text("hello")
    with pytest.raises(InputError) as caught:
        sample_clip(path, 4, 16)
    assert isinstance(caught.value.__cause__, av.error.InvalidDataError)


def test_no_room_for_a_copy_is_no_bad_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full temporary folder ends the run: on_error skip must not leave the clip out."""
    path = tmp_path / "clip.mp4"
    write_clip(path, grey_levels(4))

    def fail(*_: object) -> None:
        raise OutputError("expected room, found none.")

    monkeypatch.setattr("featx.data.media.clip._survey", fail)
    with pytest.raises(OutputError, match="expected room"):
        open_clip(str(path), Preprocessing())
