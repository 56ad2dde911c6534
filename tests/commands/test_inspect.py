"""`featx inspect`: what is in the file, and whether it is valid."""

import json
import sys
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from analysis import known
from helpers import ROW_DIM, Evil
from helpers import write_feature_file as write
from torch import nn

from featx.cli import main
from featx.commands.inspect.command import inspect
from featx.errors import InputError, MissingDependencyError, MissingInputError, UsageError


def test_a_valid_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Shapes, statistics and attributes are shown, and the last word is valid."""
    assert inspect(write(tmp_path / "a.h5", [3, 5, 5]))
    out = capsys.readouterr().out
    assert "[3, 5, 4] float32" in out
    assert "gzip level 4" in out
    assert "min 3, max 5, mean 4.33333" in out
    assert "2, with 1 to 2 videos each" in out
    assert out.splitlines()[-1] == "valid"


def test_an_invalid_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is wrong is told, and the last word is not valid."""
    path = write(tmp_path / "a.h5", [3, 5])
    with h5py.File(path, "r+") as file:
        file["labels"][0] = 9
    assert not inspect(path)
    lines = capsys.readouterr().out.splitlines()
    assert any("invalid: labels: expected" in line for line in lines)
    assert lines[-1] == "not valid"


def test_json_is_one_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For a program: attributes, statistics and validity."""
    assert inspect(write(tmp_path / "a.h5", [3, 5]), as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert found["valid"]
    assert found["problems"] == []
    assert found["features_shape"] == [2, 5, 4]
    assert found["num_frames"] == {"min": 3, "max": 5, "mean": 4.0}
    assert found["videos_per_category"] == {"a": 1, "b": 1}
    assert found["attributes"]["category_mapping"] == {"a": 0, "b": 1}
    assert found["attributes"]["multi_scale"] is True
    assert found["bytes"] == (tmp_path / "a.h5").stat().st_size


def test_how_scales_were_averaged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is shown where it is recorded, and nothing is where it is as usual."""
    assert inspect(write(tmp_path / "a.h5", [3, 5]))
    assert "scale_" not in capsys.readouterr().out
    assert inspect(
        write(tmp_path / "b.h5", [3, 5], {"scale_average": "present", "scale_align": "time"})
    )
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["scale_average", "present"] in lines
    assert ["scale_align", "time"] in lines


def test_an_old_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file without video_ids, and with chunks across videos, is valid; even without videos."""
    for count in (0, 9):
        path = tmp_path / f"{count}.h5"
        with h5py.File(path, "w") as file:
            file.create_dataset(
                "features",
                data=np.ones((count, 7 if count else 0, 4), np.float32),
                maxshape=(None, None, 4),
                chunks=True,
                compression="gzip",
            )
            file["labels"] = np.zeros(count, np.int64)
            file["num_frames"] = np.full(count, 7, np.int32)
            file.attrs["num_videos"] = count
            file.attrs["max_frames"] = 7 if count else 0
            file.attrs["feature_dim"] = 4
            file.attrs["category_mapping"] = json.dumps({"a": 0} if count else {})
            file.attrs["multi_scale"] = False
        assert inspect(path)
        assert "not recorded" in capsys.readouterr().out


def test_a_damaged_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A config that is no JSON is shown as it is."""
    path = write(tmp_path / "a.h5", [3])
    with h5py.File(path, "r+") as file:
        file.attrs["config"] = "{"
    assert inspect(path, as_json=True)
    assert json.loads(capsys.readouterr().out)["attributes"]["config"] == "{"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_videos", "abc"),
        ("num_videos", np.arange(3)),
        ("multi_scale", np.array([True, False])),
        ("category_mapping", '{"a": [1]}'),
    ],
)
def test_attributes_of_other_types(tmp_path: Path, name: str, value: object) -> None:
    """A file whose attributes are something else is no feature file."""
    path = write(tmp_path / "a.h5", [3])
    with h5py.File(path, "r+") as file:
        file.attrs[name] = value
    with pytest.raises(InputError, match=rf"expected a feature file, found {name} that is not"):
        inspect(path)


def test_damaged_bytes_are_no_traceback(tmp_path: Path) -> None:
    """However a file is damaged, it is valid, not valid, or refused in one line."""
    content = write(tmp_path / "a.h5", [3, 9, 2]).read_bytes()
    rng = np.random.default_rng(0)
    path = tmp_path / "damaged.h5"
    for _ in range(150):
        damaged = bytearray(content)
        for place in rng.integers(0, len(content), 20):
            damaged[place] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged[: rng.integers(1, len(content) + 1)])
        with suppress(InputError):
            inspect(path)


def save(path: Path, content: object) -> Path:
    """A file of torch.save."""
    torch.save(content, path)
    return path


def rename_categories(path: Path, names: list[str]) -> None:
    """Give a file other categories."""
    with h5py.File(path, "r+") as file:
        file.attrs["category_mapping"] = json.dumps({name: i for i, name in enumerate(names)})


def test_few_categories_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each has a line with its number of videos; one without any is told."""
    path = write(tmp_path / "a.h5", [3, 5, 5])
    rename_categories(path, ["hello", "bye", "line\nbreak"])
    assert inspect(path)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["hello", "2", "videos"] in lines
    assert ["bye", "1", "video"] in lines
    assert ["line\\nbreak", "none"] in lines


def test_many_categories_are_summed_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The largest, the smallest, and how many are empty, in few lines."""
    path = write(tmp_path / "a.h5", [3, 5, 5])
    rename_categories(path, [f"c{i:03d}" for i in range(200)])
    assert inspect(path)
    out = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert len(lines) < 30
    assert "largest c000 2, c001 1" in lines
    assert "smallest c001 1, c000 2" in lines
    assert "empty 198: c002, c003, c004, c005, c006 and 193 more" in lines


@pytest.mark.parametrize(("dim", "fits"), [(ROW_DIM, True), (1280, False)])
def test_an_expected_dim(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], dim: int, fits: bool
) -> None:
    """A file of another feature_dim is valid, unfit, and status 1."""
    path = write(tmp_path / "a.h5", [3, 5])
    assert main(["inspect", str(path), "--expect-dim", str(dim)]) == (not fits)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == ("valid, fit" if fits else "valid, unfit")
    why = [line for line in lines if line.startswith("unfit:")]
    assert (why == []) is fits
    assert all("a.h5: expected feature_dim 1280, found 4." in line for line in why)
    assert inspect(path, as_json=True, expect_dim=dim) is fits
    found = json.loads(capsys.readouterr().out)
    assert found["valid"]
    assert found["expect_dim"] == dim
    assert (found["misfits"] == []) is fits


@pytest.mark.parametrize(("dim", "fits"), [(ROW_DIM, True), (9, False)])
def test_a_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], dim: int, fits: bool
) -> None:
    """What the model takes is compared with the file; text and JSON say where it was found."""
    path = write(tmp_path / "a.h5", [3, 5])
    best = save(tmp_path / "best_model.pt", nn.LSTM(dim, 3).state_dict())
    assert main(["inspect", str(path), "--checkpoint", str(best)]) == (not fits)
    out = capsys.readouterr().out
    assert f"feature_dim {dim}, by the shape [12, {dim}] of weight_ih_l0" in out
    assert out.splitlines()[-1] == ("valid, fit" if fits else "valid, unfit")
    assert inspect(path, as_json=True, checkpoint=best) is fits
    found = json.loads(capsys.readouterr().out)
    assert found["checkpoint"] == {
        "path": str(best),
        "feature_dim": dim,
        "source": f"the shape [12, {dim}] of weight_ih_l0",
    }
    assert len(found["misfits"]) == (not fits)


def test_a_checkpoint_that_does_not_tell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is a misfit, with the way out."""
    path = write(tmp_path / "a.h5", [3, 5])
    for content in ({"epoch": 3}, [1, 2], {"pe": torch.ones(1, 9, 4)}, torch.ones(4, 4)):
        assert not inspect(path, checkpoint=save(tmp_path / "best.pt", content))
        out = capsys.readouterr().out
        assert "best.pt: expected a stored feature_dim or input_dim" in out
        assert "as --expect-dim." in out


def test_an_unreadable_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing in it is executed, and one line tells the way out."""
    path = write(tmp_path / "a.h5", [3, 5])
    best = save(tmp_path / "best.pt", {"model": Evil(tmp_path / "evil")})
    assert main(["inspect", str(path), "--checkpoint", str(best)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "best.pt: expected a checkpoint of tensors and plain values" in line
    assert "(posix.mkdir); nothing was executed. Save its state dict alone" in line
    assert not (tmp_path / "evil").exists()
    best.write_bytes(b"text")
    with pytest.raises(InputError, match="Save its state dict alone"):
        inspect(path, checkpoint=best)
    with pytest.raises(MissingInputError, match="expected a checkpoint, found no file"):
        inspect(path, checkpoint=tmp_path / "none.pt")


def test_a_plot(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A PNG is drawn; with --json, standard output is still one object."""
    path, plot = write(tmp_path / "a.h5", [3, 5]), tmp_path / "a.png"
    assert main(["inspect", str(path), "--plot", str(plot), "--json"]) == 0
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert json.loads(capsys.readouterr().out)["plot"] == {"path": str(plot), "drawn": True}
    assert sorted(tmp_path.iterdir()) == [path, plot]


def test_no_plot_of_a_damaged_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The report is printed, and says that there is none."""
    path = write(tmp_path / "a.h5", [3, 5])
    with h5py.File(path, "r+") as file:
        file["labels"][0] = 9
    assert not inspect(path, plot=tmp_path / "a.png")
    assert "not drawn" in capsys.readouterr().out
    assert not (tmp_path / "a.png").exists()


def test_a_plot_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told before the file is read; the file is never overwritten."""
    path = write(tmp_path / "a.h5", [3, 5])
    content = path.read_bytes()
    with pytest.raises(UsageError, match=r"ends in \.png"):
        inspect(path, plot=path)
    assert path.read_bytes() == content
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependencyError, match="pip install matplotlib"):
        inspect(tmp_path / "none.h5", plot=tmp_path / "a.png")
    assert inspect(path)


def test_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each of its files is shown, train first; one that is not valid, or does not fit, counts."""
    for split in ("val", "train"):
        write(tmp_path / f"{split}_features_multiscale.h5", [3, 5])
    assert main(["inspect", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert 0 == out.index("train_features_multiscale.h5") < out.index("val_features_multiscale.h5")
    assert out.count("\nvalid") == 2
    assert main(["inspect", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    names = [f"{split}_features_multiscale.h5" for split in ("train", "val")]
    assert [*found["files"]] == names
    assert found["files"][names[1]]["valid"]
    assert main(["inspect", str(tmp_path), "--expect-dim", "7"]) == 1
    with h5py.File(tmp_path / "val_features_multiscale.h5", "r+") as file:
        file["labels"][0] = 9
    capsys.readouterr()
    assert main(["inspect", str(tmp_path), "--duplicates"]) == 1
    assert "duplicates and page: not made, as not all files are valid" in capsys.readouterr().out
    assert main(["inspect", str(tmp_path), "--plot", str(tmp_path / "a.png")]) == 2
    assert "expected a feature file, found a folder" in capsys.readouterr().err


def test_duplicates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Leaks are the first thing that is said; then what is there twice in a split."""
    rng = np.random.default_rng(0)
    labels = [i % 2 for i in range(60)]
    train, test = known.separable(rng, labels, 9), known.separable(rng, labels[:20], 9)
    test[3], train[9] = train[7], train[4]
    contents = [f"train {i}" for i in range(60)]
    contents[9] = contents[4]
    known.write(tmp_path, "train", train, labels, contents=contents)
    known.write(tmp_path, "test", test, labels[:20], contents=[f"test {i}" for i in range(20)])
    assert main(["inspect", str(tmp_path), "--duplicates"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("leaks: 1 pair of videos that stand in two splits\n1.0000000 ")
    assert "train 7" in out.splitlines()[1]
    assert "test 3" in out.splitlines()[1]
    assert out.splitlines()[2].startswith("duplicates: 1 pair of videos")
    assert out.splitlines()[3].startswith("same content")
    assert out.splitlines()[3].endswith("two labels")
    assert "near duplicates: a cosine above" in out
    assert main(["inspect", str(tmp_path), "--duplicates", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["duplicates"]
    assert found["videos"] == 80
    assert [pair["second"]["row"] for pair in found["leaks"]] == [3]
    assert found["leaks"][0]["second"] == {
        "split": "test",
        "row": 3,
        "video": "test 3",
        "category": "category 01",
    }
    assert [pair["same_content"] for pair in found["duplicates"]] == [True]
    path = tmp_path / "test_features_multiscale.h5"
    assert main(["inspect", str(path), "--duplicates"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("leaks: none\nduplicates: none\n")
    assert "near duplicates: not looked for among 20 videos" in out


def test_contents_that_are_not_known(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Files of older formats do not tell: that is said."""
    labels = [i % 2 for i in range(60)]
    known.write(tmp_path, "all", known.noise(np.random.default_rng(0), labels), labels)
    assert main(["inspect", str(tmp_path), "--duplicates"]) == 0
    assert "same content: not known of all videos" in capsys.readouterr().out


def test_a_folder_with_a_broken_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The others are shown as well, of both kinds; what is broken counts as not valid."""
    write(tmp_path / "train_features.h5", [3, 5])
    write(tmp_path / "train_features_multiscale.h5", [3, 5])
    (tmp_path / "val_features.h5").write_bytes(b"broken")
    assert main(["inspect", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert out.count("\nvalid") == 2
    assert "val_features.h5: expected an HDF5 file" in out
    assert main(["inspect", str(tmp_path), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)["files"]
    assert {name: file["valid"] for name, file in found.items()} == {
        "train_features.h5": True,
        "train_features_multiscale.h5": True,
        "val_features.h5": False,
    }
