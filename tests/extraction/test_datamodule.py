"""The data module: every video once, in order, on any number of ranks and workers."""

import pickle
from collections.abc import Iterator
from itertools import pairwise, zip_longest
from pathlib import Path
from queue import Queue
from random import Random
from typing import Any, cast

import numpy as np
import pytest
import torch
from helpers import Save, random_video, random_videos, scan
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

from featx.data.batches import VideoBatch, VideoDataset
from featx.data.media.video_file import CPU, Video
from featx.data.sampler import BlockSampler, cut_blocks, cut_shares
from featx.data.sources.processed_rows import ListedFile
from featx.errors import InputError, UsageError
from featx.extraction.datamodule import VideoDataModule
from featx.extraction.ranks import Ranks


class FakeTrainer:
    """As much of a Trainer as a data module asks."""

    def __init__(self, rank: int, num_ranks: int, device: str = "cpu", limit: float = 1.0) -> None:
        self.strategy = SingleDeviceStrategy(device)
        self.global_rank, self.world_size = rank, num_ranks
        self.is_global_zero = rank == 0
        self.num_devices = 1
        self.limit_predict_batches = limit


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
    monkeypatch.setattr("featx.data.sources.clips.check_decoder", lambda settings: None)
    data = VideoDataModule(
        raw, ["train"], source="clips", decoder="torchcodec", num_workers=num_workers
    )
    data.setup("predict")
    data.trainer = FakeTrainer(0, 1, device)  # type: ignore[assignment]
    on_gpu = device == "cuda:1" and not num_workers
    loader = data.predict_dataloader()
    assert loader.num_workers == (num_workers or 0)
    assert cast(VideoDataset, loader.dataset).device == torch.device("cuda:1" if on_gpu else "cpu")
    assert data.settings()["decoder"] == ("nvdec" if on_gpu else "pyav")


def test_a_thread_reads_ahead(root: Path, save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a video is with the CNN, the next one of the share is read, and no other."""
    save("train/a/x", [random_video(3 + i) for i in range(5)])
    read: Queue[int] = Queue()
    plain = ListedFile.read

    def read_and_tell(file: ListedFile, index: int, device: torch.device = CPU) -> Video:
        """Read one video, and tell which."""
        read.put(index)
        return plain(file, index, device)

    monkeypatch.setattr(ListedFile, "read", read_and_tell)
    manifest = scan(root)
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
    assert [len(video.frames) for video in batch.videos] == [4, 3]
    assert [np.asarray(v.frame_index).tolist() for v in batch.videos] == [
        [0, 0, 1, 1, 2, 2, 3, 3],
        [0, 1, 2],
    ]
    assert torch.equal(batch.videos[0].frames[batch.videos[0].frame_index], video)


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_every_video_in_order(small_root: Path, batch_size: int, num_workers: int) -> None:
    """Positions count up, and each video is that of its position."""
    batches = load(small_root, batch_size=batch_size, num_workers=num_workers)
    assert [p for batch in batches for p in batch.positions] == list(range(9))
    assert [len(batch.videos) for batch in batches][:2] == [batch_size] * 2
    videos = [video.frames for batch in batches for video in batch.videos]
    assert torch.equal(videos[3], random_video(3, seed=2))
    assert [len(video) for video in videos] == [5, 7, 7, 3, 12, 7, 1, 7, 9]


def load_ranks(root: Path, num_ranks: int, **settings: int) -> list[Iterator[VideoBatch]]:
    """The batches of each of several ranks, which share one counter; none is taken yet."""
    ranks = Ranks()
    loaders: list[Iterator[VideoBatch]] = []
    for rank in range(num_ranks):
        data = VideoDataModule(root, **settings)  # type: ignore[arg-type]
        data.trainer = FakeTrainer(rank, num_ranks)  # type: ignore[assignment]
        data.setup("predict")
        data.ranks = ranks
        loaders.append(iter(data.predict_dataloader()))
    return loaders


@pytest.mark.parametrize("num_ranks", [2, 3, 20])
def test_ranks_share_the_videos(small_root: Path, num_ranks: int) -> None:
    """Together the ranks read each video once; with more ranks than videos, some read none."""
    loaders = load_ranks(small_root, num_ranks, num_workers=0)
    taken: list[list[int]] = [[] for _ in loaders]
    for batches in zip_longest(*loaders):  # in turns
        for batch, positions in zip(batches, taken, strict=True):
            positions += batch.positions if batch else []
    assert sorted(p for positions in taken for p in positions) == list(range(9))
    assert any(not positions for positions in taken) == (num_ranks > 9)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_slow_rank_takes_fewer_videos(root: Path, save: Save, num_workers: int) -> None:
    """A rank at half the speed leaves twice as many to the other, but for what it has ahead."""
    save("train/a/x", random_videos(90, 2))
    fast, slow = load_ranks(root, 2, num_workers=num_workers)
    taken = [0, 0]
    while True:
        left = [batch for batch in (next(fast, None), next(fast, None)) if batch]
        taken[0] += len(left)
        if not left:
            break
        taken[1] += next(slow, None) is not None
    taken[1] += len([*slow])
    assert sum(taken) == 90
    assert 2 * taken[1] == pytest.approx(taken[0], abs=9)


def test_a_limit_that_is_a_share(small_root: Path) -> None:
    """Of all batches, it is one of shares that are fixed: their length is known."""
    data = VideoDataModule(small_root, num_workers=0)
    data.trainer = FakeTrainer(1, 2, limit=0.5)  # type: ignore[assignment]
    data.setup("predict")
    assert 0 < len(data.predict_dataloader()) < 9


LENGTHS = st.lists(st.integers(1, 500), max_size=1000)


@settings(max_examples=50)
@given(LENGTHS, st.integers(1, 12), st.integers(1, 9))
def test_blocks_become_smaller(lengths: list[int], num_ranks: int, batch_size: int) -> None:
    """All videos are in blocks of whole batches, none of them too large for what is left."""
    bounds = cut_blocks(np.array(lengths, np.int64), num_ranks, batch_size)
    assert (bounds[0], bounds[-1]) == (0, len(lengths))
    for start, stop in pairwise(bounds.tolist()):
        assert start < stop
        assert (stop - start) % batch_size == 0 or stop == len(lengths)
        if stop - start > batch_size:
            assert sum(lengths[start:stop]) <= sum(lengths[start:]) / (4 * num_ranks)
            assert stop - start <= 256


@settings(max_examples=50)
@given(LENGTHS, st.integers(1, 12), st.integers(1, 9), st.randoms(use_true_random=False))
def test_no_rank_waits_long_for_another(
    lengths: list[int], num_ranks: int, batch_size: int, random: Random
) -> None:
    """However fast each is, all end within the time of one block: a few percent, of long jobs."""
    speeds = [random.uniform(0.5, 1) for _ in range(num_ranks)]
    bounds = cut_blocks(np.array(lengths, np.int64), num_ranks, batch_size)
    ends = [0.0] * num_ranks
    for start, stop in pairwise(bounds.tolist()):
        rank = ends.index(min(ends))
        ends[rank] += sum(lengths[start:stop]) / speeds[rank]
    ideal = sum(lengths) / sum(speeds)
    longest = max(lengths, default=0) * batch_size / min(speeds)
    assert max(ends) <= 1.01 * ideal + longest


@settings(max_examples=50)
@given(LENGTHS, st.integers(1, 12))
def test_shares_are_balanced_by_frames(lengths: list[int], num_ranks: int) -> None:
    """Shares cover everything, in order; none is more than a video over its due."""
    bounds = cut_shares(np.array(lengths, np.int64), num_ranks).tolist()
    assert (bounds[0], bounds[-1], len(bounds)) == (0, len(lengths), num_ranks + 1)
    due = sum(lengths) / num_ranks
    most = due + max(lengths, default=0)
    assert all(sum(lengths[start:stop]) <= most for start, stop in pairwise(bounds))


def test_a_sampler_gives_what_is_left() -> None:
    """The positions of its blocks; its length is told where it is known, and its end elsewhere."""
    pending, bounds = np.array([1, 2, 5, 7, 8]), np.array([0, 2, 4, 5])
    known = BlockSampler(pending, bounds, [0, 2])
    assert isinstance(known, DistributedSampler)
    assert [*known] == [*known] == [1, 2, 8]
    assert len(known) == 3
    drawn = iter([0, 2])
    unknown = BlockSampler(pending, bounds, drawn, looks_ahead=True)
    with pytest.raises(TypeError, match="found a shared counter"):
        len(unknown)
    positions, ahead = iter(unknown), unknown.follow()
    assert next(positions) == next(ahead) == 1
    assert next(drawn) == 2  # for nobody has asked for more than one block yet
    assert [*ahead] == [*positions] == [2]


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
    assert item.videos[0].frames.untyped_storage().nbytes() == 7 * 3 * 8 * 8


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
