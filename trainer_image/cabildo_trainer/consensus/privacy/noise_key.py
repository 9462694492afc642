"""The secret behind the noise, and what is derived from it.

Whoever knows the key can take the noise away from every result that it made, so it is handled as a
private key is: from a file or a Secret, never in a result, a recipe, a log or an object's repr.

Keys for streams are derived with HMAC-SHA256 under labels. The label of a result's noise holds the
commitment to its clipped sum, so two different sums never share noise (their difference would show
both). The commitment in turn holds the rounds before it: the same sum in the same round gets the
same noise (two noises would average out, and one is paid for), as for a verifier, or on a ledger
brought back from before the round. A round run again after a crash is a later one on the ledger,
which charged the first: its noise is its own, and paid for.

Here: the key, derivation, sealing. Never here: the noise itself. Next: `discrete_gaussian.py`.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from cabildo_trainer.consensus.errors import DigestMismatch, ImpossibleSetting, MissingInput

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEY_BYTES: Final = 32
FEWEST_DIFFERENT_BYTES: Final = 8
"""32 random bytes hold fewer different ones about once in 10^36 keys; typed ones do often."""
_DOMAIN: Final = b"cabildo/dp-noise/v1"
_HINT: Final = "head -c 32 /dev/urandom > noise.key makes one; keep it as a private key is kept"


@dataclass(frozen=True, slots=True)
class NoiseKey:
    """32 secret bytes from a good source.

    Attributes:
        secret: The bytes.
    """

    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.secret) != KEY_BYTES or len(set(self.secret)) < FEWEST_DIFFERENT_BYTES:
            raise ImpossibleSetting(
                f"the noise key must be {KEY_BYTES} random bytes: these are {len(self.secret)},"
                f" {len(set(self.secret))} of them different",
                remedy=_HINT,
            )

    @classmethod
    def generate(cls) -> NoiseKey:
        """Returns a new key from the system's generator."""
        return cls(secrets.token_bytes(KEY_BYTES))

    @classmethod
    def read(cls, path: Path) -> NoiseKey:
        """Returns the key in a file of 32 bytes."""
        try:
            return cls(path.read_bytes())
        except OSError as error:
            raise MissingInput(f"the noise key {path} cannot be read: {error}") from error

    def derive(self, *parts: bytes) -> bytes:
        """Returns 32 bytes for a label; different labels, unrelated bytes."""
        text = b"".join(len(part).to_bytes(8, "big") + part for part in (_DOMAIN, *parts))
        return hmac.digest(self.secret, text, "sha256")

    def refuse_public(self, seed: bytes | None) -> None:
        """Refuses a key that is the round's seed, its text, or a digest: the seed is on record.

        That is any 32 bytes in a row of the seed or of its hexadecimal digits in either case, a
        shorter one filled up with zeros, and the SHA-256 of each.

        Raises:
            ImpossibleSetting: Everybody who reads the result could subtract the noise.
        """
        if seed is None:
            return
        digits = seed.hex().encode()
        public = [value for text in (seed, digits, digits.upper()) for value in _keys_of(text)]
        if any(hmac.compare_digest(self.secret, value) for value in public):
            raise ImpossibleSetting(
                "the noise key is the round's recorded seed: whoever reads the record could take"
                " the noise away",
                remedy=_HINT,
            )

    def seal(self, text: bytes, *, label: bytes) -> str:
        """Returns a text that only this key opens, as hexadecimal digits; equal for equal texts."""
        return self._siv().encrypt(text, [label]).hex()

    def unseal(self, sealed: str, *, label: bytes) -> bytes:
        """Returns what `seal` hid.

        Raises:
            DigestMismatch: Another key or label, or other bytes.
        """
        try:
            return self._siv().decrypt(bytes.fromhex(sealed), [label])
        except (InvalidTag, ValueError) as error:
            raise DigestMismatch(
                "the sealed part of the recipe does not open with this noise key",
                remedy="use the key and the recipe of the same result",
            ) from error

    def _siv(self) -> AESSIV:
        """AES-SIV (RFC 5297): needs no nonce, so equal inputs give equal results."""
        return AESSIV(self.derive(b"seal", b"mac") + self.derive(b"seal", b"encryption"))


def _keys_of(text: bytes) -> Iterator[bytes]:
    """Yields the keys that somebody may make of a public text by cutting, filling or hashing."""
    for start in range(max(1, len(text) - KEY_BYTES + 1)):
        window = text[start : start + KEY_BYTES]
        yield window.ljust(KEY_BYTES, b"\0")
        yield window.rjust(KEY_BYTES, b"\0")
    yield hashlib.sha256(text).digest()
