"""A server of S3 on this machine, and before it a proxy that fails as it is told."""

import http.client
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
from moto.server import ThreadedMotoServer

from featx.data import remote, storage

BUCKET = "clips"

Fault = int | str
"""What becomes of a request: a status of HTTP; `cut`, half of the answer; `stall`, half of it and
then silence; or `pass`."""


class Proxy(ThreadingHTTPServer):
    """Hands requests on, but for those for which there is a fault.

    Attributes:
        faults: Of the requests to come for the content of a file, one each.
        only: Of files whose names end with it.
        always: Of all that follow, whatever they are for.
        requests: The method and the path of each request.
        num_bytes: Bytes of the content of files that were sent.
        released: Ends all silence.
    """

    daemon_threads = True

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target = urlsplit(target).netloc
        self.faults: deque[Fault] = deque()
        self.only = ""
        self.always: Fault = "pass"
        self.requests: list[tuple[str, str]] = []
        self.num_bytes = 0
        self.released = threading.Event()

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def count(self, method: str, suffix: str = "") -> int:
        """How many requests there were with a method, for paths that end with something."""
        asked = (path.partition("?")[0] for each, path in self.requests if each == method)
        return sum(path.endswith(suffix) for path in asked)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401  # the base's
        """Say nothing: that a connection breaks is the point."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def _serve(self) -> None:
        server = self.server
        server.requests.append((self.command, self.path))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        is_content = self.command == "GET" and self.path.endswith(server.only)
        is_content = is_content and "list-type" not in self.path
        fault = server.always
        if fault == "pass" and is_content and server.faults:
            fault = server.faults.popleft()
        if isinstance(fault, int):
            self.send_response(fault)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        connection = http.client.HTTPConnection(server.target)
        connection.request(self.command, self.path, body, dict(self.headers))
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                self.send_header(name, value)
        size = answer.headers["Content-Length"] if self.command == "HEAD" else len(content)
        self.send_header("Content-Length", str(size))
        self.end_headers()
        if fault == "pass":
            server.num_bytes += len(content) * is_content
            self.wfile.write(content)
            return
        self.wfile.write(content[: len(content) // 2])
        self.wfile.flush()
        if fault == "stall":
            server.released.wait()
        self.close_connection = True

    do_GET = do_HEAD = do_PUT = do_POST = _serve

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def serving() -> Iterator[Proxy]:
    """A server with an empty bucket, behind a proxy."""
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    proxy = Proxy(f"http://{host.replace('0.0.0.0', '127.0.0.1')}:{port}")
    thread = threading.Thread(target=proxy.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield proxy
    finally:
        proxy.released.set()
        proxy.shutdown()
        thread.join()
        proxy.server_close()
        server.stop()


@contextmanager
def filled(proxy: Proxy, folder: Path, prefix: str = "") -> Iterator[None]:
    """The bucket with the files of a folder; and the environment, the proxy and all as new."""
    settings = {
        "AWS_ENDPOINT_URL": proxy.url,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    remote.connect.cache_clear()
    storage._kept.clear()
    proxy.faults.clear()
    proxy.always, proxy.only = "pass", ""
    client = make_client(proxy)
    client.create_bucket(Bucket=BUCKET)
    upload(proxy, folder, prefix)
    proxy.requests.clear()
    proxy.num_bytes = 0
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        yield
    for each in client.list_objects_v2(Bucket=BUCKET).get("Contents", []):
        client.delete_object(Bucket=BUCKET, Key=each["Key"])
    client.delete_bucket(Bucket=BUCKET)


def make_client(proxy: Proxy) -> Any:  # noqa: ANN401  # boto3 makes its classes at run time
    """A client of the server behind a proxy, for the tests' own files."""
    return boto3.client(
        "s3",
        endpoint_url=f"http://{proxy.target}",
        region_name="us-east-1",
        aws_access_key_id="key",
        aws_secret_access_key="secret",
    )


def upload(proxy: Proxy, folder: Path, prefix: str = "") -> None:
    """Upload all files of a folder."""
    client = make_client(proxy)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            name = prefix + path.relative_to(folder).as_posix()
            client.put_object(Bucket=BUCKET, Key=name, Body=path.read_bytes())
