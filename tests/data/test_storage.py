"""Storage: local and remote places give the same answers; and faults of the network."""

import hashlib
import logging
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from remote_server import BUCKET, Proxy, filled, make_client, serving

from featx.data import remote, storage
from featx.data.scan_cache import stamp_file
from featx.data.storage import (
    RangeReader,
    at_hand,
    check_name_in,
    fetch,
    is_below,
    is_remote,
    join,
    list_folder,
    listed,
    locate,
    name_of,
    open_file,
    parent_of,
    read_bytes,
    read_each,
    stat,
    status_of,
)
from featx.data.tree import list_entries, list_folders, walk_files
from featx.errors import (
    ChangedInputError,
    InputError,
    MissingDependencyError,
    MissingInputError,
    NetworkError,
    UsageError,
)

URL = f"s3://{BUCKET}/set"

CONTENT = {
    "train/hello/1.mp4": b"one" * 1000,
    "train/hello/2.mp4": b"two" * 1000,
    "train/bye/3.mp4": b"three" * 1000,
    "notes.txt": b"notes",
}


@pytest.fixture(scope="module")
def server() -> Iterator[Proxy]:
    """A server for all tests of this file."""
    with serving() as proxy:
        yield proxy


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with a few files."""
    folder = tmp_path / "files"
    for name, content in CONTENT.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def far(server: Proxy, files: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket with the same files, and little patience between tries."""
    for name, value in {"PATIENCE": 30.0, "TIMEOUT": 1.0, "PAUSE": 0.01}.items():
        monkeypatch.setattr(remote, name, value)
    with filled(server, files, "set/"):
        yield locate(URL)


Put = Callable[[str, bytes], None]


def put(server: Proxy, name: str, content: bytes) -> None:
    """Put another file into the bucket."""
    make_client(server).put_object(Bucket=BUCKET, Key=f"set/{name}", Body=content)


@pytest.fixture(params=["local", "remote"])
def root(request: pytest.FixtureRequest, files: Path) -> str:
    """The folder: here, or on the server."""
    if request.param == "local":
        return str(files)
    found: str = request.getfixturevalue("far")
    return found


@pytest.fixture
def change(root: str, server: Proxy, files: Path) -> Put:
    """Writes a file of the folder, wherever that is."""

    def write(name: str, content: bytes) -> None:
        if is_remote(root):
            put(server, name, content)
        else:
            (files / name).write_bytes(content)

    return write


class TestEverywhere:
    """The same assertions for a local folder and a remote one."""

    def test_names(self, root: str) -> None:
        """Places are joined and taken apart like paths."""
        path = join(root, "train/hello/1.mp4")
        assert path == f"{root}/train/hello/1.mp4"
        assert (name_of(path), parent_of(path)) == ("1.mp4", f"{root}/train/hello")
        assert is_below(root, path)
        assert not is_below(path, root)
        assert not is_below(f"{root}/tra", path)

    def test_what_is_there(self, root: str) -> None:
        """Files, folders and their sizes."""
        path = join(root, "train/hello/1.mp4")
        status = stat(path)
        assert (status.size, status.is_file, status.is_folder) == (3000, True, False)
        assert stat(parent_of(path)).is_folder
        assert storage.is_file(path)
        assert storage.is_folder(root)
        assert not storage.exists(join(root, "none"))
        with pytest.raises(FileNotFoundError):
            stat(join(root, "none"))

    def test_folders(self, root: str) -> None:
        """One level, or all."""
        found = {item.name: item.is_folder for item in list_folder(root)}
        assert found == {"notes.txt": False, "train": True}
        assert list_folders(join(root, "train")) == ["bye", "hello"]
        names = [item.name for item in list_entries(join(root, "train/hello"))]
        assert names == ["1.mp4", "2.mp4"]
        assert ["/".join(parts) for parts in walk_files(root)] == sorted(CONTENT)
        with pytest.raises(FileNotFoundError):
            list_folder(join(root, "none"))
        with pytest.raises(MissingInputError, match="expected a folder, found nothing"):
            list_folders(join(root, "none"))

    def test_content(self, root: str) -> None:
        """All of a file, or any part of it."""
        path, content = join(root, "train/bye/3.mp4"), CONTENT["train/bye/3.mp4"]
        with fetch(path).open() as file:
            assert read_bytes(path) == file.read() == content
        with open_file(path) as file:
            assert status_of(file) == stat(path)
            assert file.seek(-7, os.SEEK_END) == len(content) - 7
            assert file.read() == content[-7:]
            assert file.read(1) == b""
            file.seek(10)
            assert (file.read(5), file.tell()) == (content[10:15], 15)
            file.seek(-5, os.SEEK_CUR)
            assert file.read(3) == content[10:13]
        with at_hand(path) as near:
            assert (near.name, near.read_bytes()) == ("3.mp4", content)
        places = [join(root, name) for name in CONTENT]
        assert [*read_each([(place, None) for place in places])] == [*CONTENT.values()]
        with pytest.raises(FileNotFoundError):
            fetch(join(root, "none"))

    def test_content_in_pieces(self, root: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """A file that is larger than a block, than a request, and than what is held in memory."""
        path, content = join(root, "train/bye/3.mp4"), CONTENT["train/bye/3.mp4"]
        monkeypatch.setattr(storage, "_MOST_BYTES", 700)
        monkeypatch.setattr(storage, "_IN_MEMORY", 1000)
        monkeypatch.setattr(storage, "_NUM_BLOCKS", 3)
        clip = fetch(path)
        assert not isinstance(clip.data, bytes)
        with clip.open() as first, open_file(path) as second:
            assert read_bytes(path) == first.read() == second.read() == content
        monkeypatch.setattr(storage, "BLOCK_BYTES", 64)
        monkeypatch.setattr(storage, "_MOST_BLOCKS", 4)
        with open_file(path) as file, clip.open() as other:
            for start, count in ((0, 10), (60, 8), (4990, 20), (100, 1500), (0, 63)):
                for each in (file, other):
                    each.seek(start)
                    assert each.read(count) == content[start : start + count]

    def test_the_digest(self, root: str) -> None:
        """That of the bytes, wherever they are."""
        digest = hashlib.sha256(CONTENT["train/bye/3.mp4"]).hexdigest()
        assert fetch(join(root, "train/bye/3.mp4")).sha256 == digest

    def test_a_change_is_seen(self, root: str, change: Put) -> None:
        """Of a file of the same size, too; what was fetched before is not given again."""
        path = join(root, "train/hello/1.mp4")
        before, content = stamp_file(path), fetch(path).open().read()
        change("train/hello/1.mp4", b"ONE" * 1000)
        os.utime(path, (0, 0)) if not is_remote(path) else None
        assert stamp_file(path)[:2] != before[:2]
        assert (content, fetch(path).open().read()) == (b"one" * 1000, b"ONE" * 1000)


def test_all_of_a_tree_is_listed_in_few_requests(server: Proxy, far: str) -> None:
    """The names, sizes and tags of all files are known without a request for each."""
    with listed(far):
        asked = len(server.requests)
        folders = list_folders(join(far, "train"))
        stamp = stamp_file(f"{far}/train/hello/1.mp4")
        assert not storage.exists(f"{far}/train/hello/9.mp4")
        assert len(server.requests) == asked == 2
        put(server, "train/hello/9.mp4", b"new")
        assert not storage.exists(f"{far}/train/hello/9.mp4")
        assert stat(f"{far}/train/hello/9.mp4", fresh=True).size == 3
    assert folders == ["bye", "hello"]
    assert storage.exists(f"{far}/train/hello/9.mp4"), "a listing counts only within its context"
    assert stamp_file(f"{far}/train/hello/1.mp4") == stamp


def test_odd_keys(server: Proxy, far: str, caplog: pytest.LogCaptureFixture) -> None:
    """A key that stands for a folder is no file; a key that is no path is skipped, and reported."""
    for name in ("train/", "train/hello/", "train/hello//4.mp4", "train/hello/../5.mp4"):
        put(server, name, b"")
    odd = "train/hello/a #?%25[*] é.mp4"
    put(server, odd, b"odd")
    expected = sorted([*CONTENT, odd])
    assert sorted("/".join(parts) for parts in walk_files(far)) == expected
    with listed(far):
        assert sorted("/".join(parts) for parts in walk_files(far)) == expected
        assert list_folders(f"{far}/train/hello") == []
    assert read_bytes(f"{far}/{odd}") == b"odd"
    assert "skipped 2 files with empty names above them, or . or .." in caplog.text


def test_a_file_is_fetched_once(server: Proxy, far: str) -> None:
    """As long as it is among the last few that the process has read."""
    path = f"{far}/train/bye/3.mp4"
    for _ in range(3):
        fetch(path)
    assert server.count("GET", "3.mp4") == 1
    for name in ("1.mp4", "2.mp4"):
        fetch(f"{far}/train/hello/{name}")
    fetch(path)
    assert server.count("GET", "3.mp4") == 2


def test_a_part_of_a_file_is_read_by_range(server: Proxy, far: str) -> None:
    """Blocks are fetched when they are read first, and no others; a long read is one request."""
    block = storage.BLOCK_BYTES
    put(server, "large.mp4", bytes(64 * block))
    with open_file(f"{far}/large.mp4") as file:
        file.seek(-100, os.SEEK_END)
        file.read(100)
        file.seek(7 * block)
        file.read(100)
        file.seek(7 * block)
        file.read(block)
        assert server.num_bytes == 2 * block
        assert server.count("GET", "large.mp4") == 2
        file.seek(20 * block)
        file.read(40 * block)
        assert server.count("GET", "large.mp4") == 3
        assert server.num_bytes == 42 * block
    server.requests.clear()
    with open_file(f"{far}/large.mp4") as file:
        while file.read(block):
            pass
    assert server.count("GET", "large.mp4") < 10, "more each time, where blocks follow each other"


def test_a_file_that_goes_on_changing_is_reported(
    server: Proxy, far: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is neither a bad clip nor a fault of the network."""
    numbers = iter(range(9))
    read = storage._read_content

    def change_and_read(*args: object) -> object:
        put(server, "train/hello/1.mp4", b"%d" % next(numbers) * 100)
        return read(*args)  # type: ignore[arg-type]  # as they came

    monkeypatch.setattr(storage, "_read_content", change_and_read)
    with pytest.raises(ChangedInputError, match="expected a file that stays as it is"):
        fetch(f"{far}/train/hello/1.mp4")


@pytest.mark.parametrize("fault", [500, 503, 429, "cut", "stall"])
def test_a_passing_fault_is_survived(
    server: Proxy, far: str, fault: int | str, caplog: pytest.LogCaptureFixture
) -> None:
    """The request is made again, and the log has one line of it."""
    server.faults.extend([fault, fault])
    with caplog.at_level(logging.WARNING):
        assert read_bytes(f"{far}/train/hello/1.mp4") == CONTENT["train/hello/1.mp4"]
    assert server.count("GET", "1.mp4") == 3
    lines = [record.getMessage() for record in caplog.records if "again" in record.getMessage()]
    assert len(lines) == 1
    assert f"{far}/train/hello/1.mp4" in lines[0]


@pytest.mark.parametrize("fault", [500, 503, "cut"])
def test_a_lasting_fault_is_one_of_the_network(
    server: Proxy, far: str, fault: int | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line names the file, the fault, and the number of tries."""
    server.faults.extend([fault] * 9)
    monkeypatch.setattr(remote, "PATIENCE", 0.0)
    path = f"{far}/train/hello/1.mp4"
    with pytest.raises(
        NetworkError, match=r"1\.mp4: expected .* found: .*\(1 try in 0 s\)"
    ) as told:
        read_bytes(path)
    assert "\n" not in str(told.value)
    assert not isinstance(told.value, OSError), "it would be taken for a fault of the file"
    server.faults.clear()
    assert read_bytes(path) == CONTENT["train/hello/1.mp4"]


def test_a_denied_request_is_reported(server: Proxy, far: str) -> None:
    """At once, with the way out."""
    server.always = 403
    with pytest.raises(NetworkError, match=r"expected access, found: .*AWS_PROFILE"):
        read_bytes(f"{far}/notes.txt")
    assert len(server.requests) == 1
    server.always = 400
    with pytest.raises(NetworkError, match="1 try"):
        read_bytes(f"{far}/notes.txt")


def test_without_keys_there_is_one_line(
    far: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Missing credentials are reported like wrong ones."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    remote.connect.cache_clear()
    with pytest.raises(NetworkError, match=r"credentials.*AWS_PROFILE"):
        read_bytes(f"{far}/notes.txt")


def test_a_fork_asks_anew(far: str) -> None:
    """A process that was forked after a request of this one can make requests, too."""
    read_bytes(f"{far}/notes.txt")
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(read_bytes, [f"{far}/{name}" for name in CONTENT]) == [*CONTENT.values()]


def test_a_fault_that_a_library_swallows_is_kept(
    server: Proxy, far: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FFmpeg goes on after an error of a read, as if the file ended there."""
    monkeypatch.setattr(remote, "PATIENCE", 0.0)
    file = RangeReader(f"{far}/train/hello/1.mp4", stat(f"{far}/train/hello/1.mp4"))
    server.faults.extend(["cut"] * 9)
    with pytest.raises(NetworkError):
        file.read(10)
    assert isinstance(file.failure, NetworkError)


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
        stat(locate("s4://bucket/a"))


def test_a_missing_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is that of the protocol, as pip calls it."""
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(MissingDependencyError, match="pip install gcsfs"):
        stat(locate("gs://bucket/a"))


def test_a_path_that_lost_a_slash_is_an_address() -> None:
    """A command line's argument may have been a Path before it gets here."""
    assert locate(Path("s3://bucket/a")) == locate("s3://bucket/a/") == "s3://bucket/a"
    assert locate("a/b") == "a/b"
    assert not is_remote(locate("a/b"))


def test_a_remote_table_names_what_is_near_it() -> None:
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


def test_names_are_joined_to_places() -> None:
    """An absolute path and an address stay what they are."""
    root = locate("s3://bucket/clips")
    assert join("/data", "/other/1.mp4") == join(root, "/other/1.mp4") == "/other/1.mp4"
    assert join(root, "a/1.mp4") == "s3://bucket/clips/a/1.mp4"
    assert join("/data", "s3://other/1.mp4") == "s3://other/1.mp4"
    assert join(".", "a") == "a"
