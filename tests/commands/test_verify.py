"""Verification: a good file passes, and each way to be wrong is found and told."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import reference
import torch
from helpers import TINY, TINY_JOB, WIDE, Save, grey_levels, random_videos

import featx
from featx.backbones import architectures
from featx.cli import main
from featx.commands.verify.command import verify
from featx.data.media.clip import write_clip
from featx.errors import InputError, UsageError


def extract(root: Path, **settings: object) -> Path:
    """The feature file of train, under the tiny CNN."""
    out = root.parent / "features"
    return featx.extract(root, out, **(TINY_JOB | settings))["train"]  # type: ignore[arg-type]


@pytest.fixture
def file(small_root: Path, tiny: None) -> Path:
    """A good file of five rows."""
    return extract(small_root)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("scales", [[1.0, 0.85, 1.15], [1.0, 0.5]])
def test_a_good_file(
    small_root: Path,
    tiny: None,
    precision: str,
    scales: list[float],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Of any precision and scales; the tolerance and the largest error are told."""
    file = extract(small_root, precision=precision, scales=scales)
    assert verify(file, small_root, all=True)
    last = capsys.readouterr().out.splitlines()[-1]
    tolerance = "0.0001" if precision == "32-true" else "0.15"
    assert last.startswith("verified: 5 of 5 rows recomputed, largest error ")
    assert last.endswith(f", tolerance {tolerance}")


@pytest.mark.parametrize(
    "choice",
    [
        {"scale_average": "present"},
        {"scale_align": "time"},
        {"scale_average": "present", "scale_align": "time"},
    ],
)
def test_scales_that_were_averaged_in_another_way(
    small_root: Path, tiny: None, choice: dict[str, str]
) -> None:
    """Rows are recomputed as the file records it: not so, if it no longer does."""
    file = extract(small_root, **choice)
    assert verify(file, small_root, all=True)
    with h5py.File(file, "r+") as opened:
        config = json.loads(opened.attrs["config"])
        assert choice.items() <= config.items()
        kept = {name: value for name, value in config.items() if name not in choice}
        opened.attrs["config"] = json.dumps(kept)
    assert not verify(file, small_root, all=True)


def swap_rows(file: h5py.File) -> None:
    """Exchange the features of two videos of the same length."""
    first, second = find_twins(file)
    length = file["num_frames"][first]
    features = file["features"][[second, first], :length]
    file["features"][first, :length], file["features"][second, :length] = features


def find_twins(file: h5py.File) -> tuple[int, int]:
    """Two rows of the same length."""
    lengths = file["num_frames"][:].tolist()
    return next((i, j) for i, a in enumerate(lengths) for j, b in enumerate(lengths[:i]) if a == b)


def zero_row(file: h5py.File) -> None:
    """Lose the features of a video."""
    file["features"][1] = 0


def shuffle_labels(file: h5py.File) -> None:
    """Give every video another category."""
    file["labels"][:] = 1 - file["labels"][:]


def rename_rows(file: h5py.File) -> None:
    """Exchange two names."""
    file["video_ids"][:2] = file["video_ids"][:2][::-1]


def change_lengths(file: h5py.File) -> None:
    """Forget a frame."""
    file["num_frames"][0] -= 1
    file["features"][0, file["num_frames"][0]] = 0


def claim_other_scales(file: h5py.File) -> None:
    """Record scales that give as many frames, and other features."""
    config = json.loads(file.attrs["config"])
    file.attrs["config"] = json.dumps(config | {"scales": [1.0, 0.5, 1.15]})


def claim_another_average(file: h5py.File) -> None:
    """Record that no scale counted as zeros."""
    config = json.loads(file.attrs["config"])
    file.attrs["config"] = json.dumps(config | {"scale_average": "present"})


def claim_another_alignment(file: h5py.File) -> None:
    """Record that rows were moments."""
    config = json.loads(file.attrs["config"])
    file.attrs["config"] = json.dumps(config | {"scale_align": "time"})


def claim_other_weights(file: h5py.File) -> None:
    """Record the digest of other weights."""
    config = json.loads(file.attrs["config"])
    file.attrs["config"] = json.dumps(config | {"weights_sha256": "0" * 64})


def add_noise(file: h5py.File) -> None:
    """Change all features a little, as other preprocessing would."""
    features = file["features"]
    for row, length in enumerate(file["num_frames"]):
        features[row, :length] = features[row, :length] * np.float32(1.01)


WRONGS: dict[Callable[[h5py.File], None], str] = {
    swap_rows: r"features\[2\]: expected those of train/.*: they stand in row 1",
    zero_row: r"features\[1\]: .* found a relative error of 1\.0e\+00: all zeros",
    shuffle_labels: r"labels: expected those of the inputs, found others in 5 rows \(0, 1, 2",
    rename_rows: r"video_ids: expected those .* 2 rows \(0, 1\): row 0 has train/.* instead of",
    change_lengths: r"num_frames: expected those of the inputs, found others in 1 rows \(0\)",
    claim_other_scales: r"features\[4\]: expected those of train/hello/b/1, found a relative error",
    claim_another_average: r"features\[4\]: expected those of train/hello/b/1, found a relative",
    claim_another_alignment: r"features\[4\]: expected those of train/hello/b/1, found a relative",
    claim_other_weights: r"weights: expected those of resnet50 with random, found other values",
    add_noise: r"features\[0\]: .* found a relative error of 1\.0e-02",
}


@pytest.mark.parametrize("wrong", WRONGS, ids=lambda wrong: wrong.__name__)
def test_what_is_wrong_is_found(
    file: Path,
    small_root: Path,
    wrong: Callable[[h5py.File], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """And told: which row, and why where that can be seen."""
    with h5py.File(file, "r+") as opened:
        wrong(opened)
    assert not verify(file, small_root, all=True)
    out = capsys.readouterr().out
    assert out.splitlines()[-1].startswith("not verified: ")
    expected = WRONGS[wrong]
    lines = [line for line in out.splitlines() if line.startswith("  wrong: ")]
    assert any(re.search(expected, line) for line in lines), out


def test_other_weights_and_backbones(
    file: Path, small_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the file was made with is told from what is at hand, by digest, size and features."""
    other = TINY.build(weights=None)
    torch.nn.init.normal_(other.conv.weight)  # type: ignore[union-attr,arg-type]
    torch.save(other.state_dict(), tmp_path / "other.pth")
    assert not verify(file, small_root, weights=str(tmp_path / "other.pth"))
    monkeypatch.setitem(architectures.ARCHITECTURES, "resnet101", WIDE)
    assert not verify(file, small_root, backbone="resnet101", weights="random")


@pytest.mark.slow
def test_real_backbones_are_told_apart(root: Path, save: Save, tmp_path: Path) -> None:
    """ResNet-50 and ResNet-101 give as many features, but not the same ones."""
    save("train/a/x", random_videos(2, 5, size=32))
    path = tmp_path / "weights.pth"
    torch.save(reference.make_cnn("resnet50").state_dict(), path)
    file = extract(root, weights=str(path))
    assert verify(file, root, weights=str(path))
    assert not verify(file, root, weights="random")
    assert not verify(file, root, backbone="resnet101", weights="random")
    with pytest.raises(UsageError, match=r"found 'weights.pth', of a state dict. Give its path"):
        verify(file, root)


def test_other_videos(file: Path, small_root: Path, save: Save) -> None:
    """Pixels that differ are found; a video too many is told at once."""
    save("train/hello/a", {"videos": random_videos(2, 7, seed=9)})
    assert not verify(file, small_root, all=True)
    save("train/hello/c", random_videos(1, 4))
    with pytest.raises(InputError, match=r"expected 6 videos, as .*train has, found 5"):
        verify(file, small_root)


def test_a_sample(file: Path, small_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first and the last row, and those between evenly spaced."""
    assert verify(file, small_root, rows=3)
    out = capsys.readouterr().out
    rows = [line.split()[0] for line in out.splitlines() if " train/" in line]
    assert rows == ["0", "2", "4"]


def test_videos_that_were_left_out(small_root: Path, save: Save, tiny: None) -> None:
    """They have no rows, and the others are matched with theirs."""
    videos = random_videos(2, 7, seed=1).float()
    videos[0, 3, 0, 0, 0] = float("nan")
    save("train/hello/a", videos)
    file = extract(small_root, on_error="skip")
    assert verify(file, small_root, all=True)


def test_a_file_without_a_record(
    file: Path, small_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One of the old script: the user says what it was made with."""
    with h5py.File(file, "r+") as opened:
        for name in ("config", "backbone", "weights", "weights_sha256", "scales", "skipped"):
            del opened.attrs[name]
        del opened["video_ids"]
    with pytest.raises(UsageError, match="expected a recorded backbone, found none"):
        verify(file, small_root)
    assert verify(file, small_root, backbone="resnet50", weights="random", all=True)
    assert capsys.readouterr().out.endswith("tolerance 0.01\n")


@pytest.mark.parametrize("config", ["nonsense", "[1]", 3])
def test_a_record_that_cannot_be_read(file: Path, small_root: Path, config: object) -> None:
    """It is none."""
    with h5py.File(file, "r+") as opened:
        opened.attrs["config"] = config
    with pytest.raises(UsageError, match="expected a recorded backbone, found none"):
        verify(file, small_root)


def test_a_broken_file(file: Path, small_root: Path) -> None:
    """Of an invalid structure, nothing can be compared."""
    with h5py.File(file, "r+") as opened:
        labels = opened["labels"][1:]
        del opened["labels"]
        opened["labels"] = labels
    with pytest.raises(InputError, match=r"whose rows can be compared, found labels: expected"):
        verify(file, small_root)


@pytest.mark.filterwarnings("ignore:.*categories have no videos:UserWarning")
def test_more_categories_in_another_split(small_root: Path, save: Save, tiny: None) -> None:
    """Labels number the categories of all splits that were extracted together."""
    save("dev/aaa/x", random_videos(1, 4))
    file = extract(small_root, splits=["train", "dev"])
    with h5py.File(file) as opened:
        assert json.loads(opened.attrs["category_mapping"]) == {"aaa": 0, "bye": 1, "hello": 2}
    assert verify(file, small_root, all=True)


def test_tf32_does_not_make_bfloat16_finer(
    small_root: Path, tiny: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """The coarser of the two tolerances counts."""
    file = extract(small_root, precision="bf16-mixed", allow_tf32=True)
    assert verify(file, small_root)
    assert capsys.readouterr().out.endswith("tolerance 0.15\n")


@pytest.mark.filterwarnings("ignore:.*expected what is true of the videos:UserWarning")
def test_odd_notes_about_the_preprocessing(small_root: Path, tiny: None) -> None:
    """They may be a user's own."""
    note = {"preprocessing_info": {"image_size": 256, "frames_per_video": "many"}}
    (small_root / "configuration_analysis.json").write_text(json.dumps(note))
    assert verify(extract(small_root), small_root)


def test_a_damaged_row(file: Path, small_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is told beside everything else."""
    with h5py.File(file, "r+") as opened:
        opened["features"].id.write_direct_chunk((1, 0, 0), b"nonsense")
    assert not verify(file, small_root, all=True)
    out = capsys.readouterr().out
    assert re.search(r"wrong: features\[1\]: .*relative error of inf: it cannot be read", out)
    assert "not verified: 5 of 5 rows recomputed" in out


def test_straight_from_clips(raw: Path, tmp_path: Path, tiny: None) -> None:
    """Rows are recomputed from clips as they were sampled."""
    paths = featx.extract(
        raw,
        tmp_path,
        source="clips",
        num_frames=6,
        image_size=16,
        splits=["train"],
        **TINY_JOB,  # type: ignore[arg-type]
    )
    assert verify(paths["train"], raw, source="clips", all=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_clips_that_a_gpu_decoded(file: Path, small_root: Path) -> None:
    """Without a GPU, one has to say how far off the features may be."""
    with h5py.File(file, "r+") as opened:
        config = json.loads(opened.attrs["config"])
        opened.attrs["config"] = json.dumps(config | {"decoder": "nvdec"})
    with pytest.raises(UsageError, match="expected a GPU, as one decoded the clips"):
        verify(file, small_root)
    assert verify(file, small_root, tolerance=0.1)


def test_the_command_line(file: Path, small_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Status 0 for a good file, 1 for a wrong one, 2 for wrong usage."""
    assert main(["verify", str(file), "--root", str(small_root)]) == 0
    with h5py.File(file, "r+") as opened:
        zero_row(opened)
    assert main(["verify", str(file), "--root", str(small_root), "--all"]) == 1
    assert main(["verify", str(file), "--root", str(small_root), "--rows", "0"]) == 2
    assert main(["verify", str(file), "--root", str(small_root), "--device", "gpu"]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("featx verify: error: device: expec")
    assert main(["verify", str(file)]) == 2
    assert "error: root: expected the data set's folder" in capsys.readouterr().err


@pytest.mark.usefixtures("tiny")
@pytest.mark.filterwarnings("ignore:.*categories have no videos:UserWarning")
def test_a_clip_that_was_replaced(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is told that its row was made of another one, and of no other row."""
    file = extract(raw, source="clips", num_frames=6, image_size=16)
    assert len({*featx.FeatureDataset(file).input_sha256}) == 4
    write_clip(raw / "train" / "hello" / "2.mp4", grey_levels(9)[::-1].copy())
    assert not verify(file, raw, all=True, source="clips")
    wrong = [line for line in capsys.readouterr().out.splitlines() if "wrong: " in line]
    assert len(wrong) == 1
    assert "expected those of train/hello/2.mp4" in wrong[0]
    assert wrong[0].endswith(": it was made of another clip, or otherwise")
