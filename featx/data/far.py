"""Paths on far disks, such as s3://bucket/folder, whose files are read by way of a local cache.

Those of universal_pathlib are no pathlib.Path, ask the far disk at each call, and keep no copies.
"""

import hashlib
import io
import logging
import os
import re
import stat
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PosixPath, PurePosixPath
from typing import IO, Any, NamedTuple, Self

from featx.data.far_disk import Access, ask, missing
from featx.errors import ChangedInputError, FeatxError, InputError, UsageError
from featx.files import ADDRESS, conceal, expand

_log = logging.getLogger(__name__)

_CHAIN = re.compile(r"[a-z][a-z0-9+.\-]*::.*:/", re.DOTALL)  # fsspec's, from one to the next
_LOCAL = {"file", "local"}
_WRAPPERS = {
    *("blockcache", "cached", "filecache", "simplecache", "reference", "generic", "dir", "dask"),
    *("zip", "tar", "libarchive", "data", "asynclocal", "async_wrapper", "jupyter", "jlab"),
}
"""Of fsspec: what reads by way of others, which could be any, or runs what it reads."""

_NO_NAMES = {"", ".", ".."}  # parts of paths, which mean no file in a folder

_BLOCK_BYTES = 2**24  # what is asked for at once; what has arrived need not come again
_IMAGE_THREADS = 8
_TRIES_OF_A_MOVING_FILE = 3
_TAGS = ("ETag", "etag", "md5Hash", "blob_id", "content_md5")
_TIMES = ("LastModified", "last_modified", "mtime", "updated", "created")
_TAG_RANGE = 10**18  # nanoseconds: a time that any file system can keep, and that is long ago


class Entry(NamedTuple):
    """What a far disk says of a file or a folder.

    Attributes:
        size: Bytes.
        tag: A number that changes with the content: of its ETag, or its time of change in
            nanoseconds.
        is_folder: Whether it is a folder.
    """

    size: int
    tag: int
    is_folder: bool

    def to_status(self, number: int) -> os.stat_result:
        """As the system says it of a local one: the tag is its time of change.

        Args:
            number: What stands for that of its inode.
        """
        kind = stat.S_IFDIR if self.is_folder else stat.S_IFREG
        times = {"st_mtime_ns": self.tag, "st_mtime": self.tag / 1e9, "st_ctime_ns": 0}
        # (mode, inode, device, links, user, group, size, and three times in seconds)
        return os.stat_result(
            (kind | 0o444, number, 0, 1, 0, 0, self.size, 0, self.tag // 10**9, 0), times
        )


_FOLDER = Entry(0, 0, is_folder=True)


@dataclass(slots=True)
class _Listing:
    """What there is below a folder, as of one moment.

    Attributes:
        depth: Parts of the folder's own path.
        folders: For each folder, by the parts of its path below that, what is in it.
        is_open: Whether it still counts.
    """

    depth: int
    folders: dict[tuple[str, ...], dict[str, Entry]] = field(default_factory=dict)
    is_open: bool = True

    def add(self, parts: tuple[str, ...], entry: Entry) -> None:
        """Add a file or a folder, and the folders that it is in."""
        *above, name = parts
        place = tuple(above)
        if place and place not in self.folders:
            self.add(place, _FOLDER)
        self.folders.setdefault(place, {})[name] = entry
        if entry.is_folder:
            self.folders.setdefault(parts, {})

    def find(self, parts: tuple[str, ...]) -> Entry | None:
        """What is at a path; None if nothing is."""
        below = parts[self.depth :]
        if below in self.folders:
            return _FOLDER
        return self.folders.get(below[:-1], {}).get(below[-1]) if below else None


class FarPath(PosixPath):
    """A path on a far disk, as far as inputs need one.

    It can be listed, looked at and opened. What reads a file by its name, such as a decoder, needs
    a copy of it: see `at_hand`. Names are taken as they are; those with an empty part, `.` or `..`
    in them cannot be had.

    Attributes:
        access: How it is read.
    """

    access = Access()
    _listing: _Listing | None = None
    _copy: Path | None = None
    _kind: Entry | None = None

    def __str__(self) -> str:
        scheme, *parts = self.parts
        return f"{scheme}//{'/'.join(parts)}"

    def __fspath__(self) -> str:
        if self._copy is None:
            raise TypeError(f"{self}: it is not on this machine; read it inside of at_hand")
        return str(self._copy)

    def __reduce__(self) -> tuple[Any, ...]:
        return _make, (str(self), self.access)

    def __truediv__(self, name: str | os.PathLike[str]) -> "FarPath":
        child = _make(f"{self}/{name}", self.access, self._listing)
        child._copy = self._copy and self._copy / name
        return child

    def joinpath(self, *names: str | os.PathLike[str]) -> "FarPath":
        """The path of what is below; where Path would give one of its own class, so does this."""
        path = self
        for name in names:
            path = path / name
        return path

    @property
    def parent(self) -> "FarPath":
        """The folder that it is in."""
        return _make("/".join([self.parts[0] + "/", *self.parts[1:-1]]), self.access, self._listing)

    def relative_to(  # type: ignore[override]  # what it gives is no far path
        self, *other: str | os.PathLike[str]
    ) -> PurePosixPath:
        """What follows the path of a folder that it is in."""
        above = Path(*other).parts
        if self.parts[: len(above)] != above:
            raise ValueError(f"{str(self)!r} is not in {str(other[0])!r}")
        return PurePosixPath(*self.parts[len(above) :])

    def is_absolute(self) -> bool:
        """It is."""
        return True

    def resolve(self, strict: bool = False) -> Self:
        """The path itself: there are no links."""
        return self

    absolute = expanduser = resolve

    def find(self) -> Entry:
        """What the far disk says of it.

        Raises:
            FileNotFoundError: Nothing is there.
            NetworkError: The far disk cannot be reached.
        """
        if self._listing and self._listing.is_open:
            entry = self._listing.find(self.parts)
            if entry is None:
                raise missing(str(self))
            return entry
        return _to_entry(self, ask(str(self), self.access, lambda fs, name: fs.info(name)))

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """What the far disk says of it, as of a local file; see `Entry.to_status`."""
        entry = self.find()
        return entry.to_status(hash(self) if entry.is_folder else entry.tag)

    def lstat(self) -> os.stat_result:
        """The same."""
        return self.stat()

    def exists(self, *, follow_symlinks: bool = True) -> bool:
        """Whether something is there."""
        try:
            return bool(self._kind or self.find())
        except FileNotFoundError:
            return False

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        """Whether it is a folder."""
        return self.exists() and (self._kind or self.find()).is_folder

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        """Whether it is a file."""
        return self.exists() and not self.is_dir()

    def is_symlink(self) -> bool:
        """There are no links."""
        return False

    def iterdir(self) -> Iterator["FarPath"]:  # type: ignore[override]
        """What is in a folder.

        Raises:
            FileNotFoundError: There is no such folder.
            NetworkError: The far disk cannot be reached.
        """
        for name, entry in self._list().items():
            child = self / name
            child._kind = entry
            yield child

    def _list(self) -> Mapping[str, Entry]:
        """What is in the folder, by name."""
        if self._listing and self._listing.is_open:
            below = self.parts[self._listing.depth :]
            if below not in self._listing.folders:
                raise missing(str(self))
            return self._listing.folders[below]
        return {parts[0]: entry for parts, entry in self._ls() if len(parts) == 1}

    def _ls(self, deeply: bool = False) -> list[tuple[tuple[str, ...], Entry]]:
        """Ask for what is in the folder, or for all files below it, by the parts of its path."""

        def request(fs: Any, name: str) -> list[tuple[tuple[str, ...], Entry]]:  # noqa: ANN401
            # Both are names without the protocol, with slashes at their ends or not.
            found = [*fs.find(name, detail=True).values()] if deeply else fs.ls(name, detail=True)
            above = name.strip("/")
            below = ((info["name"].strip("/")[len(above) :].strip("/"), info) for info in found)
            return [(tuple(n.split("/")), _to_entry(self, info)) for n, info in below if n]

        found = ask(str(self), self.access, request)
        if odd := [parts for parts, _ in found if _NO_NAMES & {*parts}]:
            _log.warning(
                "%s: left out %d files with empty names above them, or . or .., such as %s",
                self,
                len(odd),
                "/".join(odd[0]),
            )
            found = [(parts, entry) for parts, entry in found if not _NO_NAMES & {*parts}]
        return found

    def open(self, mode: str = "r", *args: Any, **settings: Any) -> IO[Any]:  # type: ignore[override]  # noqa: ANN401
        """Open a copy of it for reading."""
        if not {*mode} <= {*"rbt"}:
            raise io.UnsupportedOperation(f"{self}: only for reading, found mode {mode!r}")
        with at_hand(self) as path:  # an open file stays readable when its copy is removed
            return open(os.fspath(path), mode, *args, **settings)

    def read_bytes(self) -> bytes:
        """All of it."""
        with self.open("rb") as file:
            content: bytes = file.read()
        return content

    def read_text(self, encoding: str | None = None, errors: str | None = None) -> str:
        """All of it, as text."""
        with self.open("r", encoding=encoding, errors=errors) as file:
            content: str = file.read()
        return content


def locate(text: Path | str, access: Access | None = None) -> Path:
    """The path of an input as a person gives it: a local one, or one on a far disk.

    Args:
        text: It. A Path has lost a slash of s3://bucket, which is added again.
        access: How a far disk is read.

    Raises:
        UsageError: It is neither; or it has a password in it, which would be recorded.
    """
    is_chain = _CHAIN.match(str(text)) is not None
    match = ADDRESS.match(str(text).rpartition("::")[2] if is_chain else str(text))
    if not match:
        return expand(text)
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
    return _make(url, access or Access())


def is_far(path: Path) -> bool:
    """Whether a path is on a far disk."""
    return isinstance(path, FarPath)


def join(root: Path, name: str, access: Access) -> Path:
    """The path of a name: an address, an absolute path, or one below a folder.

    Args:
        root: The folder.
        name: One that may be used, such as `check_name_in` has seen.
        access: How a far disk is read.
    """
    if ADDRESS.match(name):
        return locate(name, access)
    return Path(name) if name.startswith("/") else root / name


def find_access(path: Path) -> Access:
    """How a path is read, if it is far; otherwise, how one usually is."""
    return path.access if isinstance(path, FarPath) else Access()


def check_name_in(table: Path, root: Path, name: str) -> None:
    """Check that a table may name an input as it does.

    A local table may name what it likes, as it always could: a path, be it an absolute one, or the
    address of a far file. A far one is somebody else's word: it may name what is below the root,
    and addresses of the same bucket as its own or the root's.

    Raises:
        InputError: It must not.
    """
    is_url = ADDRESS.match(name) is not None
    try:
        path = locate(name) if is_url else None
    except UsageError as error:
        raise InputError(str(error)) from error
    if not is_far(table):
        return
    homes = {each.parts[:2] for each in (root, table) if is_far(each)}
    is_local = name.startswith("/") or ".." in name.split("/")
    if is_local or (path and path.parts[:2] not in homes):
        raise InputError(
            f"{name}: expected a path below the root, or an address in the bucket of the table, "
            "for that is a far one, found another. Copy the table to this machine, if you trust it."
        )


def scan_folder(folder: Path) -> list[os.DirEntry[str] | Path]:
    """What is in a folder: each knows its name, and whether it is a folder."""
    if isinstance(folder, FarPath):
        return [*folder.iterdir()]
    with os.scandir(folder) as entries:
        return [*entries]


def look_into(path: Path) -> Path:
    """A path about which, and about what is in it, the far disk was asked once, now.

    A local one is as it is.

    Raises:
        FileNotFoundError: Nothing is there.
        NetworkError: The far disk cannot be reached.
    """
    if not isinstance(path, FarPath) or path._copy or (path._listing and path._listing.is_open):
        return path
    entries, is_folder = _look_for_copy(path)
    return _make(str(path), path.access, _freeze(path if is_folder else path.parent, entries))


def _freeze(folder: FarPath, entries: Mapping[str, Entry]) -> _Listing:
    """What is known of files in a folder, for good."""
    return _Listing(len(folder.parts), {(): dict(entries)})


@contextmanager
def listed(root: Path) -> Iterator[Path]:
    """A folder, about all of which the far disk is asked at once, as long as the context lasts.

    That takes a request for a thousand files, instead of some for each. A local one is as it is.

    Raises:
        NetworkError: The far disk cannot be reached.
    """
    if not isinstance(root, FarPath):
        yield root
        return
    listing = _Listing(len(root.parts))
    try:
        for (name,), entry in root._ls():
            listing.add((name,), entry)
            if entry.is_folder:  # one after the other, for fsspec has all of one in memory
                for parts, below in (root / name)._ls(deeply=True):
                    listing.add((name, *parts), below)
    except FileNotFoundError:
        pass  # it is told by whoever asks
    try:
        yield _make(str(root), root.access, listing)
    finally:
        listing.is_open = False
        listing.folders = {}


@contextmanager
def at_hand(path: Path) -> Iterator[Path]:
    """A path whose content is on this machine, as long as the context lasts.

    It has the same name, and `os.fspath` gives its copy. What it says of size and time is what was
    copied. A local path is as it is.

    Args:
        path: A file, or a folder of files, as clips in images are.

    Raises:
        FileNotFoundError: There is nothing.
        ChangedInputError: It goes on changing while it is copied.
        NetworkError: The far disk cannot be reached.
        UsageError: The copy cannot be written.
    """
    if not isinstance(path, FarPath) or path._copy:
        yield path
        return
    with ExitStack() as stack:
        yield _bring(path, stack)


def _bring(path: FarPath, stack: ExitStack) -> FarPath:
    """A path with a copy, which stays until a stack is left."""
    for _ in range(_TRIES_OF_A_MOVING_FILE):
        entries, is_folder = _look_for_copy(path)
        content = hashlib.sha256(repr((str(path), sorted(entries.items()))).encode()).hexdigest()
        size = sum(entry.size for entry in entries.values())
        above = path if is_folder else path.parent

        def fill(folder: Path) -> None:
            _copy(above, entries, folder)  # noqa: B023  # it is called before the next turn
            if _look_for_copy(path) != (entries, is_folder):  # noqa: B023  # the same
                raise _MovedError

        try:
            folder = stack.enter_context(path.access.open_cache().lease(content, size, fill))
        except _MovedError:
            continue
        near = _make(str(path), path.access, _freeze(above, entries))
        near._copy = folder if is_folder else folder / path.name
        return near
    raise ChangedInputError(
        f"{path}: expected a file that stays as it is, found one that changed while it was read. "
        "Start again when it is complete."
    )


class _MovedError(FeatxError):
    """A file is another one than it was before it was copied."""


def _look_for_copy(path: FarPath) -> tuple[dict[str, Entry], bool]:
    """The files to be copied for a path, as they are now, and whether it is a folder of them."""
    plain = _make(str(path), path.access)
    entry = plain.find()
    if not entry.is_folder:
        return {path.name: entry}, False
    return {name: each for name, each in plain._list().items() if not each.is_folder}, True


def _copy(above: FarPath, entries: Mapping[str, Entry], folder: Path) -> None:
    """Copy files of a folder, to the disk and not just to the system's memory."""

    def copy(name: str) -> None:
        entry = entries[name]
        with (folder / name).open("wb") as file:
            for start in range(0, entry.size, _BLOCK_BYTES):
                stop = min(start + _BLOCK_BYTES, entry.size)
                file.write(_read_block(above / name, start, stop, entry.size))
            file.flush()
            os.fsync(file.fileno())
        os.utime(folder / name, ns=(entry.tag, entry.tag))

    if len(entries) == 1:
        copy(*entries)
        return
    with ThreadPoolExecutor(_IMAGE_THREADS, "fetching") as pool:
        for _ in pool.map(copy, entries):
            pass


def _read_block(path: FarPath, start: int, stop: int, size: int) -> bytes:
    """Bytes of a far file."""
    whole = (start, stop) == (0, size)

    def read(fs: Any, name: str) -> bytes:  # noqa: ANN401
        content: bytes = fs.cat_file(name) if whole else fs.cat_file(name, start=start, end=stop)
        if len(content) != stop - start:
            if fs.info(name)["size"] != size:
                raise _MovedError
            raise ConnectionError(f"{len(content)} bytes instead of {stop - start}")
        return content

    return ask(str(path), path.access, read)


def _make(url: str, access: Access, listing: _Listing | None = None) -> FarPath:
    path = FarPath(url)
    path.access = access
    path._listing = listing
    return path


def _to_entry(path: FarPath, info: Mapping[str, Any]) -> Entry:
    """What fsspec says of a file or a folder."""
    if info["type"] == "directory":
        return _FOLDER
    if info.get("size") is None:
        raise UsageError(
            f"{path}: expected a far disk that says how large its files are, found one that does "
            "not. Copy them to this machine."
        )
    for name in (*_TAGS, *_TIMES):
        value = info.get(name)
        if isinstance(value, datetime):
            value = value if value.tzinfo else value.replace(tzinfo=UTC)
            return Entry(info["size"], int(value.timestamp() * 1e9), is_folder=False)
        if isinstance(value, (int, float)):
            return Entry(info["size"], int(value * 1e9), is_folder=False)
        if value:
            digest = hashlib.sha256(str(value).strip('"').encode()).digest()
            return Entry(info["size"], int.from_bytes(digest[:8], "big") % _TAG_RANGE, False)
    return Entry(info["size"], 0, is_folder=False)
