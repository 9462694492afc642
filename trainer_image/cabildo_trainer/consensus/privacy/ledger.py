"""What was spent so far, kept between rounds as canonical JSON that fails closed.

The text holds the rounds themselves (multipliers, sampling, counts), not a number that was computed
from them: so it can be read under any delta and either accountant, and restoring it is the same as
never having stopped. A digest over it refuses damage and edits by accident; whoever stores it must
keep the newest one (a copy of an older state would spend twice).

Here: the state, its text, and what a context carries. Never here: accountants. Next:
`dp_fed_avg.py` reads it before a round and writes the next one into the result.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cabildo_trainer.consensus.errors import DigestMismatch, ImpossibleSetting, MissingInput
from cabildo_trainer.consensus.manifests.canonical_json import (
    LARGEST_INTEGER,
    BadJsonError,
    canonical_json,
    parse_strict,
)
from cabildo_trainer.consensus.privacy.accounting import Spend, added

if TYPE_CHECKING:
    from cabildo_api.merge_result import MergeResult
    from cabildo_trainer.consensus.privacy.noise_key import NoiseKey

VERSION: Final = "cabildo/privacy-ledger/v1"
DIAGNOSTIC: Final = "privacyLedger"
"""Where a result carries the state after it."""
_NAMES: Final = {
    "noise_multiplier": "noiseMultiplier",
    "sampling_probability": "samplingProbability",
    "rounds": "rounds",
    "failure": "failure",
}
_REMEDY: Final = (
    "restore the ledger of the last result (its diagnostics hold it); without it nobody knows what"
    " was spent, and the budget counts as spent"
)


@dataclass(frozen=True, slots=True)
class Ledger:
    """Everything that was released about the participants, and the clip norm that it led to.

    Attributes:
        spends: The rounds so far, in order.
        clip_norm: The clip norm of the next round, where it adapts; None before the first round.
    """

    spends: tuple[Spend, ...] = ()
    clip_norm: float | None = None

    @property
    def rounds(self) -> int:
        """Rounds so far."""
        return sum(spend.rounds for spend in self.spends)

    def after(self, spend: Spend, *, clip_norm: float | None = None) -> Ledger:
        """Returns the ledger with one more spend."""
        return Ledger(spends=added(self.spends, spend), clip_norm=clip_norm)

    def to_json(self) -> str:
        """Returns the text that `from_json` reads."""
        body = {
            "version": VERSION,
            "clipNorm": self.clip_norm,
            "spends": [
                {name: getattr(spend, field) for field, name in _NAMES.items()}
                for spend in self.spends
            ],
        }
        return canonical_json({**body, "sha256": _digest(body)}).decode()

    @classmethod
    def from_json(cls, text: str) -> Ledger:
        """Returns the ledger of a text.

        Raises:
            DigestMismatch: The text was damaged or edited.
            ImpossibleSetting: Another version, or something that is no ledger.
        """
        try:
            value = _as_written(parse_strict(text.encode()))
            canonical_json(value)  # what has no canonical form was never written by us
        except (BadJsonError, UnicodeEncodeError, OverflowError, RecursionError) as error:
            raise ImpossibleSetting(
                f"the privacy ledger is no JSON: {error}", remedy=_REMEDY
            ) from error
        if not isinstance(value, dict) or value.get("version") != VERSION:
            found = value.get("version") if isinstance(value, dict) else type(value).__name__
            raise ImpossibleSetting(
                f"the privacy ledger is of version {found!r}, this release reads {VERSION!r}",
                remedy=_REMEDY,
            )
        body = {name: item for name, item in value.items() if name != "sha256"}
        if _digest(body) != value.get("sha256"):
            raise DigestMismatch(
                "the privacy ledger does not have the digest that it names", remedy=_REMEDY
            )
        return _ledger(body)

    @classmethod
    def of_result(cls, result: MergeResult) -> Ledger:
        """Returns the ledger after a result: the one to keep for the next round."""
        text = result.diagnostics.get(DIAGNOSTIC)
        if not isinstance(text, str):
            raise MissingInput(f"the result of {result.rule} carries no privacy ledger")
        return cls.from_json(text)


def _as_written(value: Any) -> Any:
    """A double beyond 2^53 is written like an integer, and no integer of ours is so large."""
    if isinstance(value, dict):
        return {name: _as_written(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_as_written(item) for item in value]
    is_large = type(value) is int and abs(value) > LARGEST_INTEGER
    return float(value) if is_large else value


def _digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(canonical_json(body)).hexdigest()


def _ledger(body: dict[str, Any]) -> Ledger:
    if set(body) != {"version", "clipNorm", "spends"} or not isinstance(body["spends"], list):
        raise ImpossibleSetting("the privacy ledger has other members than it must", remedy=_REMEDY)
    clip_norm = body["clipNorm"]
    if clip_norm is not None and not (_is_number(clip_norm) and clip_norm > 0.0):
        raise ImpossibleSetting(
            f"the privacy ledger: clipNorm = {clip_norm!r} is no norm", remedy=_REMEDY
        )
    spends = tuple(_spend(item) for item in body["spends"])
    return Ledger(spends=spends, clip_norm=None if clip_norm is None else float(clip_norm))


def _spend(item: Any) -> Spend:
    if not isinstance(item, dict) or set(item) != set(_NAMES.values()):
        raise ImpossibleSetting(f"the privacy ledger: {item!r} is no round", remedy=_REMEDY)
    if not all(_is_number(value) for value in item.values()) or not isinstance(item["rounds"], int):
        raise ImpossibleSetting(f"the privacy ledger: {item!r} holds no numbers", remedy=_REMEDY)
    return Spend(
        noise_multiplier=float(item["noiseMultiplier"]),
        sampling_probability=float(item["samplingProbability"]),
        rounds=item["rounds"],
        failure=float(item["failure"]),
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


@dataclass(frozen=True, slots=True)
class Privacy:
    """What a private rule needs of its context.

    Attributes:
        key: The secret behind the noise.
        ledger: What was spent before this round.
    """

    key: NoiseKey
    ledger: Ledger
