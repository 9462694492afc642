"""The client of the API server, against a real TLS server that answers as one does."""

from __future__ import annotations

import json
import ssl
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from cabildo_local.api import Api, ApiError, can_connect, wait_until
from cabildo_local.certificates import Authority, Subject, write_kubeconfig
from cabildo_local.errors import ProcessError, ReadinessError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass
class Server:
    """What the server answers, and what it was asked."""

    api: Api
    answers: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    asked: list[tuple[str, str, str | None, Any]] = field(default_factory=list)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    authority = Authority(tmp_path, name="ca")
    pair = authority.issue("server", subject=Subject("api", addresses=("127.0.0.1",)))
    client = authority.issue("admin", subject=Subject("admin"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    # Only who shows a certificate of this authority gets an answer.
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(authority.pair.certificate)

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            made.asked.append((self.command, self.path, self.headers.get("Content-Type"), body))
            status, text = made.answers.get(self.path.partition("?")[0], (404, b"{}"))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PATCH = do_DELETE = answer  # noqa: N815 - the library's names

        def log_message(self, *_: Any) -> None:
            return

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.socket = context.wrap_socket(http.socket, server_side=True)
    kubeconfig = tmp_path / "kubeconfig"
    write_kubeconfig(
        kubeconfig,
        cluster="x",
        server=f"https://127.0.0.1:{http.server_address[1]}",
        authority=authority.pair,
        client=client,
    )
    made = Server(Api(kubeconfig))
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield made
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


def test_an_object_is_read(server: Server) -> None:
    server.answers["/api/v1/nodes/a"] = 200, b'{"kind": "Node"}'
    assert server.api.get("/api/v1/nodes/a") == {"kind": "Node"}


def test_an_error_has_the_servers_words_and_status(server: Server) -> None:
    server.answers["/x"] = 403, b'{"message": "nodes is forbidden"}'
    with pytest.raises(ApiError, match="403: nodes is forbidden") as caught:
        server.api.get("/x")
    assert caught.value.status == 403


def test_an_error_that_is_no_status_object_is_shown_too(server: Server) -> None:
    server.answers["/x"] = 500, b"etcd is down"
    with pytest.raises(ApiError, match="500: etcd is down"):
        server.api.get("/x")


def test_applying_is_server_side_apply_that_takes_over(server: Server) -> None:
    server.answers["/x"] = 200, b"{}"
    server.api.apply("/x", {"a": 1})
    ((method, path, kind, body),) = server.asked
    assert (method, kind, body) == ("PATCH", "application/apply-patch+yaml", {"a": 1})
    assert "force=true" in path
    assert "fieldManager=cabildo-local-cluster" in path


def test_a_watch_yields_events_from_a_version_on(server: Server) -> None:
    events = [{"type": "ADDED", "object": {"n": 1}}, {"type": "MODIFIED", "object": {"n": 2}}]
    server.answers["/x"] = 200, b"\n".join(json.dumps(event).encode() for event in events)
    assert list(server.api.watch("/x", resource_version="7", timeout_s=5)) == events
    assert "resourceVersion=7" in server.asked[0][1]


def test_a_version_that_is_too_old_is_told_by_its_status(server: Server) -> None:
    gone = {"type": "ERROR", "object": {"code": 410, "message": "too old"}}
    server.answers["/x"] = 200, json.dumps(gone).encode()
    with pytest.raises(ApiError, match="too old") as caught:
        list(server.api.watch("/x", resource_version="1", timeout_s=5))
    assert caught.value.status == 410
    server.answers["/y"] = 410, b'{"message": "gone"}'
    with pytest.raises(ApiError, match="gone"):
        list(server.api.watch("/y", resource_version="1", timeout_s=5))


def test_readiness_is_asked_of_the_server_itself(server: Server) -> None:
    assert not server.api.is_ready()
    server.answers["/readyz"] = 200, b"ok"
    assert server.api.is_ready()


def test_a_server_that_is_not_there_is_not_ready(tmp_path: Path) -> None:
    authority = Authority(tmp_path, name="ca")
    client = authority.issue("admin", subject=Subject("admin"))
    path = tmp_path / "kubeconfig"
    # Port 1 of this machine: nobody listens.
    write_kubeconfig(
        path, cluster="x", server="https://127.0.0.1:1", authority=authority.pair, client=client
    )
    assert not Api(path).is_ready()
    with pytest.raises(OSError, match="refused"):
        Api(path).get("/x")
    assert not can_connect("127.0.0.1", port=1)


def test_waiting_ends_when_it_is_ready() -> None:
    answers = iter([False, False, True])
    wait_until(lambda: next(answers), what="it", timeout_s=30)


def test_waiting_ends_with_the_name_of_what_did_not_come() -> None:
    with pytest.raises(ReadinessError, match=r"the registry was not ready after 0 s\. look"):
        wait_until(lambda: False, what="the registry", timeout_s=0, remedy="look there")


def test_waiting_ends_at_once_when_it_is_in_vain() -> None:
    def dead() -> None:
        raise ProcessError("etcd has ended")

    with pytest.raises(ProcessError, match="etcd has ended"):
        wait_until(lambda: False, what="it", timeout_s=3600, alive=dead)
