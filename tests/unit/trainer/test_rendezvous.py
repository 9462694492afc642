"""Waiting for rank 0: its name, then its listener, for as long as it takes."""

from __future__ import annotations

import socket
import threading

import pytest
from torch import distributed

from cabildo_trainer import rendezvous
from cabildo_trainer.engine.gang import Gang, peers_expected
from cabildo_trainer.errors import PeerLostError
from support.trainer_ranks import free_port


def test_a_rank_waits_until_somebody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    port, refused = free_port(), threading.Event()
    monkeypatch.setattr(rendezvous.time, "sleep", lambda _s: refused.set())
    waiting = threading.Thread(target=rendezvous.wait_for_listener, args=("127.0.0.1", port))
    waiting.start()
    assert refused.wait(10)
    with socket.create_server(("127.0.0.1", port)):
        waiting.join(10)
        assert not waiting.is_alive()


def test_a_name_that_does_not_resolve_yet_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([socket.gaierror("no such host"), OSError("no route")])
    monkeypatch.setattr(rendezvous.time, "sleep", lambda _s: None)
    real = socket.create_connection

    def connect(address: tuple[str, int], timeout: float) -> socket.socket:
        error = next(answers, None)
        if error is not None:
            raise error
        return real(address, timeout=timeout)

    monkeypatch.setattr(rendezvous.socket, "create_connection", connect)
    with socket.create_server(("127.0.0.1", 0)) as server:
        rendezvous.wait_for_listener("127.0.0.1", server.getsockname()[1])
    assert next(answers, None) is None


def test_errors_of_the_transport_mean_that_a_peer_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PeerLostError, match="lost contact"), peers_expected():
        raise distributed.DistNetworkError("gone")
    # Without a process group a RuntimeError is what it says.
    with pytest.raises(RuntimeError, match="gloo"), peers_expected():
        raise RuntimeError("gloo")
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    with pytest.raises(PeerLostError, match="Connection closed by peer"), peers_expected():
        raise RuntimeError("[transport/tcp/pair.cc] Connection closed by peer [10.0.0.1]\nframe")
    with pytest.raises(RuntimeError, match="shape"), peers_expected():
        raise RuntimeError("shape mismatch")


def test_one_rank_is_a_gang_without_messages() -> None:
    gang = Gang(rank=0, world_size=1)
    assert gang.is_leader
    assert gang.sum([1.0, 2.0]) == [1.0, 2.0]
    assert gang.gather("x") == ["x"]
    assert gang.from_leader("x") == "x"
    assert gang.agree(ok=True)
    assert not gang.agree(ok=False)
