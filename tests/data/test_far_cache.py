"""The cache of copies: bounded, complete or absent, and shared."""

import hashlib
import os
import random
from multiprocessing import get_context
from pathlib import Path
from threading import Event, Thread

import pytest

from featx.data.far_cache import Cache
from featx.errors import UsageError

A, B, C = (letter * 64 for letter in "abc")


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """A cache of ten bytes."""
    return Cache(tmp_path / "cache", 10)


def fill(folder: Path) -> None:
    """Fill an entry."""
    (folder / "file").write_text("content")


def refuse(folder: Path) -> None:
    """Fail if somebody fills an entry."""
    raise AssertionError(f"{folder} is filled again")


def names(cache: Cache) -> set[str]:
    """First letters of the keys of what is in a cache, complete or not."""
    return {path.name[0] for path in cache.folder.iterdir() if "-" in path.name}


def read(cache: Cache, key: str, size: int = 4) -> str:
    """What is in an entry."""
    with cache.lease(key, size, fill) as folder:
        return (folder / "file").read_text()


def test_what_is_there_is_not_filled_again(cache: Cache) -> None:
    """An entry is filled once."""
    assert read(cache, A) == "content"
    with cache.lease(A, 4, refuse) as folder:
        assert (folder / "file").read_text() == "content"


def test_the_least_recently_used_goes_first(cache: Cache) -> None:
    """Of three entries that do not fit, the one that nobody has read for the longest time goes."""
    for key, used in ((A, 1), (B, 2)):
        read(cache, key)
        os.utime(cache.folder / f"{key}-4", (used, used))
    read(cache, A)
    read(cache, C)
    assert names(cache) == {"a", "c"}


def test_what_is_in_use_is_waited_for(cache: Cache) -> None:
    """An entry that is read stays, and who needs its room gets it afterwards."""
    has_it, may_go = Event(), Event()

    def hold() -> None:
        with cache.lease(A, 8, fill):
            has_it.set()
            may_go.wait()

    holder = Thread(target=hold)
    reader = Thread(target=read, args=(cache, B, 8))
    holder.start()
    has_it.wait()
    reader.start()
    reader.join(0.2)
    assert names(cache) == {"a"}
    may_go.set()
    holder.join()
    reader.join()
    assert names(cache) == {"b"}


def test_a_larger_one_than_the_bound_is_alone(cache: Cache) -> None:
    """It is kept as long as nothing else is."""
    read(cache, A)
    assert read(cache, B, 99) == "content"
    assert names(cache) == {"b"}
    read(cache, A)
    assert names(cache) == {"a"}


def test_what_fails_leaves_nothing(cache: Cache) -> None:
    """Half of an entry is no entry, and its room is free again."""

    def fail(folder: Path) -> None:
        fill(folder)
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"), cache.lease(A, 8, fail):
        pass
    assert names(cache) == set()
    assert read(cache, B, 8) == "content"
    assert names(cache) == {"b"}


def test_what_a_killed_process_leaves_is_removed(cache: Cache) -> None:
    """Half of an entry that nobody fills any more is filled anew, or makes room."""
    read(cache, C, 1)
    for key in (A, B):
        part = cache.folder / f"{key}-4.part"
        part.mkdir()
        (part / "file").write_text("con")
    (cache.folder / "0.dead").mkdir()
    (cache.folder / "total").write_text("9")
    assert read(cache, A) == "content"
    assert read(cache, "d" * 64, 5) == "content"
    assert not (cache.folder / f"{B}-4.part").exists()
    assert not (cache.folder / "0.dead").exists()


def test_a_lost_count_is_made_again(cache: Cache) -> None:
    """The bytes are counted where nobody knows them."""
    read(cache, A)
    (cache.folder / "total").unlink()
    read(cache, B, 8)
    assert names(cache) == {"b"}


def test_a_folder_that_cannot_be_is_told(tmp_path: Path) -> None:
    """The setting is named."""
    (tmp_path / "file").write_text("")
    cache = Cache(tmp_path / "file" / "cache", 10)
    with pytest.raises(UsageError, match=r"^cache_dir: .*Not a directory"):
        read(cache, A)


def use(folder: Path, seed: int) -> None:
    """Read entries of a cache of 20 kB at random, each of which has to be whole."""
    chosen = random.Random(seed).choices(range(20), k=100)
    for number in chosen:
        content = bytes([number]) * (1000 + 400 * number)
        key = hashlib.sha256(content).hexdigest()

        def fill(entry: Path, content: bytes = content) -> None:
            (entry / "file").write_bytes(content)

        with Cache(folder, 20_000).lease(key, len(content), fill) as entry:
            assert (entry / "file").read_bytes() == content
            sizes = (path.name.split("-") for path in folder.iterdir())
            assert sum(int(size[1].split(".")[0]) for size in sizes if len(size) == 2) <= 20_000


def test_processes_share_it(cache: Cache) -> None:
    """Whatever others fetch and remove, what is read is whole, and the bound is kept."""
    with get_context("fork").Pool(4) as pool:
        pool.starmap(use, [(cache.folder, seed) for seed in range(4)])
