"""The one entry: many models and a rule in, one model and a result out.

Order of work: sort by key, refuse duplicates, take away the excluded (n', f'), check the rule's
limits for (n, f) and (n', f'), check that the models agree, decide, apply the recipe. A participant
whose model has another form, or holds NaN or Inf, is proven faulty (`exclusions.py`): it is
excluded and all starts over.

Here: that order and the result. Never here: a rule's arithmetic. Next: `cabildo_api.merge_result`,
which verifiers and the operator read.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import cabildo_kernels as kernels
from cabildo_api.merge_result import CandidateResult, MergeResult, ParticipantResult
from cabildo_trainer.consensus.errors import (
    ConsensusError,
    ImpossibleSetting,
    MissingInput,
    NonFiniteInput,
)
from cabildo_trainer.consensus.exclusions import by_key, charge, mismatched, take_part
from cabildo_trainer.consensus.passes import Session, apply

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cabildo_trainer.consensus.context import Context
    from cabildo_trainer.consensus.decision import Decision
    from cabildo_trainer.consensus.exclusions import Field
    from cabildo_trainer.consensus.recipes import Recipe
    from cabildo_trainer.consensus.rule import Rule
    from cabildo_trainer.consensus.sinks import ModelSink
    from cabildo_trainer.consensus.sources import ModelSource

ABSENT: Final = "Absent"
NOT_YET: Final = f"sha256:{'0' * 64}"
"""Stands for the output's digest until there is an output."""


def merge(
    inputs: Sequence[ModelSource],
    rule: Rule,
    context: Context,
    *,
    sink: ModelSink,
    output_dtype: str | None = None,
    on_field: Callable[[Field], None] | None = None,
) -> MergeResult:
    """Merges models and returns what was done, so that others can verify it.

    Args:
        inputs: The participants' models, in any order.
        rule: How they are merged.
        context: Faults, trusted models, evaluator, seed.
        sink: Where the merged model goes; it is finished when this returns.
        output_dtype: Element type of the output's floating tensors (F32, F16, BF16); None keeps
            each tensor's own.
        on_field: Told who takes part before their weights are read, and again whenever these
            become fewer: what lies beside a model is decided then.

    Raises:
        ImpossibleSetting: n and f do not fit the rule, declared or after exclusions.
        MissingInput: The rule needs something that the context lacks.
        ManifestMismatch: The models differ where they must agree.
        NonFiniteInput: More participants hold NaN or Inf than faults are left.
    """
    faulty = dict(context.faulty)
    while True:
        field = take_part(inputs, context, faulty=faulty)
        check(field, rule, context)
        wrong = mismatched(field, context)
        if wrong:
            faulty |= wrong
            continue
        if on_field is not None:
            on_field(field)
        session = Session(sources=field.sources, f=field.f, context=context)
        try:
            decision = rule.decide(session)
            apply(session, decision.recipe, sink=sink, output_dtype=output_dtype)
        except NonFiniteInput as error:
            faulty |= charge(error, field)
            continue
        # The record is made, and so found to be sound, before anything is in its place.
        made = result(field, rule, decision, sources=inputs, output_digest=NOT_YET)
        return made.model_copy(update={"output_digest": sink.finish()})


def replay(
    inputs: Sequence[ModelSource],
    recipe: Recipe,
    context: Context,
    *,
    keys: Sequence[str],
    sink: ModelSink,
    output_dtype: str | None = None,
) -> str:
    """Recomputes a merge from its recipe alone and returns the output's digest.

    Args:
        inputs: The participants' models; those that are not named in `keys` are left out.
        recipe: `recipe_from_json(result.recipe)`.
        context: With the same base and previous model.
        keys: Keys of the participants that took part, as in the result.
        sink: Where the model goes.
        output_dtype: As in `merge`.
    """
    wanted = set(keys)
    sources = tuple(sorted((item for item in inputs if item.key in wanted), key=by_key))
    missing = wanted - {source.key for source in sources}
    if missing:
        raise MissingInput(f"no model of {', '.join(sorted(missing))}, which took part")
    apply(
        Session(sources=sources, f=0, context=context), recipe, sink=sink, output_dtype=output_dtype
    )
    return sink.finish()


def check(field: Field, rule: Rule, context: Context) -> None:
    """Refuses what cannot work: limits for (n, f) and (n', f'), needs."""
    known = {source.key for source in field.sources} | field.faulty.keys() | field.absent
    strangers = sorted(rule.named - known)
    if strangers:
        raise ImpossibleSetting(
            f"rule {rule.name} names {', '.join(map(repr, strangers))}, and none of the"
            f" {len(known)} participants is called so",
            remedy=f"correct the key, or take it out; there are {', '.join(sorted(known))}",
        )
    rule.requirement(field.n, field.declared)
    if field.f < 0:
        raise ImpossibleSetting(
            f"{len(field.faulty)} participants are proven faulty"
            f" ({', '.join(sorted(field.faulty))}), above f = {field.declared}:"
            " the rule's assumption does not hold",
            remedy="raise maxFaulty, or find out why so many are faulty",
        )
    if (len(field.sources), field.f) != (field.n, field.declared):
        rule.requirement(len(field.sources), field.f)
    missing = sorted(need.value for need in rule.needs if not context.has(need))
    if missing:
        raise MissingInput(f"rule {rule.name} needs {', '.join(missing)}, which was not given")


def result(
    field: Field,
    rule: Rule,
    decision: Decision,
    *,
    sources: Sequence[ModelSource],
    output_digest: str,
) -> MergeResult:
    """Returns the record of a merge."""
    rows = {source.key: row for row, source in enumerate(field.sources)}
    digests = {source.key: source for source in sources}
    participants = []
    for key in sorted({*rows, *field.faulty, *field.absent}, key=str.encode):
        if key in rows:
            participants.append(_taking_part(field.sources[rows[key]], decision, row=rows[key]))
            continue
        participants.append(
            ParticipantResult(
                key=key,
                digest=_digest_if_readable(digests.get(key)) if key in field.faulty else None,
                accepted=False,
                reason=field.faulty.get(key, ABSENT),
            )
        )
    privacy = decision.privacy
    return MergeResult(
        rule=rule.name,
        parameters=rule.parameters(),
        candidates=tuple(
            CandidateResult(
                name=item.name,
                loss=_finite(item.loss),
                picked=item.picked,
                reason=item.reason or None,
            )
            for item in decision.candidates
        ),
        n=field.n,
        f_declared=field.declared,
        f_effective=field.f,
        participants=tuple(participants),
        recipe=decision.recipe.to_json(),
        gram_digest=decision.gram_digest or None,
        output_digest=output_digest,
        epsilon=None if privacy is None else privacy.epsilon,
        delta=None if privacy is None else privacy.delta,
        signal_to_noise=None if privacy is None else privacy.signal_to_noise,
        grid_version=kernels.GRID_VERSION,
        kernel_path=kernels.info().isa,
        diagnostics={
            name: value if isinstance(value, str) or math.isfinite(value) else str(value)
            for name, value in decision.diagnostics.items()
        },
    )


def _digest_if_readable(source: ModelSource | None) -> str | None:
    """Returns the digest of a faulty participant's model; whoever is out has no say any more."""
    if source is None:
        return None
    try:
        return source.digest
    except (ConsensusError, OSError):
        return None


def _finite(value: float | None) -> float | None:
    """Returns a figure that JSON can hold: NaN and infinity would not be read back."""
    return value if value is not None and math.isfinite(value) else None


def _taking_part(source: ModelSource, decision: Decision, *, row: int) -> ParticipantResult:
    reason = decision.reasons[row] if decision.reasons else ""
    return ParticipantResult(
        key=source.key,
        digest=source.digest,
        accepted=decision.accepted[row],
        reason=reason or None,
        score=None if decision.scores is None else _finite(decision.scores[row]),
        weight=None if decision.weights is None else decision.weights[row],
    )
