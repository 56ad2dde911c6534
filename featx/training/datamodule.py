"""`FeatureDataModule`: feature files as batches for training, padded or packed."""

from functools import cached_property, partial
from pathlib import Path
from typing import get_args

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from featx.errors import InputError, MissingInputError, check_at_least, check_choice
from featx.features.dataset import FeatureDataset, FeatureItem
from featx.features.folder import find_feature_files
from featx.files import expand
from featx.parallel import count_cores
from featx.training.batches import BatchLayout, collate
from featx.training.batches import PackedBatch as PackedBatch
from featx.training.batches import PaddedBatch as PaddedBatch

_MAX_WORKERS = 4  # each reads some 600 videos of [73, 1280] a second


class FeatureDataModule(LightningDataModule):
    """The feature files of a folder: train, shuffled, and val and test.

    Args:
        folder: The folder that featx predict wrote to.
        batch_size: Videos per batch.
        layout: `padded` for `PaddedBatch`, `packed` for `PackedBatch`.
        multi_scale: Which files, where there are both; by default, those that there are.
        num_workers: Processes that read; by default one for two cores, and at most 4.

    Raises:
        UsageError: A setting is out of its range.
        MissingInputError: A file does not exist, once it is needed.
        InputError: Files do not belong together, once they are needed.
    """

    def __init__(
        self,
        folder: Path | str,
        batch_size: int = 32,
        layout: BatchLayout = "padded",
        multi_scale: bool | None = None,
        num_workers: int | None = None,
    ) -> None:
        super().__init__()
        if num_workers is None:
            num_workers = min(_MAX_WORKERS, count_cores() // 2)
        check_at_least(1, batch_size=batch_size)
        check_at_least(0, num_workers=num_workers)
        check_choice("layout", layout, get_args(BatchLayout))
        self.folder = expand(folder)
        self.batch_size = batch_size
        self.layout = layout
        self.multi_scale = multi_scale
        self.num_workers = num_workers

    @cached_property
    def datasets(self) -> dict[str, FeatureDataset]:
        """The dataset of each split that there is."""
        paths = find_feature_files(self.folder, self.multi_scale, ("train", "val", "test"))
        datasets = {split: FeatureDataset(path) for split, path in paths.items()}
        first = next(iter(datasets.values()))
        for dataset in datasets.values():
            for name in ("feature_dim", "categories", "recipe"):
                if getattr(dataset, name) != getattr(first, name):
                    raise InputError(
                        f"{dataset.path}: expected the {name} of {first.path.name}, found another: "
                        f"{getattr(dataset, name)} instead of {getattr(first, name)}. "
                        "Extract all splits together."
                    )
        return datasets

    @property
    def feature_dim(self) -> int:
        """Number of features per frame."""
        return next(iter(self.datasets.values())).feature_dim

    @property
    def categories(self) -> dict[str, int]:
        """Label of each category."""
        return next(iter(self.datasets.values())).categories

    def train_dataloader(self) -> DataLoader[FeatureItem]:
        """Batches of train, in another order in each epoch."""
        return self._load("train")

    def val_dataloader(self) -> DataLoader[FeatureItem] | list[object]:
        """Batches of val, in row order; none where there is no such file."""
        return self._load("val") if "val" in self.datasets else []

    def test_dataloader(self) -> DataLoader[FeatureItem]:
        """Batches of test, in row order."""
        return self._load("test")

    def _load(self, split: str) -> DataLoader[FeatureItem]:
        if split not in self.datasets:
            raise MissingInputError(
                f"{self.folder}: expected features of {split}, found those of "
                f"{', '.join(self.datasets)}. Extract them with featx predict."
            )
        return DataLoader(
            self.datasets[split],
            batch_size=self.batch_size,
            shuffle=split == "train",
            num_workers=self.num_workers,
            collate_fn=partial(collate, layout=self.layout),
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )
