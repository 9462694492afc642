"""A small client of the API server, for bringing a cluster up and for its provisioner.

Here: requests with the administrator's certificate, server-side apply and watches, over the
standard library alone, because `up` and `status` must be quick to start. Never here: what
users of the cluster do (they have kubectl and the official client).
"""

from __future__ import annotations

import base64
import http.client
import json
import socket
import ssl
import tempfile
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import yaml

from cabildo_local.errors import LocalClusterError, ReadinessError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

FIELD_MANAGER = "cabildo-local-cluster"
NOT_FOUND = 404
CONFLICT = 409
GONE = 410

JsonObject = dict[str, Any]


class ApiError(LocalClusterError):
    """The API server answered with an error.

    Attributes:
        status: HTTP status code.
    """

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class Api:
    """The API server of one cluster, as its administrator.

    Args:
        kubeconfig: File with one cluster and one user, certificates embedded.
        timeout_s: For one request; watches set their own.
    """

    def __init__(self, kubeconfig: Path, *, timeout_s: float = 10.0) -> None:
        document = yaml.safe_load(kubeconfig.read_text())
        cluster = document["clusters"][0]["cluster"]
        user = document["users"][0]["user"]
        address = urlsplit(cluster["server"])
        assert address.hostname is not None
        assert address.port is not None
        self._host, self._port = address.hostname, address.port
        self._timeout_s = timeout_s
        self._tls = _tls(
            base64.b64decode(cluster["certificate-authority-data"]).decode(),
            base64.b64decode(user["client-certificate-data"])
            + base64.b64decode(user["client-key-data"]),
        )

    def get(self, path: str) -> JsonObject:
        """Read an object or a list."""
        return self.request("GET", path)

    def apply(self, path: str, document: Mapping[str, Any]) -> JsonObject:
        """Apply an object by server-side apply, taking over what others set."""
        return self.request(
            "PATCH",
            f"{path}?fieldManager={FIELD_MANAGER}&force=true",
            body=document,
            content_type="application/apply-patch+yaml",
        )

    def request(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
    ) -> JsonObject:
        """Send one request.

        Raises:
            ApiError: The server answered with an error.
            OSError: It could not be reached.
        """
        connection = self._connect(self._timeout_s)
        try:
            payload = None if body is None else json.dumps(body)
            connection.request(method, path, body=payload, headers={"Content-Type": content_type})
            answer = connection.getresponse()
            text = answer.read()
        except http.client.HTTPException as error:
            raise ConnectionError(str(error)) from error
        finally:
            connection.close()
        if answer.status >= http.client.BAD_REQUEST:
            raise _error(answer.status, text)
        return _parse(text)

    def watch(self, path: str, *, resource_version: str, timeout_s: int) -> Iterator[JsonObject]:
        """Yield the events of a collection from a version on, until the time is over.

        Raises:
            ApiError: The version is too old (status 410), or another error of the server.
            OSError: The connection broke.
        """
        # A little longer than the server's own limit, so that a dead peer does not hang us.
        connection = self._connect(timeout_s + 10)
        query = f"watch=1&allowWatchBookmarks=true&timeoutSeconds={timeout_s}"
        try:
            connection.request("GET", f"{path}?{query}&resourceVersion={resource_version}")
            # The answer holds the socket too: closing the connection alone leaves it open.
            with connection.getresponse() as answer:
                if answer.status >= http.client.BAD_REQUEST:
                    raise _error(answer.status, answer.read())
                yield from _events(answer)
        except http.client.HTTPException as error:
            raise ConnectionError(str(error)) from error
        finally:
            connection.close()

    def is_ready(self, endpoint: str = "readyz") -> bool:
        """Whether the server is up and answers its own checks."""
        try:
            connection = self._connect(2.0)
            try:
                connection.request("GET", f"/{endpoint}")
                with connection.getresponse() as answer:
                    return answer.status == http.client.OK
            finally:
                connection.close()
        except (OSError, http.client.HTTPException):
            return False

    def _connect(self, timeout_s: float) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(
            self._host, self._port, timeout=timeout_s, context=self._tls
        )


def wait_until(
    ready: Callable[[], bool],
    *,
    what: str,
    timeout_s: float,
    alive: Callable[[], None] = lambda: None,
    remedy: str = "",
) -> None:
    """Ask again and again until something is ready.

    Args:
        ready: The question.
        what: What is waited for, for the error's message.
        timeout_s: For how long.
        alive: Raises when waiting is in vain, such as when a program has ended.
        remedy: For the error.

    Raises:
        ReadinessError: It was not ready in time.
    """
    deadline = time.monotonic() + timeout_s
    while not ready():
        alive()
        if time.monotonic() > deadline:
            raise ReadinessError(f"{what} was not ready after {timeout_s:.0f} s", remedy=remedy)
        time.sleep(0.1)


def can_connect(address: str, *, port: int) -> bool:
    """Whether something accepts connections there."""
    try:
        with socket.create_connection((address, port), timeout=1.0):
            return True
    except OSError:
        return False


def _tls(authority: str, client: bytes) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=authority)
    # The standard library reads a client's certificate from a file only.
    with tempfile.NamedTemporaryFile(prefix="cabildo-", suffix=".pem") as file:
        file.write(client)
        file.flush()
        context.load_cert_chain(file.name)
    return context


def _events(lines: Iterable[bytes]) -> Iterator[JsonObject]:
    for line in lines:
        event = json.loads(line)
        if event["type"] == "ERROR":
            status = int(event["object"].get("code", 0))
            raise ApiError(str(event["object"].get("message")), status=status)
        yield event


def _parse(text: bytes) -> JsonObject:
    try:
        document = json.loads(text)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def _error(status: int, text: bytes) -> ApiError:
    message = _parse(text).get("message") or text.decode(errors="replace")[:300]
    return ApiError(f"the API server answered {status}: {message}", status=status)
