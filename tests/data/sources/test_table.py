"""A table of videos: what its rows become, and what is wrong with some of them."""

import json
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import h5py
import numpy as np
import pytest
import torch
from clips import encode
from helpers import TINY_JOB
from torchvision.transforms.v2.functional import resize

import featx
from featx.cli import main
from featx.data.manifest import Manifest, ScanSettings
from featx.data.media.clip import Opened, open_clip
from featx.data.media.preprocessing import Preprocessing
from featx.data.sources import table as table_source
from featx.data.sources.table import scan_table
from featx.errors import FeatxError, InputError, MissingInputError, UsageError

SIZE = 24
CLIPS: dict[str, dict[str, Any]] = {
    "b frames.mp4": {"codec": "libx264", "options": {"x264-params": "keyint=20:bframes=3"}},
    "late.mkv": {"codec": "libx264", "start": 50},
    "variable.mp4": {"codec": "libx264", "times": [n * n // 2 + n for n in range(60)]},
    "slow.mp4": {"codec": "libx264", "rate": 2, "count": 8},
    "no times.avi": {"codec": "libx264", "options": {"x264-params": "bframes=3"}},
    "packed.avi": {"codec": "mpeg4", "b_frames": 2},
}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of several kinds, of 48 x 64 pixels."""
    folder = tmp_path_factory.mktemp("clips")
    for name, settings in CLIPS.items():
        encode(folder / name, **{"count": 60} | settings)
    return folder


def decode(path: Path) -> tuple[list[torch.Tensor], list[Fraction]]:
    """All frames of a clip, and when each begins: the reference, a plain loop."""
    with av.open(path) as container:
        frames = [*container.decode(video=0)]
        begin = Fraction(container.start_time or 0, av.time_base)
    images = [torch.from_numpy(f.to_ndarray(format="rgb24")).permute(2, 0, 1) for f in frames]
    # In order: of AVI, FFmpeg guesses which frame of several is shown when.
    ticks = sorted(frame.pts or 0 for frame in frames)
    unit = Fraction(frames[0].time_base or 1)
    return images, [tick * unit - begin for tick in ticks]


def shrink(image: torch.Tensor) -> torch.Tensor:
    """To the size of the videos here."""
    resized: torch.Tensor = resize(image, [SIZE, SIZE], antialias=True)
    return resized


def scan(
    folder: Path, rows: str, sampling: tuple[int | None, int | None, float | None] = (8, None, None)
) -> Manifest:
    """The videos of a table, a CSV that is written into a folder."""
    (folder / "table.csv").write_text(rows)
    preprocessing = Preprocessing.choose(*sampling, image_size=SIZE)
    table = folder / "table.csv"
    return scan_table(ScanSettings(folder, preprocessing=preprocessing, table=table))


def read(manifest: Manifest) -> list[torch.Tensor]:
    """The pixels of all videos."""
    return [file.read(0).frames for file in manifest.files]


@pytest.mark.parametrize("name", CLIPS)
@pytest.mark.parametrize(
    ("start", "end"), [("0.5", "1.3"), ("0.513", "1.297"), ("", "0.9"), ("1", "")]
)
def test_a_segment_is_its_frames_cut_out(clips: Path, name: str, start: str, end: str) -> None:
    """From the frame on the screen at its start to the last that begins before its end."""
    images, times = decode(clips / name)
    begin, until = Fraction(start or 0), Fraction(end) if end else Fraction(10**6)
    first = max((number for number, time in enumerate(times) if time <= begin), default=0)
    wanted = [n for n, time in enumerate(times) if n >= first and time < until]
    manifest = scan(clips, f"path,start,end\n{name},{start},{end}\n", sampling=(None, 1, None))
    assert manifest.lengths.tolist() == [len(wanted)]
    video = manifest.files[0].read(0)
    assert torch.equal(video.frames, torch.stack([shrink(images[n]) for n in wanted]))
    assert video.times is not None
    np.testing.assert_allclose(video.times, [float(times[n]) for n in wanted], atol=1e-3)


@pytest.mark.parametrize("name", CLIPS)
def test_a_segment_in_frames(clips: Path, name: str) -> None:
    """From 0, the end excluded; a number may have a point, as a column with gaps has it."""
    images, _ = decode(clips / name)
    manifest = scan(clips, f"path,start_frame,end_frame\n{name},2,7\n{name},,3.0\n{name},5.0,\n")
    numbers = [np.linspace(a, b, 8).astype(int) for a, b in ((2, 6), (0, 2), (5, len(images) - 1))]
    for found, wanted in zip(read(manifest), numbers, strict=True):
        assert torch.equal(found, torch.stack([shrink(images[n]) for n in wanted]))


def test_a_box_is_cut_out(clips: Path) -> None:
    """Before the frame is resized."""
    images, _ = decode(clips / "slow.mp4")
    rows = "path,left,top,right,bottom\nslow.mp4,3,5,40,30\nslow.mp4,,,,\nslow.mp4,0,0,64.0,48\n"
    cut, whole, same = read(scan(clips, rows))
    assert torch.equal(cut, torch.stack([shrink(image[:, 5:30, 3:40]) for image in images]))
    assert torch.equal(whole, same)


def test_what_a_row_is_called(clips: Path) -> None:
    """By its id; or by its path, and by what is taken of it."""
    rows = (
        "path,id,start,end,start_frame,end_frame,left,top,right,bottom\n"
        "slow.mp4,mine,,,,,,,,\n"
        "slow.mp4,,,,,,,,,\n"
        "slow.mp4,,,,,,,,,\n"
        "slow.mp4,,0.50,2,,,,,,\n"
        "slow.mp4,,1,,,,1,2,11,22\n"
        "slow.mp4,,,,2,,,,,\n"
        "slow.mp4,slow.mp4 (3),,,,,,,,\n"
        "slow.mp4,,,,,,,,,\n"
    )
    assert scan(clips, rows).video_ids("all") == [
        "mine",
        "slow.mp4",
        "slow.mp4 (2)",
        "slow.mp4#t=0.5,2",
        "slow.mp4#t=1&xywh=1,2,10,20",
        "slow.mp4#frame=2",
        "slow.mp4 (3)",
        "slow.mp4 (4)",
    ]


def test_order_splits_and_labels(clips: Path) -> None:
    """Rows keep their order within a split; names are numbered in theirs, over all splits."""
    rows = (
        "path,split,label\nslow.mp4,dev,b\nlate.mkv,train,c\nslow.mp4,train,a\n"
        "variable.mp4,dev,a\nlate.mkv,train,c\n"
    )
    manifest = scan(clips, rows)
    assert [*manifest.positions] == ["dev", "train"]
    assert manifest.categories == {"a": 0, "b": 1, "c": 2}
    assert manifest.labels("train").tolist() == [2, 0, 2]
    assert manifest.video_ids("train") == ["late.mkv", "slow.mp4", "late.mkv (2)"]
    assert manifest.labels("dev").tolist() == [1, 0]
    chosen = scan(clips, rows)
    assert chosen.identities("dev").tolist() == manifest.identities("dev").tolist()


def test_integers_stay_the_labels_that_they_are(clips: Path) -> None:
    """Be there gaps between them or not; -1 is none."""
    manifest = scan(clips, "path,label\nslow.mp4,10\nslow.mp4,2.0\nslow.mp4,-1\n")
    assert manifest.labels("all").tolist() == [10, 2, -1]
    assert manifest.categories == {"2": 2, "10": 10}


def test_without_labels(clips: Path) -> None:
    """All are -1, and there is no category."""
    manifest = scan(clips, "path\nslow.mp4\nlate.mkv\n")
    assert manifest.labels("all").tolist() == [-1, -1]
    assert manifest.categories == {}


def test_other_columns_are_kept(clips: Path, tmp_path: Path, tiny: None) -> None:
    """In the file and in the items of a dataset, text and numbers, row by row."""
    rows = 'path,gloss,signer,age,a/b,\nslow.mp4,"ÜBER, das",anna,31,x,0\nlate.mkv,,ben,,y,1\n'
    (clips / "table.csv").write_text(rows)
    job: Any = TINY_JOB | {"table": clips / "table.csv", "num_frames": 4, "image_size": 16}
    paths = featx.extract(None, tmp_path, **job)
    with h5py.File(paths["all"]) as file:
        columns = {name: column[:].tolist() for name, column in file["columns"].items()}
        assert columns["gloss"] == ["ÜBER, das".encode(), b""]
        assert "times" not in file  # there are several scales
    dataset = featx.FeatureDataset(paths["all"])
    assert dataset[0].columns == {"gloss": "ÜBER, das", "signer": "anna", "age": 31.0, "a_b": "x"}
    assert dataset[1].columns["signer"] == "ben"
    assert np.isnan(dataset[1].columns["age"])
    _, label, _, video_id = dataset[1]  # four, as ever
    assert (label, video_id) == (-1, "late.mkv")


WRONG: dict[str, tuple[str, str]] = {
    "a missing path": ("path\nslow.mp4\nnone.mp4\n", "table.csv:3: .*none.mp4: expected a clip or"),
    "an empty path": ("path,label\n,a\nslow.mp4,a\n", "table.csv:2: expected a path, found none"),
    "an empty label": ("path,label\nslow.mp4,\n", "table.csv:2: expected a label, found none"),
    "two ids": (
        "path,id\nslow.mp4,x\nslow.mp4,y\nslow.mp4,x\n",
        "table.csv:4: expected an id of its own, found 'x', which table.csv:2 has",
    ),
    "no split": (
        "path,split\nslow.mp4,a\nslow.mp4,\n",
        "table.csv:3: expected the name of a split",
    ),
    "a split that is a path": (
        "path,split\nslow.mp4,a\nslow.mp4,../b\n",
        "table.csv:3: expected the name of a split, found '../b'",
    ),
    "an end before its start": (
        "path,start,end\nslow.mp4,2,1.5\n",
        "table.csv:2: expected end after 2, where the segment begins, found 1.5",
    ),
    "too many fields": (
        "path,label\nslow.mp4,a\nslow.mp4,a,b\n",
        "table.csv:3: expected 2 fields, as the first line has, found 3",
    ),
    "an endless range": ("path,end_frame\nslow.mp4,inf\n", "table.csv:2: expected the number of"),
    "a path that is too long": (f"path\n{'x' * 5000}\n", "table.csv:2: .*File name too long"),
    "a label below -1": ("path,label\nslow.mp4,-5\n", "table.csv:2: expected a label of 0 or"),
    "no time": ("path,start\nslow.mp4,soon\n", "table.csv:2: expected seconds in start.*'soon'"),
    "a negative time": ("path,end\nslow.mp4,-1\n", "table.csv:2: expected seconds in end.*'-1'"),
    "a start beyond the clip": (
        "path,start\nslow.mp4,4\n",
        "table.csv:2: expected start within the 4 s of .*slow.mp4, found 4",
    ),
    "an end beyond the clip": (
        "path,end\nslow.mp4,4.6\n",
        "table.csv:2: expected end within the 4 s of .*slow.mp4, found 4.6",
    ),
    "a frame beyond the clip": (
        "path,end_frame\nslow.mp4,9\n",
        "table.csv:2: expected end_frame within the 8 frames of .*slow.mp4, found 9",
    ),
    "a first frame beyond the clip": (
        "path,start_frame\nslow.mp4,8\n",
        "table.csv:2: expected start_frame within the 8 frames of .*slow.mp4, found 8",
    ),
    "half a frame": ("path,start_frame\nslow.mp4,1.5\n", "table.csv:2: expected the number of a"),
    "an empty range": (
        "path,start_frame,end_frame\nslow.mp4,3,3\n",
        "table.csv:2: expected end_frame after 3, where the segment begins, found 3",
    ),
    "seconds and frames": (
        "path,start,end_frame\nslow.mp4,1,3\n",
        "table.csv:2: expected a segment in seconds or in frames, found both",
    ),
    "a box outside": (
        "path,left,top,right,bottom\nslow.mp4,0,0,65,48\n",
        "table.csv:2: expected a box in the frame of 64 x 48 pixels, found .*right 65",
    ),
    "a box without an inside": (
        "path,left,top,right,bottom\nslow.mp4,5,5,5,9\n",
        "table.csv:2: expected a box with an inside, found left 5",
    ),
    "half a box": (
        "path,left,top,right,bottom\nslow.mp4,5,5,,\n",
        "table.csv:2: expected left, top, right and bottom of a box, found no right, bottom",
    ),
    "a box of words": (
        "path,left,top,right,bottom\nslow.mp4,a,b,c,d\n",
        "table.csv:2: expected pixels of a box, found left 'a'",
    ),
    "a clip that is none": ("path\ntable.csv\n", "table.csv:2: .*expected a clip that decodes"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_with_a_row(clips: Path, tmp_path: Path, case: str) -> None:
    """One line that names the row, what was expected and found, and the way out."""
    rows, message = WRONG[case]
    with pytest.raises(InputError, match=message) as caught:
        scan(clips, rows)
    [line] = [line for line in str(caught.value).splitlines() if re.search(message, line)]
    assert re.search(r"\. [A-Z].*\.$", line)


def test_bad_rows_are_told_together_or_left_out(
    clips: Path, tmp_path: Path, tiny: None, capfd: pytest.CaptureFixture[str]
) -> None:
    """Each on a line; nothing is written. Or listed in the file, which has the others."""
    rows = "path,label,end\nslow.mp4,a,\nnone.mp4,a,\nslow.mp4,,\nslow.mp4,b,99\nlate.mkv,b,\n"
    (clips / "table.csv").write_text(rows)
    out = tmp_path / "out"
    job: Any = TINY_JOB | {"table": clips / "table.csv", "num_frames": 4, "image_size": 16}
    with pytest.raises(InputError) as caught:
        featx.extract(None, out, **job)
    for line in (3, 4, 5):
        assert f"\ntable.csv:{line}: " in str(caught.value)
    assert not [*out.rglob("*.h5")]
    paths = featx.extract(None, out, on_error="skip", **job)
    with h5py.File(paths["all"]) as file:
        assert file["video_ids"][:].tolist() == [b"slow.mp4", b"late.mkv"]
        assert json.loads(file.attrs["skipped"]).keys() == {
            "table.csv:3",
            "table.csv:4",
            "table.csv:5",
        }


def test_a_wrong_root_is_not_a_flood_of_errors(clips: Path) -> None:
    """Of many bad rows, the first ones are told, and how many there are."""
    rows = "".join(f"nowhere/{number}.mp4\n" for number in range(500))
    with pytest.raises(InputError) as caught:
        scan(clips, f"path\n{rows}")
    lines = str(caught.value).splitlines()
    assert len(lines) == 202
    assert "found 500 others" in lines[0]
    assert "set root to the folder that paths are relative to" in lines[1]
    assert lines[-1] == "... and 300 more"


def test_mixed_labels(clips: Path) -> None:
    """Whether they are names or numbers cannot be told."""
    rows = "path,label\nslow.mp4,1\nslow.mp4,2\nslow.mp4,two\n"
    found = r"table\.csv:4: expected integers as labels, as table\.csv:2 has, found 'two'"
    with pytest.raises(InputError, match=found):
        scan(clips, rows)


def test_splits_that_are_not_there(clips: Path) -> None:
    """What there is, is listed."""
    rows = "path,split\nslow.mp4,train\nslow.mp4,dev\n"
    (clips / "table.csv").write_text(rows)
    data = featx.VideoDataModule(None, ["val"], table=clips / "table.csv")
    with pytest.raises(MissingInputError, match=r"the split 'val', found train, dev. Choose"):
        data.setup("predict")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "root: expected the data set's folder, found none"),
        ({"table": "t.csv", "layout": "flat"}, "layout: expected tree with a table, found flat"),
        ({"root": "r", "layout": "flat"}, "layout: expected tree with the source processed"),
        ({"root": "r", "columns": {"path": "x"}}, "columns: expected a table that has them"),
        (
            {"table": "t.csv", "verify_inputs": True},
            "verify_inputs: expected false with the source",
        ),
        ({"table": "t.csv", "stride": 2, "fps": 5}, "stride and fps: expected one way of sampling"),
    ],
)
def test_settings_that_do_not_fit(settings: dict[str, Any], message: str) -> None:
    """They are refused at once."""
    with pytest.raises(UsageError, match=message):
        featx.VideoDataModule(**settings)


def test_a_lower_rate_than_asked_for_is_said_once(clips: Path) -> None:
    """Frames repeat, as often as it takes."""
    manifest = scan(clips, "path\nslow.mp4\nslow.mp4\nb frames.mp4\n", sampling=(None, None, 20))
    assert manifest.lengths.tolist() == [80, 80, 48]
    assert manifest.summary
    [line] = [line for line in manifest.summary.to_lines() if "lower frame rate" in line]
    assert line.startswith("2 of a lower frame rate than fps: slow.mp4")
    assert line.endswith("featx repeats their frames")


def test_before_the_first_frame(clips: Path) -> None:
    """A segment of sound alone shows the first frame: nothing else is there to be shown."""
    with av.open(clips / "sound first.mkv", "w") as output:
        video: Any = output.add_stream("libx264", rate=25)
        video.height, video.width, video.pix_fmt = 48, 64, "yuv420p"
        audio: Any = output.add_stream("aac", rate=44100)
        silence = av.AudioFrame.from_ndarray(
            np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
        )
        silence.sample_rate, silence.pts, silence.time_base = 44100, 0, Fraction(1, 44100)
        output.mux(audio.encode(silence))
        for number in range(10):
            frame = av.VideoFrame.from_ndarray(
                np.full((48, 64, 3), 20 * number, np.uint8), format="rgb24"
            )
            frame.pts, frame.time_base = 25 + number, Fraction(1, 25)
            output.mux(video.encode(frame))
        output.mux(audio.encode())
        output.mux(video.encode())
    rows = "path,start,end\nsound first.mkv,0,0.5\nsound first.mkv,1.05,1.1\n"
    for sampling in ((None, 1, None), (None, None, 25.0)):
        manifest = scan(clips, rows, sampling)
        first, second = (file.read(0) for file in manifest.files)
        assert len(first.frames) == 1
        assert first.frames.max() < 10
        assert first.times is not None
        assert second.times is not None
        assert abs(first.times[0] - 1) < 0.05
        assert abs(second.times[0] - 1.04) < 0.05


def test_many_rows_of_few_clips(clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each clip is opened once."""
    opened: list[str] = []

    def open_and_tell(path: str, *args: Any, **settings: Any) -> Opened:  # noqa: ANN401
        opened.append(path)
        return open_clip(path, *args, **settings)

    monkeypatch.setattr(table_source, "open_clip", open_and_tell)
    rows = "".join(f"slow.mp4,{n / 500},{n / 500 + 1}\nlate.mkv,0,1\n" for n in range(500))
    manifest = scan(clips, f"path,start,end\n{rows}")
    assert len(manifest) == 1000
    assert sorted(Path(path).name for path in opened) == ["late.mkv", "slow.mp4"]


def test_the_command_line(clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A bad table is one line and no traceback."""
    (clips / "table.csv").write_text("video,label\nslow.mp4,a\n")
    args = [
        "predict",
        "--data.table",
        str(clips / "table.csv"),
        "--writer.output_dir",
        str(tmp_path),
    ]
    args += ["--model.backbone=resnet50", "--model.weights=random", "--trainer.accelerator=cpu"]
    assert main(args) == 1
    [line] = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert "expected a column path, found the columns video, label" in line
    assert "columns: {path: video}" in line
    with pytest.raises(FeatxError):
        featx.extract(None, tmp_path, table=clips / "table.csv")
