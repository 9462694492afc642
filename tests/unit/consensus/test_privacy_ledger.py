"""The ledger and the key: what is kept between rounds fails closed, what is secret stays so."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cabildo_trainer.consensus.errors import DigestMismatch, ImpossibleSetting
from cabildo_trainer.consensus.manifests.canonical_json import canonical_json
from cabildo_trainer.consensus.privacy.accounting import Spend, epsilon_of
from cabildo_trainer.consensus.privacy.ledger import Ledger
from cabildo_trainer.consensus.privacy.noise_key import NoiseKey

if TYPE_CHECKING:
    from pathlib import Path

SECRET = hashlib.sha256(b"noise").digest()
spends = st.builds(
    Spend,
    noise_multiplier=st.floats(1e-3, 1e6),
    sampling_probability=st.floats(1e-6, 1.0),
    rounds=st.integers(1, 10**6),
    failure=st.floats(0.0, 0.5),
)


@given(st.lists(spends, max_size=5), st.none() | st.floats(1e-20, 1e20))
def test_a_ledger_comes_back_as_it_was(items: list[Spend], clip_norm: float | None) -> None:
    ledger = Ledger(spends=tuple(items), clip_norm=clip_norm)
    assert Ledger.from_json(ledger.to_json()) == ledger


def test_saved_and_restored_each_round_it_equals_one_that_never_stopped() -> None:
    whole, restored = Ledger(), Ledger()
    for index in range(12):
        spend = Spend(2.0 if index < 8 else 3.0, failure=0.0 if index % 4 else 1e-12)
        whole = whole.after(spend)
        restored = Ledger.from_json(restored.to_json()).after(spend)
    assert restored == whole
    assert restored.rounds == 12
    for accounting in ("rdp", "pld"):
        one = epsilon_of(whole.spends, delta=1e-5, accounting=accounting)
        assert epsilon_of(restored.spends, delta=1e-5, accounting=accounting) == one


def text_of(body: dict[str, Any]) -> str:
    """A ledger's text with a digest that is right."""
    digest = hashlib.sha256(canonical_json(body)).hexdigest()
    return json.dumps({**body, "sha256": digest})


BODY: dict[str, Any] = {
    "version": "cabildo/privacy-ledger/v1",
    "clipNorm": None,
    "spends": [{"noiseMultiplier": 2.0, "samplingProbability": 1.0, "rounds": 3, "failure": 0.0}],
}


def test_the_text_is_read_whatever_its_spaces() -> None:
    assert Ledger.from_json(text_of(BODY)) == Ledger(spends=(Spend(2.0, rounds=3),))


@pytest.mark.parametrize(
    "change",
    [
        {"version": "cabildo/privacy-ledger/v2"},
        {"version": None},
        {"spends": {}},
        {"spends": [3]},
        {"clipNorm": -1.0},
        {"clipNorm": "1"},
        {"more": 1},
        {"spends": [{**BODY["spends"][0], "rounds": 0}]},
        {"spends": [{**BODY["spends"][0], "rounds": 1.5}]},
        {"spends": [{**BODY["spends"][0], "rounds": True}]},
        {"spends": [{**BODY["spends"][0], "noiseMultiplier": 0.0}]},
        {"spends": [{**BODY["spends"][0], "noiseMultiplier": "2"}]},
        {"spends": [{**BODY["spends"][0], "samplingProbability": 1.5}]},
        {"spends": [{"noiseMultiplier": 2.0}]},
    ],
)
def test_a_text_that_is_no_ledger_of_this_version_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ImpossibleSetting):
        Ledger.from_json(text_of({**BODY, **change}))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"version": NaN}'])
def test_a_text_that_is_no_json_object_is_refused(text: str) -> None:
    with pytest.raises(ImpossibleSetting):
        Ledger.from_json(text)


def test_fewer_rounds_than_were_written_are_noticed() -> None:
    text = Ledger(spends=(Spend(2.0, rounds=7),)).to_json()
    with pytest.raises(DigestMismatch):
        Ledger.from_json(text.replace('"rounds":7', '"rounds":1'))
    with pytest.raises(DigestMismatch):
        Ledger.from_json(json.dumps(BODY))


@pytest.mark.parametrize("seed", [SECRET, SECRET + b"more", b"short-public-round-seed"])
def test_a_key_made_of_the_recorded_seed_is_refused(seed: bytes) -> None:
    for secret in {seed[:32].ljust(32, b"\0"), hashlib.sha256(seed).digest()}:
        with pytest.raises(ImpossibleSetting, match="recorded seed"):
            NoiseKey(secret).refuse_public(seed)
    NoiseKey(hashlib.sha256(b"other").digest()).refuse_public(seed)
    NoiseKey(SECRET).refuse_public(None)


PUBLIC_SEED = hashlib.sha256(b"a public seed").digest() + b"and more of it"


@pytest.mark.parametrize(
    ("seed", "secret"),
    [
        (PUBLIC_SEED[:16], PUBLIC_SEED[:16].hex().encode()),
        (PUBLIC_SEED[:16], PUBLIC_SEED[:16].hex().upper().encode()),
        (PUBLIC_SEED[:12], PUBLIC_SEED[:12].hex().encode().ljust(32, b"\0")),
        (PUBLIC_SEED, PUBLIC_SEED.hex().encode()[:32]),
        (PUBLIC_SEED, PUBLIC_SEED.hex().upper().encode()[-32:]),
        (PUBLIC_SEED, PUBLIC_SEED.hex().encode()[7:39]),
        (PUBLIC_SEED, PUBLIC_SEED[-32:]),
        (PUBLIC_SEED, PUBLIC_SEED[5:37]),
        (PUBLIC_SEED, hashlib.sha256(PUBLIC_SEED).digest()),
        (PUBLIC_SEED, hashlib.sha256(PUBLIC_SEED.hex().encode()).digest()),
        (PUBLIC_SEED, hashlib.sha256(PUBLIC_SEED.hex().upper().encode()).digest()),
    ],
    ids=[
        "digits of a short seed",
        "capital digits of a short seed",
        "digits filled up",
        "first digits",
        "last capital digits",
        "digits in the middle",
        "last bytes",
        "bytes in the middle",
        "digest",
        "digest of the digits",
        "digest of the capital digits",
    ],
)
def test_a_key_cut_or_hashed_from_the_recorded_seed_is_refused(seed: bytes, secret: bytes) -> None:
    with pytest.raises(ImpossibleSetting, match="recorded seed"):
        NoiseKey(secret).refuse_public(seed)


@pytest.mark.parametrize("secret", [b"", b"short", bytes(32), b"ab" * 16, SECRET + b"x"])
def test_a_key_that_is_not_32_random_bytes_is_refused(secret: bytes) -> None:
    with pytest.raises(ImpossibleSetting, match="32 random bytes"):
        NoiseKey(secret)


def test_a_key_is_read_from_its_file_and_never_shown(tmp_path: Path) -> None:
    path = tmp_path / "noise.key"
    path.write_bytes(SECRET)
    key = NoiseKey.read(path)
    assert key == NoiseKey(SECRET)
    assert SECRET.hex() not in repr(key)
    assert repr(SECRET)[2:-1] not in repr(key)
    assert NoiseKey.generate() != NoiseKey.generate()


def test_labels_are_told_apart_by_their_parts() -> None:
    key = NoiseKey(SECRET)
    labels = [(b"ab", b"c"), (b"a", b"bc"), (b"abc",), (b"", b"abc"), (b"abc", b"")]
    assert len({key.derive(*label) for label in labels}) == len(labels)


def test_what_is_sealed_opens_with_the_same_key_and_label_only() -> None:
    key = NoiseKey(SECRET)
    sealed = key.seal(b"private", label=b"round 1")
    assert key.seal(b"private", label=b"round 1") == sealed
    assert key.unseal(sealed, label=b"round 1") == b"private"
    assert b"private".hex() not in sealed
    with pytest.raises(DigestMismatch):
        key.unseal(sealed, label=b"round 2")
    with pytest.raises(DigestMismatch):
        NoiseKey(hashlib.sha256(SECRET).digest()).unseal(sealed, label=b"round 1")
    with pytest.raises(DigestMismatch):
        key.unseal("no hexadecimal digits", label=b"round 1")
