"""What is asked of far disks, by way of fsspec, and asked again where the network is at fault.

Keys and addresses are where the tools of each protocol have them: in the environment, in ~/.aws and
the like, and in fsspec's own FSSPEC_* variables and ~/.config/fsspec. They are neither settings nor
recorded.
"""

import errno
import logging
import os
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self, TypeVar

from featx.data.far_cache import Cache
from featx.errors import FeatxError, NetworkError, UsageError, first_line, require

_Out = TypeVar("_Out")

_log = logging.getLogger(__name__)

CACHE_GB = 20.0

_PACKAGES = {
    **dict.fromkeys(("s3", "s3a"), "s3fs"),
    **dict.fromkeys(("gs", "gcs"), "gcsfs"),
    **dict.fromkeys(("az", "abfs", "abfss", "adl"), "adlfs"),
    **dict.fromkeys(("http", "https"), "aiohttp"),
    "hf": "huggingface_hub",
}
"""What pip calls the package of a protocol, where that is not its own name."""

_LONGEST_PAUSE = 15.0
_CONNECTIONS = 32
_TRANSIENT = (408, 425, 429)  # of the 4xx of HTTP, those that pass
_NO_ENTRY = re.compile("Credential|Token|Profile|Auth|Forbidden|PermissionError")


@dataclass(frozen=True, slots=True)
class Access:
    """How far disks are read.

    Attributes:
        cache_dir: Where copies are kept; by default, in the user's cache.
        cache_gb: How much of them, in 10^9 bytes.
        patience: For how long a request is tried again, in seconds.
        timeout: How long a connection may say nothing, in seconds.
        pause: Before the second try, in seconds; it doubles from try to try.
    """

    cache_dir: Path | None = None
    cache_gb: float = CACHE_GB
    patience: float = 120.0
    timeout: float = 30.0
    pause: float = 0.5

    def to_json(self) -> dict[str, Any]:
        """All of it, for another process."""
        return {**asdict(self), "cache_dir": self.cache_dir and str(self.cache_dir)}

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> Self:
        """What `to_json` gave."""
        return cls(**{**kept, "cache_dir": kept["cache_dir"] and Path(kept["cache_dir"])})

    def open_cache(self) -> Cache:
        """Where the copies are."""
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        return Cache(self.cache_dir or home / "featx" / "far", int(self.cache_gb * 1e9))


def ask(url: str, access: Access, request: Callable[[Any, str], _Out]) -> _Out:
    """Ask a far disk, again and again while only the network is at fault.

    Args:
        url: The address that it is about.
        access: How it is asked.
        request: Given the filesystem of fsspec and the path as that has it.

    Raises:
        FileNotFoundError: There is nothing at the path.
        NetworkError: There was no answer within the patience, or the answer is that nobody may ask.
    """
    begin, pause, tries = time.monotonic(), access.pause, 0
    while True:
        tries += 1
        try:
            fs = connect(os.getpid(), "/".join(url.split("/")[:3]), access.timeout)
            return request(fs, fs._strip_protocol(url))
        except (FileNotFoundError, NotADirectoryError):
            raise missing(url) from None
        except (FeatxError, TypeError, AttributeError):
            raise  # no answer of a far disk
        except Exception as error:  # each protocol has its own
            causes = [*_walk_causes(error)]
            status = next(filter(None, map(_find_status, causes)), None)
            if status == 404:
                raise missing(url) from None
            if status in (401, 403) or _NO_ENTRY.search(" ".join(type(e).__name__ for e in causes)):
                raise _refuse(url, error) from error
            passes = status is None or status >= 500 or status in _TRANSIENT
            wait = pause * (0.5 + random.SystemRandom().random() / 2)
            spent = time.monotonic() - begin
            if not passes or spent + wait > access.patience:
                raise NetworkError(
                    f"{url}: expected an answer of the far disk, found: {first_line(error)} "
                    f"({tries} {'try' if tries == 1 else 'tries'} in {spent:.0f} s). "
                    "Check the network and the address, then run the same command again: it goes "
                    "on from there."
                ) from error
            if tries == 1:
                _log.warning("%s: trying again, for the far disk said: %s", url, first_line(error))
            time.sleep(wait)
            pause = min(2 * pause, _LONGEST_PAUSE)


@cache
def connect(process: int, base: str, timeout: float) -> Any:  # noqa: ANN401  # fsspec has no types
    """The filesystem of a bucket or a server.

    Args:
        process: This one: what fsspec has to do with a far disk does not survive a fork.
        base: The bucket's or the server's address.
        timeout: See `Access`.

    Raises:
        MissingDependencyError: The package for the protocol is not installed.
        UsageError: There is no such protocol.
    """
    protocol = base.partition(":")[0]
    with require("fsspec", base):
        import fsspec
        from fsspec.config import conf
    with require(_PACKAGES.get(protocol, protocol), f"paths on {protocol}://"):
        try:
            fsspec.get_filesystem_class(protocol)
        except ValueError as error:
            raise UsageError(
                f"{base}: expected a protocol that fsspec knows, found {protocol}. "
                "Check the address."
            ) from error
    options: dict[str, Any] = {}
    if protocol in ("s3", "s3a"):  # whose own retries would multiply with those of `_ask`
        given = conf.get("s3", {}).get("config_kwargs", {})
        options["config_kwargs"] = {
            "connect_timeout": timeout,
            "read_timeout": timeout,
            "max_pool_connections": _CONNECTIONS,
            **given,
            "retries": {"max_attempts": 0},
        }
        options["max_concurrency"] = 1  # a request for a block: others ask at the same time
    fs, _ = fsspec.core.url_to_fs(
        base, skip_instance_cache=True, use_listings_cache=False, **options
    )
    if hasattr(fs, "retries"):
        fs.retries = 1
    return fs


def _walk_causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those that have led to it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _find_status(error: BaseException) -> int | None:
    """The status of HTTP in an error, wherever its library has it."""
    response = getattr(error, "response", None)
    found = getattr(error, "status", None)
    if isinstance(response, Mapping):
        found = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    elif response is not None:
        found = getattr(response, "status_code", None)
    elif type(error).__name__ == "HttpError":  # gcsfs's; aiohttp calls a broken body a 400
        found = getattr(error, "code", None)
    return found if isinstance(found, int) else None


def missing(url: str) -> FileNotFoundError:
    """The system's error for what is not there."""
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), url)


def _refuse(url: str, error: BaseException) -> NetworkError:
    way_out = "Log in with the tool of the far disk, or set its variables in the environment"
    if url.startswith(("s3:", "s3a:")):
        way_out = (
            "Set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; or, for what is open "
            "to all, FSSPEC_S3='{\"anon\": true}'"
        )
    return NetworkError(
        f"{url}: expected to be let in, found: {first_line(error)}. {way_out}, and check that the "
        "account may read the files."
    )
