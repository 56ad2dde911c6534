"""The whole job, with real backbones, against a reference that shares no code with it."""

import inspect
import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import reference
import torch
from helpers import TINY_JOB, Save, random_video
from lightning.pytorch import Trainer
from torch import nn

import featx
from featx import FeatureExtractor, FeatureWriter, VideoDataModule
from featx.errors import OutputError
from featx.features.provenance import BINDING, LAST_BITS, NOTES

SCALES = (1.0, 0.85, 1.15)
LENGTHS = (1, 3, 7, 30)  # the reference passes 24 frames at once
SIZE = 32


LARGE = ("resnet101", "efficientnet_v2_s", "efficientnet_v2_m")
BACKBONES = [
    pytest.param(n, marks=pytest.mark.slow) if n in LARGE else n for n in reference.BUILDERS
]


@pytest.fixture(scope="module", params=BACKBONES)
def backbone(request: pytest.FixtureRequest) -> str:
    """Each of the four backbones."""
    return str(request.param)


@pytest.fixture(scope="module")
def weights(backbone: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole classifier's state dict."""
    path = tmp_path_factory.mktemp("weights") / f"{backbone}.pth"
    torch.save(reference.make_cnn(backbone).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def cnn(backbone: str, weights: Path) -> nn.Module:
    """The reference's CNN: torchvision's, unfused."""
    model: nn.Module = reference.BUILDERS[backbone][0](weights=None)
    model.load_state_dict(torch.load(weights, weights_only=True))
    return reference.strip_head(model.eval(), backbone)


@pytest.mark.parametrize("multi_scale", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_features_are_those_of_the_definition(
    backbone: str, weights: Path, cnn: nn.Module, root: Path, save: Save, multi_scale: bool
) -> None:
    """Every length, in a list, as a tensor, as uint8 and as float32: within 1e-5 in float32."""
    videos = [random_video(length, seed=length, size=SIZE) for length in LENGTHS]
    save("test/hello/list", {"videos": videos})
    save("test/hello/normalized", [reference.normalize(video) for video in videos])
    save("test/bye/tensor", torch.stack([random_video(7, seed=70 + i, size=SIZE) for i in (0, 1)]))
    paths = featx.extract(
        root,
        root.parent / "features",
        backbone=backbone,
        weights=str(weights),
        multi_scale=multi_scale,
        batch_size=3,
        num_workers=0,
        accelerator="cpu",
        devices=1,
    )
    expected = reference.extract_split(cnn, root, "test", SCALES if multi_scale else (1.0,))
    with h5py.File(paths["test"]) as file:
        assert file["num_frames"][:].tolist() == [len(features) for _, features in expected]
        categories = {
            label: name for name, label in json.loads(file.attrs["category_mapping"]).items()
        }
        for row, (category, features) in enumerate(expected):
            found = file["features"][row]
            assert reference.relative_error(found[: len(features)], features) <= 1e-5
            assert not found[len(features) :].any()
            assert categories[int(file["labels"][row])] == category
        rows = [
            [*file["video_ids"].asstr()].index(f"test/hello/{kind}/3")
            for kind in ("list", "normalized")
        ]
        raw, normalized = (file["features"][row] for row in rows)
        assert reference.relative_error(raw, normalized) <= 1e-5
        n = int(file["num_frames"][rows[0] - 1])
        other = file["features"][rows[0] - 1]
        assert reference.relative_error(other[:n], raw[:n]) > 0.01  # another video does differ


def write_old_file(path: Path, features: list[np.ndarray], labels: list[int]) -> None:
    """A file as the script that featx replaces writes it."""
    lengths = [len(video) for video in features]
    padded = np.zeros((len(features), max(lengths), features[0].shape[1]), dtype=np.float32)
    for row, video in enumerate(features):
        padded[row, : len(video)] = video
    file = h5py.File(path, "w")
    file.create_dataset("features", data=padded, compression="gzip", compression_opts=4)
    file.create_dataset("labels", data=np.array(labels, dtype=np.int64))
    file.create_dataset("num_frames", data=np.array(lengths, dtype=np.int32))
    file.attrs["num_videos"] = len(features)
    file.attrs["max_frames"] = max(lengths)
    file.attrs["feature_dim"] = features[0].shape[1]
    file.attrs["category_mapping"] = json.dumps({"bye": 0, "hello": 1})
    file.attrs["multi_scale"] = True
    file.close()


def read_as_before(path: Path) -> dict[str, object]:
    """A reader of the old file, which knows only h5py and json."""
    with h5py.File(path, "r") as file:
        return {
            "videos": [
                (file["features"][i, : file["num_frames"][i]], int(file["labels"][i]))
                for i in range(int(file.attrs["num_videos"]))
            ],
            "mapping": json.loads(file.attrs["category_mapping"]),
            "feature_dim": int(file.attrs["feature_dim"]),
            "max_frames": int(file.attrs["max_frames"]),
            "multi_scale": bool(file.attrs["multi_scale"]),
        }


@pytest.mark.usefixtures("tiny")
def test_a_reader_of_the_old_file_reads_ours(small_root: Path, tmp_path: Path) -> None:
    """Names, types and values of what the old file has are the same in ours."""
    path = featx.extract(small_root, tmp_path / "out", **TINY_JOB)["train"]  # type: ignore[arg-type]
    with h5py.File(path) as ours:
        lengths = ours["num_frames"][:]
        features = [ours["features"][i, :n] for i, n in enumerate(lengths)]
        labels = ours["labels"][:].tolist()
    write_old_file(tmp_path / "old.h5", features, labels)
    new, old = read_as_before(path), read_as_before(tmp_path / "old.h5")
    for (found, label), (wanted, old_label) in zip(
        new.pop("videos"), old.pop("videos"), strict=True
    ):  # type: ignore[call-overload]
        np.testing.assert_array_equal(found, wanted)
        assert label == old_label
    assert new == old
    with h5py.File(path) as ours, h5py.File(tmp_path / "old.h5") as theirs:
        for name, dataset in theirs.items():
            assert ours[name].dtype == dataset.dtype
            assert ours[name].shape == dataset.shape
            assert ours[name].compression == dataset.compression
            assert ours[name].compression_opts == dataset.compression_opts
        for name, value in theirs.attrs.items():
            assert type(ours.attrs[name]) is type(value), name
            assert ours.attrs.get_id(name).dtype == theirs.attrs.get_id(name).dtype
            assert ours.attrs[name] == value


@pytest.mark.usefixtures("tiny")
def test_what_the_file_says_of_itself(small_root: Path, tmp_path: Path) -> None:
    """Everything that the contract adds to the old file is there, typed, and true."""
    settings = TINY_JOB | {"scales": (1.0, 0.5)}
    paths = featx.extract(small_root, tmp_path / "out", **settings)  # type: ignore[arg-type]
    assert [*paths] == ["train", "val", "test"]
    with h5py.File(paths["val"]) as file:
        attributes = dict(file.attrs)
        assert [*file["video_ids"].asstr()] == ["val/bye/a/0", "val/hello/a/0"]
        assert h5py.check_string_dtype(file["video_ids"].dtype).encoding == "utf-8"
        inputs = file["input_sha256"].asstr()[:]
        assert (file["run"].dtype, file["run"][:].tolist()) == (np.int32, [0, 0])
    assert len({*inputs}) == 2
    assert {len(made_of) for made_of in inputs} == {64}
    config = json.loads(attributes["config"])
    assert attributes["backbone"] == config["backbone"] == "resnet50"
    assert attributes["weights"] == config["weights"] == "random"
    assert len(attributes["weights_sha256"]) == 64
    assert attributes["scales"].tolist() == config["scales"] == [1.0, 0.5]
    assert attributes["featx_version"] == featx.__version__
    assert attributes["format_version"] == 1
    [run] = json.loads(attributes["runs"])
    assert run == {
        "featx_version": featx.__version__,
        **{name: config[name] for name in LAST_BITS},
    }
    assert config["root"] == str(small_root.resolve())
    assert config["split"] == "val"
    assert config["precision"] == "32-true"
    assert config["device"] == "cpu"
    assert config.keys() == {*BINDING, *LAST_BITS, *NOTES}
    assert not {"batch_size", "num_workers", "devices", "output_dir"} & config.keys()


@pytest.mark.usefixtures("tiny")
def test_a_file_goes_on_with_the_average_that_it_was_made_with(
    small_root: Path, tmp_path: Path
) -> None:
    """Another one is refused in one line that names it; the default is recorded, too."""
    present = TINY_JOB | {"scale_average": "present"}
    featx.extract(small_root, tmp_path / "out", **present)  # type: ignore[arg-type]
    told = r"found other ones: scale_average is zeros instead of present\. Set overwrite"
    with pytest.raises(OutputError, match=told) as caught:
        featx.extract(small_root, tmp_path / "out", **TINY_JOB)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    again = TINY_JOB | {"overwrite": True}
    paths = featx.extract(small_root, tmp_path / "out", **again)  # type: ignore[arg-type]
    with h5py.File(paths["train"]) as file:
        config = json.loads(file.attrs["config"])
    assert (config["scale_average"], config["scale_align"]) == ("zeros", "index")
    told = r"other ones: scale_align is time instead of index\. Set overwrite"
    aligned = TINY_JOB | {"scale_align": "time"}
    with pytest.raises(OutputError, match=told):
        featx.extract(small_root, tmp_path / "out", **aligned)  # type: ignore[arg-type]


@pytest.mark.usefixtures("tiny")
def test_averages_that_are_the_same_go_on(small_root: Path, tmp_path: Path) -> None:
    """With `time`, zeros or present: the rows stay, and the file is that of a fresh run."""
    both = TINY_JOB | {"scale_align": "time", "scale_average": "present"}
    [old, new] = (
        featx.extract(small_root, tmp_path / name, **settings)["train"]  # type: ignore[arg-type]
        for name, settings in {"old": TINY_JOB | {"scale_align": "time"}, "new": both}.items()
    )
    before = old.read_bytes()
    assert before != new.read_bytes()  # it says what was asked for
    featx.extract(small_root, old.parent, **both)  # type: ignore[arg-type]
    assert old.read_bytes() == new.read_bytes()


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_same_bytes_whatever_the_batches_and_workers(
    small_root: Path, tmp_path: Path, precision: str, compile: bool
) -> None:
    """Batches and workers leave no trace in the files, compiled or not."""
    contents = []
    for batch_size, num_workers in ((1, 0), (3, 0), (1, 2)):
        out = tmp_path / f"{batch_size}-{num_workers}"
        paths = featx.extract(
            small_root,
            out,
            backbone="resnet50",
            weights="random",
            batch_size=batch_size,
            num_workers=num_workers,
            accelerator="cpu",
            precision=precision,
            compile=compile,
        )
        contents.append([path.read_bytes() for path in paths.values()])
    assert contents[0] == contents[1] == contents[2]


def test_a_setting_is_said_once() -> None:
    """`extract` has the settings of the classes that it joins, with their defaults."""
    classes = (VideoDataModule, FeatureExtractor, FeatureWriter)
    said = {
        name: parameter.default
        for made in classes
        for name, parameter in inspect.signature(made).parameters.items()
    }
    here = {n: p.default for n, p in inspect.signature(featx.extract).parameters.items()}
    trainers = {"accelerator": "auto", "devices": "auto", "precision": "32-true"}
    for name in ("root", "output_dir"):  # a call says where it reads and writes
        assert here.pop(name) is inspect.Parameter.empty
        said.pop(name)
    assert here == said | trainers
    of_lightning = inspect.signature(Trainer).parameters
    assert of_lightning.keys() >= trainers.keys()
    for made in classes:
        for name in inspect.signature(made).parameters:
            assert f"        {name}: " in (made.__doc__ or ""), f"{made.__name__} explains {name}"
