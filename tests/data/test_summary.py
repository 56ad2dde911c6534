"""The end of a scan: what is used, and what is left out, is told; nothing goes without a word."""

import json
from pathlib import Path
from typing import Any

import av
import av.format
import pytest
from helpers import TINY_JOB, Save, grey_levels, random_videos

import featx
from featx.cli import main
from featx.data.manifest import ScanSettings
from featx.data.media.clip import write_clip
from featx.data.media.preprocessing import Preprocessing
from featx.data.sources.clips import CLIP_SUFFIXES, is_clip, scan_clips
from featx.data.sources.processed import scan_processed
from featx.data.summary import Examples, ScanSummary
from featx.data.tree import walk_files

SOUND = """
302 722 aa aa3 aac aax ac3 ac4 acm adp ads adts adx aea afc aif aifc aiff aix al alp amr ape
apl apm aptx aptxhd ast au avr bcstm bfstm binka bit bonk brstm c2 caf daud dfpwm dss dts
dtshd dtk eac3 ec3 flac fsb fwse g722 g723_1 g728 g729 genh gsm hca iamf ilbc ircam isma kvag
laf latm lbc lc3 loas m2a m4a m4b mac mca mka mlp mmf mp2 mp3 mpa mpc msbc msf mtaf musx nist
nsp oga ogg oma omg opus osq pcm pvf qoa ra rco redspark rka rsd rso sb sbc sdr2 sds sdx sf
shn sln son sox spdif sph spx ss2 str svag svs sw tak tco thd truehd tta tun ub ul uw vag vb
voc vpk vqe vqf vql w64 wa wady wav way wma wsaud wsd wv xmd xvag
"""
TEXT = """
ans aqt art asc ass avs diz ffmeta ice idf idx js jss lrc m3u8 mcc mks mpd mpl2 mpsub nfo pjs
rt sami sbg scc smi srt ssa stl sub sup ttml txt v vt vtt webvtt xml
"""
PICTURES = """
avif bmp dpx exr fits hdr heic heif ico im1 im24 im8 j2c j2k jls jp2 jpeg jpg jxl jxs ljpg
mpo pam pbm pcx pfm pgm pgmyuv phm pix png ppm qoi ras rs sgi sun sunras tga tif tiff vbn
wbmp webp xbm xface xwd y
"""
# Of games, of cameras, of formats without a header, or of something else mostly.
OTHERS = """
A64 a64 adf apc aud bin bitpacked bmv cdata cdg cdxl cgi chk cif cpk cvg dat epaf fap film flm
ifv imx ipu lvf mods moflex mvi mxg paf pdv qcif rcv rgb rsd sdns ser sga thp ty ty+ usm v210
xl xmv yop yuv yuv10
"""


def test_every_container_of_video() -> None:
    """Whatever FFmpeg demuxes or muxes by its suffix is a clip, or known to be something else."""
    known = {suffix.lstrip(".") for suffix in CLIP_SUFFIXES}
    others = {*f"{SOUND} {TEXT} {PICTURES} {OTHERS}".split()}
    assert known & others == set()
    missing = set()
    for name in av.format.formats_available:
        try:
            container = av.format.ContainerFormat(name)
        except ValueError:
            continue
        missing |= {suffix.strip() for suffix in container.extensions} - known - others
    assert missing == set()


DROPPED = (
    "m4v",
    "mpg",
    "ts",
    "flv",
    "wmv",
    "3gp",
    "gif",
    "ogv",
    "mts",
    "MP4",
    "Mov",
    "vob",
    "divx",
)


@pytest.mark.parametrize("suffix", DROPPED)
def test_clips_of_any_suffix(suffix: str) -> None:
    """In capitals, too; but not what is hidden."""
    assert is_clip(f"a.b.{suffix}")
    assert not is_clip(f".a.{suffix}")
    assert not is_clip(f"a.{suffix}.txt")


@pytest.fixture
def messy(root: Path, save: Save) -> Path:
    """A folder with everything that people have in theirs."""
    for place in ("train/a/x", "train/b/x", "val/a/x", "validation/a/x", "Train/a/x", "extra/a/x"):
        save(place, random_videos(2, 3))
    for name in (
        "README", "labels.csv", "train/a/x/notes.TXT", "train/a/x/more.txt", "train/a/x/.DS_Store",
        "train/a/x/._processed_data.pt", "train/a/Thumbs.db", "train/b/x/.processed_data.pt",
        "processed_data.pt", "train/b/x/deep/er/processed_data.pt", "train/a/x/old.pt",
    ):  # fmt: skip
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("x")
    (root / "__MACOSX/train/a").mkdir(parents=True)
    (root / "__MACOSX/train/a/._processed_data.pt").write_text("x")
    (root / "train/__MACOSX").mkdir()
    (root / "train/c").mkdir()
    (root / "train/.cache/x").mkdir(parents=True)
    (root / "train/.cache/x/processed_data.pt").write_text("x")
    return root


def summary_of(root: Path, **settings: Any) -> ScanSummary:  # noqa: ANN401
    """What a scan of processed files tells."""
    summary = scan_processed(ScanSettings(root, **settings)).summary
    assert summary
    return summary


def test_everything_is_told(messy: Path) -> None:
    """Files by kind, categories without a video, folders that look like splits; and no junk."""
    summary = summary_of(messy)
    assert summary.to_json() == {
        "files": {"train": 2, "val": 1},
        "videos": {"train": 4, "val": 2},
        "categories": 2,
        "rejected": {"train": 0, "val": 0},
        "left_out": {
            "hidden": {"count": 1, "examples": ["train/b/x/.processed_data.pt"]},
            "in no category of a split": {
                "count": 2,
                "examples": ["processed_data.pt", "train/b/x/deep/er/processed_data.pt"],
            },
            "of .csv": {"count": 1, "examples": ["labels.csv"]},
            "of .pt": {"count": 1, "examples": ["train/a/x/old.pt"]},
            "of .txt": {"count": 2, "examples": ["train/a/x/more.txt", "train/a/x/notes.TXT"]},
            "without a suffix": {"count": 1, "examples": ["README"]},
        },
        "categories_without_videos": {"train": ["c"], "val": ["b"]},
        "folders_not_asked_for": {"Train": 1, "extra": 1, "validation": 1},
        "folders_like_splits": ["Train", "validation"],
        "shown_otherwise": {},
    }
    lines = summary.to_lines()
    assert lines[0] == "6 videos in 3 files, 2 categories: train 4, val 2"
    assert "left out: 2 of .txt: train/a/x/more.txt, train/a/x/notes.TXT" in lines
    assert "categories without a video in val: b" in lines
    assert (
        "folders that look like splits, and were not asked for: Train (1), validation (1). "
        "To take them, too: --data.splits '[train,val,Train,validation]'"
    ) in lines
    assert "other folders, which were not asked for: extra (1)" in lines
    assert not any("MACOSX" in line or "DS_Store" in line for line in lines)


def test_what_is_asked_for_is_not_told(messy: Path) -> None:
    """Nor is a category that a person knows of."""
    summary = summary_of(messy, splits=["train", "val", "validation", "Train"])
    assert summary.split_like == []
    told = summary.to_lines(known_empty={split: ["a", "b", "c"] for split in summary.videos})
    assert not any("categories without" in line for line in told)


@pytest.mark.parametrize(
    "name",
    ["validation", "valid", "dev", "testing", "Train", "TEST", "eval", "held-out", "val2017"],
)
def test_what_looks_like_a_split(root: Path, save: Save, name: str) -> None:
    """By its name, and if there are inputs in it."""
    save("train/a/x", random_videos(1, 2))
    (root / "testdata").mkdir()
    save(f"{name}/a/x", random_videos(1, 2))
    assert summary_of(root).split_like == [name]


def test_many_are_counted(root: Path, save: Save) -> None:
    """Of each kind three examples, and how many more there are."""
    path = save("train/a/x", random_videos(1, 2))
    for number in range(1000):
        (path.parent / f"{number:04}.jpg").touch()
    [line] = [line for line in summary_of(root).to_lines() if line.startswith("left out")]
    places = ", ".join(f"train/a/x/000{n}.jpg" for n in range(3))
    assert line == f"left out: 1000 of .jpg: {places} and 997 more"
    assert str(Examples()) == ""


def test_links_around_are_walked_once(root: Path, save: Save) -> None:
    """A link to a folder above ends nowhere; one to itself is a file like any other."""
    save("train/a/x", random_videos(1, 2))
    (root / "train/a/up").symlink_to(root)
    (root / "train/a/self").symlink_to("self")
    names = ["/".join(parts) for parts in walk_files(root)]
    assert names == ["train/a/self", "train/a/x/processed_data.pt"]


@pytest.mark.usefixtures("tiny")
@pytest.mark.filterwarnings("ignore:.*categories have no videos:UserWarning")
def test_a_run_tells_it_and_keeps_it(
    messy: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In the log, and in the analysis beside the features, wherever the folder is."""
    with caplog.at_level("INFO"):
        featx.extract(messy, tmp_path / "a", **TINY_JOB)  # type: ignore[arg-type]
    assert f"{messy}: 6 videos in 3 files, 2 categories: train 4, val 2" in caplog.text
    assert "left out: 1 of .csv: labels.csv" in caplog.text
    assert "look like splits, and were not asked for: Train (1), validation (1)." in caplog.text
    analysis = (tmp_path / "a" / "configuration_analysis.json").read_text()
    assert json.loads(analysis)["scan"] == summary_of(messy).to_json()
    messy.rename(tmp_path / "elsewhere")
    featx.extract(tmp_path / "elsewhere", tmp_path / "b", **TINY_JOB)  # type: ignore[arg-type]
    assert (tmp_path / "b" / "configuration_analysis.json").read_text() == analysis


def test_clips_are_told_in_the_same_way(raw: Path) -> None:
    """A clip beside the splits, a folder without a clip, and what is no clip by its suffix."""
    write_clip(raw / "stray.mp4", grey_levels(3))
    write_clip(raw / "train/hello/more.ts", grey_levels(30))
    (raw / "train/hello/song.mp3").write_text("x")
    (raw / "train/empty").mkdir()
    (raw / "validation/hello").mkdir(parents=True)
    write_clip(raw / "validation/hello/1.mp4", grey_levels(3))
    summary = scan_clips(ScanSettings(raw, preprocessing=Preprocessing(2, 8))).summary
    assert summary
    assert summary.videos == {"train": 5, "test": 1}
    assert {kind: some.examples for kind, some in summary.left_out.items()} == {
        "hidden": ["train/hello/.hidden.mp4"],
        "in no category of a split": ["stray.mp4"],
        "of .mp3": ["train/hello/song.mp3"],
        "of .txt": ["train/hello/notes.txt"],
    }
    assert summary.empty == {"train": ["empty"], "test": ["hello"]}
    assert summary.split_like == ["validation"]


def test_bad_inputs_are_counted(messy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`featx scan` lists them all, and ends with status 1; without them with 0."""
    assert main(["scan", str(messy)]) == 0
    assert "  bad" not in capsys.readouterr().out
    (messy / "train/a/x/processed_data.pt").write_text("hello")
    (messy / "val/a/x/processed_data.pt").write_bytes(b"")
    assert main(["scan", str(messy)]) == 1
    out = capsys.readouterr().out
    assert "  bad inputs: train 1, val 1\n" in out
    assert f"  bad: {messy}/train/a/x/processed_data.pt: expected a file written by torch" in out
    assert "found an empty file" in out
