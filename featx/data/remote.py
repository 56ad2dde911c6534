"""Requests to object storage and web servers, by fsspec: connections, retries, clear errors.

Keys and everything else about a protocol come from the environment, or from the configuration files
of its own tool: they are neither settings nor recorded.
"""

import errno
import logging
import os
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any, TypeVar

from featx.errors import FeatxError, NetworkError, UsageError, first_line, require

_Out = TypeVar("_Out")

_log = logging.getLogger(__name__)

PATIENCE = 120.0
"""For how many seconds a request is tried again."""

TIMEOUT = 30.0
"""For how many seconds a connection may say nothing."""

PAUSE = 0.5
"""Seconds before the second try; they double from try to try."""

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


def ask(url: str, request: Callable[[Any, str], _Out]) -> _Out:
    """Make a request, and make it again as long as only the network is at fault.

    Args:
        url: The address that the request is about.
        request: Given the filesystem of fsspec, and the path as that has it.

    Raises:
        FileNotFoundError: There is nothing at the address.
        NetworkError: No answer came within the patience, or access is denied.
    """
    begin, pause, tries = time.monotonic(), PAUSE, 0
    while True:
        tries += 1
        try:
            fs = connect(os.getpid(), "/".join(url.split("/")[:3]), TIMEOUT)
            return request(fs, fs._strip_protocol(url))
        except (FileNotFoundError, NotADirectoryError):
            raise missing(url) from None
        except (FeatxError, TypeError, NameError, AttributeError):
            raise  # an error of the program
        except Exception as error:  # the libraries of protocols share no class of errors
            causes = [*_walk_causes(error)]
            status = next(filter(None, map(_find_status, causes)), None)
            if status == 404:
                raise missing(url) from None
            if status in (401, 403) or _NO_ENTRY.search(" ".join(type(e).__name__ for e in causes)):
                raise _refuse(url, error) from error
            passes = status is None or status >= 500 or status in _TRANSIENT
            wait = pause * (0.5 + random.SystemRandom().random() / 2)
            spent = time.monotonic() - begin
            if not passes or spent + wait > PATIENCE:
                raise NetworkError(
                    f"{url}: expected an answer of the server, found: {first_line(error)} "
                    f"({tries} {'try' if tries == 1 else 'tries'} in {spent:.0f} s). "
                    "Check the network and the address, then run the same command again: it goes "
                    "on from there."
                ) from error
            if tries == 1:
                _log.warning("%s: trying again, because of: %s", url, first_line(error))
            time.sleep(wait)
            pause = min(2 * pause, _LONGEST_PAUSE)


@cache
def connect(process: int, base: str, timeout: float) -> Any:  # noqa: ANN401  # fsspec has no types
    """Return the filesystem of a bucket or a server.

    Args:
        process: The id of this process, because connections do not survive a fork.
        base: The bucket's or the server's address.
        timeout: See `TIMEOUT`.

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
    if protocol in ("s3", "s3a"):  # otherwise its own retries multiply with those of `ask`
        given = conf.get("s3", {}).get("config_kwargs", {})
        options["config_kwargs"] = {
            "connect_timeout": timeout,
            "read_timeout": timeout,
            "max_pool_connections": _CONNECTIONS,
            **given,
            "retries": {"max_attempts": 0},
        }
        options["max_concurrency"] = 1  # one request a block; other blocks are fetched in parallel
    fs, _ = fsspec.core.url_to_fs(
        base, skip_instance_cache=True, use_listings_cache=False, **options
    )
    if hasattr(fs, "retries"):
        fs.retries = 1
    return fs


def _walk_causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and its causes."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _find_status(error: BaseException) -> int | None:
    """Return the HTTP status in an error, wherever its library keeps it."""
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
    """Return the system's error for a missing file."""
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), url)


def _refuse(url: str, error: BaseException) -> NetworkError:
    way_out = "Log in with the tool of the storage, or set its variables in the environment"
    if url.startswith(("s3:", "s3a:")):
        way_out = (
            "Set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; or, for what is open "
            "to all, FSSPEC_S3='{\"anon\": true}'"
        )
    return NetworkError(
        f"{url}: expected access, found: {first_line(error)}. {way_out}, and check that the "
        "account may read the files."
    )
