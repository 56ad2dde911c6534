"""Local and remote inputs: the same functions list, look at, open and read both.

A place is a text: a path on this machine, or an address with a protocol. A local place is read by
the system, a remote one by requests.
"""

import hashlib
import io
import logging
import mmap
import os
import re
import stat as modes
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from featx.data.remote import ask, missing
from featx.durable import ADDRESS, conceal, expand, file_sha256, to_int64
from featx.errors import ChangedInputError, InputError, OutputError, UsageError, first_line

_log = logging.getLogger(__name__)

Place = str | Path
"""A local path, or the address of a remote file or folder; an address is always a `str`."""

_CHAIN = re.compile(r"[a-z][a-z0-9+.\-]*::.*:/", re.DOTALL)  # fsspec's, from one to the next
_LOCAL = {"file", "local"}
_WRAPPERS = {
    *("blockcache", "cached", "filecache", "simplecache", "reference", "generic", "dir", "dask"),
    *("zip", "tar", "libarchive", "data", "asynclocal", "async_wrapper", "jupyter", "jlab"),
}
"""Protocols of fsspec that read by way of another, which could be any, or run what they read."""

_NO_NAMES = {"", ".", ".."}  # parts of addresses that name no file in a folder

BLOCK_BYTES = 2**16
"""How much of a remote file is fetched at once where only a part of it is read."""

_MOST_BLOCKS = 16  # that are fetched at once where blocks are read one after the other

_MOST_BYTES = 2**24  # of one request: after a lost connection, no more than that is fetched again
_NUM_BLOCKS = 32  # of a file that is read by range, kept in memory
_IN_MEMORY = 2**26  # bytes of a file that is held in memory; a larger one goes to a temporary file
_NUM_KEPT = 2  # files that a process keeps, so that the segments of one clip share it
_THREADS = 8
_TRIES_OF_A_MOVING_FILE = 3
_TAGS = ("ETag", "etag", "md5Hash", "blob_id", "content_md5")
_TIMES = ("LastModified", "last_modified", "mtime", "updated", "created")
_TAG_RANGE = 10**18  # nanoseconds: a time that any file system can keep, and that is long ago


class Status(NamedTuple):
    """What a file system or a server says of a file or a folder."""

    size: int
    changed_ns: int  # of a remote file, a number that changes with its ETag
    inode: int  # of a remote file, `changed_ns`
    status_ns: int  # when the status has changed; 0 for a remote file
    mode: int  # kind and permissions, as `os.stat` has them

    @classmethod
    def of(cls, status: os.stat_result) -> "Status":
        """Convert what `os.stat` says."""
        return cls(
            status.st_size,
            to_int64(status.st_mtime_ns),
            to_int64(status.st_ino),
            to_int64(status.st_ctime_ns),
            status.st_mode,
        )

    @property
    def is_folder(self) -> bool:
        """True for a folder."""
        return modes.S_ISDIR(self.mode)

    @property
    def is_file(self) -> bool:
        """True for a regular file."""
        return modes.S_ISREG(self.mode)

    @property
    def stats(self) -> tuple[int, int]:
        """Size, and time of the last change."""
        return self.size, self.changed_ns


class Item(NamedTuple):
    """One entry of a folder; links are followed."""

    name: str
    is_folder: bool
    is_file: bool
    exists: bool = True  # False for a link whose target is missing
    status: Status | None = None  # if the listing has it, as that of a remote folder has


def is_remote(place: Place) -> bool:
    """Return True for an address, False for a path on this machine."""
    return isinstance(place, str) and ADDRESS.match(place) is not None


def locate(text: Place) -> str:
    """Return the place that a person means: a local path, whose `~` is a home, or an address.

    Args:
        text: As given. A Path has lost a slash of s3://bucket, which is added again.

    Raises:
        UsageError: It is neither; or it has a password in it, which would be recorded.
    """
    is_chain = _CHAIN.match(str(text)) is not None
    match = ADDRESS.match(str(text).rpartition("::")[2] if is_chain else str(text))
    if not match:
        return str(expand(text))
    protocol, rest = match.groups()
    url = f"{protocol}://{rest}"
    shown = conceal(url)
    if protocol in _LOCAL:
        raise UsageError(f"{url}: expected a path, found an address of one. Give /{rest}.")
    if protocol in _WRAPPERS or is_chain:
        raise UsageError(
            f"{shown}: expected the address of a folder or a file, such as s3://bucket/folder, "
            "found one that is read by way of another. Give that of the file itself."
        )
    authority, *parts = rest.rstrip("/").split("/")
    if not authority or _NO_NAMES & {*parts}:
        raise UsageError(
            f"{shown}: expected an address such as s3://bucket/folder, found parts that are "
            "empty, . or ... Leave them out."
        )
    is_web = protocol in ("http", "https")
    if ":" in authority.rpartition("@")[0] or (is_web and "?" in rest):
        raise UsageError(
            f"{protocol}://...: expected an address without a password or a query in it, found "
            "one with, which would be recorded. Keep what is secret in the environment, or in the "
            "settings of the protocol's own tool."
        )
    return url.rstrip("/")


def join(root: Place, name: str) -> str:
    """Return the place of a name: an address, an absolute path, or a name below a folder.

    Args:
        root: The folder.
        name: A name that may be used, such as `check_name_in` has seen.
    """
    if ADDRESS.match(name):
        return locate(name)
    if name.startswith("/") or not is_remote(root):
        return str(Path(root) / name)
    return f"{root}/{name}"


def name_of(place: Place) -> str:
    """Return the last part of a place."""
    return str(place).rpartition("/")[2]


def parent_of(place: Place) -> str:
    """Return the folder of a place."""
    return str(place).rpartition("/")[0] if is_remote(place) else str(Path(place).parent)


def is_below(root: Place, place: Place) -> bool:
    """Return True for a place in a folder, or deeper in it."""
    if is_remote(root) or is_remote(place):
        return str(place).startswith(f"{root}/")
    return Path(root) in Path(place).parents


def resolve(place: Place) -> str:
    """Return a local path without links, and absolute; an address as it is."""
    return str(place) if is_remote(place) else str(Path(place).resolve())


def check_name_in(table: Place, root: Place, name: str) -> None:
    """Check that a table may name an input as it does.

    A local table may name any path or address. A remote table is somebody else's word: it may name
    what is below the root, and addresses of the same bucket as its own or the root's.

    Raises:
        InputError: It must not.
    """
    is_url = ADDRESS.match(name) is not None
    try:
        place = locate(name) if is_url else None
    except UsageError as error:
        raise InputError(str(error)) from error
    if not is_remote(table):
        return
    homes = {_bucket_of(str(each)) for each in (root, table) if is_remote(each)}
    is_local = name.startswith("/") or ".." in name.split("/")
    if is_local or (place and _bucket_of(place) not in homes):
        raise InputError(
            f"{name}: expected a path below the root, or an address in the bucket of the table, "
            "because the table is remote, found another. Copy the table to this machine, if you "
            "trust it."
        )


def _bucket_of(url: str) -> str:
    return "/".join(url.split("/")[:3])


_Listing = dict[str, dict[str, Status]]
"""All that is below a remote folder, as of one moment: by the addresses of folders, and by name."""

_FOLDER = Status(0, 0, 0, 0, modes.S_IFDIR | 0o555)
_listings: dict[str, _Listing] = {}
_lock = threading.Lock()


def _find_listing(url: str) -> _Listing | None:
    for root, listing in list(_listings.items()):
        if url == root or url.startswith(f"{root}/"):
            return listing
    return None


def _add(listing: _Listing, folder: str, parts: Sequence[str], status: Status) -> None:
    """Add a file or a folder, and the folders that it is in."""
    for name in parts[:-1]:
        listing.setdefault(folder, {})[name] = _FOLDER
        folder = f"{folder}/{name}"
    listing.setdefault(folder, {})[parts[-1]] = status
    if status.is_folder:
        listing.setdefault(f"{folder}/{parts[-1]}", {})


@contextmanager
def listed(root: Place) -> Iterator[None]:
    """List all that is below a remote folder once, for all `stat` and `list_folder` inside.

    That takes a request for a thousand files, instead of some for each. A local folder is not
    listed.

    Raises:
        NetworkError: The server cannot be reached.
    """
    if not is_remote(root):
        yield
        return
    url = str(root)
    listing: _Listing = {}
    try:
        for (name,), status in _list(url):
            _add(listing, url, (name,), status)
            if status.is_folder:  # one after the other, because fsspec holds all of one in memory
                for parts, below in _list(f"{url}/{name}", deeply=True):
                    _add(listing, url, (name, *parts), below)
    except FileNotFoundError:
        pass  # the caller reports it when it reads the folder
    _listings[url] = listing
    try:
        yield
    finally:
        _listings.pop(url, None)


def stat(place: Place, fresh: bool = False) -> Status:
    """Return the status of a file or a folder.

    Args:
        place: The place.
        fresh: Ask the server, also where the folder is listed.

    Raises:
        FileNotFoundError: Nothing is there.
        NetworkError: The server cannot be reached.
    """
    if not is_remote(place):
        return Status.of(os.stat(place))
    url = str(place)
    listing = None if fresh else _find_listing(url)
    if listing is None:
        return _to_status(url, ask(url, lambda fs, name: fs.info(name)))
    folder, _, name = url.rpartition("/")
    status = _FOLDER if url in listing else listing.get(folder, {}).get(name)
    if status is None:
        raise missing(url)
    return status


def exists(place: Place) -> bool:
    """Return True where something is."""
    return _find_status(place) is not None


def is_folder(place: Place) -> bool:
    """Return True for a folder, or a link to one."""
    return bool((status := _find_status(place)) and status.is_folder)


def is_file(place: Place) -> bool:
    """Return True for a regular file, or a link to one."""
    return bool((status := _find_status(place)) and status.is_file)


def _find_status(place: Place) -> Status | None:
    try:
        return stat(place)
    except (OSError, ValueError):  # as pathlib has it: what cannot be a path is not there
        return None


def list_folder(folder: Place) -> list[Item]:
    """Return what is in a folder, in no order.

    Raises:
        OSError: There is no such folder, or it cannot be read.
        NetworkError: The server cannot be reached.
    """
    if not is_remote(folder):
        with os.scandir(folder) as entries:
            return [_to_item(entry) for entry in entries]
    url = str(folder)
    listing = _find_listing(url)
    if listing is None:
        found = [(parts[0], status) for parts, status in _list(url) if len(parts) == 1]
    elif url in listing:
        found = [*listing[url].items()]
    else:
        raise missing(url)
    return [Item(name, s.is_folder, not s.is_folder, True, s) for name, s in found]


def _to_item(entry: os.DirEntry[str]) -> Item:
    try:
        is_folder = entry.is_dir()
        is_file = not is_folder and entry.is_file()
    except OSError:  # a link to itself
        return Item(entry.name, False, False, exists=False)
    is_there = is_folder or is_file or not entry.is_symlink() or os.path.exists(entry.path)
    return Item(entry.name, is_folder, is_file, is_there)


def _list(url: str, deeply: bool = False) -> list[tuple[tuple[str, ...], Status]]:
    """List a remote folder, or all files below it, each by the parts of its path below it."""

    def request(fs: Any, name: str) -> list[tuple[tuple[str, ...], Status]]:  # noqa: ANN401
        # Both are names without the protocol, with slashes at their ends or not.
        found = [*fs.find(name, detail=True).values()] if deeply else fs.ls(name, detail=True)
        above = name.strip("/")
        below = ((info["name"].strip("/")[len(above) :].strip("/"), info) for info in found)
        return [(tuple(n.split("/")), _to_status(url, info)) for n, info in below if n]

    found = ask(url, request)
    if odd := [parts for parts, _ in found if _NO_NAMES & {*parts}]:
        _log.warning(
            "%s: skipped %d files with empty names above them, or . or .., such as %s",
            url,
            len(odd),
            "/".join(odd[0]),
        )
        found = [(parts, status) for parts, status in found if not _NO_NAMES & {*parts}]
    return found


def _to_status(url: str, info: Mapping[str, Any]) -> Status:
    """Convert what fsspec says of a file or a folder."""
    if info["type"] == "directory":
        return _FOLDER
    if info.get("size") is None:
        raise UsageError(
            f"{url}: expected a server that says how large its files are, found one that does "
            "not. Copy them to this machine."
        )
    tag = _find_tag(info)
    return Status(info["size"], tag, tag, 0, modes.S_IFREG | 0o444)


def _find_tag(info: Mapping[str, Any]) -> int:
    """Return a number that changes with the content."""
    for name in (*_TAGS, *_TIMES):
        value = info.get(name)
        if isinstance(value, datetime):
            value = value if value.tzinfo else value.replace(tzinfo=UTC)
            return int(value.timestamp() * 1e9)
        if isinstance(value, (int, float)):
            return int(value * 1e9)
        if value:
            digest = hashlib.sha256(str(value).strip('"').encode()).digest()
            return int.from_bytes(digest[:8], "big") % _TAG_RANGE
    return 0


def open_file(place: Place, status: Status | None = None) -> IO[bytes]:
    """Open a file for reading, anywhere in it; of a remote one, only blocks that are read come.

    Args:
        place: The file.
        status: Its status, if the caller has asked for it.

    Raises:
        OSError: It is missing, or cannot be read.
        NetworkError: The server cannot be reached.
    """
    if not is_remote(place):
        return open(place, "rb")
    return cast(IO[bytes], RangeReader(str(place), status or stat(place)))


def status_of(file: IO[bytes]) -> Status:
    """Return the status of an open file: of a remote one, as of when it was opened."""
    if isinstance(file, RangeReader):
        return file.status
    return Status.of(os.fstat(file.fileno()))


class _Seekable(io.RawIOBase):
    """A file of a known size; it has a name, because FFmpeg looks at the suffix."""

    def __init__(self, name: str, size: int) -> None:
        self.name = name
        self._size = size
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        self._place = max(base + offset, 0)
        return self._place


class _InMemory(_Seekable):
    """Bytes in memory, or mapped, as a file; threads may share them."""

    def __init__(self, data: bytes | mmap.mmap, name: str) -> None:
        super().__init__(name, len(data))
        self._data = data

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401  # typing has no buffer before 3.12
        view = memoryview(buffer).cast("B")
        found = self._data[self._place : self._place + len(view)]
        view[: len(found)] = found
        self._place += len(found)
        return len(found)


class RangeReader(_Seekable):
    """A remote file that is read by range, in blocks that are kept.

    Args:
        url: Its address.
        status: Its status.

    Attributes:
        name: The address.
        failure: The error of the last request; a library that reads may have swallowed it.
    """

    def __init__(self, url: str, status: Status) -> None:
        super().__init__(url, status.size)
        self.status = status
        self.failure: Exception | None = None
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._next, self._ahead = 0, 1  # the block after the last request, and how many to fetch

    def __str__(self) -> str:
        return self.name

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401  # typing has no buffer before 3.12
        """Fill a buffer, as far as the file reaches."""
        view = memoryview(buffer).cast("B")
        stop = max(min(self._place + len(view), self.status.size), self._place)
        count = stop - self._place
        try:
            if count > BLOCK_BYTES * _MOST_BLOCKS:  # a video, say, which nobody reads twice
                for start in range(self._place, stop, _MOST_BYTES):
                    end = min(start + _MOST_BYTES, stop)
                    block = _read_range(self.name, start, end, self.status.size)
                    view[start - self._place : end - self._place] = block
            else:
                view[:count] = self._read_blocks(self._place, stop)
        except Exception as error:
            self.failure = error
            raise
        self._place = stop
        return count

    def _read_blocks(self, start: int, stop: int) -> bytes:
        """Read a few bytes by way of the blocks that they are in."""
        if start == stop:
            return b""
        size = BLOCK_BYTES
        numbers = range(start // size, (stop - 1) // size + 1)
        found = b""
        for number in numbers:
            if number not in self._blocks:
                self._fetch(number, max(numbers[-1] - number + 1, 1))
            self._blocks.move_to_end(number)
            found += self._blocks[number]
        while len(self._blocks) > _NUM_BLOCKS:
            self._blocks.popitem(last=False)
        begin = numbers[0] * size
        return found[start - begin : stop - begin]

    def _fetch(self, number: int, count: int) -> None:
        """Fetch some blocks in one request: more each time that they follow each other."""
        self._ahead = min(2 * self._ahead, _MOST_BLOCKS) if number == self._next else 1
        count = max(count, self._ahead)
        self._next = number + count
        begin, size = number * BLOCK_BYTES, self.status.size
        content = _read_range(self.name, begin, min(begin + count * BLOCK_BYTES, size), size)
        for place in range(0, len(content), BLOCK_BYTES):
            self._blocks[number] = content[place : place + BLOCK_BYTES]
            number += 1


def _moved(place: Place) -> ChangedInputError:
    return ChangedInputError(
        f"{place}: expected a file that stays as it is, found one that changed while it was read. "
        "Start again when it is complete."
    )


def _read_range(url: str, start: int, stop: int, size: int) -> bytes:
    """Read bytes of a remote file whose size is known."""
    whole = (start, stop) == (0, size)

    def read(fs: Any, name: str) -> bytes:  # noqa: ANN401
        content: bytes = fs.cat_file(name) if whole else fs.cat_file(name, start=start, end=stop)
        if len(content) != stop - start:
            if fs.info(name)["size"] != size:
                raise _moved(url)
            raise ConnectionError(f"{len(content)} bytes instead of {stop - start}")
        return content

    return ask(url, read) if stop > start else b""


def read_bytes(place: Place, status: Status | None = None) -> bytes:
    """Return all bytes of a file.

    Args:
        place: The file.
        status: Its status, if the caller knows it.

    Raises:
        OSError: It is missing, or cannot be read.
        NetworkError: The server cannot be reached.
    """
    if not is_remote(place):
        return Path(place).read_bytes()
    size = (status or stat(place)).size
    starts = range(0, max(size, 1), _MOST_BYTES)
    return b"".join(_read_range(str(place), s, min(s + _MOST_BYTES, size), size) for s in starts)


def read_each(places: Sequence[tuple[Place, Status | None]]) -> Iterator[bytes]:
    """Yield all bytes of each file, in order; remote ones are read ahead by a few threads."""
    if not any(is_remote(place) for place, _ in places):
        for place, _ in places:
            yield read_bytes(place)
        return
    with ThreadPoolExecutor(_THREADS, "fetching") as pool:
        for first in range(0, len(places), 2 * _THREADS):  # no more than these are in memory
            few = places[first : first + 2 * _THREADS]
            yield from pool.map(lambda file: read_bytes(*file), few)


@dataclass(frozen=True)
class Content:
    """All bytes of a file, as they were at one moment."""

    name: str  # the place of the file
    status: Status
    data: bytes | mmap.mmap | None  # None for a large local file, which is read where it is

    def open(self) -> IO[bytes]:
        """Open the bytes for reading; the file object has the name of the place."""
        if self.data is None:
            return open(self.name, "rb")
        return cast(IO[bytes], _InMemory(self.data, self.name))

    def __str__(self) -> str:
        return self.name

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the bytes."""
        if self.data is None:
            return file_sha256(Path(self.name))
        return hashlib.sha256(self.data).hexdigest()


Source = Place | Content | RangeReader
"""What a clip is read from: its place, its bytes, or a remote file whose blocks are kept."""


def open_source(source: Source) -> IO[bytes]:
    """Open a source for reading; a file that is open already is given from its beginning."""
    if isinstance(source, Content):
        return source.open()
    if isinstance(source, RangeReader):
        source.seek(0)
        return cast(IO[bytes], source)
    return open_file(source)


_kept: OrderedDict[tuple[str, Status], Content] = OrderedDict()


def fetch(place: Place) -> Content:
    """Read all of a file, or take it from the last few that this process has read.

    Raises:
        OSError: It is missing, or cannot be read.
        ChangedInputError: It goes on changing while it is read.
        NetworkError: The server cannot be reached.
    """
    name = str(place)
    for _ in range(_TRIES_OF_A_MOVING_FILE):
        status = stat(place, fresh=True)
        with _lock:
            content = _kept.get((name, status))
        if content:
            return content
        try:
            content = Content(name, status, _read_content(place, status))
        except ChangedInputError:
            continue
        if stat(place, fresh=True) == status:
            with _lock:
                _kept[name, status] = content
                while len(_kept) > _NUM_KEPT:
                    _kept.popitem(last=False)
            return content
    raise _moved(place)


def _read_content(place: Place, status: Status) -> bytes | mmap.mmap | None:
    if status.size <= _IN_MEMORY:
        return read_bytes(place, status)
    if not is_remote(place):
        return None
    with tempfile.TemporaryFile() as file:
        _copy(str(place), status.size, file)
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _copy(url: str, size: int, file: IO[bytes]) -> None:
    """Write all bytes of a remote file into a local one."""
    try:
        for start in range(0, size, _MOST_BYTES):
            file.write(_read_range(url, start, min(start + _MOST_BYTES, size), size))
        file.flush()
    except OSError as error:
        raise OutputError(
            f"{tempfile.gettempdir()}: expected room for {url}, found: {first_line(error)}. Free "
            "some disk space, or set TMPDIR to another folder."
        ) from error


@contextmanager
def at_hand(place: Place) -> Iterator[Path]:
    """Give a file a local path, as long as the context lasts: that of a copy, if it is remote.

    Raises:
        OSError: It is missing.
        NetworkError: The server cannot be reached.
    """
    if not is_remote(place):
        yield Path(place)
        return
    with tempfile.TemporaryDirectory(prefix="featx-") as folder:
        path = Path(folder) / name_of(place)
        with path.open("wb") as file:
            _copy(str(place), stat(place).size, file)
        yield path
