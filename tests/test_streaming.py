"""Saving video by video: a file as torch.save writes it, whatever its size."""

import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helpers import random_video
from torch import Tensor

from featx.data.processed_file import open_processed_file, save_videos


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("mmap", [False, True])
def test_torch_loads_it(tmp_path: Path, dtype: torch.dtype, mmap: bool) -> None:
    """torch.load reads what was saved, mapped or not, and the archive's checksums hold."""
    path = tmp_path / "processed_data.pt"
    videos = [random_video(4, seed=i).to(dtype) for i in range(3)]
    notes = [{"clips": f"clip {i}", "clip_stats": (i, 0)} for i in range(3)]
    assert save_videos(path, zip(notes, videos, strict=True)) == 3
    loaded = torch.load(path, weights_only=True, mmap=mmap)
    assert torch.equal(loaded["videos"], torch.stack(videos))
    assert loaded["videos"].data_ptr() % 64 == 0
    assert loaded["clips"] == ["clip 0", "clip 1", "clip 2"]
    assert loaded["clip_stats"] == [(0, 0), (1, 0), (2, 0)]
    assert zipfile.ZipFile(path).testzip() is None
    file = open_processed_file(path)
    assert file.clips == ("clip 0", "clip 1", "clip 2")
    assert torch.equal(file.read(2), videos[2])


def test_memory_does_not_grow_with_the_videos(tmp_path: Path) -> None:
    """Forty videos take no more memory than four."""

    def make(count: int) -> Iterator[tuple[dict[str, str], Tensor]]:
        for i in range(count):
            yield {"clips": f"{i}"}, torch.full((16, 3, 64, 64), i, dtype=torch.uint8)

    peaks = []
    for count in (4, 40):
        tracemalloc.start()
        save_videos(tmp_path / f"{count}.pt", make(count))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 100_000 < 16 * 3 * 64 * 64 * 4


def test_without_a_video_there_is_no_file(tmp_path: Path) -> None:
    """Nothing to save, nothing saved."""
    assert save_videos(tmp_path / "a.pt", []) == 0
    assert [*tmp_path.iterdir()] == []


def test_an_error_leaves_the_old_file(tmp_path: Path) -> None:
    """If the videos break off, the file that was there is, and nothing else."""
    path = tmp_path / "a.pt"
    path.write_bytes(b"old")

    def broken() -> Iterator[tuple[dict[str, str], Tensor]]:
        yield {"clips": "a"}, random_video(2)
        raise RuntimeError("broken off")

    with pytest.raises(RuntimeError, match="broken off"):
        save_videos(path, broken())
    assert path.read_bytes() == b"old"
    assert [*tmp_path.iterdir()] == [path]
