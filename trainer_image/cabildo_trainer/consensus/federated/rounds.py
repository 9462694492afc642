"""One federated round: any rule's aggregate, the server's step, and the state for the next round.

The state is one model for each of the optimiser's arrays (float32, the model's tensors) and a
record in canonical JSON that ties them to the model and the settings they belong to: a state of
another model, optimiser or setting is refused.

The recipe in a round's result makes the aggregate; the result's diagnostics say how the server
stepped towards it: optimiser and settings, round, and the digests of previous model, aggregate and
state before and after. `replay_round` repeats the whole from them.

Here: the round, its repetition and the record. Never here: arithmetic (`optimizers.py`) or files:
sources and sinks are given. Next: `outer_step.py`, `../merging.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from cabildo_trainer.consensus.errors import DigestMismatch, ImpossibleSetting, MissingInput
from cabildo_trainer.consensus.federated.optimizers import optimizer_from_parameters
from cabildo_trainer.consensus.federated.outer_step import OuterStepSink
from cabildo_trainer.consensus.federated.records import Record
from cabildo_trainer.consensus.manifests.canonical_json import canonical_json, parse_strict
from cabildo_trainer.consensus.merging import merge, replay
from cabildo_trainer.consensus.recipes import recipe_from_json
from cabildo_trainer.consensus.robust.means import WeightedMean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cabildo_api.merge_result import MergeResult
    from cabildo_trainer.consensus.context import Context
    from cabildo_trainer.consensus.federated.optimizers import ServerOptimizer
    from cabildo_trainer.consensus.rule import Rule
    from cabildo_trainer.consensus.sinks import ModelSink
    from cabildo_trainer.consensus.sources import ModelSource

VERSION = 1
OPTIMIZER: Final = "serverOptimizer"
SETTINGS: Final = "serverSettings"
ROUND: Final = "serverRound"
PREVIOUS: Final = "previousDigest"
AGGREGATE: Final = "aggregateDigest"
BEFORE: Final = "stateBefore."
AFTER: Final = "stateAfter."
"""What a round adds to a result's diagnostics; the last two are followed by a state's name."""


@dataclass(frozen=True, slots=True)
class ServerState:
    """What a server remembers between two rounds.

    Attributes:
        optimizer: With its settings.
        rounds: Rounds done.
        model_digest: Of the model that the last round made.
        digests: Of the state's models, by name.
    """

    optimizer: ServerOptimizer
    rounds: int = 0
    model_digest: str = ""
    digests: Mapping[str, str] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """Returns canonical JSON: equal states have equal bytes."""
        return canonical_json(
            {
                "version": VERSION,
                "optimizer": self.optimizer.name,
                "parameters": _exact(self.optimizer),
                "rounds": self.rounds,
                "modelDigest": self.model_digest,
                "digests": dict(self.digests),
            }
        )

    @classmethod
    def from_bytes(cls, content: bytes) -> ServerState:
        """Returns the state that `to_bytes` described.

        Raises:
            ImpossibleSetting: It is none, or of another version.
        """
        record = Record.of(
            content,
            version=VERSION,
            what="server's state",
            remedy="start from the state file of the last round, or without one",
        )
        parameters = record.mapping("parameters")
        try:
            optimizer = _optimizer(record.text("optimizer"), parameters)
        except ValueError as error:
            raise record.refusal("parameters", parameters, wanted=str(error)) from error
        return cls(
            optimizer=optimizer,
            rounds=record.count("rounds"),
            model_digest=record.text("modelDigest"),
            digests=record.texts("digests"),
        )


def _exact(optimizer: ServerOptimizer) -> dict[str, str | bool]:
    """Returns the settings with every bit of their numbers."""
    return {
        key: value if isinstance(value, bool) else float(value).hex()
        for key, value in optimizer.parameters().items()
    }


def _optimizer(name: str, exact: Mapping[str, Any]) -> ServerOptimizer:
    """Returns the optimiser of a name with settings as `_exact` wrote them.

    Raises:
        ImpossibleSetting: There is no such optimiser, or a setting is none of its own.
        ValueError: A setting was not written by `_exact`; the text says what one is.
    """
    return optimizer_from_parameters(name, {key: _setting(item) for key, item in exact.items()})


def _setting(item: Any) -> float | bool:
    try:
        if isinstance(item, bool):
            return item
        return float.fromhex(item) if isinstance(item, str) else float(item)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError("an object of numbers in the form of float.hex") from error


def fed_avg_weights(examples: Mapping[str, int]) -> WeightedMean:
    """Returns the mean by example counts that the aggregator knows to be true (McMahan 2017).

    Counts that participants report about themselves belong to no robust rule, and this is none.
    """
    return WeightedMean(weights={key: float(count) for key, count in examples.items()})


def federated_round(
    inputs: Sequence[ModelSource],
    rule: Rule,
    context: Context,
    *,
    server: ServerState,
    state: Mapping[str, ModelSource],
    sink: ModelSink,
    state_sinks: Mapping[str, ModelSink],
) -> tuple[MergeResult, ServerState]:
    """Merges by a rule and steps from `context.start` towards the aggregate.

    Args:
        inputs: The participants' models (not their differences).
        rule: Any rule; the server steps towards what it makes.
        context: With the previous model, which the participants started from.
        server: The state's record: `ServerState(optimizer)` before the first round.
        state: The state's models by name; empty before the first round.
        sink: Where the new model goes.
        state_sinks: Where the new state's models go: one for each of `optimizer.states`.

    Returns:
        The merge's result, with the digest of the new model and what `replay_round` needs, and the
        record for the next round.

    Raises:
        DigestMismatch: The state belongs to another model.
        MissingInput: The previous model, or a part of the state, was not given.
    """
    previous = _previous(context)
    outer = _outer_step(server, previous, state=state, sink=sink, state_sinks=state_sinks)
    result = merge(inputs, rule, context, sink=outer, output_dtype="F32")
    after = _after(server, outer, model_digest=result.output_digest)
    told: dict[str, float | str] = {
        OPTIMIZER: server.optimizer.name,
        SETTINGS: canonical_json(_exact(server.optimizer)).decode(),
        ROUND: float(after.rounds),
        PREVIOUS: previous.digest,
        AGGREGATE: outer.aggregate_digest,
        **{f"{BEFORE}{name}": digest for name, digest in server.digests.items()},
        **{f"{AFTER}{name}": digest for name, digest in after.digests.items()},
    }
    return result.model_copy(update={"diagnostics": {**result.diagnostics, **told}}), after


def replay_round(
    inputs: Sequence[ModelSource],
    result: MergeResult,
    context: Context,
    *,
    keys: Sequence[str],
    state: Mapping[str, ModelSource],
    sink: ModelSink,
    state_sinks: Mapping[str, ModelSink],
) -> ServerState:
    """Repeats a federated round from its result, and compares every digest that the result names.

    Args:
        inputs: The participants' models; those that are not named in `keys` are left out.
        result: Of `federated_round`.
        context: With the same base and previous model.
        keys: Keys of the participants that took part, as for `merging.replay`.
        state: The state's models before the round, by name; empty for the first round.
        sink: Where the new model goes.
        state_sinks: Where the new state's models go, by name.

    Returns:
        The record for the next round: that of `federated_round`, with the new model's digest.

    Raises:
        DigestMismatch: The previous model, a state, the aggregate or the new model is not that of
            the result; the message names the first.
        MissingInput: The result is of no federated round, or a model was not given.
    """
    server, told = _server_before(result), result.diagnostics
    previous = _previous(context)
    _compare("the previous model", previous.digest, told[PREVIOUS])
    outer = _outer_step(server, previous, state=state, sink=sink, state_sinks=state_sinks)
    recipe = recipe_from_json(result.recipe)
    digest = replay(inputs, recipe, context, keys=keys, sink=outer, output_dtype="F32")
    _compare("the aggregate", outer.aggregate_digest, told[AGGREGATE])
    for name, found in outer.state_digests.items():
        _compare(f"the new state's {name}", found, told.get(f"{AFTER}{name}"))
    _compare("the new model", digest, result.output_digest)
    return _after(server, outer, model_digest=digest)


def _server_before(result: MergeResult) -> ServerState:
    """Returns the record that a round began with, from its result."""
    told = result.diagnostics
    try:
        return ServerState(
            optimizer=_optimizer(str(told[OPTIMIZER]), parse_strict(str(told[SETTINGS]).encode())),
            rounds=_rounds_before(told[ROUND]),
            model_digest=str(told[PREVIOUS]),
            digests={
                key.removeprefix(BEFORE): str(digest)
                for key, digest in told.items()
                if key.startswith(BEFORE)
            },
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MissingInput(
            f"the result of {result.rule} does not say how a server stepped: {error!r}",
            remedy="give the result of a federated round; `merging.replay` repeats a plain merge",
        ) from error


def _rounds_before(told: float | str) -> int:
    if isinstance(told, str) or not (told >= 1.0 and told.is_integer()):
        raise ValueError(f"{ROUND} = {told!r} is no number of a round")
    return int(told) - 1


def _compare(what: str, found: str, told: object) -> None:
    if found != told:
        raise DigestMismatch(
            f"{what} is {found}, and the result says {told}",
            remedy="check that these are the models, the state and the result of one round",
        )


def _previous(context: Context) -> ModelSource:
    if context.start is None:
        raise MissingInput("a federated round needs the previous model, which was not given")
    return context.start


def _outer_step(
    server: ServerState,
    previous: ModelSource,
    *,
    state: Mapping[str, ModelSource],
    sink: ModelSink,
    state_sinks: Mapping[str, ModelSink],
) -> OuterStepSink:
    """Returns the sink of a round, refusing a state that is not the record's."""
    _check_state(server, state, previous)
    optimizer = server.optimizer
    if set(state_sinks) != set(optimizer.states):
        raise MissingInput(
            f"{optimizer.name} writes the state {_names(optimizer.states)}:"
            f" sinks were given for {_names(tuple(state_sinks))}"
        )
    return OuterStepSink(
        optimizer, previous=previous, state=state, sink=sink, state_sinks=state_sinks
    )


def _after(server: ServerState, outer: OuterStepSink, *, model_digest: str) -> ServerState:
    return ServerState(
        optimizer=server.optimizer,
        rounds=server.rounds + 1,
        model_digest=model_digest,
        digests=outer.state_digests,
    )


def _check_state(
    server: ServerState, state: Mapping[str, ModelSource], previous: ModelSource
) -> None:
    if server.rounds == 0:
        if state:
            raise ImpossibleSetting("a state was given for a server that has done no round")
        return
    if server.model_digest != previous.digest:
        raise DigestMismatch(
            f"the state of round {server.rounds} belongs to the model {server.model_digest}, and"
            f" the previous model is {previous.digest}",
            remedy="give the model that the last round made, or start without a state",
        )
    missing = tuple(name for name in server.optimizer.states if name not in state)
    if missing:
        raise MissingInput(f"the server's state {_names(missing)} was not given")
    for name in server.optimizer.states:
        if state[name].digest != server.digests.get(name):
            raise DigestMismatch(
                f"the state's {name} is {state[name].digest}, and the record says"
                f" {server.digests.get(name)}"
            )


def _names(names: tuple[str, ...]) -> str:
    return ", ".join(names) or "nothing"
