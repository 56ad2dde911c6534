"""Batches of videos: padded or packed, with columns of a table or without."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_sequence, pad_sequence

from featx.features.dataset import FeatureItem

BatchLayout = Literal["padded", "packed"]


class PaddedBatch(NamedTuple):
    """Videos of a batch, padded with zeros to the longest one.

    Attributes:
        features: float32 `[B, T, feature_dim]`.
        mask: bool `[B, T]`, true where a frame is real.
        labels: int64 `[B]`.
        num_frames: int64 `[B]`.
        video_ids: Their names.
    """

    features: Tensor
    mask: Tensor
    labels: Tensor
    num_frames: Tensor
    video_ids: list[str]


class PaddedBatchWithColumns(NamedTuple):
    """The fields of `PaddedBatch`, and what a table says of its videos.

    Attributes:
        columns: By name: numbers `[B]`, int64 or float32, and text.
    """

    features: Tensor
    mask: Tensor
    labels: Tensor
    num_frames: Tensor
    video_ids: list[str]
    columns: dict[str, Tensor | list[str]]


class PackedBatch(NamedTuple):
    """Videos of a batch without padding, as torch's recurrent layers take them.

    Attributes:
        features: float32, of `feature_dim` per frame; it knows the order of the batch.
        labels: int64 `[B]`.
        num_frames: int64 `[B]`.
        video_ids: Their names.
    """

    features: PackedSequence
    labels: Tensor
    num_frames: Tensor
    video_ids: list[str]


class PackedBatchWithColumns(NamedTuple):
    """The fields of `PackedBatch`, and what a table says of its videos.

    Attributes:
        columns: By name: numbers `[B]`, int64 or float32, and text.
    """

    features: PackedSequence
    labels: Tensor
    num_frames: Tensor
    video_ids: list[str]
    columns: dict[str, Tensor | list[str]]


def collate_padded(items: Sequence[FeatureItem]) -> PaddedBatch:
    """Join videos, padded to the longest of them."""
    num_frames = torch.tensor([item.num_frames for item in items])
    features = pad_sequence([item.features for item in items], batch_first=True)
    mask = torch.arange(features.shape[1]) < num_frames[:, None]
    labels = torch.tensor([item.label for item in items])
    return PaddedBatch(features, mask, labels, num_frames, [item.video_id for item in items])


def collate_packed(items: Sequence[FeatureItem]) -> PackedBatch:
    """Join videos without padding."""
    features = pack_sequence([item.features for item in items], enforce_sorted=False)
    labels = torch.tensor([item.label for item in items])
    num_frames = torch.tensor([item.num_frames for item in items])
    return PackedBatch(features, labels, num_frames, [item.video_id for item in items])


def collate(
    items: Sequence[FeatureItem], layout: BatchLayout, columns: Sequence[str] = ()
) -> PaddedBatch | PackedBatch | PaddedBatchWithColumns | PackedBatchWithColumns:
    """Join videos in a layout; with columns of the table, if some are asked for."""
    batch = collate_packed(items) if layout == "packed" else collate_padded(items)
    if not columns:
        return batch
    joined = {name: _join([item.columns[name] for item in items]) for name in columns}
    if isinstance(batch, PackedBatch):
        return PackedBatchWithColumns(*batch, joined)
    return PaddedBatchWithColumns(*batch, joined)


def _join(cells: list[Any]) -> Tensor | list[str]:
    """The cells of a column, which are all of one kind."""
    return cells if isinstance(cells[0], str) else torch.tensor(cells)
