"""Feature files as batches for training."""

import json
from pathlib import Path
from typing import Any

import h5py
import pytest
import torch
from helpers import make_rows, write_feature_file
from lightning.pytorch import LightningModule, Trainer
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
        write_feature_file(tmp_path / f"{split}_features_multiscale.h5", LENGTHS)
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
@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_lightning_takes_it(folder: Path, layout: Any) -> None:  # noqa: ANN401
    """`fit` without a file of val, and `test`, with a worker, with both kinds of batches."""
    data = FeatureDataModule(folder, batch_size=2, layout=layout, num_workers=1)
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
    write_feature_file(path, LENGTHS, **other)
    [(name, value)] = other.items()
    with pytest.raises(InputError, match=r"the recipe of train_.*found another") as caught:
        _ = FeatureDataModule(folder).datasets
    assert str(caught.value).count(f"'{name}': '{value}'") == 1
    write_feature_file(folder / "test_features_multiscale.h5", LENGTHS, **other)
    assert FeatureDataModule(folder).datasets.keys() == {"train", "test"}


def test_wrong_settings(folder: Path) -> None:
    """They are refused at once."""
    with pytest.raises(UsageError, match="batch_size: expected 1 or more, found 0"):
        FeatureDataModule(folder, batch_size=0)
    with pytest.raises(UsageError, match="num_workers: expected 0 or more, found -1"):
        FeatureDataModule(folder, num_workers=-1)
    with pytest.raises(UsageError, match="layout: expected padded or packed, found 'sparse'"):
        FeatureDataModule(folder, layout="sparse")  # type: ignore[arg-type]
