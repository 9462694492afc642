"""A local HTTP server that stands in for the sites of official releases.

Here: files by path, and how often each was asked for. The mirror address makes a site's
host the first folder: `/dl.k8s.io/release/...`.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass
class ReleaseServer:
    """What the server offers and what was asked of it."""

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)

    def offer(self, path: str, content: bytes) -> str:
        """Serve a file; returns its SHA-256."""
        self.files[path] = content
        return hashlib.sha256(content).hexdigest()


@contextmanager
def release_server() -> Iterator[ReleaseServer]:
    """Serve on a free loopback port while the context lasts."""
    offered = ReleaseServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            offered.asked[self.path] += 1
            content = offered.files.get(self.path)
            self.send_response(404 if content is None else 200)
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        offered.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield offered
        finally:
            server.shutdown()
            thread.join()


def archive_with(member: str, content: bytes) -> bytes:
    """Return a .tar.gz with one file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        entry = tarfile.TarInfo(member)
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()
