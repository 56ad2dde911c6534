"""`FeatureDataModule`: feature files as batches for training, padded or packed."""

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from featx.durable import expand
from featx.errors import (
    InputError,
    MissingInputError,
    UsageError,
    check_at_least,
    check_choice,
    check_collection,
    check_known,
)
from featx.features.dataset import FeatureDataset, FeatureItem
from featx.features.folder import check_together, find_feature_files
from featx.parallel import count_cores
from featx.training.augmentation import draw_frames
from featx.training.batches import BatchLayout, collate
from featx.training.batches import PackedBatch as PackedBatch
from featx.training.batches import PaddedBatch as PaddedBatch
from featx.training.selection import Selection, balance, cap, find_values, number_anew

_MAX_LABELS = 1_000_000
_MAX_WORKERS = 4  # each reads some 600 videos of [73, 1280] a second


class FeatureDataModule(LightningDataModule):
    """The feature files of a folder: train, shuffled, and val and test.

    Args:
        folder: The folder that featx predict wrote to.
        batch_size: Videos per batch.
        layout: `padded` for `PaddedBatch`, `packed` for `PackedBatch`.
        multi_scale: Which files, where there are both; by default, those that there are.
        num_workers: Processes that read; by default one for two cores, and at most 4.
        only_categories: Only videos of these, in all splits. Labels are numbered anew, from 0, in
            the order that they have in the files. Videos without a label are left out.
        where: Only videos whose columns have one of these values, in all splits: with
            `{"signer": [1, 2]}`, those of two signers.
        max_per_category: At most so many videos of each category in train, evenly spaced over its
            rows. Videos without a label all stay.
        crop_frames: So many successive frames of each video of train, from another random place
            each time; shorter videos are whole.
        jitter_frames: Each frame of train is replaced by one that is at most so many frames away,
            at random. The order of frames stays.
        columns: Columns of the table that batches have, too: these are `PaddedBatchWithColumns` or
            `PackedBatchWithColumns`.
        train: The split that is trained on: that of the files' names. None for none.
        val: The split for validation. None for none.
        test: The split for tests. None for none.

    Raises:
        UsageError: A setting is out of its range; or names what the files do not have, once they
            are needed.
        MissingInputError: A file does not exist, once it is needed.
        InputError: Files do not belong together, or no video is left, once they are needed.
    """

    def __init__(
        self,
        folder: Path | str,
        batch_size: int = 32,
        layout: BatchLayout = "padded",
        multi_scale: bool | None = None,
        num_workers: int | None = None,
        only_categories: Sequence[str] | None = None,
        where: Mapping[str, Collection[str | float]] | None = None,
        max_per_category: int | None = None,
        crop_frames: int | None = None,
        jitter_frames: int = 0,
        columns: Sequence[str] = (),
        train: str | None = "train",
        val: str | None = "val",
        test: str | None = "test",
    ) -> None:
        super().__init__()
        if num_workers is None:
            num_workers = min(_MAX_WORKERS, count_cores() // 2)
        check_at_least(1, batch_size=batch_size)
        check_at_least(0, num_workers=num_workers, jitter_frames=jitter_frames)
        check_at_least(1, max_per_category=max_per_category, crop_frames=crop_frames)
        check_choice("layout", layout, get_args(BatchLayout))
        check_collection("columns", columns)
        if only_categories is not None:
            check_collection("only_categories", only_categories)
        for name, values in (where or {}).items():
            check_collection(f"where: {name}", values)
        self.folder = expand(folder)
        self.batch_size = batch_size
        self.layout = layout
        self.multi_scale = multi_scale
        self.num_workers = num_workers
        self.only_categories = only_categories
        self.where = where or {}
        self.max_per_category = max_per_category
        self.crop_frames = crop_frames
        self.jitter_frames = jitter_frames
        self.columns = [*columns]
        given = {"train": train, "val": val, "test": test}
        self.splits = {role: split for role, split in given.items() if split is not None}
        if len({*self.splits.values()}) < len(self.splits):
            raise UsageError(
                "train, val, test: expected different splits, found one for two of them in "
                f"{self.splits}. Set one to None, for none."
            )

    @cached_property
    def datasets(self) -> dict[str, FeatureDataset]:
        """All videos of train, val and test, as far as there are such files."""
        paths = find_feature_files(self.folder, self.multi_scale, self.splits.values())
        for role, split in self.splits.items():
            if split not in (role, *paths):
                raise self._tell_missing(split, paths)
        datasets = {
            role: FeatureDataset(paths[split])
            for role, split in self.splits.items()
            if split in paths
        }
        check_together([*datasets.values()])
        return datasets

    @cached_property
    def selections(self) -> dict[str, Selection]:
        """The videos of train, val and test that batches are made of, with the labels they have."""
        for dataset in self.datasets.values():
            what = f"columns of {dataset.path.name}"
            check_known("columns", self.columns, dataset.columns, what)
            check_known("where", self.where, dataset.columns, what)
        for name, values in self.where.items():
            cells = (dataset.columns[name].tolist() for dataset in self.datasets.values())
            known = dict.fromkeys(chain.from_iterable(cells))
            check_known("where", values, known, f"values of {name}")
        return {role: self._select(role, dataset) for role, dataset in self.datasets.items()}

    @property
    def feature_dim(self) -> int:
        """Number of features per frame."""
        return next(iter(self.datasets.values())).feature_dim

    @property
    def categories(self) -> dict[str, int]:
        """Label of each category, as batches have them."""
        categories = next(iter(self.datasets.values())).categories
        if self.only_categories is None:
            return categories
        check_known("only_categories", self.only_categories, categories, "categories")
        kept = sorted({*self.only_categories}, key=categories.__getitem__)
        return {name: label for label, name in enumerate(kept)}

    @property
    def class_weights(self) -> Tensor:
        """Weight `[num_categories]` of each label, float32, for a loss in which all count the same.

        Over the labelled videos of train that are left: their number, divided by the number of
        categories and by that of videos of the category. A category without videos does not count,
        and has 0. It lies on the CPU; `torch.nn.functional.cross_entropy` takes it as `weight`.

        Raises:
            InputError: Labels are too large for that.
        """
        num_labels = 1 + max(self.categories.values(), default=-1)
        if num_labels > _MAX_LABELS:
            raise InputError(
                f"{self.folder}: expected labels below {_MAX_LABELS:,}, as each has a weight, "
                f"found {num_labels - 1:,}. Set only_categories: it numbers them anew."
            )
        return torch.from_numpy(balance(self._find("train").labels, num_labels))

    def train_dataloader(self) -> DataLoader[FeatureItem]:
        """Batches of train, in another order in each epoch."""
        return self._load("train")

    def val_dataloader(self) -> DataLoader[FeatureItem] | list[object]:
        """Batches of val, in row order; none where there is no such file."""
        return self._load("val") if "val" in self.datasets else []

    def test_dataloader(self) -> DataLoader[FeatureItem]:
        """Batches of test, in row order."""
        return self._load("test")

    def _load(self, role: str) -> DataLoader[FeatureItem]:
        return DataLoader(
            self._find(role),
            batch_size=self.batch_size,
            shuffle=role == "train",
            num_workers=self.num_workers,
            collate_fn=partial(collate, layout=self.layout, columns=self.columns),
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def _find(self, role: str) -> Selection:
        """The videos of train, val or test, of which there is one or more."""
        if role not in self.datasets:
            found = [self.splits[other] for other in self.datasets]
            raise self._tell_missing(self.splits.get(role, role), found)
        selection = self.selections[role]
        if not len(selection):
            raise InputError(
                f"{selection.dataset.path}: expected videos of the categories and the values asked "
                f"for, found none. Ask for others, or set {role} to None."
            )
        return selection

    def _tell_missing(self, split: str, found: Collection[str]) -> MissingInputError:
        return MissingInputError(
            f"{self.folder}: expected features of {split}, found those of "
            f"{', '.join(found)}. Extract them with featx predict."
        )

    def _select(self, role: str, dataset: FeatureDataset) -> Selection:
        """The videos of a file that are asked for."""
        labels, kept = dataset.labels, np.ones(len(dataset), bool)
        if self.only_categories is not None:
            labels = number_anew(labels, [dataset.categories[name] for name in self.categories])
            kept &= labels >= 0
        for name, values in self.where.items():
            kept &= find_values(dataset.columns[name], values)
        rows, draw = np.flatnonzero(kept), None
        if role == "train":
            if self.max_per_category is not None:
                rows = rows[cap(labels[rows], self.max_per_category)]
            if self.crop_frames is not None or self.jitter_frames:
                draw = partial(
                    draw_frames, crop_frames=self.crop_frames, jitter_frames=self.jitter_frames
                )
        return Selection(dataset, rows, labels[rows], draw)
