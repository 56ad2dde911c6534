"""The writer under a plain Trainer: one file a split, or none."""

import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import h5py
import pytest
import torch
from helpers import Save, is_tidy, random_videos
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader

import featx
from featx import FeatureExtractor, FeatureWriter, VideoDataModule
from featx.backbones.weights import state_dict_sha256
from featx.data.batches import join
from featx.errors import FeatxError, IncompleteError, InputError, OutputError, UsageError
from featx.extraction.temporal import output_length
from featx.features.feature_file import open_feature_file
from featx.features.resume.parts import PartWriter
from featx.features.validation import find_problems

pytestmark = pytest.mark.usefixtures("tiny")


def predict(root: Path, writer: FeatureWriter, **settings: object) -> object:
    """`trainer.predict` as the README has it."""
    trainer = Trainer(
        callbacks=[writer],
        logger=False,
        accelerator="cpu",
        enable_progress_bar=False,
        **settings,  # type: ignore[arg-type]
    )
    data = VideoDataModule(root, num_workers=0)
    return trainer.predict(FeatureExtractor("resnet50", "random"), data)


def test_plain_trainer(small_root: Path, tmp_path: Path) -> None:
    """A valid file a split, and by default the predictions too: a list of tensors a batch."""
    writer = FeatureWriter(tmp_path / "out")
    predictions = predict(small_root, writer)
    assert {split: path.name for split, path in writer.paths.items()} == {
        split: f"{split}_features_multiscale.h5" for split in ("train", "val", "test")
    }
    for path in writer.paths.values():
        with open_feature_file(path) as file:
            assert find_problems(file) == []
    assert isinstance(predictions, list)
    lengths = [len(features) for batch in predictions for features in batch]
    assert lengths == [output_length(t, (1.0, 0.85, 1.15)) for t in (5, 7, 7, 3, 12, 7, 1, 7, 9)]
    with h5py.File(writer.paths["train"]) as file:
        found = torch.from_numpy(file["features"][3, : lengths[3]])
    assert torch.equal(predictions[3][0], found)


def test_without_predictions(small_root: Path, tmp_path: Path) -> None:
    """With `return_predictions=False` nothing is kept, and the files are the same."""
    kept, dropped = FeatureWriter(tmp_path / "kept"), FeatureWriter(tmp_path / "dropped")
    predict(small_root, kept)
    trainer = Trainer(callbacks=[dropped], logger=False, accelerator="cpu")
    data = VideoDataModule(small_root, num_workers=0)
    extractor = FeatureExtractor("resnet50", "random")
    assert trainer.predict(extractor, data, return_predictions=False) is None
    for split, path in kept.paths.items():
        assert path.read_bytes() == dropped.paths[split].read_bytes()


def test_analysis_beside_the_files(small_root: Path, tmp_path: Path) -> None:
    """configuration_analysis.json tells the structure of every split."""
    predict(small_root, FeatureWriter(tmp_path))
    analysis = json.loads((tmp_path / "configuration_analysis.json").read_text())
    assert analysis["preprocessing_info"] == {
        "frames_per_video": None,
        "image_size": [8, 8],
        "processing_mode": None,
    }
    assert [*analysis["splits"]] == ["train", "val", "test"]
    assert analysis["splits"]["train"] == {
        "file": "train_features_multiscale.h5",
        "features_shape": [5, 13, 6],
        "labels_shape": [5],
        "num_frames": {"min": 5, "max": 13, "mean": 7.8},
        "feature_dim": 6,
        "multi_scale": True,
        "compression": "gzip",
        "compression_level": 4,
    }


def test_an_incomplete_run_publishes_nothing(small_root: Path, tmp_path: Path) -> None:
    """With fewer batches than videos, the missing ones are named, and no file appears."""
    with pytest.raises(
        IncompleteError, match="expected 5 videos, found 3, without train/hello/b/0"
    ):
        predict(small_root, FeatureWriter(tmp_path / "out"), limit_predict_batches=3)
    assert [*(tmp_path / "out").glob("*.h5")] == []


def test_an_error_in_the_middle_publishes_nothing(root: Path, save: Save, tmp_path: Path) -> None:
    """A bad video stops the run; what was finished is on disk as parts, and no file appears."""
    save("train/a/x", random_videos(2, 3))
    save("train/b/x", torch.full((1, 3, 3, 8, 8), float("nan")))
    with pytest.raises(FeatxError, match="found NaN"):
        predict(root, FeatureWriter(tmp_path / "out"))
    assert [*(tmp_path / "out").glob("*.h5")] == []
    (part,) = (tmp_path / "out" / ".featx").rglob("part-*.h5")
    with h5py.File(part) as file:
        assert file["rows"][:].tolist() == [0, 1]


def test_a_run_goes_on_where_another_stopped(small_root: Path, tmp_path: Path) -> None:
    """A rerun computes only what is not done, and ends with the same bytes."""
    with pytest.raises(IncompleteError):
        predict(small_root, FeatureWriter(tmp_path / "a"), limit_predict_batches=3)
    again, fresh = FeatureWriter(tmp_path / "a"), FeatureWriter(tmp_path / "b")
    assert len(predict(small_root, again)) == 6  # type: ignore[arg-type]
    assert len(predict(small_root, fresh)) == 9  # type: ignore[arg-type]
    for split, path in fresh.paths.items():
        assert path.read_bytes() == again.paths[split].read_bytes()
    assert is_tidy(tmp_path / "a")


def test_nothing_is_left_to_do(small_root: Path, tmp_path: Path) -> None:
    """Published files are left alone, and a lost one of them is made again."""
    writer = FeatureWriter(tmp_path)
    predict(small_root, writer)
    before = {path: path.read_bytes() for path in writer.paths.values()}
    times = {path: path.stat().st_mtime_ns for path in writer.paths.values()}
    assert predict(small_root, FeatureWriter(tmp_path)) is None
    assert times == {path: path.stat().st_mtime_ns for path in writer.paths.values()}
    writer.paths["val"].unlink()
    assert len(predict(small_root, FeatureWriter(tmp_path))) == 2  # type: ignore[arg-type]
    assert before == {path: path.read_bytes() for path in writer.paths.values()}


def test_a_split_in_shards(small_root: Path, tmp_path: Path) -> None:
    """The files of the splits read as ever, and so do what is said of them, and a second run."""
    job = {"backbone": "resnet50", "weights": "random", "accelerator": "cpu", "num_workers": 0}
    one = featx.extract(small_root, tmp_path / "one", **job)  # type: ignore[arg-type]
    many = featx.extract(small_root, tmp_path / "many", rows_per_file=2, **job)  # type: ignore[arg-type]
    assert {path.name for path in many.values()} == {path.name for path in one.values()}
    shards = sorted(many["train"].with_suffix("").iterdir())
    assert [path.name for path in shards] == ["00000.h5", "00001.h5", "00002.h5"]
    for split, path in many.items():
        with open_feature_file(path) as found, open_feature_file(one[split]) as expected:
            assert find_problems(found) == []
            for name in ("features", "labels", "num_frames", "input_sha256", "run"):
                assert found[name][:].tolist() == expected[name][:].tolist()
            assert (
                found["video_ids"].asstr()[:].tolist() == expected["video_ids"].asstr()[:].tolist()
            )
            assert {n: str(v) for n, v in found.attrs.items()} == {
                n: str(v) for n, v in expected.attrs.items()
            }
    analyses = [
        (tmp_path / n / "configuration_analysis.json").read_bytes() for n in ("one", "many")
    ]
    assert analyses[0] == analyses[1]
    before = {path: path.stat().st_mtime_ns for path in (*many.values(), *shards)}
    featx.extract(small_root, tmp_path / "many", rows_per_file=2, **job)  # type: ignore[arg-type]
    assert before == {path: path.stat().st_mtime_ns for path in before}
    with pytest.raises(UsageError, match="rows_per_file: expected 1 or more, found 0"):
        FeatureWriter(tmp_path / "many", rows_per_file=0)


def test_a_merge_that_was_left_undone(
    small_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With all rows in parts and no file, the next run publishes without the CNN."""

    def fail(*_: object) -> None:
        raise OutputError("interrupted")

    with monkeypatch.context() as context:
        context.setattr("featx.extraction.writer.publish", fail)
        with pytest.raises(OutputError, match="interrupted"):
            predict(small_root, FeatureWriter(tmp_path))
    writer = FeatureWriter(tmp_path)
    assert predict(small_root, writer) is None
    for path in writer.paths.values():
        with open_feature_file(path) as file:
            assert find_problems(file) == []


def test_other_inputs_are_made_again(small_root: Path, save: Save, tmp_path: Path) -> None:
    """One changed pixel is another video; the same pixels, saved again, are not."""
    predict(small_root, FeatureWriter(tmp_path))
    videos = random_videos(1, 9, seed=8)
    save("test/hello/a", {"videos": videos})
    predict(small_root, FeatureWriter(tmp_path))
    videos[0, 4, 1, 3, 3] ^= 1
    save("test/hello/a", {"videos": videos})
    [_] = predict(small_root, FeatureWriter(tmp_path))  # type: ignore[misc]
    assert predict(small_root, FeatureWriter(tmp_path, overwrite=True)) is None


def test_features_that_are_not_finite(small_root: Path, tmp_path: Path) -> None:
    """Weights that give NaN stop the run at the first video, which is named."""
    extractor = FeatureExtractor("resnet50", "random")
    next(extractor.backbone.parameters()).fill_(float("nan"))
    trainer = Trainer(callbacks=[FeatureWriter(tmp_path)], logger=False, accelerator="cpu")
    with pytest.raises(FeatxError, match="train/bye/a/0: expected finite features"):
        trainer.predict(extractor, VideoDataModule(small_root, num_workers=0))
    assert [*tmp_path.glob("*.h5")] == []


def test_other_modules_are_refused(tmp_path: Path) -> None:
    """The writer says what it works with."""

    class Other(LightningModule):
        def predict_step(self, batch: object) -> object:
            return batch

    trainer = Trainer(callbacks=[FeatureWriter(tmp_path)], logger=False, accelerator="cpu")
    with pytest.raises(UsageError, match="found Other and NoneType"):
        trainer.predict(Other(), DataLoader([1, 2]))  # type: ignore[arg-type]


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_half_precision(small_root: Path, tmp_path: Path, precision: str) -> None:
    """In bfloat16 the features are float32, and off by about a hundredth at most."""
    exact, rough = FeatureWriter(tmp_path / "exact"), FeatureWriter(tmp_path / "rough")
    predict(small_root, exact)
    predict(small_root, rough, precision=precision)
    with h5py.File(exact.paths["train"]) as a, h5py.File(rough.paths["train"]) as b:
        assert b["features"].dtype == "float32"
        wanted, found = (torch.from_numpy(file["features"][:]) for file in (a, b))
        assert json.loads(b.attrs["config"])["precision"] == precision
    assert 0 < (found - wanted).norm() / wanted.norm() < 1e-2


@pytest.mark.processes
def test_one_run_at_a_time(small_root: Path, tmp_path: Path) -> None:
    """While another process works on the folder, a run is refused before the first video."""
    code = (
        "import sys, time; from pathlib import Path; from featx.features.lock import RunLock\n"
        "lock = RunLock(Path(sys.argv[1])); lock.acquire(); print(1, flush=True); time.sleep(600)"
    )
    path = tmp_path / ".featx" / "lock"
    with subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        try:
            with pytest.raises(OutputError, match=f"found process {holder.pid} on"):
                predict(small_root, FeatureWriter(tmp_path))
        finally:
            holder.kill()
    writer = FeatureWriter(tmp_path)
    predict(small_root, writer)
    assert all(path.exists() for path in writer.paths.values())
    assert is_tidy(tmp_path)


@pytest.mark.usefixtures("tiny")
def test_a_split_is_the_same_beside_any_other(root: Path, save: Save, tmp_path: Path) -> None:
    """A file does not depend on which other splits were asked for."""
    save("train/a/x", random_videos(1, 4))
    save("val/a/x", random_videos(1, 6))
    settings = {"backbone": "resnet50", "weights": "random", "accelerator": "cpu"}
    path = featx.extract(root, tmp_path / "out", splits=["train"], **settings)["train"]  # type: ignore[arg-type]
    content = path.read_bytes()
    paths = featx.extract(root, tmp_path / "out", **settings)  # type: ignore[arg-type]
    assert paths["train"].read_bytes() == content
    assert paths["val"].exists()


@pytest.mark.usefixtures("tiny")
def test_a_split_is_on_disk_when_the_next_begins(
    root: Path, save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rows do not wait in memory for hours."""
    save("train/a/x", random_videos(3, 4))
    save("val/a/x", random_videos(3, 4))
    original = PartWriter.add
    parts = []

    def add(*args: Any) -> None:  # noqa: ANN401
        original(*args)
        parts.append(len([*tmp_path.glob("out/.featx/*/*/part-*.h5")]))

    monkeypatch.setattr(PartWriter, "add", add)
    featx.extract(root, tmp_path / "out", backbone="resnet50", weights="random", accelerator="cpu")
    assert parts == [0, 0, 0, 1, 1, 1]


def recorded(path: Path) -> tuple[str, str]:
    """Name and digest of the weights that a file records."""
    with h5py.File(path) as file:
        return file.attrs["weights"], file.attrs["weights_sha256"]


def run_with(
    root: Path, out: Path, extractor: FeatureExtractor, ckpt: Path | None = None, **settings: object
) -> tuple[Path, list[torch.Tensor]]:
    """The file and the predictions of the split test, with an extractor of one's own."""
    writer = FeatureWriter(out)
    trainer = Trainer(
        callbacks=[writer],
        logger=False,
        accelerator="cpu",
        enable_progress_bar=False,
        **settings,  # type: ignore[arg-type]
    )
    data = VideoDataModule(root, ["test"], num_workers=0)
    batches = trainer.predict(extractor, data, ckpt_path=ckpt)
    assert batches is None or isinstance(batches, list)
    return writer.paths["test"], [features for batch in batches or () for features in batch]


@pytest.mark.parametrize("way", ["extractor", "backbone", "in place", "ckpt_path"])
def test_weights_changed_since(small_root: Path, tmp_path: Path, way: str) -> None:
    """Whatever was loaded into an extractor: the digest is that of what runs."""
    plain, features = run_with(
        small_root, tmp_path / "plain", FeatureExtractor("resnet50", "random")
    )
    extractor, other = (FeatureExtractor("resnet50", "random") for _ in range(2))
    with torch.no_grad():
        other.backbone.conv.weight.mul_(-2)  # type: ignore[union-attr, operator]
    ckpt = tmp_path / "other.ckpt" if way == "ckpt_path" else None
    if way == "extractor":
        extractor.load_state_dict(other.state_dict())
        assert extractor.weights_sha256 != recorded(plain)[1]
    elif way == "backbone":
        extractor.backbone.load_state_dict(other.backbone.state_dict())
    elif way == "in place":
        extractor = other
    else:
        torch.save(
            {"state_dict": other.state_dict(), "pytorch-lightning_version": "2.6.0"}, str(ckpt)
        )
    path, changed = run_with(small_root, tmp_path / "changed", extractor, ckpt)
    assert not torch.equal(features[0], changed[0])
    name, digest = recorded(path)
    assert name == "random, changed since"
    assert digest == state_dict_sha256(other.backbone.state_dict()) != recorded(plain)[1]
    assert run_with(small_root, tmp_path / "changed", extractor, ckpt)[0] == path  # nothing to do
    with pytest.raises(OutputError, match="the weights have other values"):
        run_with(small_root, tmp_path / "plain", extractor, ckpt)


def test_the_same_weights_loaded_again(small_root: Path, tmp_path: Path) -> None:
    """They are the same ones."""
    extractor = FeatureExtractor("resnet50", "random")
    extractor.load_state_dict(FeatureExtractor("resnet50", "random").state_dict())
    path, _ = run_with(small_root, tmp_path / "out", extractor)
    assert recorded(path)[0] == "random"


def test_rounded_weights(small_root: Path, tmp_path: Path) -> None:
    """A run in half precision rounds the weights; they are the same ones for such runs alone."""
    extractor = FeatureExtractor("resnet50", "random")
    for _ in range(2):
        path, _ = run_with(small_root, tmp_path / "half", extractor, precision="bf16-true")
    exact, _ = run_with(small_root, tmp_path / "exact", FeatureExtractor("resnet50", "random"))
    assert recorded(path) == recorded(exact)
    with pytest.raises(UsageError, match=r"expected weights in torch.float32 for 32-true, found"):
        run_with(small_root, tmp_path / "again", extractor)


@pytest.mark.parametrize("items", [torch.zeros(2, 3, 8, 8), [(torch.zeros(3, 8, 8), 0)] * 2])
def test_a_dataloader_of_ones_own(items: torch.Tensor | list[object]) -> None:
    """It is told in a line what is expected, whatever its batches are."""
    trainer = Trainer(logger=False, accelerator="cpu", enable_progress_bar=False)
    with pytest.raises(UsageError, match="predict_step: expected a VideoBatch, found"):
        trainer.predict(FeatureExtractor("resnet50", "random"), DataLoader(items))  # type: ignore[arg-type]


@pytest.mark.parametrize("way", ["load_state_dict", "in place"])
def test_compiled_weights_are_constants(small_root: Path, tmp_path: Path, way: str) -> None:
    """What was compiled would go on with the old ones: others are refused."""
    extractor = FeatureExtractor("resnet50", "random")
    extractor.compiled = True  # to compile takes long, and is not the point
    run_with(small_root, tmp_path / "a", extractor)
    if way == "in place":
        with torch.no_grad():
            extractor.backbone.conv.weight.mul_(-2)  # type: ignore[union-attr, operator]
    state = {name: 2 * value for name, value in extractor.state_dict().items()}
    with pytest.raises(UsageError, match="compile: expected the weights that were compiled, found"):
        _ = (
            extractor.load_state_dict(state)
            if way == "load_state_dict"
            else run_with(small_root, tmp_path / "b", extractor)
        )


def test_weights_changed_before_they_are_compiled(small_root: Path, tmp_path: Path) -> None:
    """These are what is compiled."""
    extractor = FeatureExtractor("resnet50", "random")
    extractor.compiled = True
    extractor.load_state_dict({n: 2 * value for n, value in extractor.state_dict().items()})
    path, _ = run_with(small_root, tmp_path / "a", extractor)
    assert recorded(path)[0] == "random, changed since"


BAD = torch.full((2, 3, 8, 8), float("nan"))


def test_bad_videos_are_never_dropped_in_silence(
    root: Path, save: Save, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a writer they are raised, or listed in the log; in a DataLoader of one's own, too."""
    save("test/a/x", [random_videos(1, 2)[0], BAD, random_videos(1, 3)[0]])
    trainer = Trainer(logger=False, accelerator="cpu", enable_progress_bar=False)
    extractor = FeatureExtractor("resnet50", "random")
    with pytest.raises(InputError, match="found NaN or infinity in video 1"):
        trainer.predict(extractor, VideoDataModule(root, num_workers=0))
    data = VideoDataModule(root, num_workers=0, on_error="skip", batch_size=3)
    batches = trainer.predict(extractor, data)
    assert [len(batch) for batch in batches or ()] == [2]
    assert caplog.text.count("Left out: ") == 1
    loader = DataLoader(data.make_dataset(), batch_size=3, collate_fn=join)
    with pytest.raises(InputError, match="found NaN or infinity in video 1"):
        trainer.predict(extractor, loader)


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "32-true", "16-true"])
def test_a_cpu_that_imitates_bfloat16(
    small_root: Path, tmp_path: Path, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told before the run that this is slow, and what to set."""
    monkeypatch.setattr("featx.extraction.extractor.imitates_bfloat16", lambda: True)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        run_with(small_root, tmp_path, FeatureExtractor("resnet50", "random"), precision=precision)
    lines = [str(w.message) for w in told if "slow on this CPU" in str(w.message)]
    assert len(lines) == precision.startswith("bf16")
    assert all("Set precision to 32-true." in line for line in lines)


def test_positions_are_not_kept(small_root: Path, tmp_path: Path) -> None:
    """Lightning would keep those of all batches."""
    data = VideoDataModule(small_root, num_workers=0, batch_size=2)
    trainer = Trainer(
        callbacks=[FeatureWriter(tmp_path)],
        logger=False,
        accelerator="cpu",
        devices=1,
        enable_progress_bar=False,
    )
    trainer.predict(FeatureExtractor("resnet50", "random"), data, return_predictions=False)
    loader = trainer.predict_dataloaders
    assert isinstance(loader, DataLoader)
    assert loader.batch_sampler.seen_batch_indices == [[]] * 5  # type: ignore[union-attr]
