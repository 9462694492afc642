"""Manifest v1: what a model is, in one digest that does not depend on how it lies in files.

    {"version": 1, "baseDigest", "configDigest", "tokenizerDigest", "tiedNames",
     "tensors": [{"name", "dtype", "shape", "sha256"}, ...]}

It is canonical JSON (RFC 8785) with the tensors in byte order of their names; `sha256` is that of a
tensor's bytes, little-endian in C order, as safetensors stores them. The model digest is the
SHA-256 of the manifest; the Merkle root (RFC 6962) is over the tensors' entries, so that a single
tensor can be shown to belong to a model. A digest that is not known or does not apply is null.

Here: the record, its bytes, its digests. Never here: reading tensors. Next: `agreement.py`, which
says whether models may be merged, and `file_sources.py`, which fills in the digests.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from cabildo_trainer.consensus.errors import ManifestMismatch
from cabildo_trainer.consensus.manifests.canonical_json import (
    BadJsonError,
    canonical_json,
    parse_strict,
)
from cabildo_trainer.consensus.manifests.merkle import merkle_root

if TYPE_CHECKING:
    from cabildo_trainer.consensus.sources import ModelSource, TensorSpec

VERSION: Final = 1
MANIFEST_FILE: Final = "cabildo-manifest.json"
DIGEST_PREFIX: Final = "sha256:"

_FIELDS: Final = frozenset(
    {"version", "baseDigest", "configDigest", "tokenizerDigest", "tiedNames", "tensors"}
)
_TENSOR_FIELDS: Final = frozenset({"name", "dtype", "shape", "sha256"})
_ELEMENTS_AT_A_TIME: Final = 1 << 20
_HEX_DIGITS: Final = frozenset("0123456789abcdef")
_SHA256_HEX_LENGTH: Final = 64


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What is known of a model beside its tensors.

    Attributes:
        base_digest: Model digest of the model that it was trained from.
        config_digest: Digest of its `config.json`.
        tokenizer_digest: Digest of what its tokenizer makes of text (`safetensors_files.py`).
        tied_names: Groups of names that are one tensor, each sorted, sorted.
        quantised: What says that the weights are quantised; empty if nothing does. Not in the
            manifest, nor part of what makes facts equal: its dtypes and its config say the same.
    """

    base_digest: str | None = None
    config_digest: str | None = None
    tokenizer_digest: str | None = None
    tied_names: tuple[tuple[str, ...], ...] = ()
    quantised: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor of a manifest.

    Attributes:
        name: Its name.
        dtype: Its dtype as safetensors spells it.
        shape: Its shape.
        sha256: SHA-256 of its bytes, 64 hexadecimal digits.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    sha256: str

    def to_json(self) -> dict[str, Any]:
        """Returns the entry as a JSON value."""
        return {
            "name": self.name,
            "dtype": self.dtype,
            "shape": list(self.shape),
            "sha256": self.sha256,
        }


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a model is.

    Attributes:
        facts: What is known beside the tensors.
        tensors: The tensors in byte order of their names.
    """

    facts: ModelFacts
    tensors: tuple[TensorEntry, ...]

    def to_bytes(self) -> bytes:
        """Returns the canonical JSON."""
        return canonical_json(
            {
                "version": VERSION,
                "baseDigest": self.facts.base_digest,
                "configDigest": self.facts.config_digest,
                "tokenizerDigest": self.facts.tokenizer_digest,
                "tiedNames": self.facts.tied_names,
                "tensors": [entry.to_json() for entry in self.tensors],
            }
        )

    @property
    def digest(self) -> str:
        """The model digest: `sha256:` and 64 hexadecimal digits."""
        return digest_of(self.to_bytes())

    @property
    def merkle_root(self) -> str:
        """The Merkle root over the canonical JSON of the entries, like a digest."""
        leaves = (canonical_json(entry.to_json()) for entry in self.tensors)
        return DIGEST_PREFIX + merkle_root(leaves).hex()


def digest_of(content: bytes) -> str:
    """Returns `sha256:` and the hexadecimal digits of the content's SHA-256."""
    return DIGEST_PREFIX + hashlib.sha256(content).hexdigest()


def byte_order(name: str) -> bytes:
    """Returns the key that puts tensors' names into the order of the grid and the manifest."""
    return name.encode()


def manifest_of(
    tensors: Mapping[str, TensorSpec], sha256_by_name: Mapping[str, str], facts: ModelFacts
) -> Manifest:
    """Returns the manifest of a model.

    Args:
        tensors: The tensors by name.
        sha256_by_name: Hexadecimal SHA-256 of each tensor's bytes.
        facts: What is known beside them.
    """
    entries = tuple(
        TensorEntry(
            name=name,
            dtype=tensors[name].dtype,
            shape=tuple(tensors[name].shape),
            sha256=sha256_by_name[name],
        )
        for name in sorted(tensors, key=byte_order)
    )
    return Manifest(facts=facts, tensors=entries)


def model_digest(model: ModelSource) -> str:
    """Returns the model digest of any source, reading all of it.

    Args:
        model: The model; its attribute `facts` is used if it has one.
    """
    digests: dict[str, str] = {}
    for name, spec in model.tensors.items():
        state = hashlib.sha256()
        for start in range(0, spec.size, _ELEMENTS_AT_A_TIME):
            values = model.read(name, start, min(start + _ELEMENTS_AT_A_TIME, spec.size))
            state.update(np.ascontiguousarray(values).data)
        digests[name] = state.hexdigest()
    return manifest_of(model.tensors, digests, facts_of(model)).digest


def facts_of(model: ModelSource) -> ModelFacts:
    """Returns what a source says of its model beside the tensors; models in memory say nothing."""
    facts = getattr(model, "facts", None)
    return facts if isinstance(facts, ModelFacts) else ModelFacts()


def parse_manifest(content: bytes, *, where: str) -> Manifest:
    """Returns the manifest that was written.

    Args:
        content: Its canonical JSON.
        where: What to call it in an error.

    Raises:
        ManifestMismatch: It is of another version, or not what `Manifest.to_bytes` writes.
    """
    remedy = f"Delete {where} or write it anew: `manifest PATH --write`."
    try:
        record = _mapping(parse_strict(content), where="the manifest")
        if record.get("version") != VERSION:
            raise ManifestMismatch(
                f"{where} is a manifest of version {record.get('version')!r}; this program knows"
                f" version {VERSION}",
                remedy="Use the program that wrote it.",
            )
        manifest = _manifest(record)
        canonical = manifest.to_bytes()
    except (BadJsonError, TypeError, ValueError) as error:
        raise ManifestMismatch(f"{where} is no manifest: {error}", remedy=remedy) from error
    if canonical != content.rstrip(b"\n"):
        raise ManifestMismatch(f"{where} is not canonical JSON (RFC 8785)", remedy=remedy)
    return manifest


def _manifest(record: Mapping[str, Any]) -> Manifest:
    _only(record, _FIELDS, where="the manifest")
    entries = tuple(_entry(_mapping(item, where="a tensor")) for item in _list(record["tensors"]))
    names = [entry.name for entry in entries]
    if names != sorted(set(names), key=byte_order):
        raise ValueError("the tensors are not in byte order of their names, each once")
    return Manifest(
        facts=ModelFacts(
            base_digest=_digest(record["baseDigest"], field="baseDigest"),
            config_digest=_digest(record["configDigest"], field="configDigest"),
            tokenizer_digest=_digest(record["tokenizerDigest"], field="tokenizerDigest"),
            tied_names=tuple(
                tuple(_text(name, field="tiedNames") for name in _list(group))
                for group in _list(record["tiedNames"])
            ),
        ),
        tensors=entries,
    )


def _entry(record: Mapping[str, Any]) -> TensorEntry:
    _only(record, _TENSOR_FIELDS, where="a tensor")
    shape = tuple(_list(record["shape"]))
    if not all(type(extent) is int and extent >= 0 for extent in shape):
        raise ValueError(f"a shape is {shape!r}")
    return TensorEntry(
        name=_text(record["name"], field="name"),
        dtype=_text(record["dtype"], field="dtype"),
        shape=shape,
        sha256=_sha256(record["sha256"], field="sha256"),
    )


def _only(record: Mapping[str, Any], fields: frozenset[str], *, where: str) -> None:
    if record.keys() != fields:
        wrong = min(record.keys() ^ fields)
        raise ValueError(f"{where} {'lacks' if wrong in fields else 'has'} {wrong!r}")


def _mapping(value: Any, *, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"{where} is no JSON object")
    return value


def _list(value: Any) -> Sequence[Any]:
    if not isinstance(value, list):
        raise TypeError(f"{value!r} is no list")
    return value


def _text(value: Any, *, field: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{field} is {value!r}")
    return value


def _sha256(value: Any, *, field: str) -> str:
    text = _text(value, field=field)
    if len(text) != _SHA256_HEX_LENGTH or not _HEX_DIGITS.issuperset(text):
        raise ValueError(f"{field} is {text!r}, not 64 lower-case hexadecimal digits")
    return text


def _digest(value: Any, *, field: str) -> str | None:
    if value is None:
        return None
    text = _text(value, field=field)
    _sha256(text.removeprefix(DIGEST_PREFIX), field=field)
    if not text.startswith(DIGEST_PREFIX):
        raise ValueError(f"{field} is {text!r}, without {DIGEST_PREFIX!r}")
    return text
