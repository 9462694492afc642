"""Manifests: one digest of a model, and strict reading of those that others wrote."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest

from cabildo_trainer.consensus.errors import ManifestMismatch
from cabildo_trainer.consensus.manifests.canonical_json import canonical_json
from cabildo_trainer.consensus.manifests.manifest import (
    Manifest,
    ModelFacts,
    TensorEntry,
    digest_of,
    model_digest,
    parse_manifest,
)
from cabildo_trainer.consensus.sources import MemoryModel

BYTES = np.arange(6, dtype=np.float32)
SHA256 = hashlib.sha256(BYTES.tobytes()).hexdigest()
MANIFEST = Manifest(
    facts=ModelFacts(
        base_digest="sha256:" + "0" * 64,
        tokenizer_digest="sha256:" + "1" * 64,
        tied_names=(("head", "é.weight"),),
    ),
    tensors=(
        TensorEntry(name="a.weight", dtype="F32", shape=(2, 3), sha256=SHA256),
        TensorEntry(name="é.weight", dtype="BF16", shape=(), sha256="2" * 64),
    ),
)


def test_the_bytes_are_the_ones_in_the_definition() -> None:
    zeros, ones, twos = "0" * 64, "1" * 64, "2" * 64
    text = (
        f'{{"baseDigest":"sha256:{zeros}","configDigest":null,"tensors":['
        f'{{"dtype":"F32","name":"a.weight","sha256":"{SHA256}","shape":[2,3]}},'
        f'{{"dtype":"BF16","name":"é.weight","sha256":"{twos}","shape":[]}}],'
        f'"tiedNames":[["head","é.weight"]],"tokenizerDigest":"sha256:{ones}","version":1}}'
    )
    assert MANIFEST.to_bytes().decode() == text
    assert MANIFEST.digest == "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def test_the_merkle_root_is_over_the_entries_canonical_json() -> None:
    left, right = (
        hashlib.sha256(b"\x00" + canonical_json(entry.to_json())).digest()
        for entry in MANIFEST.tensors
    )
    assert MANIFEST.merkle_root == "sha256:" + hashlib.sha256(b"\x01" + left + right).hexdigest()


def test_a_models_digest_comes_from_its_tensors_in_byte_order() -> None:
    model = MemoryModel("m", {"b": np.ones(1, np.int64), "a": BYTES.reshape(2, 3)})
    expected = Manifest(
        facts=ModelFacts(),
        tensors=(
            TensorEntry(name="a", dtype="F32", shape=(2, 3), sha256=SHA256),
            TensorEntry(
                name="b",
                dtype="I64",
                shape=(1,),
                sha256=hashlib.sha256(b"\x01" + bytes(7)).hexdigest(),
            ),
        ),
    )
    assert model_digest(model) == model.digest == expected.digest


def test_a_written_manifest_reads_back() -> None:
    assert parse_manifest(MANIFEST.to_bytes() + b"\n", where="it") == MANIFEST


def broken(**changes: object) -> bytes:
    return canonical_json(json.loads(MANIFEST.to_bytes()) | changes)


ENTRY = MANIFEST.tensors[0].to_json()


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"[]", "no JSON object"),
        (b"{", "no manifest"),
        (broken(version=2), "version 2"),
        (broken(more=1), "has 'more'"),
        (broken(baseDigest="sha256:12"), "baseDigest"),
        (broken(baseDigest="0" * 64), "without 'sha256:'"),
        (broken(tiedNames=[[1]]), "tiedNames"),
        (broken(tiedNames={}), "no list"),
        (broken(tensors=[ENTRY, ENTRY]), "each once"),
        (broken(tensors=[ENTRY | {"shape": [-1]}]), "shape"),
        (broken(tensors=[ENTRY | {"shape": [True]}]), "shape"),
        (broken(tensors=[ENTRY | {"sha256": "A" * 64}]), "lower-case"),
        (broken(tensors=[{"name": "a"}]), "lacks 'dtype'"),
        (json.dumps(json.loads(MANIFEST.to_bytes())).encode(), "not canonical"),
    ],
)
def test_anything_else_is_refused(content: bytes, named: str) -> None:
    with pytest.raises(ManifestMismatch, match=named) as caught:
        parse_manifest(content, where="m.json")
    assert "m.json" in str(caught.value)
    assert caught.value.remedy
    assert caught.value.exit_code == 65


def test_a_digest_is_the_sha256_of_the_content() -> None:
    assert digest_of(b"abc") == (
        "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )
