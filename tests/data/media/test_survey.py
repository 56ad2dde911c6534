"""Clips that hold less than they say are told from good ones of every container and codec."""

import json
import re
import threading
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import av.logging
import h5py
import numpy as np
import pytest
import torch
from clips import NUM_FRAMES, encode, open_video, sample_clip, survey_clip, turn
from helpers import TINY_JOB, EagerWriter, grey_levels
from lightning.pytorch import Trainer

import featx
from featx import FeatureExtractor, VideoDataModule
from featx.cli import main
from featx.data.media.clip import write_clip
from featx.data.media.preprocessing import Preprocessing
from featx.data.media.survey import hear_damage
from featx.errors import InputError


def x264(parameters: str) -> dict[str, Any]:
    """Settings of H.264."""
    return {"codec": "libx264", "options": {"x264-params": parameters}}


X265: dict[str, Any] = {"codec": "libx265", "options": {"x265-params": "log-level=none"}}
SLOW: dict[str, Any] = {"rate": 1, "count": 5}
VARIABLE: dict[str, Any] = {"count": 12, "times": [*range(8), 33, 58, 83, 200]}

ROWS: list[tuple[str, str, dict[str, Any]]] = [
    ("h264", "mp4 mov mkv ts flv avi nut 3gp 3g2", x264("bframes=3")),
    ("h264 without b-frames", "mp4 mkv ts flv avi", x264("bframes=0")),
    ("h264", "m2ts mts", {**x264("bframes=3"), "container": "mpegts"}),
    ("h264", "m4v", {**x264("bframes=3"), "container": "mp4"}),
    ("h264", "h264", {"codec": "libx264", "container": "h264"}),
    ("open gop", "mp4 ts", x264("open-gop=1:bframes=3:keyint=12")),
    ("interlaced", "mp4", x264("tff=1")),
    ("hevc", "mp4 mkv ts", X265),
    ("10 bit", "mkv", {**X265, "pixels": "yuv420p10le"}),
    ("mpeg4", "mp4 avi mkv wmv ts nut", {"codec": "mpeg4", "b_frames": 2}),
    ("mpeg2", "mpg ts vob mkv avi mxf", {"codec": "mpeg2video", "b_frames": 2}),
    ("mpeg2", "m2v", {"codec": "mpeg2video", "container": "mpeg2video"}),
    ("mpeg1", "mpg", {"codec": "mpeg1video", "b_frames": 2}),
    ("vp8", "webm mkv ivf", {"codec": "libvpx"}),
    (
        "vp8 with hidden frames",
        "webm",
        {"codec": "libvpx", "options": {"auto-alt-ref": "1", "lag-in-frames": "12"}},
    ),
    ("vp9", "webm mp4", {"codec": "libvpx-vp9"}),
    ("wmv2", "wmv avi asf", {"codec": "wmv2"}),
    ("flv1", "flv swf", {"codec": "flv"}),
    ("mjpeg", "avi mov mkv", {"codec": "mjpeg", "pixels": "yuvj420p"}),
    ("prores", "mov", {"codec": "prores_ks", "pixels": "yuv422p10le"}),
    ("ffv1", "avi mkv", {"codec": "ffv1"}),
    ("raw", "avi", {"codec": "rawvideo"}),
    ("raw", "y4m", {"codec": "wrapped_avframe"}),
    ("animation", "gif", {"codec": "gif", "pixels": "rgb8"}),
    ("qtrle", "mov", {"codec": "qtrle", "pixels": "rgb24"}),
    ("h263", "3gp", {"codec": "h263", "size": (144, 176)}),
    ("rv10", "rm", {"codec": "rv10"}),
    ("dv", "avi", {"codec": "dvvideo", "size": (576, 720), "count": 12}),
    ("longer sound", "mp4 mkv ts mov", {"codec": "libx264", "sound": ("aac", 4.0)}),
    ("longer sound", "flv", {"codec": "flv", "sound": ("aac", 4.0)}),
    ("shorter sound", "mkv mp4", {"codec": "libx264", "sound": ("aac", 0.5)}),
    ("late", "mp4 mkv ts mov avi flv", {**x264("bframes=3"), "start": 50}),
    (
        "fragmented",
        "mp4",
        {"codec": "libx264", "muxer": {"movflags": "frag_keyframe+empty_moov+default_base_moof"}},
    ),
    ("fast start", "mp4", {"codec": "libx264", "muxer": {"movflags": "+faststart"}}),
    ("without edit list", "mp4", {**x264("bframes=3"), "muxer": {"use_editlist": "0"}}),
    ("live", "mkv", {"codec": "libx264", "muxer": {"live": "1"}}),
    ("live", "webm", {"codec": "libvpx", "muxer": {"live": "1"}}),
    ("live", "flv", {"codec": "flv", "muxer": {"flvflags": "no_duration_filesize"}}),
    ("one frame", "mp4 mkv ts", {"codec": "libx264", "count": 1}),
    ("one frame", "avi wmv", {"codec": "wmv2", "count": 1}),
    ("one frame", "webm", {"codec": "libvpx", "count": 1}),
    ("one frame", "mpg", {"codec": "mpeg2video", "count": 1}),
    ("a frame a second", "mp4 mkv flv", {"codec": "libx264", **SLOW}),
    ("a frame a second", "webm", {"codec": "libvpx", **SLOW}),
    ("a frame a second", "wmv", {"codec": "wmv2", **SLOW}),
    ("ntsc", "mp4 mkv ts", {"codec": "libx264", "rate": Fraction(30000, 1001)}),
    ("variable rate", "mp4 mkv mov flv ts", {"codec": "libx264", **VARIABLE}),
]
GOOD = {
    f"{name}.{suffix}": settings for name, suffixes, settings in ROWS for suffix in suffixes.split()
}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The good clips, by name."""
    folder = tmp_path_factory.mktemp("good")
    return {name: encode(folder / name, **settings) for name, settings in GOOD.items()}


def test_good_clips_are_not_refused(good: dict[str, Path]) -> None:
    """Of every container and codec that there is an encoder for, with whatever is usual in them."""
    assert len(good) > 80
    for name, path in good.items():
        clip = open_video(path, Preprocessing(8, 16))
        assert clip.survey.damage == "", name
        assert clip.read().damage == "", name
        if "hidden" not in name:
            assert clip.survey.num_packets == GOOD[name].get("count", NUM_FRAMES), name


def cut(path: Path, share: float) -> Path:
    """A copy that ends early."""
    content = path.read_bytes()
    copy = path.with_name(f"cut {share} {path.name}")
    copy.write_bytes(content[: int(len(content) * share)])
    return copy


def overwrite(path: Path, kind: str, share: float = 0.1) -> Path:
    """A copy with other bytes, zeros or none in its middle."""
    content = path.read_bytes()
    start, size = len(content) // 2, int(len(content) * share)
    noise = np.random.default_rng(1).bytes(size)
    middle = {"noise": noise, "zeros": bytes(size), "hole": b""}[kind]
    copy = path.with_name(f"{kind} {path.name}")
    copy.write_bytes(content[:start] + middle + content[start + size :])
    return copy


NOT_DECLARING = (
    "live", "one", "fragmented", "a frame", "variable", "longer sound", "late.avi"
)  # fmt: skip
DECLARING = [
    name
    for name in GOOD
    if name.rpartition(".")[2] in ("mp4", "mov", "m4v", "3gp", "mkv", "webm", "avi", "flv", "mxf")
    and not name.startswith(NOT_DECLARING)
]


@pytest.mark.parametrize("share", [0.6, 0.8])
def test_what_ends_early_is_refused(good: dict[str, Path], share: float) -> None:
    """Where a container declares how much it holds, all are found, and it is said what is there."""
    assert len(DECLARING) > 35
    told = 0
    for name in DECLARING:
        with pytest.raises(InputError) as caught:
            sample_clip(cut(good[name], share), 8, 16)
        line = str(caught.value)
        assert "\n" not in line
        told += " that it declares. Get it again, leave it out, or set keep_damaged to true" in line
    assert told > 15  # of the others, the index is gone, or the decoder says it


@pytest.mark.parametrize("kind", ["noise", "zeros", "hole"])
def test_damage_in_the_middle_is_refused(good: dict[str, Path], kind: str) -> None:
    """Matroska, AVI, transport and program streams go on after damage; it is found all the same."""
    names = [
        "h264.mkv", "hevc.mkv", "mpeg4.mkv", "vp8.webm", "vp9.webm", "mpeg2.mkv", "ffv1.mkv",
        "mpeg2.avi", "mpeg4.wmv", "h264.ts", "hevc.ts", "mpeg4.ts", "mpeg2.ts", "h264.m2ts",
        "mpeg2.mpg", "mpeg4.mp4",
    ]  # fmt: skip
    for name in names:
        with pytest.raises(InputError, match=r"expected .*, found"):
            sample_clip(overwrite(good[name], kind), 8, 16)


def test_a_recording_that_is_not_over(good: dict[str, Path]) -> None:
    """It declares nothing, so nothing is missing: what there is, is the clip."""
    for name in ("live.mkv", "live.webm"):
        assert survey_clip(cut(good[name], 0.9))[0].damage == ""


def test_a_recording_that_begins_anywhere(good: dict[str, Path]) -> None:
    """What comes before its first key frame cannot be decoded, and is no damage."""
    for name in ("h264.ts", "mpeg2.ts", "mpeg2.mpg", "hevc.ts"):
        content = good[name].read_bytes()
        path = good[name].with_name(f"begun {name}")
        start = len(content) // 5
        path.write_bytes(content[start - start % 188 :])
        assert len(sample_clip(path, 4, 16)) == 4


def test_joined_recordings(good: dict[str, Path]) -> None:
    """Where a second one begins, there is a jump, and no damage."""
    for name in ("h264.ts", "mpeg2.ts", "mpeg4.ts"):
        path = good[name].with_name(f"joined {name}")
        path.write_bytes(2 * good[name].read_bytes())
        assert survey_clip(path)[0][:2] == (2 * NUM_FRAMES, "")


def test_the_message(good: dict[str, Path]) -> None:
    """It says how much there is of how much, or what FFmpeg has found."""
    path = cut(good["h264.mkv"], 0.6)
    with pytest.raises(InputError) as caught:
        open_video(path, Preprocessing(8, 16))
    line = str(caught.value)
    assert line.startswith(f"{path}: expected a whole clip, found ")
    assert "frames up to" in line
    assert "s of the 1.44 s that it declares" in line
    with pytest.raises(InputError, match=r"found \d+ frames, of which FFmpeg says: h264: "):
        sample_clip(overwrite(good["fast start.mp4"], "noise"), 8, 16)


@pytest.fixture
def damaged(tmp_path: Path, good: dict[str, Path]) -> Path:
    """A data set of a good clip, one that ends early, and one that only decoding finds damaged."""
    folder = tmp_path / "clips"
    for category in "abc":
        (folder / "train" / category).mkdir(parents=True)
    (folder / "train/a/good.mkv").write_bytes(good["h264.mkv"].read_bytes())
    (folder / "train/b/cut.mkv").write_bytes(cut(good["h264.mkv"], 0.6).read_bytes())
    content = bytearray(good["mpeg4.avi"].read_bytes())
    chunks = [match.start() for match in re.finditer(b"00dc", content)]
    start, end = max(pairwise(chunks[18:]), key=lambda chunk: chunk[1] - chunk[0])
    third = (end - start) // 3
    content[start + third : end - third] = np.random.default_rng(0).bytes(end - start - 2 * third)
    (folder / "train/c/late.avi").write_bytes(content)
    assert survey_clip(folder / "train/c/late.avi")[0].damage == ""
    return folder


JOB: dict[str, Any] = TINY_JOB | {"source": "clips", "num_frames": 6, "image_size": 16}


@pytest.mark.usefixtures("tiny")
def test_damaged_clips_are_kept_if_asked(
    damaged: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """All rows are there, and the file and the log list what is missing of which."""
    path = featx.extract(damaged, tmp_path / "out", **JOB, keep_damaged=True)["train"]
    with h5py.File(path) as file:
        assert len(file["video_ids"]) == 3
        listed = json.loads(file.attrs["damaged_videos"])
        assert json.loads(file.attrs["skipped"]) == {}
    assert [*listed] == ["train/b/cut.mkv", "train/c/late.avi"]
    assert "that it declares" in listed["train/b/cut.mkv"]
    for name, damage in listed.items():
        assert f"Damaged: {name}: found {damage}" in caplog.text
    assert main(["inspect", str(path)]) == 0
    command = ["verify", str(path), "--root", str(damaged), "--source", "clips", "--all"]
    assert main(command) == 0


@pytest.mark.usefixtures("tiny")
@pytest.mark.filterwarnings("ignore:.*categories have no videos. b:UserWarning")
def test_damaged_clips_are_bad_inputs(damaged: Path, tmp_path: Path) -> None:
    """By default they stop the scan or the run; or they are left out, as any other bad input."""
    with pytest.raises(InputError, match=r"cut\.mkv: expected a whole clip"):
        featx.extract(damaged, tmp_path / "out", **JOB)
    path = featx.extract(damaged, tmp_path / "out", **JOB, on_error="skip")["train"]
    with h5py.File(path) as file:
        assert [*file["video_ids"].asstr()] == ["train/a/good.mkv"]
        assert [*json.loads(file.attrs["skipped"])] == ["train/b/cut.mkv", "train/c/late.avi"]
        assert "damaged_videos" not in file.attrs
    content = featx.extract(damaged, tmp_path / "kept", **JOB, keep_damaged=True)["train"]
    featx.extract(damaged, tmp_path / "out", **JOB, keep_damaged=True)
    assert path.read_bytes() == content.read_bytes()
    with pytest.raises(
        featx.errors.IncompleteError, match=r"cut\.mkv, train/c/late\.avi would be lost"
    ):
        featx.extract(damaged, tmp_path / "out", **JOB, on_error="skip")
    assert path.read_bytes() == content.read_bytes()
    (damaged / "train" / "b" / "cut.mkv").rename(damaged / "train" / "b" / "renamed.mkv")
    with pytest.raises(featx.errors.IncompleteError, match=r"train/b/cut\.mkv, .* would be lost"):
        featx.extract(damaged, tmp_path / "out", **JOB, on_error="skip")
    featx.extract(damaged, tmp_path / "out", **JOB, on_error="skip", overwrite=True)
    with h5py.File(path) as file:
        assert [*file["video_ids"].asstr()] == ["train/a/good.mkv"]


@pytest.mark.usefixtures("tiny")
def test_the_list_survives_an_interruption(damaged: Path, tmp_path: Path) -> None:
    """A run that was stopped and goes on ends with the same bytes, the list included."""
    whole = featx.extract(damaged, tmp_path / "whole", **JOB, keep_damaged=True)["train"]

    def run(limit: int | None) -> Path:
        writer = EagerWriter(tmp_path / "out")
        trainer = Trainer(
            accelerator="cpu",
            devices=1,
            callbacks=[writer],
            logger=False,
            limit_predict_batches=limit,
        )
        data = VideoDataModule(
            damaged, source="clips", num_frames=6, image_size=16, keep_damaged=True
        )
        extractor = FeatureExtractor("resnet50", "random", frames_per_forward=4)
        trainer.predict(extractor, data, return_predictions=False)
        return writer.paths["train"]

    with pytest.raises(featx.errors.IncompleteError):
        run(2)
    parts = [h5py.File(path) for path in (tmp_path / "out").rglob("part-*.h5")]
    assert sum("damage" in part for part in parts) == 1
    assert run(None).read_bytes() == whole.read_bytes()


def test_the_log_is_left_as_it_was(good: dict[str, Path]) -> None:
    """FFmpeg's log is one for the process; several threads listen to it, each to its own clip."""
    bad, fine = overwrite(good["h264.mkv"], "noise"), good["h264.mp4"]
    found: dict[int, str] = {}

    def survey(number: int, path: Path) -> None:
        found[number] = survey_clip(path)[0].damage

    threads = [
        threading.Thread(target=survey, args=(number, fine if number % 2 else bad))
        for number in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [bool(found[number]) for number in range(20)] == [True, False] * 10
    assert av.logging.get_level() is None
    assert av.logging.get_skip_repeated()
    with hear_damage(), hear_damage():
        assert av.logging.get_level() == av.logging.ERROR
    assert av.logging.get_level() is None


def with_title(path: Path, title: bytes) -> Path:
    """A clip with a title of any bytes."""
    write_clip(path, grey_levels(6), "mpeg4")
    with av.open(path) as source, av.open(path.with_suffix(".new" + path.suffix), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        target.metadata["title"] = "x" * len(title)
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    content = path.with_suffix(".new" + path.suffix).read_bytes()
    path.write_bytes(content.replace(b"x" * len(title), title))
    return path


@pytest.mark.parametrize("suffix", [".avi", ".mp4", ".mkv", ".mov"])
def test_text_never_vetoes_pixels(tmp_path: Path, suffix: str) -> None:
    """Whatever encoding the text about a clip is in, its frames are those of any other."""
    title = "Caf\u00e9 \u00dcber alles".encode("latin-1")
    path = with_title(tmp_path / f"clip{suffix}", title)
    assert title in path.read_bytes()
    expected = with_title(tmp_path / f"plain{suffix}", b"Cafe, uber alles.")
    assert torch.equal(sample_clip(path, 4, 16), sample_clip(expected, 4, 16))


def only_a_cover(path: Path) -> None:
    """A song with its cover."""
    with av.open(path, "w") as container:
        cover: Any = container.add_stream("mjpeg", rate=1)
        cover.height, cover.width, cover.pix_fmt = 64, 64, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        track: Any = container.add_stream("aac", rate=44100)
        picture = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
        container.mux(cover.encode(picture))
        container.mux(cover.encode())
        for number in range(20):
            samples = np.zeros((1, 1024), np.float32)
            silence = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            silence.sample_rate, silence.pts = 44100, 1024 * number
            container.mux(track.encode(silence))
        container.mux(track.encode())


def test_a_song_with_its_cover_is_no_clip(tmp_path: Path) -> None:
    """A still picture is not taken for a video."""
    path = tmp_path / "song.mp4"
    only_a_cover(path)
    with pytest.raises(InputError, match="no video stream but a still picture"):
        sample_clip(path, 4, 16)


Turn = Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]

ORIENTATIONS: dict[str, tuple[tuple[float, float, float, float], Turn]] = {
    "as it is": ((1, 0, 0, 1), lambda image: image),
    "mirrored": ((-1, 0, 0, 1), lambda image: image[:, ::-1]),
    "flipped": ((1, 0, 0, -1), lambda image: image[::-1]),
    "180": ((-1, 0, 0, -1), lambda image: image[::-1, ::-1]),
    "90 clockwise": ((0, 1, -1, 0), lambda image: np.rot90(image, -1)),
    "90 counterclockwise": ((0, -1, 1, 0), lambda image: np.rot90(image)),
    "90 clockwise, then mirrored": ((0, 1, 1, 0), lambda image: np.rot90(image, -1)[:, ::-1]),
    "90 clockwise, then flipped": ((0, -1, -1, 0), lambda image: np.rot90(image, -1)[::-1]),
    "nearly 90": ((0.1, 0.99, -0.99, 0.1), lambda image: np.rot90(image, -1)),
    "mirrored, and nearly upright": ((-0.99, 0.1, 0.1, 0.99), lambda image: image[:, ::-1]),
}


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_as_ffmpeg_shows_it(tmp_path: Path, orientation: str) -> None:
    """The whole display matrix counts: mirrored, flipped, turned, and both."""
    matrix, see = ORIENTATIONS[orientation]
    levels = np.array([[20, 90], [160, 235]], np.uint8)  # of the corners
    image = levels.repeat(32, axis=0).repeat(32, axis=1)
    path = tmp_path / "clip.mp4"
    write_clip(path, np.broadcast_to(image[..., None], (3, 64, 64, 3)).copy())
    turn(path, *matrix)
    found = sample_clip(path, 1, 16)[0].float().mean(dim=0)[[3, 12]][:, [3, 12]].numpy()
    assert np.abs(found - see(levels)).max() < 8


def test_what_is_not_shown_as_it_is(tmp_path: Path, good: dict[str, Path]) -> None:
    """Interlaced clips and both kinds of HDR are known as such."""
    assert survey_clip(good["interlaced.mp4"])[0].traits == ("interlaced",)
    assert survey_clip(good["h264.mp4"])[0].traits == ()
    for code, trait in (("16", "HDR (PQ)"), ("18", "HDR (HLG)")):
        path = encode(tmp_path / f"{code}.mkv", "libx264", options={"color_trc": code})
        assert survey_clip(path)[0].traits == (trait,)


def rewrite(path: Path, target: Path, change: Callable[[int, bytes], bytes | None]) -> Path:
    """Copy a clip, packet by packet; each may change, or be left out."""
    with av.open(path) as source, av.open(target, "w") as output:
        stream = output.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(video=0)):
            content = change(number, bytes(packet)) if packet.size else None
            if content is None:
                continue
            changed = av.Packet(content)
            changed.pts, changed.dts, changed.duration = packet.pts, packet.dts, packet.duration
            changed.time_base, changed.stream = packet.time_base, stream
            changed.is_keyframe = packet.is_keyframe
            output.mux(changed)
    return target


def test_which_packets_tell_the_frames(good: dict[str, Path], tmp_path: Path) -> None:
    """Not if one is too small for a frame, or the first is no key frame."""
    name = "mpeg4.mkv"
    told = survey_clip(good[name])[1]
    assert told is not None
    assert len(told) == NUM_FRAMES
    for number, change in enumerate(
        [
            lambda place, content: content[:6] if place == 5 else content,
            lambda place, content: None if place < 3 else content,
        ]
    ):
        path = rewrite(good[name], tmp_path / f"{number}.mkv", change)
        assert survey_clip(path)[1] is None


@pytest.mark.parametrize("name", ["vp9.webm", "ffv1.mkv", "mpeg2.mkv"])
def test_a_first_frame_that_is_damaged(good: dict[str, Path], tmp_path: Path, name: str) -> None:
    """What fails at a key frame is damage, also if it is the first one."""
    path = rewrite(
        good[name],
        tmp_path / name,
        lambda number, content: content[:12] + bytes(len(content) - 12) if number == 0 else content,
    )
    with pytest.raises(InputError, match=r"expected a (whole )?clip"):
        sample_clip(path, 8, 16)


@pytest.mark.parametrize("name", ["h264.mkv", "h264.mp4"])
def test_a_key_frame_that_is_missing(good: dict[str, Path], tmp_path: Path, name: str) -> None:
    """The frames that refer to it are not shown: there are far fewer than packets."""
    path = rewrite(
        good[name], tmp_path / name, lambda number, content: None if number == 12 else content
    )
    assert survey_clip(path)[0].num_packets == NUM_FRAMES - 1
    with pytest.raises(InputError, match=r"expected a whole clip, found "):
        sample_clip(path, 36, 16)


def test_an_animation_without_its_end(good: dict[str, Path]) -> None:
    """A GIF declares nothing, but ends with a mark."""
    path = good["animation.gif"]
    for share in (0.3, 0.6, 0.99):
        assert survey_clip(cut(path, share))[0].damage == "an animation without its end"
    padded = path.with_name("padded.gif")
    padded.write_bytes(path.read_bytes() + bytes(7))
    assert survey_clip(padded)[0].damage == ""


def test_what_another_clip_has_said_is_heard_again() -> None:
    """FFmpeg's log leaves out a line that repeats the one before, be it of another clip."""
    for _ in range(3):
        with hear_damage() as heard:
            av.logging.log(av.logging.ERROR, "mpeg4", "Error at MB: 7")
        assert heard == ["mpeg4: Error at MB: 7"]
