"""Who takes part: participants proven faulty by the form or the values of their models.

A model of another form than a trusted one proves its sender faulty. Without a trusted model the
form that n - f > f participants share is the honest one: honest participants agree, and f faulty
ones cannot outnumber them. NaN or Inf found in a pass proves its holder faulty.

Which base a model was trained from is its sender's claim, and no part of the form: saying nothing
fits every claim. Honest participants have one base, so a claim that more than f others contradict
is proven false. One that f or fewer contradict may be the honest one: its sender stays and is
still counted in f, as a rule's bound holds for any f models, whatever base they come from.

Here: these decisions. Never here: f and n limits of rules. Next: `merging.py` starts over without
those that are excluded.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cabildo_trainer.consensus.errors import ImpossibleSetting, ManifestMismatch, NonFiniteInput
from cabildo_trainer.consensus.manifests.agreement import agree, have_one_form, same_base
from cabildo_trainer.consensus.manifests.manifest import facts_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cabildo_trainer.consensus.context import Context
    from cabildo_trainer.consensus.sources import ModelSource

NON_FINITE: Final = "NonFinite"
MISMATCH: Final = "ManifestMismatch"
MALFORMED: Final = "Malformed"
LONGEST_KEY: Final = 253
"""Characters of a participant's key: what the record of a merge takes."""


@dataclass(frozen=True, slots=True)
class Field:
    """Who takes part.

    Attributes:
        sources: Models by rising key, without the excluded.
        n: Participants as declared: models, proven faulty and absent ones.
        faulty: Proven faulty participants with the reason.
        absent: Late or silent ones.
        declared: f as declared.
    """

    sources: tuple[ModelSource, ...]
    n: int
    faulty: Mapping[str, str]
    absent: frozenset[str]
    declared: int

    @property
    def f(self) -> int:
        """How many of those left may still be arbitrary; below zero when too many were proven."""
        return self.declared - len(self.faulty)


def by_key(source: ModelSource) -> bytes:
    """Returns what models are sorted by before any arithmetic."""
    return source.key.encode()


def take_part(
    inputs: Sequence[ModelSource], context: Context, *, faulty: Mapping[str, str]
) -> Field:
    """Returns who takes part after exclusions; a key given twice is refused."""
    keys = [source.key for source in inputs]
    check_keys([*keys, *faulty, *context.absent])
    for key, reason in faulty.items():
        _check_text(reason, what=f"the reason of the faulty participant {key!r}")
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise ImpossibleSetting(
            f"participant {', '.join(twice)} is given more than once: one model, one key",
            remedy="keep the first committed model of each participant",
        )
    gone = set(faulty) | context.absent
    return Field(
        sources=tuple(sorted((item for item in inputs if item.key not in gone), key=by_key)),
        n=len(set(keys) | gone),
        faulty=faulty,
        absent=context.absent - set(faulty),
        declared=context.maximum_faulty,
    )


def check_keys(keys: Iterable[str]) -> None:
    """Refuses keys that rows cannot be sorted by, or that the record cannot hold.

    Raises:
        ImpossibleSetting: A key is empty, too long, or no text in UTF-8.
    """
    for key in keys:
        if not 1 <= len(key) <= LONGEST_KEY:
            raise ImpossibleSetting(
                f"the key {key[:40]!a}{'...' if len(key) > LONGEST_KEY else ''} of a participant"
                f" has {len(key)} characters",
                remedy=f"give every participant a key of 1 to {LONGEST_KEY} characters",
            )
        _check_text(key, what="the key of a participant")


def _check_text(text: str, *, what: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ImpossibleSetting(
            f"{what} is not UTF-8: {text!a}", remedy="write it in UTF-8"
        ) from error


def mismatched(field: Field, context: Context) -> dict[str, str]:
    """Returns the participants whose models are proven to be of the wrong form.

    Raises:
        ManifestMismatch: Trusted models differ, or more models than faults are left, or nobody can
            tell which form is wrong; the message names the first difference.
    """
    trusted = [
        model
        for model in (context.base, context.previous, context.root_update)
        if model is not None
    ]
    for model in trusted[1:]:
        same_tensors(trusted[0], model)
    wrong: list[str] = []
    for source in field.sources if trusted else ():
        try:
            same_tensors(trusted[0], source)
            agree([source], base=context.base, integers=context.integers)
        except ManifestMismatch:
            if len(wrong) == field.f:
                raise
            wrong.append(source.key)
    rest = [source for source in field.sources if source.key not in wrong]
    wrong += minority(rest, context, f=field.f - len(wrong))
    rest = [source for source in rest if source.key not in wrong]
    wrong += false_claims(rest, f=field.f - len(wrong))
    return dict.fromkeys(wrong, MISMATCH)


def same_tensors(one: ModelSource, other: ModelSource) -> None:
    """Refuses models of other names or shapes; their floating element types may differ."""
    for name in sorted(one.tensors.keys() | other.tensors.keys(), key=str.encode):
        first, second = one.tensors.get(name), other.tensors.get(name)
        if (
            first is None
            or second is None
            or first.shape != second.shape
            or first.is_floating != second.is_floating
        ):
            raise ManifestMismatch(
                f"tensor {name} differs between {one.key} and {other.key}:"
                f" {first or 'none'} and {second or 'none'}",
                remedy=f"give a model of the same shapes as {other.key}",
            )


def minority(sources: Sequence[ModelSource], context: Context, *, f: int) -> list[str]:
    """Returns the participants that differ from the form which more than f others share."""
    forms: list[list[ModelSource]] = []
    for source in sources:
        for form in forms:
            if _have_one_form(form[0], source, context):
                form.append(source)
                break
        else:
            forms.append([source])
    largest = max(forms, key=len, default=[])
    honest = len(sources) - f
    if len(forms) > 1 and len(largest) >= honest > f:
        return [source.key for source in sources if source not in largest]
    have_one_form(sources, base=context.base, integers=context.integers)
    return []


def false_claims(sources: Sequence[ModelSource], *, f: int) -> list[str]:
    """Returns the participants that claim another base than more than f others do.

    Args:
        sources: Models of one form.
        f: How many of their senders may still be arbitrary.

    Raises:
        ManifestMismatch: These are more than f; the message names the first two that differ.
    """
    claimed = ((source.key, facts_of(source).base_digest) for source in sources)
    claims = {key: digest for key, digest in claimed if digest is not None}
    holders = Counter(claims.values())
    wrong = [key for key, digest in claims.items() if len(claims) - holders[digest] > f]
    if len(wrong) > f:
        same_base(sources)
    return wrong


def _have_one_form(one: ModelSource, other: ModelSource, context: Context) -> bool:
    try:
        have_one_form([one, other], base=context.base, integers=context.integers)
    except ManifestMismatch:
        return False
    return True


def charge(error: NonFiniteInput, field: Field) -> dict[str, str]:
    """Returns the participants that NaN or Inf prove faulty, where f has room for them."""
    if not error.participants or not set(error.participants) <= {
        source.key for source in field.sources
    }:
        raise error
    if len(error.participants) > field.f:
        raise NonFiniteInput(
            f"NaN or Inf in the models of {', '.join(error.participants)}:"
            f" {len(error.participants)} more proven faulty, and f = {field.declared}"
            f" has room for {field.f}",
            participants=error.participants,
        ) from error
    return dict.fromkeys(error.participants, NON_FINITE)
