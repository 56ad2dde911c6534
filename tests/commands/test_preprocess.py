"""Preprocessing: every clip in its place, none lost without a word."""

import json
import os
import shutil
import threading
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import reference
import torch
from clips import encode, sample_clip
from helpers import grey_levels, scan

from featx import VideoDataModule
from featx.commands import preprocess as preprocess_module
from featx.commands.preprocess import preprocess
from featx.data.media.clip import ClipFile, write_clip
from featx.data.media.video_file import Video
from featx.data.sources.clips import list_clips
from featx.errors import MissingInputError, OutputError, UsageError


def run(raw: Path, out: Path, **settings: object) -> list[str]:
    """Preprocess small."""
    return preprocess(raw, out, num_frames=6, image_size=16, **settings)  # type: ignore[arg-type]


def test_every_clip_in_its_place(raw: Path, tmp_path: Path) -> None:
    """Each category and subcategory has its file, which holds its clips by name."""
    out = tmp_path / "processed"
    assert run(raw, out) == []
    files = {
        path.parent.relative_to(out).as_posix(): torch.load(path, weights_only=True)
        for path in out.rglob("processed_data.pt")
    }
    assert {place: data["clips"] for place, data in files.items()} == {
        "train/hello/hello": ["train/hello/10.mkv", "train/hello/2.mp4"],
        "train/hello/slow": ["train/hello/slow/a.avi"],
        "train/bye/x": ["train/bye/x/b.MP4"],
        "test/bye/bye": ["test/bye/c.mov"],
    }
    for data in files.values():
        assert data["videos"].dtype == torch.uint8
        for name, video in zip(data["clips"], data["videos"], strict=True):
            assert torch.equal(video, sample_clip(raw / name, 6, 16))
    analysis = json.loads((out / "configuration_analysis.json").read_text())
    assert analysis["preprocessing_info"] == {
        "frames_per_video": 6,
        "image_size": [16, 16],
        "processing_mode": "cpu",
        "dtype": "uint8",
        "stride": None,
        "fps": None,
        "frame_rate": None,
        "resize": "squash",
    }
    assert analysis["scan"]["videos"] == {"train": 4, "test": 1}
    assert analysis["scan"]["left_out"] == {
        "hidden": {"count": 1, "examples": ["train/hello/.hidden.mp4"]},
        "of .txt": {"count": 1, "examples": ["train/hello/notes.txt"]},
    }
    assert scan(out).video_ids("train")[1] == "train/hello/10.mkv"


def test_defaults_are_those_of_the_old_pipeline(raw: Path, tmp_path: Path) -> None:
    """By default a video is 64 frames of 256 by 256, in uint8."""
    preprocess(raw, tmp_path / "out")
    [file, *_] = scan(tmp_path / "out").files
    assert file.shapes[0] == (64, 3, 256, 256)
    assert file.read(0).frames.dtype == torch.uint8


def test_float32_is_the_normalized_uint8(raw: Path, tmp_path: Path) -> None:
    """The old form is the new one, normalized."""
    for dtype in ("uint8", "float32"):
        run(raw, tmp_path / dtype, dtype=dtype)
    place = Path("train/hello/hello/processed_data.pt")
    raw_data, old = (
        torch.load(tmp_path / dtype / place, weights_only=True)["videos"]
        for dtype in ("uint8", "float32")
    )
    assert old.dtype == torch.float32
    for video, wanted in zip(old, raw_data, strict=True):
        torch.testing.assert_close(video, reference.normalize(wanted), rtol=0, atol=1e-6)


def test_a_broken_clip_is_named_and_left_out(raw: Path, tmp_path: Path) -> None:
    """The others are there; a file of broken clips alone is not made."""
    (raw / "train/hello/2.mp4").write_text("broken")
    (raw / "test/bye/c.mov").write_text("broken")
    failures = run(raw, tmp_path / "out")
    assert [failure.partition(": ")[0] for failure in failures] == [
        str(raw / "test/bye/c.mov"),
        str(raw / "train/hello/2.mp4"),
    ]
    data = torch.load(tmp_path / "out/train/hello/hello/processed_data.pt", weights_only=True)
    assert data["clips"] == ["train/hello/10.mkv"]
    assert len(data["videos"]) == 1
    assert not (tmp_path / "out/test/bye/bye/processed_data.pt").exists()


def test_what_no_longer_decodes_is_removed(raw: Path, tmp_path: Path) -> None:
    """A file whose clips are all broken now would be out of date, so it does not stay."""
    assert run(raw, tmp_path / "out") == []
    assert (tmp_path / "out/test/bye/bye/processed_data.pt").exists()
    (raw / "test/bye/c.mov").write_text("broken")
    assert len(run(raw, tmp_path / "out")) == 1
    assert not (tmp_path / "out/test/bye/bye/processed_data.pt").exists()


def test_a_folder_that_cannot_be_listed_costs_no_file(raw: Path, tmp_path: Path) -> None:
    """Not even that of a subcategory whose clips are gone, which is named as before."""
    assert run(raw, tmp_path / "out") == []
    for name in ("2.mp4", "10.mkv"):
        (raw / "train/hello" / name).unlink()
    (raw / "train/hello/gone").symlink_to(raw / "nowhere")
    with pytest.warns(UserWarning, match="1 files are of other clips, and were kept"):
        [failure] = run(raw, tmp_path / "out")
    assert "found a link without a target" in failure
    assert (tmp_path / "out/train/hello/hello/processed_data.pt").exists()


def test_what_is_up_to_date_is_left_alone(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second run decodes only what changed: a clip, a list of clips, or a setting."""
    decoded: list[str] = []

    read = ClipFile.read

    def read_and_tell(clip: ClipFile) -> Video:
        decoded.append(Path(clip.path).name)
        return read(clip)

    monkeypatch.setattr(ClipFile, "read", read_and_tell)

    def rerun(**settings: object) -> list[str]:
        decoded.clear()
        run(raw, tmp_path / "out", num_workers=1, **settings)
        return sorted(decoded)

    everything = ["10.mkv", "2.mp4", "a.avi", "b.MP4", "c.mov"]
    assert rerun() == everything
    assert rerun() == []
    write_clip(raw / "test/bye/c.mov", grey_levels(7))
    assert rerun() == ["c.mov"]
    os.utime(raw / "test/bye/c.mov", ns=(0, 0))  # replaced by a clip that is older
    assert rerun() == ["c.mov"]
    write_clip(raw / "train/hello/3.mp4", grey_levels(7))
    assert rerun() == ["10.mkv", "2.mp4", "3.mp4"]
    assert rerun(dtype="float32") == sorted([*everything, "3.mp4"])


def test_few_clips_wait_in_memory(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many the clips, no more are decoded ahead than twice the workers."""
    for number in range(12):
        path = tmp_path / "many/train/a" / f"{number:02d}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(raw / "train/hello/2.mp4", path)
    decoded: list[str] = []
    saved: list[object] = []
    ahead: list[int] = []

    def read(clip: ClipFile) -> Video:
        decoded.append(clip.path)
        ahead.append(len(decoded) - len(saved))
        return Video(torch.zeros(6, 3, 16, 16, dtype=torch.uint8))

    def save(path: Path, videos: Iterable[tuple[dict[str, Any], torch.Tensor]], _: bool) -> int:
        for video in videos:
            saved.append(video)
        return len(saved)

    monkeypatch.setattr(ClipFile, "read", read)
    monkeypatch.setattr(preprocess_module, "save_videos", save)
    assert run(tmp_path / "many", tmp_path / "out", num_workers=2) == []
    assert len(saved) == 12
    assert max(ahead) <= 4


def test_an_error_ends_the_threads(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while a notebook, which shows a bar, keeps the traceback."""

    def save(path: Path, videos: Iterable[object], _: bool) -> int:
        next(iter(videos))
        raise OutputError("on purpose")

    monkeypatch.setattr(preprocess_module, "save_videos", save)
    monkeypatch.setattr("featx.progress.is_watched", lambda: True)
    with pytest.raises(OutputError, match="on purpose") as kept:
        run(raw, tmp_path / "out", num_workers=2)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decoding")]
    assert kept.traceback


def test_clips_are_listed_in_order(raw: Path) -> None:
    """By split, category, subcategory and name."""
    assert [clip.name for clip in list_clips(raw, {})] == [
        "test/bye/c.mov",
        "train/bye/x/b.MP4",
        "train/hello/10.mkv",
        "train/hello/2.mp4",
        "train/hello/slow/a.avi",
    ]


def test_no_clips(tmp_path: Path) -> None:
    """A folder that is missing, or has no clip, is named with the layout that is expected."""
    with pytest.raises(MissingInputError, match="raw: expected a folder, found nothing"):
        run(tmp_path / "raw", tmp_path / "out")
    (tmp_path / "raw" / "train").mkdir(parents=True)
    with pytest.raises(MissingInputError, match=r"<split>/<category>/.*\.mp4,.*found none"):
        run(tmp_path / "raw", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_output_folder_that_cannot_be_written(raw: Path, tmp_path: Path) -> None:
    """It is named, with the system's reason."""
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputError, match="Not a directory"):
        run(raw, tmp_path / "out")


@pytest.mark.parametrize("name", ["num_frames", "image_size", "num_workers"])
def test_numbers_out_of_range(raw: Path, tmp_path: Path, name: str) -> None:
    """The setting, what is accepted and what was found are told."""
    with pytest.raises(UsageError, match=f"{name}: expected 1 or more, found 0"):
        preprocess(raw, tmp_path / "out", **{name: 0})  # type: ignore[arg-type]


def test_clips_elsewhere_are_reported(raw: Path, tmp_path: Path) -> None:
    """Clips that are too high or too deep are not lost without a word."""
    for place in ("top.mp4", "train/high.mp4", "train/hello/slow/er/deep.mp4"):
        (raw / place).parent.mkdir(exist_ok=True)
        write_clip(raw / place, grey_levels(3))
    failures = run(raw, tmp_path / "out")
    assert [failure.partition(": ")[0] for failure in failures] == [
        str(raw / place) for place in ("top.mp4", "train/hello/slow/er/deep.mp4", "train/high.mp4")
    ]
    assert all("Move it." in failure for failure in failures)


def test_files_of_other_clips_are_kept_with_a_warning(raw: Path, tmp_path: Path) -> None:
    """A file whose clips are gone would be read by predict, so it is named."""
    run(raw, tmp_path / "out")
    for path in (raw / "train/hello/slow").iterdir():
        path.unlink()
    with pytest.warns(UserWarning, match=r"1 files are of other clips.*hello/slow"):
        run(raw, tmp_path / "out")
    assert (tmp_path / "out/train/hello/slow/processed_data.pt").exists()


def test_a_name_that_is_not_utf8(raw: Path, tmp_path: Path) -> None:
    """A clip whose name a feature file cannot hold is left out, and reported."""
    os.rename(raw / "test/bye/c.mov", os.fsencode(raw / "test/bye/c") + b"\xff.mov")
    (failure,) = run(raw, tmp_path / "out")
    assert "expected a name in UTF-8" in failure
    failure.encode()


def test_an_unexpected_error_costs_one_clip(raw: Path, tmp_path: Path) -> None:
    """A clip of an unknown codec is left out like any other that does not decode."""
    path = raw / "train/hello/2.mp4"
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzzz"))
    (failure,) = run(raw, tmp_path / "out")
    assert failure.startswith(f"{path}: expected a clip that decodes, found: ")
    assert (tmp_path / "out/train/hello/hello/processed_data.pt").exists()


NAMES = ["josé", "Ⱥ", "日本語", "café", "cafe\u0301", "😀", "ä b", "ελ'\"λ"]


def test_names_that_are_not_ascii(tmp_path: Path) -> None:
    """Any folder, category, subcategory and clip may have one, and the bytes stay the same."""
    raw, plain, out = tmp_path / "raw", tmp_path / "plain", tmp_path / "sortie é" / "日本"
    for number, name in enumerate(NAMES):
        for path in (
            raw / "train" / name / name / f"{name}.mp4",
            plain / f"train/{number}/a/a.mp4",
        ):
            path.parent.mkdir(parents=True)
            write_clip(path, grey_levels(7) // 2 + number)
    assert run(raw, out) == run(plain, tmp_path / "out") == []
    manifest = scan(out)
    assert {*manifest.categories} == {unicodedata.normalize("NFC", name) for name in NAMES}
    assert len(manifest.categories) == len(NAMES) - 1
    assert {*manifest.video_ids("train")} == {f"train/{n}/{n}/{n}.mp4" for n in NAMES}
    for number, name in enumerate(NAMES):
        found = torch.load(out / "train" / name / name / "processed_data.pt")
        expected = torch.load(tmp_path / f"out/train/{number}/a/processed_data.pt")
        assert torch.equal(found["videos"], expected["videos"])
        assert found["clips"] == [f"train/{name}/{name}/{name}.mp4"]
    assert run(raw, out) == []  # all are up to date


def test_the_place_of_a_file_leaves_no_trace(raw: Path, tmp_path: Path) -> None:
    """torch.save would name what is inside after the path, or not, if that is not ASCII."""
    for out in ("a", "é"):
        run(raw, tmp_path / out)
    paths = sorted((tmp_path / "a").rglob("processed_data.pt"))
    assert len(paths) == 4
    for path in paths:
        other = tmp_path / "é" / path.relative_to(tmp_path / "a")
        assert path.read_bytes() == other.read_bytes()


def test_damaged_clips_are_kept_if_asked(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are listed in the file; by default they are left out, and reported."""
    path = raw / "train/hello/10.mkv"
    write_clip(path, grey_levels(60))
    path.write_bytes(path.read_bytes()[:-800])
    (failure,) = run(raw, tmp_path / "out")
    assert f"{path}: expected a whole clip, found " in failure
    counted = json.loads((tmp_path / "out/configuration_analysis.json").read_text())["scan"]
    assert counted["videos"] == {"test": 1, "train": 3}  # the one that is left out does not count
    assert counted["rejected"] == {"test": 0, "train": 1}
    target = tmp_path / "out/train/hello/hello/processed_data.pt"
    assert torch.load(target)["clips"] == ["train/hello/2.mp4"]
    assert run(raw, tmp_path / "out", keep_damaged=True) == []
    kept = torch.load(target)
    assert kept["clips"] == ["train/hello/10.mkv", "train/hello/2.mp4"]
    assert [bool(damage) for damage in kept["damage"]] == [True, False]
    [file] = [file for file in scan(tmp_path / "out").files if file.path == str(target)]
    assert [file.read(index).damage for index in (0, 1)] == kept["damage"]
    assert len(run(raw, tmp_path / "out")) == 1
    assert "damage" not in torch.load(target)


def test_the_summary(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It ends with what it took and left out, and which clips are shown otherwise."""
    encode(raw / "train/hello/tv.mkv", "libx264", options={"x264-params": "tff=1"})
    run(raw, tmp_path / "out")
    lines = capsys.readouterr().err.splitlines()
    assert f"{raw}: 6 videos, 2 categories: test 1, train 5" in lines
    assert f"{raw}: left out: 1 of .txt: train/hello/notes.txt" in lines
    assert lines[-1] == (
        f"{raw}: 1 interlaced: train/hello/tv.mkv. Like ffmpeg, featx leaves their fields as they "
        "are woven"
    )


@pytest.mark.filterwarnings("ignore:.*categories have no videos:UserWarning")
def test_sizes_that_are_mixed(raw: Path, tmp_path: Path) -> None:
    """After a run with another size was stopped midway, the record is not true: that is told."""
    out = tmp_path / "out"
    run(raw, out)
    shutil.copytree(out / "train/bye", tmp_path / "kept")
    preprocess(raw, out, num_frames=6, image_size=24)
    shutil.rmtree(out / "train/bye")
    (tmp_path / "kept").rename(out / "train/bye")
    manifest = scan(out)
    assert manifest.untrue == {"image_size": [24, 24]}
    assert manifest.preprocessing()["image_size"] is None
    assert manifest.preprocessing()["frames_per_video"] == 6
    assert manifest.preprocessing("test")["image_size"] == [24, 24]
    with pytest.warns(
        UserWarning, match=r"found image_size \[24, 24\], of which some have another"
    ):
        VideoDataModule(out).setup("predict")


def test_a_clip_more_leaves_the_others_what_they_are(raw: Path, tmp_path: Path) -> None:
    """Each video is known by its own pixels, whatever else is in the file."""
    out = tmp_path / "processed"
    run(raw, out)
    before = scan(out, ["train"])
    known = dict(zip(before.video_ids("train"), before.identities("train"), strict=True))
    assert len({*known.values()}) == 4
    write_clip(raw / "train" / "hello" / "3.mp4", grey_levels(12))
    (raw / "train" / "hello" / "2.mp4").rename(raw / "train" / "bye" / "x" / "z.mp4")
    run(raw, out)
    after = scan(out, ["train"])
    found = dict(zip(after.video_ids("train"), after.identities("train"), strict=True))
    assert found.pop("train/hello/3.mp4") not in known.values()
    assert found.pop("train/bye/x/z.mp4") == known.pop("train/hello/2.mp4")
    assert found == known


@pytest.mark.parametrize("stride", [None, 2])
def test_pixels_that_were_changed_since(raw: Path, tmp_path: Path, stride: int | None) -> None:
    """Whoever saves a file anew with other pixels, and its notes, has made other videos."""
    out = tmp_path / "processed"
    settings: dict[str, Any] = {"stride": stride} if stride else {"num_frames": 6}
    preprocess(raw, out, image_size=16, **settings)
    path = out / "train" / "hello" / "hello" / "processed_data.pt"
    data = torch.load(path, weights_only=True)
    before = scan(out, ["train"]).identities("train").tolist()
    torch.save(data, path)
    assert scan(out, ["train"]).identities("train").tolist() == before
    data["videos"][0][0, 0, 0, 0] ^= 1
    torch.save(data, path)
    after = scan(out, ["train"]).identities("train")
    changed = [first != second for first, second in zip(before, after, strict=True)]
    assert changed == [False, True, True, False]  # of the two, it is not known which one


def test_what_is_noted_of_a_video_is_part_of_it(raw: Path, tmp_path: Path) -> None:
    """Other times, other damage, or pixels that are read in another order make another one."""
    out = tmp_path / "processed"
    preprocess(raw, out, stride=2, image_size=16)
    path = out / "train" / "hello" / "slow" / "processed_data.pt"
    data = torch.load(path, weights_only=True)
    changes: list[dict[str, Any]] = [
        {"times": [[time + 1 for time in times] for times in data["times"]]},
        {"damage": ["half of it"]},
        {"videos": [video.transpose(-1, -2) for video in data["videos"]]},
    ]
    found: list[bytes] = []
    for change in ({}, *changes):
        torch.save(data | change, path)
        found.append(scan(out, ["train"]).identities("train")[-1])
    assert len({*found}) == 4
