"""Feature files as batches for training."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from helpers import make_rows, plan, write_feature_file
from lightning.pytorch import LightningModule, Trainer, seed_everything
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_packed_sequence

from featx import FeatureDataModule
from featx.errors import InputError, MissingInputError, UsageError
from featx.training.datamodule import PackedBatch, PaddedBatch

LENGTHS = [3, 1, 5, 2, 4]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The feature files of train and test."""
    for split in ("train", "test"):
        path = tmp_path / f"{split}_features_multiscale.h5"
        write_feature_file(path, LENGTHS, columns={"age": np.arange(5) / 2})
    return tmp_path


def test_padded_batches(folder: Path) -> None:
    """Zeros up to the longest video of the batch, and a mask that tells them from frames."""
    data = FeatureDataModule(folder, batch_size=3, num_workers=0)
    rows = make_rows(LENGTHS)
    batches: list[PaddedBatch] = [*data.test_dataloader()]
    assert [batch.features.shape[:2] for batch in batches] == [(3, 5), (2, 4)]
    found = [(batch, i) for batch in batches for i in range(len(batch.labels))]
    for row, (batch, i) in enumerate(found):
        assert torch.equal(batch.features[i][batch.mask[i]], torch.from_numpy(rows[row]))
        assert not batch.features[i][~batch.mask[i]].any()
        assert batch.num_frames[i] == LENGTHS[row] == batch.mask[i].sum()
        assert batch.labels[i] == row % 2
        assert batch.video_ids[i] == f"video {row}"


def test_packed_batches(folder: Path) -> None:
    """The same videos in the same order, without padding."""
    data = FeatureDataModule(folder, batch_size=5, layout="packed", num_workers=0)
    [batch] = data.test_dataloader()
    assert isinstance(batch, PackedBatch)
    assert len(batch.features.data) == sum(LENGTHS)
    padded, lengths = pad_packed_sequence(batch.features, batch_first=True)
    assert lengths.tolist() == batch.num_frames.tolist() == LENGTHS
    for features, expected in zip(padded, make_rows(LENGTHS), strict=True):
        assert torch.equal(features[: len(expected)], torch.from_numpy(expected))


def test_train_is_shuffled_and_the_others_are_not(folder: Path) -> None:
    """Every video comes once per epoch, in another order in the next one."""
    data = FeatureDataModule(folder, batch_size=1, num_workers=0)
    torch.manual_seed(0)
    loader = data.train_dataloader()
    orders = [[name for batch in loader for name in batch.video_ids] for _ in range(8)]
    assert all(sorted(order) == sorted(orders[0]) for order in orders)
    assert len({*map(tuple, orders)}) > 1
    names = [name for batch in data.test_dataloader() for name in batch.video_ids]
    assert names == sorted(names)


class Classifier(LightningModule):
    """A recurrent layer, as small as can be."""

    def __init__(self, feature_dim: int) -> None:
        super().__init__()
        self.layer = nn.GRU(feature_dim, 2, batch_first=True)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:  # noqa: ANN401
        """Cross-entropy of the last state."""
        state = self.layer(batch.features)[1][0]
        return nn.functional.cross_entropy(state, batch.labels)

    def validation_step(self, batch: Any, batch_idx: int) -> None:  # noqa: ANN401
        """Never called: there is no file of val."""
        raise AssertionError

    def test_step(self, batch: Any, batch_idx: int) -> None:  # noqa: ANN401
        """Nothing; the batches arrive."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Plain SGD."""
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.filterwarnings("ignore:Total length of `list` across ranks is zero:UserWarning")
@pytest.mark.parametrize("settings", [{}, {"columns": ["age"], "crop_frames": 2}], ids=str)
@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_lightning_takes_it(folder: Path, layout: Any, settings: Any) -> None:  # noqa: ANN401
    """`fit` without a file of val, and `test`, with a worker, with all kinds of batches."""
    data = FeatureDataModule(folder, batch_size=2, layout=layout, num_workers=1, **settings)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    )
    model = Classifier(data.feature_dim)
    before = [*map(torch.clone, model.parameters())]
    trainer.fit(model, data)
    assert any(not torch.equal(*pair) for pair in zip(before, model.parameters(), strict=True))
    trainer.test(model, data, verbose=False)


def test_which_files(folder: Path) -> None:
    """Where both kinds are there one has to be asked for; what is missing is told."""
    write_feature_file(folder / "train_features.h5", [2])
    with pytest.raises(UsageError, match=r"found train_features_multiscale\.h5 and train_feat"):
        _ = FeatureDataModule(folder).datasets
    assert len(FeatureDataModule(folder, multi_scale=True).datasets["train"]) == 5
    assert len(FeatureDataModule(folder, multi_scale=False).datasets["train"]) == 1
    with pytest.raises(MissingInputError, match="expected features of test, found those of train"):
        FeatureDataModule(folder, multi_scale=False).test_dataloader()
    with pytest.raises(MissingInputError, match="found none"):
        _ = FeatureDataModule(folder / "nowhere").datasets


def test_files_that_do_not_belong_together(folder: Path) -> None:
    """Other categories in test would give its labels another meaning."""
    with h5py.File(folder / "test_features_multiscale.h5", "r+") as file:
        file.attrs["category_mapping"] = json.dumps({"b": 0, "a": 1})
    with pytest.raises(InputError, match=r"test_.*expected the categories of train_.*together"):
        _ = FeatureDataModule(folder).datasets


def test_other_recipes(folder: Path) -> None:
    """As many features, but of other weights, or of one scale: no classifier can take both."""
    with h5py.File(folder / "train_features_multiscale.h5", "r+") as file:
        file.attrs["weights_sha256"] = "abc"
    with pytest.raises(InputError, match=r"expected the recipe of train_.*'abc'"):
        _ = FeatureDataModule(folder).datasets
    (folder / "train_features_multiscale.h5").unlink()
    with h5py.File(write_feature_file(folder / "train_features.h5", [2]), "r+") as file:
        file.attrs["multi_scale"] = False
    with pytest.raises(InputError, match="expected the recipe of train_features"):
        _ = FeatureDataModule(folder).datasets


@pytest.mark.parametrize("other", [{"scale_average": "present"}, {"scale_align": "time"}])
def test_scales_that_were_averaged_in_another_way(folder: Path, other: dict[str, str]) -> None:
    """Rows of one meaning in train, and of another in test: it is told which."""
    path = folder / "train_features_multiscale.h5"
    write_feature_file(path, LENGTHS, {**other})
    [(name, value)] = other.items()
    with pytest.raises(InputError, match=r"the recipe of train_.*found another") as caught:
        _ = FeatureDataModule(folder).datasets
    assert str(caught.value).count(f"'{name}': '{value}'") == 1
    write_feature_file(folder / "test_features_multiscale.h5", LENGTHS, {**other})
    assert FeatureDataModule(folder).datasets.keys() == {"train", "test"}


def write_split(folder: Path, split: str, labels: Sequence[int], signers: Sequence[int]) -> None:
    """A feature file of three frames a video, of four categories."""
    categories = {"go": 0, "stop": 1, "wait": 2, "turn": 3}
    write_feature_file(
        folder / f"{split}_features_multiscale.h5",
        [3] * len(labels),
        labels=np.array(labels),
        columns={
            "signer": np.array(signers),
            "gloss": np.array([*"abcdefgh"[: len(labels)]], object),
        },
        provenance=replace(plan([3]).provenance, categories=categories),
    )


@pytest.fixture
def signed(tmp_path: Path) -> Path:
    """Feature files of train and test, which come from a table."""
    write_split(tmp_path, "train", [0, 0, 0, 1, 2, 2, 2, -1], [1, 1, 2, 2, 3, 3, 4, 4])
    write_split(tmp_path, "test", [0, 2, 3, -1], [1, 5, 1, 1])
    return tmp_path


def read_labels(data: FeatureDataModule, role: str) -> dict[str, int]:
    """The label of each video of a split, by its number, in row order."""
    selection = data.selections[role]
    items = [selection[i] for i in range(len(selection))]
    return {item.video_id.removeprefix("video "): item.label for item in items}


def test_only_some_categories(signed: Path) -> None:
    """Their labels have no holes, in the order of the files, in all splits; all others go."""
    data = FeatureDataModule(signed, num_workers=0, only_categories=["turn", "wait", "go"])
    assert data.categories == {"go": 0, "wait": 1, "turn": 2}
    assert read_labels(data, "train") == {"0": 0, "1": 0, "2": 0, "4": 1, "5": 1, "6": 1}
    [batch] = data.test_dataloader()
    assert batch.labels.tolist() == [0, 1, 2]
    assert batch.video_ids == ["video 0", "video 1", "video 2"]
    whole = FeatureDataModule(signed)
    assert whole.categories == {"go": 0, "stop": 1, "wait": 2, "turn": 3}
    assert [*read_labels(whole, "train").values()] == [0, 0, 0, 1, 2, 2, 2, -1]


def test_some_values_of_a_column(signed: Path) -> None:
    """Videos of other signers are in no split; several columns are narrower than one."""
    data = FeatureDataModule(signed, num_workers=0, where={"signer": [1, 4]})
    assert read_labels(data, "train") == {"0": 0, "1": 0, "6": 2, "7": -1}
    assert read_labels(data, "test") == {"0": 0, "2": 3, "3": -1}
    assert len(next(iter(data.train_dataloader())).labels) == 4
    both = FeatureDataModule(
        signed, only_categories=["wait"], where={"signer": [3, 5], "gloss": {"b", "f"}}
    )
    assert read_labels(both, "train") == {"5": 0}
    assert read_labels(both, "test") == {"1": 0}


def test_a_cap_of_train(signed: Path) -> None:
    """Of the videos that are left for training; tests stay as they are."""
    data = FeatureDataModule(signed, max_per_category=2, where={"signer": [1, 2, 3, 4]})
    assert [*read_labels(data, "train")] == ["0", "1", "3", "4", "5", "7"]
    data = FeatureDataModule(signed, max_per_category=1, only_categories=["go", "wait"])
    assert read_labels(data, "train") == {"0": 0, "4": 1}
    write_split(signed, "test", [0, 0, 0], [1, 1, 1])
    assert len(FeatureDataModule(signed, max_per_category=1).selections["test"]) == 3


def test_class_weights(signed: Path) -> None:
    """Those of the videos that are left for training; a category without any has 0."""
    weights = FeatureDataModule(signed).class_weights
    assert weights.dtype == torch.float32
    assert weights.tolist() == pytest.approx([7 / 9, 7 / 3, 7 / 9, 0])
    some = FeatureDataModule(signed, only_categories=["stop", "wait"], where={"signer": [2, 3]})
    assert some.class_weights.tolist() == pytest.approx([3 / 2, 3 / 4])
    assert FeatureDataModule(signed, max_per_category=1).class_weights.tolist() == [1, 1, 1, 0]
    loss = nn.functional.cross_entropy(torch.zeros(2, 4), torch.tensor([0, 2]), weight=weights)
    assert loss.item() == pytest.approx(np.log(4))


@pytest.fixture
def numbered(tmp_path: Path) -> Path:
    """Videos of twelve frames, whose features are the frame's number."""
    for split in ("train", "test"):
        path = write_feature_file(tmp_path / f"{split}_features_multiscale.h5", [12] * 9)
        with h5py.File(path, "r+") as file:
            file["features"][:] = np.arange(12)[None, :, None]
    return tmp_path


def test_crops_and_jitter_of_train(numbered: Path) -> None:
    """Training sees other frames, in order; tests see all of them."""
    data = FeatureDataModule(numbered, num_workers=0, crop_frames=5, jitter_frames=1)
    torch.manual_seed(0)
    [batch] = data.train_dataloader()
    frames = batch.features[:, :, 0]
    assert frames.shape == (9, 5)
    assert batch.num_frames.tolist() == [5] * 9
    assert len(frames.unique(dim=0)) > 3
    assert {0, 1, 2} <= {*frames.diff().flatten().tolist()} <= {0, 1, 2, 3}
    [batch] = data.test_dataloader()
    assert torch.equal(batch.features[:, :, 0], torch.arange(12.0).expand(9, 12))
    [batch] = FeatureDataModule(numbered, num_workers=0, jitter_frames=2).train_dataloader()
    assert batch.num_frames.tolist() == [12] * 9
    assert not torch.equal(batch.features[:, :, 0], torch.arange(12.0).expand(9, 12))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_randomness(numbered: Path, num_workers: int) -> None:
    """Every epoch draws anew, also in the same workers, and the same after the same seed."""

    def draw() -> list[list[tuple[str, list[float]]]]:
        """Frames of each video, in each of three epochs."""
        seed_everything(7, verbose=False)
        data = FeatureDataModule(numbered, batch_size=2, num_workers=num_workers, crop_frames=2)
        loader = data.train_dataloader()
        return [
            [
                (name, frames.tolist())
                for batch in loader
                for name, frames in zip(batch.video_ids, batch.features[:, :, 0], strict=True)
            ]
            for _ in range(3)
        ]

    epochs = draw()
    assert draw() == epochs
    drawn = [dict(epoch) for epoch in epochs]
    assert drawn[0] != drawn[1] != drawn[2] != drawn[0]


def test_columns_of_batches(signed: Path) -> None:
    """Those asked for, beside the videos that they are of."""
    data = FeatureDataModule(
        signed, num_workers=0, columns=["signer", "gloss"], only_categories=["turn", "wait"]
    )
    [batch] = data.test_dataloader()
    assert batch.labels.tolist() == [0, 1]
    assert batch.columns["signer"].tolist() == [5, 1]
    assert batch.columns["gloss"] == ["b", "c"]


def test_other_splits(signed: Path) -> None:
    """Any file may be that of training, or of none."""
    write_split(signed, "dev", [1, 1], [6, 7])
    data = FeatureDataModule(signed, 1, num_workers=0, train="dev", val="train", test=None)
    assert [*data.datasets] == ["train", "val"]
    assert [len(data.datasets[role]) for role in data.datasets] == [2, 8]
    assert [len(loader) for loader in (data.train_dataloader(), data.val_dataloader())] == [2, 8]
    with pytest.raises(MissingInputError, match="features of test, found those of dev, train"):
        data.test_dataloader()
    assert FeatureDataModule(signed, val=None).val_dataloader() == []
    with pytest.raises(MissingInputError, match="expected features of def, found those of train"):
        _ = FeatureDataModule(signed, val="def").datasets
    with pytest.raises(UsageError, match="expected different splits, found one for two of them"):
        FeatureDataModule(signed, train="test")


def test_what_the_files_do_not_have(signed: Path) -> None:
    """It is told what they have, and what is alike."""
    for settings, message in [
        ({"only_categories": ["go", "wiat"]}, r"only_categories: .*'stop', 'wait'.*mean 'wait'\?"),
        ({"only_categories": ["xyz"]}, r"found 'xyz'\. Choose from these\."),
        ({"columns": ["signr"]}, r"columns: expected columns of train_\S+ \('gloss', 'signer'\), "),
        ({"where": {"glos": ["a"]}}, r"where: expected columns of train.*Did you mean 'gloss'\?"),
        (
            {"where": {"signer": [1, "2"]}},
            r"values of signer \(1, 2, 3, 4, 5\), found '2'.* 2\?",
        ),
    ]:
        with pytest.raises(UsageError, match=message):
            FeatureDataModule(signed, num_workers=0, **settings).train_dataloader()  # type: ignore[arg-type]


def test_nothing_left(signed: Path) -> None:
    """Neither training nor tests go on without a video; what is left can be used."""
    data = FeatureDataModule(signed, num_workers=0, where={"signer": [5]})
    with pytest.raises(InputError, match=r"train_\S+: expected videos of .*, or set train to None"):
        data.train_dataloader()
    assert len([*data.test_dataloader()]) == 1


def test_wrong_settings(folder: Path) -> None:
    """They are refused at once."""
    with pytest.raises(UsageError, match="batch_size: expected 1 or more, found 0"):
        FeatureDataModule(folder, batch_size=0)
    with pytest.raises(UsageError, match="num_workers: expected 0 or more, found -1"):
        FeatureDataModule(folder, num_workers=-1)
    with pytest.raises(UsageError, match="layout: expected padded or packed, found 'sparse'"):
        FeatureDataModule(folder, layout="sparse")  # type: ignore[arg-type]
    for name in ("max_per_category", "crop_frames"):
        with pytest.raises(UsageError, match=f"{name}: expected 1 or more, found 0"):
            FeatureDataModule(folder, **{name: 0})  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="jitter_frames: expected 0 or more, found -1"):
        FeatureDataModule(folder, jitter_frames=-1)
    for name in ("columns", "only_categories"):
        with pytest.raises(UsageError, match=rf"{name}: expected a list, found 'a'.*\['a'\]"):
            FeatureDataModule(folder, **{name: "a"})  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="where: age: expected a list, found 3"):
        FeatureDataModule(folder, where={"age": 3})  # type: ignore[dict-item]


def test_labels_that_are_too_large_for_weights(tmp_path: Path) -> None:
    """A weight for each up to the largest would fill the memory: the way out is told."""
    write_feature_file(
        tmp_path / "train_features_multiscale.h5",
        [3, 3],
        labels=np.array([0, 10**14]),
        provenance=replace(plan([3]).provenance, categories={"a": 0, "b": 10**14}),
    )
    with pytest.raises(InputError, match=r"expected labels below 1,000,000.* Set only_categories"):
        _ = FeatureDataModule(tmp_path, num_workers=0).class_weights
    data = FeatureDataModule(tmp_path, num_workers=0, only_categories=["a", "b"])
    assert data.class_weights.tolist() == [1, 1]
