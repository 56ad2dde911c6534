"""Batches with columns of a table, and their way to a device."""

from typing import Any

import numpy as np
import pytest
import torch
from helpers import make_rows
from lightning.fabric.utilities import move_data_to_device
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor
from torch.utils.data._utils.pin_memory import pin_memory

from featx.features.dataset import FeatureItem
from featx.training.batches import (
    BatchLayout,
    PackedBatch,
    PackedBatchWithColumns,
    PaddedBatch,
    PaddedBatchWithColumns,
    collate,
)

LENGTHS = [3, 1, 5]
ABOUT: list[dict[str, Any]] = [
    {"signer": 7, "age": 31.5, "gloss": "book"},
    {"signer": 8, "age": 18.0, "gloss": ""},
    {"signer": 7, "age": np.nan, "gloss": "drink"},
]
KINDS: list[tuple[BatchLayout, type, type]] = [
    ("padded", PaddedBatch, PaddedBatchWithColumns),
    ("packed", PackedBatch, PackedBatchWithColumns),
]


@pytest.fixture
def items() -> list[FeatureItem]:
    """Three videos, with columns."""
    found = []
    for row, features in enumerate(make_rows(LENGTHS)):
        name, about = f"video {row}", ABOUT[row]
        found.append(FeatureItem(torch.from_numpy(features), row, LENGTHS[row], name, about))
    return found


@pytest.mark.parametrize(("layout", "plain", "extended"), KINDS)
def test_columns(items: list[FeatureItem], layout: BatchLayout, plain: Any, extended: Any) -> None:  # noqa: ANN401
    """They are one more field: numbers in a tensor, text in a list, as far as asked for."""
    assert extended._fields == (*plain._fields, "columns")
    assert type(collate(items, layout)) is plain
    batch = collate(items, layout, ["gloss", "signer", "age"])
    assert isinstance(batch, PaddedBatchWithColumns | PackedBatchWithColumns)
    assert type(batch) is extended
    assert batch.labels.tolist() == [0, 1, 2]
    assert batch.video_ids == ["video 0", "video 1", "video 2"]
    assert [*batch.columns] == ["gloss", "signer", "age"]
    gloss, signer, age = batch.columns.values()
    assert gloss == ["book", "", "drink"]
    assert isinstance(signer, Tensor)
    assert isinstance(age, Tensor)
    assert (signer.dtype, signer.tolist()) == (torch.int64, [7, 8, 7])
    assert (age.dtype, age[:2].tolist()) == (torch.float32, [31.5, 18.0])
    assert age[2].isnan()


class Pinning(Tensor):
    """A tensor that notes that it was pinned, which would need a GPU."""

    pinned = False

    def pin_memory(self, device: object = None) -> "Pinning":
        """The same tensor, with a note."""
        self.pinned = True
        return self


@pytest.mark.parametrize(("layout", "extended"), [kind[::2] for kind in KINDS])
def test_the_way_to_a_device(items: list[FeatureItem], layout: BatchLayout, extended: type) -> None:
    """Torch pins the tensors of a batch and Lightning moves them, also columns; text stays."""
    batch: Any = collate(items, layout, ["gloss", "signer"])
    noting = apply_to_collection(batch, Tensor, lambda tensor: tensor.as_subclass(Pinning))
    pinned: Any = pin_memory(noting)  # type: ignore[no-untyped-call]
    moved: Any = move_data_to_device(batch, torch.device("meta"))
    assert {type(pinned), type(moved)} == {extended}
    assert pinned.columns["gloss"] == moved.columns["gloss"] == ["book", "", "drink"]
    assert all(tensor.pinned for tensor in (pinned.labels, pinned.columns["signer"]))
    assert all(tensor.is_meta for tensor in (moved.labels, moved.columns["signer"]))
    features = [found.features for found in (pinned, moved)]
    pinned_data, moved_data = features if layout == "padded" else [found.data for found in features]
    assert pinned_data.pinned
    assert moved_data.is_meta
