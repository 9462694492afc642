"""Records that a server keeps between rounds: what is none is refused by a clear error."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from cabildo_trainer.consensus.errors import DigestMismatch, ImpossibleSetting
from cabildo_trainer.consensus.federated.control_variates import ControlState
from cabildo_trainer.consensus.federated.optimizers import DiLoCo, FedAdam
from cabildo_trainer.consensus.federated.rounds import ServerState
from cabildo_trainer.consensus.privacy.accounting import Spend
from cabildo_trainer.consensus.privacy.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Callable

DIGEST = f"sha256:{'1' * 64}"
SERVER = ServerState(
    DiLoCo(momentum=0.1), rounds=3, model_digest=DIGEST, digests={"momentum": DIGEST}
)
CONTROL = ControlState(clients=5, rounds=2, model_digest=DIGEST, digest=DIGEST)
HUGE = b"1" + b"0" * 400
NO_RECORDS = (
    b"",
    b"null",
    b"[" * 100_000,
    b"[" * 700 + b"]" * 700,
    b'{"version":1,"version":1}',
    b'{"version":NaN}',
    b'{"version":' + HUGE + b"}",
    b"\xff",
)
COUNTS = (
    b"Infinity",
    b"-3",
    b"1.5",
    b"true",
    b'"2"',
    b"null",
    HUGE,
    b"9" * 5000,
    b"9007199254740992",
)


def changed(record: Any, name: str, value: bytes) -> bytes:
    """The record's text with another value of one member."""
    members = {key: json.dumps(item).encode() for key, item in json.loads(record).items()}
    assert name in members
    members[name] = value
    return b"{" + b",".join(b'"%s":%s' % (k.encode(), v) for k, v in members.items()) + b"}"


@pytest.mark.parametrize("state", [SERVER, ServerState(FedAdam()), CONTROL, ControlState(1)])
def test_a_record_comes_back_as_it_was(state: Any) -> None:
    assert type(state).from_bytes(state.to_bytes()) == state


@pytest.mark.parametrize("read", [ServerState.from_bytes, ControlState.from_bytes])
@pytest.mark.parametrize("content", NO_RECORDS, ids=lambda content: repr(content[:20]))
def test_what_is_no_record_is_refused(read: Callable[[bytes], Any], content: bytes) -> None:
    with pytest.raises(ImpossibleSetting, match="server's") as caught:
        read(content)
    assert caught.value.remedy
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("state", [SERVER, CONTROL])
@pytest.mark.parametrize("value", COUNTS, ids=lambda value: repr(value[:20]))
def test_rounds_that_are_no_count_are_refused(state: Any, value: bytes) -> None:
    with pytest.raises(ImpossibleSetting, match="server's"):
        type(state).from_bytes(changed(state.to_bytes(), "rounds", value))


@pytest.mark.parametrize("value", [*COUNTS, b"0"], ids=lambda value: repr(value[:20]))
def test_clients_that_are_no_count_are_refused(value: bytes) -> None:
    with pytest.raises(ImpossibleSetting, match="server's"):
        ControlState.from_bytes(changed(CONTROL.to_bytes(), "clients", value))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("optimizer", b'"later"'),
        ("optimizer", b"3"),
        ("parameters", b"[]"),
        ("parameters", b'{"learningRate":"0x1p99999"}'),
        ("parameters", b'{"learningRate":"fast"}'),
        ("parameters", b'{"learningRate":"inf"}'),
        ("parameters", b'{"learningRate":' + HUGE + b"}"),
        ("parameters", b'{"learningRate":true}'),
        ("parameters", b'{"more":"0x1p0"}'),
        ("digests", b"[]"),
        ("digests", b'{"momentum":3}'),
        ("digests", b'{"momentum":"\\ud800"}'),
        ("modelDigest", b"7"),
        ("modelDigest", b'"\\ud800"'),
    ],
)
def test_a_server_state_with_a_member_of_another_form_is_refused(name: str, value: bytes) -> None:
    with pytest.raises(ImpossibleSetting):
        ServerState.from_bytes(changed(SERVER.to_bytes(), name, value))


def test_a_record_of_another_version_says_which() -> None:
    for state in (SERVER, CONTROL):
        text = changed(state.to_bytes(), "version", b"2")
        with pytest.raises(ImpossibleSetting, match="version 2, not 1"):
            type(state).from_bytes(text)


@pytest.mark.parametrize(
    "value",
    ["1" + "0" * 400, "9" * 5000, '"\\ud800"', '"\ud800"', "[" * 700 + "]" * 700, "[" * 100_000],
    ids=lambda value: repr(value[:20]),
)
def test_a_damaged_ledger_is_refused_whatever_the_damage(value: str) -> None:
    text = Ledger(spends=(Spend(2.0, rounds=7),)).to_json()
    broken = text.replace('"clipNorm":null', f'"clipNorm":{value}')
    assert broken != text
    with pytest.raises((ImpossibleSetting, DigestMismatch)) as caught:
        Ledger.from_json(broken)
    assert "restore the ledger" in caught.value.remedy
