"""Far disks: what is there, copies at hand, and what becomes of faults, against a server of S3."""

import json
import logging
import multiprocessing
import os
import pickle
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from far_server import BUCKET, Proxy, filled, make_client, serving

from featx.data import far_disk
from featx.data.far import FarPath, at_hand, check_name_in, is_far, join, listed, locate
from featx.data.far_disk import Access
from featx.data.folders import walk_files
from featx.data.known import look_at_file
from featx.errors import InputError, MissingDependencyError, NetworkError, UsageError
from featx.files import file_stats

QUICK = {"patience": 30.0, "timeout": 1.0, "pause": 0.01}
IMPATIENT = {"patience": 0.0}


@pytest.fixture(scope="module")
def server() -> Iterator[Proxy]:
    """A server for all tests of this file."""
    with serving() as proxy:
        yield proxy


@pytest.fixture
def far(server: Proxy, tmp_path: Path) -> Iterator[FarPath]:
    """A bucket with a few files."""
    folder = tmp_path / "files"
    for name, content in CONTENT.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    path = locate(f"s3://{BUCKET}/set", Access(tmp_path / "cache", **QUICK))
    assert isinstance(path, FarPath)
    with filled(server, folder, "set/"):
        yield path


CONTENT = {
    "train/hello/1.mp4": b"one" * 1000,
    "train/hello/2.mp4": b"two" * 1000,
    "train/bye/3.mp4": b"three" * 1000,
    "notes.txt": b"notes",
}


def put(server: Proxy, name: str, content: bytes) -> None:
    """Put another file into the set."""
    make_client(server).put_object(Bucket=BUCKET, Key=f"set/{name}", Body=content)


def copies(access: Access) -> list[Path]:
    """The complete entries of a cache."""
    folder = access.open_cache().folder
    return [path for path in folder.iterdir() if path.is_dir() and "." not in path.name]


def change(path: FarPath, **settings: float) -> FarPath:
    """The same path, read in another way."""
    other = locate(str(path), replace(path.access, **settings))  # type: ignore[arg-type]  # all fit
    assert isinstance(other, FarPath)
    return other


def test_a_path_reads_like_a_local_one(far: FarPath) -> None:
    """Names, parts, folders and files are those that a local path would have."""
    path = far / "train" / "hello" / "1.mp4"
    assert str(path) == f"s3://{BUCKET}/set/train/hello/1.mp4"
    assert (path.name, path.suffix, path.parent.name) == ("1.mp4", ".mp4", "hello")
    assert path.relative_to(far).as_posix() == "train/hello/1.mp4"
    assert path.parent == far.joinpath("train", "hello")
    assert path.is_file()
    assert not path.is_dir()
    assert path.parent.is_dir()
    assert not (far / "none").exists()
    assert sorted(each.name for each in far.iterdir()) == ["notes.txt", "train"]
    assert path.read_bytes() == CONTENT["train/hello/1.mp4"]
    assert (far / "notes.txt").read_text("utf-8") == "notes"
    with pytest.raises(FileNotFoundError):
        (far / "none").stat()
    with pytest.raises(OSError, match="only for reading"):
        path.open("w")
    with pytest.raises(TypeError, match="at_hand"):
        os.fspath(path)


def test_a_path_survives_pickling(far: FarPath) -> None:
    """Another process gets the same path, which is read in the same way."""
    again = pickle.loads(pickle.dumps(far / "notes.txt"))
    assert again == far / "notes.txt"
    assert again.access == far.access


def test_all_of_a_tree_is_listed_in_few_requests(server: Proxy, far: FarPath) -> None:
    """What is in it, and how large and how old it is, is known without asking for each file."""
    with listed(far) as root:
        asked = len(server.requests)
        folders = sorted(each.name for each in (root / "train").iterdir() if each.is_dir())
        look = look_at_file(root / "train/hello/1.mp4")
        assert not (root / "train/hello/9.mp4").exists()
        assert len(server.requests) == asked == 2
    assert folders == ["bye", "hello"]
    put(server, "train/hello/9.mp4", b"new")
    assert (root / "train/hello/9.mp4").exists(), "a listing counts no longer than its context"
    assert look_at_file(far / "train/hello/1.mp4") == look
    put(server, "train/hello/1.mp4", b"ONE" * 1000)
    assert look_at_file(far / "train/hello/1.mp4")[:2] != look[:2]


def test_odd_keys(server: Proxy, far: FarPath, caplog: pytest.LogCaptureFixture) -> None:
    """What stands for a folder is no file; a key that is no path is left out, and told."""
    for name in ("train/", "train/hello/", "train/hello//4.mp4", "train/hello/../5.mp4"):
        put(server, name, b"")
    odd = "train/hello/a #?%25[*] é.mp4"
    put(server, odd, b"odd")
    expected = sorted([*CONTENT, odd])
    with listed(far) as root:
        for each in (root, far):
            assert sorted("/".join(parts) for parts in walk_files(each)) == expected
        assert not [each for each in (root / "train/hello").iterdir() if each.is_dir()]
    assert (far / odd).read_bytes() == b"odd"
    assert "left out 2 files with empty names above them, or . or .." in caplog.text


def test_a_file_is_at_hand(server: Proxy, far: FarPath) -> None:
    """Its copy has its bytes, its size and its time, and is fetched once."""
    path = far / "train/bye/3.mp4"
    for _ in range(2):
        with at_hand(path) as near:
            assert Path(os.fspath(near)).read_bytes() == CONTENT["train/bye/3.mp4"]
            assert Path(os.fspath(near)).name == "3.mp4"
            assert (near, str(near)) == (path, str(path))
            with near.open("rb") as file:
                assert file_stats(os.fstat(file.fileno())) == file_stats(path.stat())
            with at_hand(near) as same:
                assert same is near
    assert server.count("GET", "3.mp4") == 1


def test_a_folder_is_at_hand(far: FarPath) -> None:
    """All files in it are: as one entry of the cache."""
    with at_hand(far / "train" / "hello") as near:
        local = Path(os.fspath(near))
        assert sorted(each.name for each in local.iterdir()) == ["1.mp4", "2.mp4"]
        assert (near / "1.mp4").read_bytes() == CONTENT["train/hello/1.mp4"]
        assert (near / "1.mp4").stat().st_size == 3000
    assert len(copies(far.access)) == 1


def test_a_changed_file_is_fetched_anew(server: Proxy, far: FarPath) -> None:
    """Its size is the same: its ETag tells."""
    path = far / "train/hello/1.mp4"
    before = path.read_bytes()
    put(server, "train/hello/1.mp4", b"ONE" * 1000)
    assert (before, path.read_bytes()) == (b"one" * 1000, b"ONE" * 1000)


@pytest.mark.parametrize("fault", [500, 503, 429, "cut", "stall"])
def test_a_passing_fault_is_survived(
    server: Proxy, far: FarPath, fault: int | str, caplog: pytest.LogCaptureFixture
) -> None:
    """The request is made again, and the log has one line of it."""
    server.faults.extend([fault, fault])
    with caplog.at_level(logging.WARNING):
        assert (far / "train/hello/1.mp4").read_bytes() == CONTENT["train/hello/1.mp4"]
    assert server.count("GET", "1.mp4") == 3
    lines = [record.getMessage() for record in caplog.records if "again" in record.getMessage()]
    assert len(lines) == 1
    assert str(far / "train/hello/1.mp4") in lines[0]


@pytest.mark.parametrize("fault", [500, 503, "cut"])
def test_a_lasting_fault_is_one_of_the_network(
    server: Proxy, far: FarPath, fault: int | str
) -> None:
    """It is told in one line: about which file, what was found, and how often it was tried."""
    server.faults.extend([fault] * 9)
    path = change(far, **IMPATIENT) / "train/hello/1.mp4"
    with pytest.raises(
        NetworkError, match=r"1\.mp4: expected .* found: .*\(1 try in 0 s\)"
    ) as told:
        path.read_bytes()
    assert "\n" not in str(told.value)
    assert not isinstance(told.value, OSError), "it would be taken for a fault of the file"
    assert copies(far.access) == []
    server.faults.clear()
    assert path.read_bytes() == CONTENT["train/hello/1.mp4"]


def test_who_is_not_let_in_is_told_so(server: Proxy, far: FarPath) -> None:
    """No access is told at once, with the way out."""
    server.always = 403
    with pytest.raises(NetworkError, match=r"let in, found: .*AWS_PROFILE"):
        (far / "notes.txt").read_bytes()
    assert len(server.requests) == 1
    server.always = 400
    with pytest.raises(NetworkError, match="1 try"):
        (far / "notes.txt").read_bytes()


def test_without_keys_there_is_one_line(
    far: FarPath, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No credentials at all are told like those that do not fit."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    far_disk.connect.cache_clear()
    with pytest.raises(NetworkError, match=r"credentials.*AWS_PROFILE"):
        (far / "notes.txt").read_bytes()


def test_the_cache_stays_within_its_bound(far: FarPath) -> None:
    """What was read longest ago goes; what is being read stays; a larger file than all is alone."""
    access = replace(far.access, cache_gb=6e-6)  # two of the files
    root = change(far, cache_gb=6e-6)
    one, two = root / "train/hello/1.mp4", root / "train/hello/2.mp4"
    with at_hand(one) as near:
        two.read_bytes()
        assert Path(os.fspath(near)).exists()
        assert len(copies(access)) == 2
    (root / "train/bye/3.mp4").read_bytes()  # 5000 bytes
    assert sum(int(path.name.split("-")[1]) for path in copies(access)) <= 6000
    small = change(far, cache_gb=1e-6)
    assert (small / "train/bye/3.mp4").read_bytes() == CONTENT["train/bye/3.mp4"]
    assert len(copies(access)) == 1


def test_a_fork_asks_anew(far: FarPath) -> None:
    """A process that was forked after this one has asked can ask, too, and shares the cache."""
    path = far / "train/hello/1.mp4"
    path.read_bytes()
    context = multiprocessing.get_context("fork")
    with context.Pool(2) as pool:
        names = [far / name for name in CONTENT]
        assert pool.map(FarPath.read_bytes, names) == [*CONTENT.values()]
    assert len(copies(far.access)) == len(CONTENT)


def test_two_processes_fetch_a_file_once(server: Proxy, far: FarPath) -> None:
    """One waits for the other's copy."""
    context = multiprocessing.get_context("fork")
    with context.Pool(2) as pool:
        pool.map(FarPath.read_bytes, [far / "train/bye/3.mp4"] * 8, chunksize=1)
    assert server.count("GET", "3.mp4") == 1


def test_a_killed_download_is_made_again(server: Proxy, far: FarPath) -> None:
    """Half a copy never looks like a whole one."""
    path = far / "train/bye/3.mp4"
    server.faults.append("stall")
    process = multiprocessing.get_context("fork").Process(
        target=change(far, timeout=600.0).joinpath("train/bye/3.mp4").read_bytes
    )
    process.start()
    folder = far.access.open_cache().folder
    while not [*folder.glob("*.part")]:
        process.join(0.01)
    process.kill()
    process.join()
    assert path.read_bytes() == CONTENT["train/bye/3.mp4"]
    assert len(copies(far.access)) == 1
    assert not [*folder.glob("*.part")]


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "simplecache::s3://bucket/a",
        "reference://a",
        "s3://",
        "s3://bucket/../other",
        "https://server/a?signature=abc123",
        "ftp://user:abc123@server/a",
        "ftp://user:abc123@server//a",
        "https://server//a?signature=abc123",
        "simplecache::ftp://user:abc123@server/a",
    ],
)
def test_other_addresses_are_refused(url: str) -> None:
    """What hides a local path or another address, or has a secret in it, is no input."""
    with pytest.raises(UsageError) as told:
        locate(url)
    assert "abc123" not in str(told.value)


def test_unknown_protocols_are_told() -> None:
    """The address may be mistyped."""
    with pytest.raises(UsageError, match="protocol that fsspec knows"):
        (locate("s4://bucket") / "a").stat()


def test_a_missing_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is that of the protocol, as pip calls it."""
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(MissingDependencyError, match="pip install gcsfs"):
        (locate("gs://bucket") / "a").stat()


def test_a_path_that_lost_a_slash_is_an_address() -> None:
    """A command line's argument may have been a Path before it gets here."""
    assert str(locate(Path("s3://bucket/a"))) == "s3://bucket/a"
    assert locate("a/b") == Path("a/b")
    assert not is_far(locate("a/b"))


def test_a_far_table_names_what_is_near_it() -> None:
    """It is somebody else's word: no local file, and no other bucket."""
    root, table = locate("s3://bucket/clips"), locate("s3://bucket/table.csv")
    for name in ("a/1.mp4", "s3://bucket/b/1.mp4"):
        check_name_in(table, root, name)
    for name in ("/etc/passwd", "../1.mp4", "s3://other/1.mp4", "file:///etc/passwd"):
        with pytest.raises(InputError):
            check_name_in(table, root, name)
        with pytest.raises(InputError):
            check_name_in(table, Path("/data"), name)
    for name in ("/etc/passwd", "../1.mp4", "s3://other/1.mp4"):
        check_name_in(Path("table.csv"), root, name)


def test_names_are_joined_to_paths() -> None:
    """An address stays one, and is read as it is said; so is the root."""
    root, access = locate("s3://bucket/clips"), Access(cache_gb=1.0)
    assert join(Path("/data"), "/other/1.mp4", access) == Path("/other/1.mp4")
    assert type(join(root, "/other/1.mp4", access)) is type(Path())
    assert str(join(root, "a/1.mp4", access)) == "s3://bucket/clips/a/1.mp4"
    far = join(Path("/data"), "s3://other/1.mp4", access)
    assert str(far) == "s3://other/1.mp4"
    assert isinstance(far, FarPath)
    assert far.access == Access.from_json(json.loads(json.dumps(access.to_json()))) == access
