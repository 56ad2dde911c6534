"""The data module: every video once, in order, on any number of ranks and workers."""

import pickle
from dataclasses import fields
from pathlib import Path
from queue import Queue
from typing import Any, cast

import numpy as np
import pytest
import torch
from helpers import Save, random_video, scan
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

from featx.data.dataset import RankShare, VideoBatch, VideoDataset
from featx.data.manifest import CPU, Manifest, Video
from featx.data.processed_file import ProcessedFile
from featx.errors import InputError, UsageError
from featx.extraction.datamodule import VideoDataModule


class FakeTrainer:
    """As much of a Trainer as a data module asks."""

    def __init__(self, rank: int, num_ranks: int, device: str = "cpu") -> None:
        self.strategy = SingleDeviceStrategy(device)
        self.global_rank, self.world_size = rank, num_ranks
        self.is_global_zero = rank == 0
        self.num_devices = 1


def load(root: Path, rank: int = 0, num_ranks: int = 1, **settings: int) -> list[VideoBatch]:
    """All batches of one rank."""
    data = VideoDataModule(root, **settings)  # type: ignore[arg-type]
    data.trainer = FakeTrainer(rank, num_ranks)  # type: ignore[assignment]
    data.setup("predict")
    loader: DataLoader[VideoBatch] = data.predict_dataloader()
    return [data.on_before_batch_transfer(batch, 0) for batch in loader]


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_defaults_that_suit_the_device(small_root: Path, device: str) -> None:
    """Copies to a GPU are asynchronous, from workers; on a CPU the cores are for the CNN."""
    data = VideoDataModule(small_root)
    data.trainer = FakeTrainer(0, 1, device)  # type: ignore[assignment]
    data.setup("predict")
    loader = data.predict_dataloader()
    assert loader.pin_memory == (device == "cuda:0")
    assert (loader.num_workers > 0) == (device == "cuda:0")


@pytest.mark.parametrize(("device", "num_workers"), [("cuda:1", None), ("cuda:1", 2), ("cpu", 0)])
def test_where_clips_are_decoded(
    raw: Path, device: str, num_workers: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU by torchcodec, and then in this process, which has it; that is recorded."""
    monkeypatch.setattr("featx.data.clip_source.check_decoder", lambda settings: None)
    data = VideoDataModule(
        raw, ["train"], source="clips", decoder="torchcodec", num_workers=num_workers
    )
    data.setup("predict")
    data.trainer = FakeTrainer(0, 1, device)  # type: ignore[assignment]
    on_gpu = device == "cuda:1" and not num_workers
    loader = data.predict_dataloader()
    assert loader.num_workers == (num_workers or 0)
    assert cast(VideoDataset, loader.dataset).device == torch.device("cuda:1" if on_gpu else "cpu")
    assert data.settings().get("decoder") == ("nvdec" if on_gpu else None)


def test_a_thread_reads_ahead(root: Path, save: Save) -> None:
    """While a video is with the CNN, the next one of the share is read, and no other."""
    save("train/a/x", [random_video(3 + i) for i in range(5)])
    read: Queue[int] = Queue()

    class TellingFile(ProcessedFile):
        """Tells what is read of it."""

        def read(self, index: int, device: torch.device = CPU) -> Video:
            """Read one video."""
            read.put(index)
            return super().read(index)

    manifest = scan(root)
    [file] = manifest.files
    telling = TellingFile(*(getattr(file, field.name) for field in fields(file)))
    manifest = Manifest(root, manifest.categories, [telling], {})
    dataset = VideoDataset(manifest, order=[0, 2, 3])
    for position, expected in ((0, [0, 2]), (2, [3]), (3, [])):
        assert dataset[position].positions == [position]
        assert [read.get(timeout=10) for _ in expected] == expected
    assert read.empty()


def test_workers_may_be_spawned(small_root: Path) -> None:
    """Where processes are not forked, as on macOS, the data set is pickled for them."""
    dataset = pickle.loads(pickle.dumps(VideoDataset(scan(small_root))))
    assert dataset[3].positions == [3]


def test_repeats_are_dropped_on_the_way_in(root: Path, save: Save) -> None:
    """What goes to the device are distinct frames, and where they stand."""
    video = random_video(4).repeat_interleave(2, dim=0)
    save("train/a/x", [video, random_video(3)])
    (batch,) = load(root, batch_size=2)
    assert [len(frames) for frames in batch.videos] == [4, 3]
    assert [index.tolist() for index in batch.frame_index] == [[0, 0, 1, 1, 2, 2, 3, 3], [0, 1, 2]]
    assert torch.equal(batch.videos[0][batch.frame_index[0]], video)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_every_video_in_order(small_root: Path, batch_size: int, num_workers: int) -> None:
    """Positions count up, and each video is that of its position."""
    batches = load(small_root, batch_size=batch_size, num_workers=num_workers)
    assert [p for batch in batches for p in batch.positions] == list(range(9))
    assert [len(batch.videos) for batch in batches][:2] == [batch_size] * 2
    videos = [video for batch in batches for video in batch.videos]
    assert torch.equal(videos[3], random_video(3, seed=2))
    assert [len(video) for video in videos] == [5, 7, 7, 3, 12, 7, 1, 7, 9]


@pytest.mark.parametrize("num_ranks", [2, 3, 20])
def test_ranks_share_the_videos(small_root: Path, num_ranks: int) -> None:
    """Together the ranks read each video once; with more ranks than videos, some read none."""
    per_rank = [load(small_root, rank, num_ranks, num_workers=0) for rank in range(num_ranks)]
    assert [p for batches in per_rank for b in batches for p in b.positions] == list(range(9))
    assert any(not batches for batches in per_rank) == (num_ranks > 9)


@settings(max_examples=50)
@given(
    st.lists(st.integers(1, 500), min_size=1, max_size=60),
    st.integers(1, 12),
    st.sets(st.integers(0, 59)),
)
def test_shares_are_balanced_by_frames(lengths: list[int], num_ranks: int, done: set[int]) -> None:
    """Shares cover what is not done, in order; none is more than a video over its due."""
    shares = [RankShare(np.array(lengths), done, rank, num_ranks) for rank in range(num_ranks)]
    pending = [position for position in range(len(lengths)) if position not in done]
    assert all(isinstance(share, DistributedSampler) for share in shares)
    assert [position for share in shares for position in share] == pending
    due = sum(lengths[position] for position in pending) / num_ranks
    assert all(sum(lengths[p] for p in share) <= due + max(lengths) for share in shares)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_bad_video_raises_its_own_error(root: Path, save: Save, num_workers: int) -> None:
    """The error of a worker arrives as it was raised, in one line."""
    save("train/a/x", [torch.zeros(2, 3, 8, 8), torch.full((2, 3, 8, 8), float("nan"))])
    with pytest.raises(InputError, match="video 1, frame 0") as caught:
        load(root, batch_size=2, num_workers=num_workers)
    assert "\n" not in str(caught.value)


def test_an_item_has_memory_of_its_own(small_root: Path) -> None:
    """A worker sends a video's own bytes, not those of the file around it."""
    item = VideoDataset(scan(small_root))[1]
    assert item.videos[0].untyped_storage().nbytes() == 7 * 3 * 8 * 8


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"num_workers": -1}])
def test_numbers_out_of_range(small_root: Path, wrong: dict[str, int]) -> None:
    """The setting, what is accepted and what was found are told."""
    with pytest.raises(UsageError, match=rf"{next(iter(wrong))}: expected . or more, found"):
        VideoDataModule(small_root, **wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "settings", [{"num_frames": 2}, {"image_size": 32}, {"keep_damaged": True}], ids=str
)
def test_settings_without_effect(small_root: Path, settings: dict[str, Any]) -> None:
    """Those of clips do nothing to videos that were made before: that is told."""
    [name] = settings
    with pytest.warns(UserWarning, match=f"{name}: .* is a setting of clips, and has no effect"):
        VideoDataModule(small_root, **settings).setup("predict")
