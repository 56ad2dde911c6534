"""processed_data.pt files: read as torch.load reads them, or refused in one line; and written."""

import argparse
import collections
import functools
import os
import pickle
import struct
import tracemalloc
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import Evil, random_video, random_videos
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torchvision.tv_tensors import Video

from featx.data.media import processed_file
from featx.data.media.processed_file import DTYPES, ProcessedFile, open_processed_file, save_videos
from featx.data.media.torch_archive import one_at_a_time
from featx.errors import ChangedInputError, InputError, MissingInputError


def save(path: Path, data: object) -> Path:
    """Save something for the test."""
    torch.save(data, path)
    return path


def read_all(path: Path) -> list[Tensor]:
    """Every video of a file."""
    file = open_processed_file(path)
    return [file.read(index).frames for index in range(len(file.lengths))]


def refuse(path: Path) -> str:
    """Why a file, or the first bad video of a list, is refused."""
    try:
        return str(next(iter(open_processed_file(path).rejected.values())))
    except InputError as error:
        return str(error)


def assert_reads(path: Path, expected: list[Tensor]) -> None:
    """The file holds exactly these videos."""
    found = read_all(path)
    assert len(found) == len(expected)
    for video, wanted in zip(found, expected, strict=True):
        assert video.dtype == wanted.dtype
        assert torch.equal(video, wanted)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_reads_bit_equal(tmp_path: Path, dtype: torch.dtype) -> None:
    """All dtypes of the contract come back bit by bit."""
    data = random_videos(3, 4)
    data = data.to(dtype) / 60 - 2 if dtype.is_floating_point else data
    assert_reads(save(tmp_path / "a.pt", {"videos": data.to(dtype)}), [*data.to(dtype)])


@pytest.mark.parametrize("wrap", [list, tuple, lambda items: {"videos": items}])
def test_lists_of_different_lengths(tmp_path: Path, wrap: type) -> None:
    """A list, a tuple and a dict of a list hold videos of their own lengths."""
    items = [random_video(t, seed=t) for t in (1, 3, 7)]
    path = save(tmp_path / "a.pt", wrap(items))
    assert open_processed_file(path).lengths == [1, 3, 7]
    assert_reads(path, items)


def test_views_and_other_strides(tmp_path: Path) -> None:
    """Views into a larger tensor and channels-last pixels are read as torch.load reads them."""
    data = random_videos(6, 4)
    last = data.movedim(2, -1).contiguous().movedim(-1, 2)
    for number, videos in enumerate((data[1:4], data[::2], last, data[:, 1:3])):
        assert_reads(save(tmp_path / f"{number}.pt", videos), [*videos])
    shared = [data[0], data[3], data[0, 1:3]]
    assert_reads(save(tmp_path / "shared.pt", shared), shared)


def test_clips_are_told(tmp_path: Path) -> None:
    """The names of the clips come along, if they are one distinct name a video."""
    data = random_videos(2, 4)
    named = save(tmp_path / "a.pt", {"videos": data, "clips": ["x.mp4", "y.mp4"]})
    assert open_processed_file(named).clips == ("x.mp4", "y.mp4")
    for clips in (["x", "x"], ["x"], 3, [1, 2]):
        other = save(tmp_path / "b.pt", {"videos": data, "clips": clips})
        assert open_processed_file(other).clips is None


@pytest.mark.skipif(not Path("/proc/meminfo").is_file(), reason="only Linux tells its memory here")
def test_a_file_larger_than_memory(tmp_path: Path) -> None:
    """Only a video's own bytes are read, be the file larger than memory and swap together."""
    totals = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    memory = sum(int(totals[name].split()[0]) * 1024 for name in ("MemTotal", "SwapTotal"))
    videos = random_videos(2, 4, size=256)
    size, shape = videos[0].nbytes, videos[0].shape
    count = memory // size + 2
    path = tmp_path / "a.pt"
    with FakeTensorMode(), torch.serialization.skip_data(materialize_fake_tensors=True):
        torch.save({"videos": torch.empty(count, *shape, dtype=torch.uint8)}, path)
    block = open_processed_file(path).blocks[0]
    assert block.offset is not None
    with path.open("r+b") as opened:
        for index, video in zip((0, count - 1), videos, strict=True):
            opened.seek(block.offset + index * block.step)
            opened.write(video.numpy().tobytes())
    assert path.stat().st_size > memory
    assert path.stat().st_blocks * 512 < 2**24  # a sparse file
    file = open_processed_file(path)
    assert torch.equal(file.read(0).frames, videos[0])
    assert torch.equal(file.read(count - 1).frames, videos[1])


def test_a_file_that_has_changed(tmp_path: Path) -> None:
    """Another content is refused, and so is a part of it; the same one elsewhere is not."""
    path = save(tmp_path / "a.pt", random_videos(3, 4))
    file = open_processed_file(path)
    os.utime(path, (1, 1))  # as on a copy of the data set
    assert torch.equal(file.read(1).frames, random_videos(3, 4)[1])
    for change in (
        lambda: save(path, random_videos(3, 4, seed=1)),
        lambda: os.truncate(path, 2000),
        lambda: path.write_bytes(b""),
    ):
        change()
        with pytest.raises(ChangedInputError, match=r"a\.pt: expected the file that was scanned"):
            file.read(1)
    path.unlink()
    with pytest.raises(ChangedInputError, match=r"a\.pt: .* readable file, found: No such file"):
        file.read(1)


def test_bad_videos_of_a_list(tmp_path: Path) -> None:
    """The good ones are read, and keep their names; the bad ones are named."""
    items = [random_video(2), torch.zeros(2, 1, 8, 8), random_video(3, seed=1), 5]
    path = save(tmp_path / "a.pt", {"videos": items, "clips": ["a", "b", "c", "d"]})
    file = open_processed_file(path)
    assert file.indices == [0, 2]
    assert file.clips == ("a", "b", "c", "d")
    assert [*file.rejected] == [1, 3]
    assert "'videos'[1]: expected [T, 3, H, W], found [2, 1, 8, 8]" in str(file.rejected[1])
    assert torch.equal(file.read(1).frames, random_video(3, seed=1))


def test_without_torchs_private_offset(tmp_path: Path) -> None:
    """Should torch no longer tell where the bytes lie, videos are still read."""
    kinds: list[Any] = [[random_video(t, seed=t) for t in (2, 3)], random_videos(3, 4)]
    for number, data in enumerate(kinds):
        file = open_processed_file(save(tmp_path / f"{number}.pt", data), tells_offsets=False)
        assert {block.offset for block in file.blocks} == {None}
        assert len(file.lengths) == len(data)
        for index, video in enumerate(data):
            assert torch.equal(file.read(index).frames, video)


HARMLESS: dict[str, object] = {
    "labels of NumPy": np.arange(3),
    "names of NumPy": np.array(["a", "b"]),
    "objects of NumPy": np.array([None, {}], dtype=object),
    "a number of NumPy": np.float32(3.5),
    "a NumPy dtype": np.dtype("int32"),
    "a path": Path("/home/someone"),
    "arguments": argparse.Namespace(lr=0.1, path=Path("x")),
    "a counter": collections.Counter("hello"),
    "an ordered mapping": collections.OrderedDict(a=1),
    "a set": {1, Path("x")},
    "a parameter": nn.Parameter(torch.zeros(2)),
    "a dtype": torch.float16,
    "a size": torch.Size([1, 2]),
    "a device": torch.device("cpu"),
    "a generator's state": torch.get_rng_state(),
    "a tensor of an odd dtype": torch.zeros(3, dtype=torch.uint16),
    "a large number": 10**30,
    "bytes": b"\x00\xff",
    "paths as keys": {Path("x"): 1},
    "several": [np.arange(3), Path("x"), {"a": np.float64(1), "b": (Path("x"),)}],
}

OTHERS: dict[str, tuple[object, str]] = {
    "a date": (datetime.now(tz=UTC), "datetime.datetime"),
    "a fraction": (Fraction(1, 3), "fractions.Fraction"),
    "a defaultdict": (collections.defaultdict(list, {"a": [1]}), "collections.defaultdict"),
    "a deque": (collections.deque([1, 2]), "collections.deque"),
    "a class": (Fraction, "fractions.Fraction"),
    "a function": (os.path.join, "posixpath.join"),
    "a partial function": (functools.partial(print), "functools.partial"),
    "a whole module": (nn.Sequential(nn.Conv2d(3, 4, 3)), "torch.nn.modules.container.Sequential"),
    "a tensor of another class": (Video(torch.zeros(1, 3, 2, 2)), "torchvision.tv_tensors._video"),
}


def test_harmless_values_beside_good_videos(tmp_path: Path) -> None:
    """They do not matter; only what is read has to be tensors."""
    videos = random_videos(2, 3)
    for number, other in enumerate(HARMLESS.values()):
        path = tmp_path / f"{number}.pt"
        data = {"before": other, "videos": videos, "labels": other, "clips": ["a", "b"]}
        torch.save(data, path)
        assert [*open_processed_file(path).names] == ["a", "b"]
        assert_reads(path, [*videos])


@pytest.mark.parametrize("name", OTHERS)
def test_other_objects_are_refused(tmp_path: Path, name: str) -> None:
    """In one line that names the class, and says what to do."""
    other, found = OTHERS[name]
    message = refuse(save(tmp_path / "a.pt", {"videos": random_videos(2, 3), "x": other}))
    assert f"found a Python object ({found}" in message
    assert "); nothing was executed. " in message
    assert "save its tensors: torch.save({'videos': videos}, path)" in message
    assert "\n" not in message


@pytest.mark.parametrize("protocol", [2, 4])
def test_code_is_not_run(tmp_path: Path, protocol: int) -> None:
    """A file with code in it is refused, wherever the code is."""
    videos, evil = random_videos(1, 2), Evil(tmp_path / "pwned")
    path = tmp_path / "a.pt"
    for data in (evil, {"videos": videos, "x": evil}, {"videos": [evil]}, (evil, videos[0])):
        torch.save(data, path, pickle_protocol=protocol)
        assert "nothing was executed" in refuse(path)
        assert protocol > 2 or "found a Python object (posix.mkdir)" in refuse(path)
    assert not (tmp_path / "pwned").exists()


def test_arrays_of_numpy_are_no_videos(tmp_path: Path) -> None:
    """They have to be tensors."""
    message = refuse(save(tmp_path / "a.pt", {"videos": np.zeros((1, 2, 3, 8, 8))}))
    assert (
        "'videos': expected a tensor [N, T, 3, H, W] or a list of [T, 3, H, W], found N" in message
    )


def write_bytes(content: bytes) -> object:
    """A file of these bytes."""
    return lambda path: path.write_bytes(content)


def write_truncated(path: Path) -> None:
    """A file cut off in its middle."""
    content = save(path, random_videos(2, 4)).read_bytes()
    path.write_bytes(content[: len(content) // 2])


def write_legacy(path: Path) -> None:
    """A file in torch's format before 1.6."""
    torch.save(random_videos(1, 2), path, _use_new_zipfile_serialization=False)


def write_compressed(path: Path) -> None:
    """A file whose archive somebody compressed."""
    save(path, random_videos(1, 2))
    with zipfile.ZipFile(path) as source:
        members = {info.filename: source.read(info) for info in source.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name, content in members.items():
            target.writestr(name, content)


def write_big_endian(path: Path) -> None:
    """A file that says it is from a machine of the other byte order."""
    save(path, random_videos(1, 2))
    with zipfile.ZipFile(path) as source:
        members = {info.filename: source.read(info) for info in source.infolist()}
    with zipfile.ZipFile(path, "w") as target:
        for name, content in members.items():
            target.writestr(name, b"big" if name.endswith("/byteorder") else content)


def write_many_disks(path: Path) -> None:
    """An archive whose end says that it is on several disks."""
    end = b"PK\6\7" + struct.pack("<LQL", 1, 0, 9) + b"PK\5\6" + bytes(18)
    path.write_bytes(bytes(99) + end)


def write_other_zip_version(path: Path) -> None:
    """A file whose directory asks for a version of zip that does not exist."""
    content = bytearray(save(path, random_videos(1, 2)).read_bytes())
    content[content.index(b"PK\1\2") + 6] = 230
    path.write_bytes(content)


BAD_FILES = {
    "big endian": (write_big_endian, "expected the byte order little"),
    "several disks": (write_many_disks, "span multiple disks"),
    "zip version": (write_other_zip_version, "zip file version"),
    "empty": (write_bytes(b""), "an empty file"),
    "text": (write_bytes(b"hello, world"), "found text"),
    "truncated": (write_truncated, "a truncated archive"),
    "plain pickle": (write_bytes(pickle.dumps([1, 2])), "a plain pickle"),
    "legacy": (write_legacy, "format before 1.6"),
    "compressed": (write_compressed, "compressed members"),
    "zip of something else": (write_bytes(b"PK\x05\x06" + bytes(18)), "written by torch.save"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_files_that_are_no_archive_of_torch(tmp_path: Path, name: str) -> None:
    """What the file seems to be is said in one line that names it."""
    write, found = BAD_FILES[name]
    path = tmp_path / "processed_data.pt"
    write(path)  # type: ignore[operator]
    with pytest.raises(InputError) as caught:
        open_processed_file(path)
    assert str(caught.value).startswith(f"{path}: expected ")
    assert found in str(caught.value)
    assert "\n" not in str(caught.value)


BAD_CONTENTS = {
    "no key": ({"frames": random_videos(1, 2)}, "the key 'videos', found the keys frames"),
    "no tensor": ({"videos": "hello"}, "found str"),
    "list of numbers": ([1, 2], "'videos'[0]: expected a tensor, found int"),
    "3-D": (torch.zeros(3, 8, 8), "[N, T, 3, H, W], found [3, 8, 8]"),
    "6-D": (torch.zeros(1, 1, 2, 3, 8, 8), "found [1, 1, 2, 3, 8, 8]"),
    "4-D": (random_video(2), "found [2, 3, 8, 8]"),
    "list of 5-D": (
        [random_videos(1, 2)],
        "'videos'[0]: expected [T, 3, H, W], found [1, 2, 3, 8, 8]",
    ),
    "channels last": (torch.zeros(2, 4, 8, 8, 3), "videos.movedim(4, 2)"),
    "channels first": (torch.zeros(2, 3, 4, 8, 8), "videos.movedim(1, 2)"),
    "list of channels last": ([torch.zeros(4, 8, 8, 3)], "videos.movedim(3, 1)"),
    "list of channels first": ([torch.zeros(3, 4, 8, 8)], "videos.movedim(0, 1)"),
    "grey": (torch.zeros(2, 4, 1, 8, 8), "Only RGB is accepted"),
    "int64": (torch.zeros(2, 4, 3, 8, 8, dtype=torch.int64), "found torch.int64"),
    "complex": (torch.zeros(2, 4, 3, 8, 8, dtype=torch.complex64), "found torch.complex64"),
    "sparse": (torch.zeros(2, 4, 3, 8, 8).to_sparse(), "found torch.sparse_coo"),
    "meta": (torch.zeros(2, 4, 3, 8, 8, device="meta"), "on meta"),
    "expanded frames": (torch.zeros(1, 1, 3, 8, 8).expand(9, 9, 3, 8, 8), "to be contiguous"),
    "expanded videos": (torch.zeros(1, 2, 3, 8, 8).expand(10**6, 2, 3, 8, 8), "to be contiguous"),
    "frames before videos": (random_videos(4, 2).transpose(0, 1), "videos.contiguous()"),
    "T = 0": (torch.zeros(2, 0, 3, 8, 8), "found [2, 0, 3, 8, 8]"),
    "H = 0": (torch.zeros(2, 1, 3, 0, 8), "found [2, 1, 3, 0, 8]"),
    "N = 0": (torch.zeros(0, 4, 3, 8, 8), "N = 0"),
    "empty list": ([], "N = 0"),
}


@pytest.mark.parametrize("name", BAD_CONTENTS)
def test_contents_that_are_no_videos(tmp_path: Path, name: str) -> None:
    """What was expected and what was found is said in one line that names the file."""
    data, found = BAD_CONTENTS[name]
    path = save(tmp_path / "processed_data.pt", data)
    message = refuse(path)
    assert message.startswith(f"{path}: ")
    assert ": expected " in message
    assert found in message
    assert "\n" not in message


def test_a_claim_beyond_its_member_is_refused(tmp_path: Path) -> None:
    """A tensor that would reach into the next member of the archive is refused."""
    path = save(tmp_path / "a.pt", [random_video(2), random_video(3), random_video(4)])
    content = path.read_bytes()
    first = content.index(b"K\x02K\x03K\x08K\x08t")  # the shape (2, 3, 8, 8) in the pickle
    path.write_bytes(content[: first + 1] + b"\x03" + content[first + 2 :])
    assert "'videos'[0]: expected 576 bytes" in refuse(path)


def test_an_archive_that_was_packed_again(tmp_path: Path) -> None:
    """torch.load finds its tensors by their names; by torch's offsets they would be others."""
    items = [random_video(2, seed=i) for i in range(3)]
    path = save(tmp_path / "a.pt", items)
    with zipfile.ZipFile(path) as source:
        members = {info.filename: source.read(info) for info in source.infolist()}
    with zipfile.ZipFile(path, "w") as target:
        for name, content in sorted(members.items(), reverse=True):
            target.writestr(name, content)
    assert torch.equal(torch.load(path)[1], items[1])
    assert "expected 384 bytes of pixels at byte" in refuse(path)


def test_a_claim_beyond_the_file_is_refused(tmp_path: Path) -> None:
    """A pickle that claims more pixels than its member of the archive holds is refused."""
    path = save(tmp_path / "a.pt", random_videos(2, 4))
    with zipfile.ZipFile(path) as source:
        members = {info.filename: source.read(info) for info in source.infolist()}
    with zipfile.ZipFile(path, "w") as target:
        for name, content in members.items():
            target.writestr(name, content[:100] if name.endswith("/data/0") else content)
    with pytest.raises(InputError, match="bytes of pixels"):
        open_processed_file(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_pixels_that_are_not_finite(tmp_path: Path, dtype: torch.dtype, value: float) -> None:
    """The file, the video and the frame are named."""
    data = torch.zeros(3, 4, 3, 8, 8, dtype=dtype)
    data[1, 2, 0, 3, 3] = value
    path = save(tmp_path / "a.pt", data)
    file = open_processed_file(path)
    file.read(0)
    with pytest.raises(InputError, match=r"a\.pt: .* in video 1, frame 2\."):
        file.read(1)


def test_what_is_no_file(tmp_path: Path) -> None:
    """Nothing, a folder and a pipe are refused; the pipe is not waited for."""
    with pytest.raises(MissingInputError, match="found nothing"):
        open_processed_file(tmp_path / "none.pt")
    (tmp_path / "folder.pt").mkdir()
    os.mkfifo(tmp_path / "pipe.pt")
    for name in ("folder.pt", "pipe.pt"):
        with pytest.raises(InputError, match="expected a file, found"):
            open_processed_file(tmp_path / name)


def test_header_of_one_tensor_is_one_block(tmp_path: Path) -> None:
    """A file takes the memory of its tensors, not of its videos."""
    file = open_processed_file(save(tmp_path / "a.pt", random_videos(50, 1)))
    assert isinstance(file, ProcessedFile)
    assert [block.count for block in file.blocks] == [50]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("mmap", [False, True])
def test_torch_loads_it(tmp_path: Path, dtype: torch.dtype, mmap: bool) -> None:
    """torch.load reads what was saved, mapped or not, and the archive's checksums hold."""
    path = tmp_path / "processed_data.pt"
    videos = [(random_video(4, seed=i) // 100).to(dtype) for i in range(3)]
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
    assert torch.equal(file.read(2).frames, videos[2])


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


def test_tensors_of_a_class_of_their_own(tmp_path: Path) -> None:
    """Videos with attributes are their pixels."""
    videos = random_videos(2, 3)
    noted = videos.clone()
    noted.note = Path("x")  # type: ignore[attr-defined]
    for data in (noted, nn.Parameter(videos.float() / 60 - 2, requires_grad=False)):
        expected = data.data if isinstance(data, nn.Parameter) else videos
        assert_reads(save(tmp_path / "a.pt", {"videos": data, "x": Path("x")}), [*expected])


def test_what_is_in_a_file_is_asked_by_one_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tensors without data enter the mode that they were made in."""
    held: list[bool] = []
    locate = processed_file._locate

    def look(*args: Any) -> Any:  # noqa: ANN401
        held.append(one_at_a_time.locked())
        return locate(*args)

    monkeypatch.setattr(processed_file, "_locate", look)
    open_processed_file(save(tmp_path / "list.pt", [*random_videos(2, 2)]))
    assert held == [True, True]


def test_threads_open_files_together(tmp_path: Path) -> None:
    """Each gets what is in its own."""
    paths = [save(tmp_path / f"{n}.pt", random_videos(n + 1, 2)) for n in range(8)]
    with ThreadPoolExecutor(8) as pool:
        opened = [*pool.map(open_processed_file, paths * 16)]
    assert [len(file.shapes) for file in opened] == [*range(1, 9)] * 16
