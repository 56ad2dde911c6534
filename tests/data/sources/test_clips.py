"""Straight from clips: the same rows and numbers as by way of `featx preprocess`."""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import av
import h5py
import numpy as np
import pytest
from helpers import TINY_JOB, grey_levels

import featx
from featx import VideoDataModule
from featx.cli import main
from featx.commands.preprocess import preprocess
from featx.data.choices import OnError
from featx.data.manifest import Manifest, ScanSettings
from featx.data.media.clip import write_clip
from featx.data.media.decoder import Choose, Decoded, Make, decode
from featx.data.media.preprocessing import IMAGE_SIZE, NUM_FRAMES, Preprocessing
from featx.data.media.survey import OpenClip
from featx.data.sources.clips import scan_clips as scan_with
from featx.errors import ChangedInputError, InputError, MissingInputError, UsageError

pytestmark = [
    pytest.mark.usefixtures("tiny"),
    pytest.mark.filterwarnings("ignore:.*categories have no videos. hello:UserWarning"),
]


def scan_clips(
    root: Path,
    splits: Sequence[str] | None = None,
    on_error: OnError = "stop",
    num_frames: int = NUM_FRAMES,
    image_size: int = IMAGE_SIZE,
) -> Manifest:
    """The videos of a folder of clips."""
    return scan_with(
        ScanSettings(root, splits, on_error, False, Preprocessing(num_frames, image_size))
    )


def extract(root: Path, out: Path, **settings: object) -> dict[str, Path]:
    """The whole job, small."""
    return featx.extract(root, out, **(TINY_JOB | settings))  # type: ignore[arg-type]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_same_rows_and_numbers(raw: Path, tmp_path: Path, num_workers: int) -> None:
    """Every dataset is equal to the last bit, and so is the structure that is reported.

    But for what rows are said to be made of: of a clip, or of pixels.
    """
    (raw / "train" / "empty").mkdir()  # of this, preprocess makes nothing
    assert preprocess(raw, tmp_path / "processed", num_frames=6, image_size=16) == []
    by_way = extract(tmp_path / "processed", tmp_path / "a")
    straight = extract(
        raw,
        tmp_path / "b",
        source="clips",
        num_frames=6,
        image_size=16,
        num_workers=num_workers,
    )
    assert by_way.keys() == straight.keys() == {"train", "test"}
    for split, path in by_way.items():
        with h5py.File(path) as expected, h5py.File(straight[split]) as found:
            assert expected.keys() == found.keys()
            for name in {*expected} - {"input_sha256"}:
                assert np.array_equal(expected[name][:], found[name][:])
            assert expected.attrs["category_mapping"] == found.attrs["category_mapping"]
    first, second = (
        json.loads((tmp_path / name / "configuration_analysis.json").read_text()) for name in "ab"
    )
    assert first.pop("scan")["videos"] == second.pop("scan")["videos"] == {"train": 4, "test": 1}
    assert first == second


def test_from_the_command_line(raw: Path, tmp_path: Path) -> None:
    """`--data.source clips`, and a rerun finds everything done."""
    args = ["predict", "--data.root", str(raw), "--data.source", "clips"]
    args += ["--data.num_frames", "5", "--data.image-size", "16", "--model.backbone", "resnet50"]
    args += ["--model.weights", "random", "--trainer.accelerator", "cpu"]
    args += ["--writer.output_dir", str(tmp_path / "features")]
    assert main(args) == 0
    path = tmp_path / "features" / "train_features_multiscale.h5"
    before = path.stat().st_mtime_ns
    assert main(args) == 0
    assert path.stat().st_mtime_ns == before


def test_the_splits_asked_for(raw: Path) -> None:
    """In the order asked for, with one mapping for all."""
    manifest = scan_clips(raw, ["test", "train"], num_frames=6, image_size=16)
    assert [*manifest.positions] == ["test", "train"]
    assert manifest.categories == {"bye": 0, "hello": 1}
    assert manifest.video_ids("test") == ["test/bye/c.mov"]
    with pytest.raises(MissingInputError, match="expected a folder for the split 'val'"):
        scan_clips(raw, ["val"])
    (raw / "val" / "bye").mkdir(parents=True)
    with pytest.raises(MissingInputError, match=r"val: expected clips at <category>/"):
        scan_clips(raw, ["train", "val"])


def test_bad_clips_are_found_before_the_first_forward_pass(raw: Path, tmp_path: Path) -> None:
    """All together, with their names; or they are left out, and listed in the file."""
    (raw / "train" / "bye" / "x" / "text.mp4").write_text("hello")
    (raw / "train" / "lost.mp4").write_text("hello")
    with pytest.raises(InputError) as caught:
        scan_clips(raw, num_frames=6, image_size=16)
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert "found 2 others. Fix or remove them" in lines[0]
    assert "text.mp4: expected a clip that decodes, found: " in lines[1]
    assert "lost.mp4: expected clips at <split>/<category>/" in lines[2]
    paths = extract(
        raw, tmp_path / "out", source="clips", num_frames=6, image_size=16, on_error="skip"
    )
    with h5py.File(paths["train"]) as file:
        assert file.attrs["num_videos"] == 4
        assert json.loads(file.attrs["skipped"]).keys() == {
            "train/bye/x/text.mp4",
            "train/lost.mp4",
        }


def test_folders_that_cannot_be_read(raw: Path, tmp_path: Path) -> None:
    """A link without a target is told, by its name, or left out; `preprocess` goes on without."""
    (raw / "train" / "bye" / "gone").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match="gone: expected a folder, found a link without a target"):
        scan_clips(raw, num_frames=6, image_size=16)
    manifest = scan_clips(raw, on_error="skip", num_frames=6, image_size=16)
    assert [*manifest.rejected["train"]] == ["train/bye/gone"]
    [failure] = preprocess(raw, tmp_path / "out", num_frames=6, image_size=16)
    assert "gone: expected a folder" in failure


def test_a_clip_that_opens_but_does_not_decode(raw: Path, tmp_path: Path) -> None:
    """It is found when its turn comes, and told or left out."""
    path = raw / "train" / "bye" / "x" / "b.MP4"
    write_clip(path, grey_levels(8), "mpeg4")
    content = bytearray(path.read_bytes())
    start = content.index(b"mdat") + 4
    size = int.from_bytes(content[start - 8 : start - 4], "big") - 8
    content[start : start + size] = bytes(size)
    path.write_bytes(content)
    assert len(scan_clips(raw, ["train"])) == 4
    settings = {"source": "clips", "num_frames": 6, "image_size": 16}
    with pytest.raises(InputError, match=r"b\.MP4: expected"):
        extract(raw, tmp_path / "a", **settings)
    paths = extract(raw, tmp_path / "b", **settings, on_error="skip")
    with h5py.File(paths["train"]) as file:
        assert json.loads(file.attrs["skipped"]).keys() == {"train/bye/x/b.MP4"}
        assert file["video_ids"].asstr()[:].tolist() == [
            "train/hello/10.mkv",
            "train/hello/2.mp4",
            "train/hello/slow/a.avi",
        ]


def test_a_clip_that_changes_on_the_way(raw: Path, tmp_path: Path) -> None:
    """Another clip in its place is not taken for it; its copy is, whatever its time of change.

    A clip of which nobody knows the content is the one that was scanned only if its time says so.
    """
    manifest = scan_clips(raw, ["train"], num_frames=6, image_size=16)
    unread, _ = manifest.locate(0)
    manifest.find_digests("train", [0])
    file, _ = manifest.locate(0)
    assert unread.digest == "" != file.digest
    expected = file.read(0).frames
    assert np.array_equal(unread.read(0).frames, expected)
    copy = shutil.copy(file.path, tmp_path / "copy")
    os.utime(copy, (0, 0))
    os.replace(copy, file.path)
    assert np.array_equal(file.read(0).frames, expected)
    with pytest.raises(ChangedInputError, match="expected the clip that was scanned"):
        unread.read(0)
    write_clip(Path(file.path), grey_levels(10))
    with pytest.raises(ChangedInputError, match="expected the clip that was scanned"):
        file.read(0)
    Path(file.path).unlink()
    with pytest.raises(ChangedInputError, match="expected a readable clip"):
        file.read(0)


def test_a_clip_that_changes_while_it_is_read(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its frames are not taken for those of what was digested."""
    file, _ = scan_clips(raw, ["train"], num_frames=6, image_size=16).locate(0)

    def write_and_decode(clip: OpenClip, choose: Choose, make: Make, whole: bool) -> Decoded:
        write_clip(Path(str(clip.source)), grey_levels(10))
        return decode(clip, choose, make, whole)

    monkeypatch.setattr("featx.data.media.clip.decode", write_and_decode)
    with pytest.raises(ChangedInputError, match="expected the clip that was scanned"):
        file.read(0)


def test_every_byte_counts(raw: Path) -> None:
    """A change in the middle of a clip makes it another one."""
    path = raw / "train" / "hello" / "slow" / "a.avi"
    digests = []
    for _ in range(2):
        [file] = [f for f in scan_clips(raw, ["train"]).files if f.path == str(path)]
        digests.append(file.find_digest().digest)
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    assert digests[0] != digests[1]


def test_what_is_no_split_does_not_matter(raw: Path, tmp_path: Path) -> None:
    """A link without a target beside the splits, or clips elsewhere in the root."""
    (raw / "lost").symlink_to(tmp_path / "nowhere")
    (raw / "other" / "x").mkdir(parents=True)
    (raw / "other" / "x" / "text.mp4").write_text("hello")
    manifest = scan_clips(raw, num_frames=6, image_size=16)
    assert (len(manifest), manifest.rejected) == (5, {"train": {}, "test": {}})


def test_a_fault_of_the_disk_is_not_one_of_the_clip(
    raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `skip`, a clip is left out for what is in it, not because the disk is away."""
    file, _ = scan_clips(raw, ["train"], num_frames=6, image_size=16).locate(0)

    def fail(path: Path, **settings: object) -> None:
        raise av.error.OSError(5, "Input/output error", str(path))

    monkeypatch.setattr("featx.data.media.clip.av.open", fail)
    with pytest.raises(ChangedInputError, match="expected a readable clip, found: Input/output er"):
        file.read(0)


def test_other_clips_or_settings_never_mix(raw: Path, tmp_path: Path) -> None:
    """Another number of frames is refused, by its name; another clip is another row."""
    settings = {"source": "clips", "num_frames": 6, "image_size": 16, "splits": ["test"]}
    extract(raw, tmp_path / "out", **settings)
    found = "num_frames is 7 instead of 6. Set overwrite"
    with pytest.raises(featx.FeatxError, match=found):
        extract(raw, tmp_path / "out", **(settings | {"num_frames": 7}))
    write_clip(raw / "test" / "bye" / "c.mov", grey_levels(11))
    path = extract(raw, tmp_path / "out", **settings)["test"]
    fresh = extract(raw, tmp_path / "fresh", **settings)["test"]
    assert path.read_bytes() == fresh.read_bytes()


def test_wrong_settings(raw: Path) -> None:
    """They are refused at once."""
    with pytest.raises(UsageError, match="source: expected processed or clips or frames, found"):
        VideoDataModule(raw, source="video")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="expected false with the source clips, found true"):
        VideoDataModule(raw, source="clips", verify_inputs=True)
    with pytest.raises(UsageError, match="num_frames: expected 1 or more, found 0"):
        VideoDataModule(raw, source="clips", num_frames=0)


def test_a_folder_named_like_a_clip(raw: Path) -> None:
    """It is a subcategory like any other."""
    (raw / "train/hello/a.mov").mkdir()
    write_clip(raw / "train/hello/a.mov/1.mp4", grey_levels(5))
    manifest = scan_clips(raw, num_frames=2, image_size=8)
    assert manifest.rejected == {"train": {}, "test": {}}
    assert "train/hello/a.mov/1.mp4" in manifest.video_ids("train")


def test_a_scan_reads_no_pictures(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the bytes nor the packets of a clip, as long as nobody has to know them."""

    def fail(*args: object) -> None:
        raise AssertionError("it was read")

    for name in ("demux_clip", "fetch", "file_sha256"):
        monkeypatch.setattr(f"featx.data.media.clip.{name}", fail)
    manifest = scan_clips(raw, num_frames=6, image_size=16)
    assert len(manifest) == 5
    assert {*manifest.identities("train")} == {b""}
    with pytest.raises(AssertionError, match="it was read"):
        manifest.locate(0)[0].read(0)


def test_a_clip_without_its_end(raw: Path, tmp_path: Path) -> None:
    """The index at the beginning of an mp4 tells that bytes are missing at its end."""
    path = raw / "train" / "hello" / "2.mp4"
    with (
        av.open(path) as source,
        av.open(tmp_path / "fast.mp4", "w", options={"movflags": "faststart"}) as target,
    ):
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    path.write_bytes((tmp_path / "fast.mp4").read_bytes()[:-100])
    with pytest.raises(InputError, match=r"2\.mp4: expected a whole clip, found \d+ bytes of the"):
        scan_clips(raw, num_frames=6, image_size=16)


@pytest.mark.usefixtures("tiny")
def test_damage_that_the_header_does_not_tell(raw: Path, tmp_path: Path) -> None:
    """It is found when the clip is read: an error then, or one clip less; the rest is safe."""
    path = raw / "train" / "hello" / "10.mkv"
    path.write_bytes(path.read_bytes()[:-300])
    job = {"source": "clips", "num_frames": 6, "image_size": 16}
    assert not scan_clips(raw, num_frames=6, image_size=16).rejected["train"]
    with pytest.raises(InputError, match=r"10\.mkv: expected a whole clip, found"):
        extract(raw, tmp_path / "out", **job)
    assert [*(tmp_path / "out" / ".featx").rglob("part-*.h5")]
    paths = extract(raw, tmp_path / "out", **job, on_error="skip")
    with h5py.File(paths["train"]) as file:
        assert json.loads(file.attrs["skipped"]).keys() == {"train/hello/10.mkv"}
        assert file.attrs["num_videos"] == 3
