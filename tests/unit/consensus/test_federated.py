"""Federated rounds: the optimisers' formulas, a state that survives, SCAFFOLD and FedProx."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from cabildo_api.merge_result import MergeResult
from cabildo_trainer.consensus.context import Context
from cabildo_trainer.consensus.errors import (
    DigestMismatch,
    ImpossibleSetting,
    ManifestMismatch,
    MissingInput,
)
from cabildo_trainer.consensus.federated.optimizers import (
    OPTIMIZERS,
    DiLoCo,
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedYogi,
    optimizer_from_parameters,
)
from cabildo_trainer.consensus.federated.rounds import (
    ServerState,
    fed_avg_weights,
    federated_round,
    replay_round,
)
from cabildo_trainer.consensus.merging import merge
from cabildo_trainer.consensus.robust.columns import Median
from cabildo_trainer.consensus.robust.krum import MultiKrum
from cabildo_trainer.consensus.robust.means import WeightedMean
from cabildo_trainer.consensus.sinks import MemorySink
from cabildo_trainer.consensus.sources import MemoryModel

if TYPE_CHECKING:
    from cabildo_trainer.consensus.federated.optimizers import ServerOptimizer
    from cabildo_trainer.consensus.rule import Rule

SIZE = 30_000


def model(key: str, values: np.ndarray[Any, Any]) -> MemoryModel:
    values = values.astype(np.float32)
    return MemoryModel(
        key,
        {"a": values[:100], "w": values[100:].reshape(-1, 10), "steps": np.arange(2)},
    )


def flat(source: Any) -> np.ndarray[Any, Any]:
    return np.concatenate([source.array(name).reshape(-1) for name in ("a", "w")])


class Server:
    """Keeps what a server keeps, and hands it on through bytes and models only."""

    def __init__(self, optimizer: ServerOptimizer, start: np.ndarray[Any, Any]) -> None:
        self.previous = model("previous", start)
        self.record = ServerState(optimizer).to_bytes()
        self.state: dict[str, MemoryModel] = {}

    def round(self, rows: list[np.ndarray[Any, Any]], rule: Rule, **options: Any) -> Any:
        server = ServerState.from_bytes(self.record)
        sink = MemorySink()
        sinks = {name: MemorySink() for name in server.optimizer.states}
        result, after = federated_round(
            [model(f"p{index}", row) for index, row in enumerate(rows)],
            rule,
            Context(previous=self.previous, **options),
            server=server,
            state=self.state,
            sink=sink,
            state_sinks=sinks,
        )
        self.previous, self.record = sink.model(), after.to_bytes()
        self.state = {name: item.model() for name, item in sinks.items()}
        return result


def rounds(count: int, *, n: int = 3, seed: int = 0) -> list[list[np.ndarray[Any, Any]]]:
    rng = np.random.default_rng(seed)
    return [[rng.normal(size=SIZE) for _ in range(n)] for _ in range(count)]


def reference(optimizer: ServerOptimizer, x: Any, deltas: Any) -> Any:
    """The papers' recursions, written out."""
    m, v = np.zeros_like(x), np.full_like(x, getattr(optimizer, "adaptivity", 0.0) ** 2)
    eta = optimizer.learning_rate
    for target in deltas:
        delta = target(x)
        if isinstance(optimizer, FedAvg):
            x = x + eta * delta
        elif isinstance(optimizer, FedAvgM):
            m = optimizer.momentum * m + delta
            x = x + eta * (delta + optimizer.momentum * m if optimizer.nesterov else m)
        else:
            beta = optimizer.momentum
            m = beta * m + (1 - beta) * delta
            if isinstance(optimizer, FedAdagrad):
                v = v + delta**2
            elif isinstance(optimizer, FedYogi):
                v = v - (1 - optimizer.decay) * delta**2 * np.sign(v - delta**2)
            else:
                v = optimizer.decay * v + (1 - optimizer.decay) * delta**2
            x = x + eta * m / (np.sqrt(v) + optimizer.adaptivity)
    return x


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_rounds_through_saved_state_follow_the_papers_recursion(kind: Any) -> None:
    optimizer, start = kind(), np.random.default_rng(9).normal(size=SIZE)
    server, steps = Server(optimizer, start), rounds(4)
    for rows in steps:
        server.round(rows, WeightedMean())
    means = [lambda x, rows=rows: np.mean(rows, axis=0) - x for rows in steps]
    wanted = reference(optimizer, start.astype(np.float32).astype(np.float64), means)
    np.testing.assert_allclose(flat(server.previous), wanted, rtol=2e-5, atol=2e-6)
    assert ServerState.from_bytes(server.record).rounds == 4


def test_diloco_is_torchs_nesterov_sgd_on_the_outer_gradient() -> None:
    start = np.random.default_rng(9).normal(size=SIZE).astype(np.float32)
    server, steps = Server(DiLoCo(), start), rounds(3)
    weight = torch.nn.Parameter(torch.from_numpy(start.astype(np.float64)))
    sgd = torch.optim.SGD([weight], lr=0.7, momentum=0.9, nesterov=True)
    for rows in steps:
        server.round(rows, WeightedMean())
        mean = torch.from_numpy(np.mean([row.astype(np.float32) for row in rows], axis=0))
        weight.grad = weight.detach() - mean
        sgd.step()
    np.testing.assert_allclose(flat(server.previous), weight.detach().numpy(), atol=2e-6)


def test_a_rate_of_one_gives_the_rules_own_bits_robust_or_not() -> None:
    start, (rows,) = np.random.default_rng(3).normal(size=SIZE), rounds(1, n=7)
    for rule, f in ((WeightedMean(), 0), (Median(), 3), (MultiKrum(), 2)):
        server = Server(FedAvg(), start)
        server.round(rows, rule, maximum_faulty=f)
        sink = MemorySink()
        merge(
            [model(f"p{index}", row) for index, row in enumerate(rows)],
            rule,
            Context(previous=model("previous", start), maximum_faulty=f),
            sink=sink,
        )
        assert np.array_equal(flat(server.previous), flat(sink.model()))


def test_an_attacker_moves_a_robust_outer_step_no_further_than_its_aggregate() -> None:
    start, (rows,) = np.zeros(SIZE), rounds(1, n=7)
    rows[2] = np.full(SIZE, 1e6)
    server = Server(DiLoCo(), start)
    result = server.round(rows, Median(), maximum_faulty=2)
    assert np.abs(flat(server.previous)).max() <= 0.7 * 1.9 * 6.0
    assert result.output_digest == server.previous.digest


def replayed(result: MergeResult, given: list[MemoryModel], **changed: Any) -> ServerState:
    """What a verifier makes of a result that came as JSON."""
    read = MergeResult.model_validate_json(result.model_dump_json(by_alias=True))
    name = str(read.diagnostics["serverOptimizer"])
    (kind,) = [kind for kind in OPTIMIZERS if kind.name == name]
    options = {
        "keys": [item.key for item in read.participants],
        "sink": MemorySink(),
        "state_sinks": {state: MemorySink() for state in kind.states},
        **changed,
    }
    context = options.pop("context")
    return replay_round(given, read, context, **options)


@pytest.mark.parametrize(
    "optimizer", [FedAvgM(), FedAdam(decay=0.1 + 0.2), DiLoCo(learning_rate=1.0 / 3.0)]
)
def test_a_verifier_repeats_a_federated_round_from_its_result(optimizer: ServerOptimizer) -> None:
    server, steps = Server(optimizer, np.random.default_rng(9).normal(size=SIZE)), rounds(2, n=7)
    for rows in steps:
        before, state = server.previous, dict(server.state)
        result = server.round(rows, Median(), maximum_faulty=2)
        given = [model(f"p{index}", row) for index, row in enumerate(rows)]
        known = {"context": Context(previous=before, maximum_faulty=2), "state": state}
        after = replayed(result, given, **known)
        assert after.to_bytes() == server.record
        assert after.model_digest == result.output_digest == server.previous.digest
    aggregate = MemorySink()
    merge(given, Median(), known["context"], sink=aggregate, output_dtype="F32")
    assert result.diagnostics["aggregateDigest"] == aggregate.model().digest

    def told(**diagnostics: Any) -> MergeResult:
        return result.model_copy(update={"diagnostics": {**result.diagnostics, **diagnostics}})

    other = replace(known["context"], previous=model("previous", np.ones(SIZE)))
    with pytest.raises(DigestMismatch, match="the previous model is"):
        replayed(result, given, **{**known, "context": other})
    with pytest.raises(DigestMismatch, match="the state's momentum is"):
        replayed(result, given, **{**known, "state": dict(server.state)})
    with pytest.raises(MissingInput, match="momentum"):
        replayed(result, given, **{**known, "state": {}})
    with pytest.raises(DigestMismatch, match="the aggregate is"):
        replayed(result, [model(item.key, np.zeros(SIZE)) for item in given], **known)
    settings = optimizer.parameters() | {"learningRate": 0.25}
    with pytest.raises(DigestMismatch, match="the new"):
        replayed(told(serverSettings=json.dumps(settings)), given, **known)
    with pytest.raises(DigestMismatch, match="the new state's momentum"):
        replayed(told(**{"stateAfter.momentum": "sha256:00"}), given, **known)
    changed = result.model_copy(update={"output_digest": before.digest})
    with pytest.raises(DigestMismatch, match="the new model"):
        replayed(changed, given, **known)
    for broken in (
        {"serverSettings": "[]"},
        {"serverSettings": '{"learningRate":"0x1p99999"}'},
        {"serverSettings": "[" * 100_000},
        {"serverRound": "none"},
        {"serverRound": 1.5},
        {"serverRound": 0.0},
    ):
        with pytest.raises(MissingInput, match="how a server stepped"):
            replayed(told(**broken), given, **known)


def test_interrupted_and_uninterrupted_runs_have_the_same_bytes() -> None:
    start, steps = np.random.default_rng(4).normal(size=SIZE), rounds(4, seed=4)
    whole = Server(FedYogi(), start)
    for rows in steps:
        whole.round(rows, WeightedMean())
    first = Server(FedYogi(), start)
    for rows in steps[:2]:
        first.round(rows, WeightedMean())
    second = Server(FedYogi(), np.zeros(SIZE))
    second.previous, second.record, second.state = first.previous, first.record, first.state
    for rows in steps[2:]:
        second.round(rows, WeightedMean(), threads=2, chunk_elements=24_576)
    assert second.record == whole.record
    assert second.previous.digest == whole.previous.digest
    assert second.state["variance"].digest == whole.state["variance"].digest


def test_bfloat16_models_step_with_one_rounding_and_keep_their_type() -> None:
    bits = np.array([0x3F80, 0x3F81, 0xBF80, 0x0000], dtype=np.uint16)
    previous = MemoryModel("previous", {"w": bits}, bf16=frozenset({"w"}))
    moved = MemoryModel("p0", {"w": bits[::-1].copy()}, bf16=frozenset({"w"}))
    sink = MemorySink()
    federated_round(
        [moved],
        WeightedMean(),
        Context(previous=previous),
        server=ServerState(FedAvg(learning_rate=0.5)),
        state={},
        sink=sink,
        state_sinks={},
    )
    assert sink.model().tensors["w"].dtype == "BF16"
    # The midpoints of 1 and 0, and of 1.0078125 and -1.
    assert sink.tensors["w"].tolist() == [0x3F00, 0x3B80, 0x3B80, 0x3F00]


def test_a_state_of_another_model_optimiser_or_content_is_refused() -> None:
    server = Server(FedAdam(), np.zeros(SIZE))
    rows = rounds(1)[0]
    server.round(rows, WeightedMean())
    kept, record = dict(server.state), server.record
    server.previous = model("previous", np.ones(SIZE))
    with pytest.raises(DigestMismatch, match="belongs to the model"):
        server.round(rows, WeightedMean())
    server = Server(FedAdam(), np.zeros(SIZE))
    server.round(rows, WeightedMean())
    server.state = {"momentum": kept["momentum"]}
    with pytest.raises(MissingInput, match="variance"):
        server.round(rows, WeightedMean())
    server.state = {"momentum": kept["variance"], "variance": kept["variance"]}
    with pytest.raises(DigestMismatch, match="momentum"):
        server.round(rows, WeightedMean())
    fresh = Server(FedAdam(), np.zeros(SIZE))
    fresh.state = kept
    with pytest.raises(ImpossibleSetting, match="no round"):
        fresh.round(rows, WeightedMean())
    for broken in (b"{}", b"[]", b"\xff", record.replace(b'"version":1', b'"version":2')):
        with pytest.raises(ImpossibleSetting):
            ServerState.from_bytes(broken)


def test_a_round_without_previous_or_sinks_is_refused() -> None:
    given = model("p0", np.zeros(SIZE))
    for context, sinks, error in (
        (Context(), {"momentum": MemorySink()}, MissingInput),
        (Context(previous=given), {}, MissingInput),
    ):
        with pytest.raises(error):
            federated_round(
                [given],
                WeightedMean(),
                context,
                server=ServerState(FedAvgM()),
                state={},
                sink=MemorySink(),
                state_sinks=sinks,
            )


def test_a_step_beyond_the_element_type_is_refused() -> None:
    server = Server(FedAvg(learning_rate=1e30), np.zeros(SIZE))
    with pytest.raises(ImpossibleSetting, match="range of f32"):
        server.round([np.full(SIZE, 1e20)], WeightedMean())


def test_settings_come_back_from_their_names_and_bad_ones_are_named() -> None:
    for kind in OPTIMIZERS:
        made = kind(learning_rate=0.125)
        assert optimizer_from_parameters(kind.name, made.parameters()) == made
        record = ServerState(made, rounds=2, model_digest="sha256:ab", digests={"x": "y"})
        assert ServerState.from_bytes(record.to_bytes()) == record
        assert json.loads(record.to_bytes())["rounds"] == 2
    for name, parameters, message in (
        ("fedMagic", {}, "fedMagic"),
        ("fedAvg", {"beta": 1.0}, "beta"),
        ("fedAvg", {"learningRate": 0.0}, "learningRate"),
        ("fedAvg", {"learningRate": True}, "learningRate"),
        ("fedAvgM", {"momentum": 1.0}, "momentum"),
        ("fedAvgM", {"nesterov": 1}, "nesterov"),
        ("fedAdam", {"adaptivity": 0.0}, "adaptivity"),
        ("fedAdam", {"decay": -0.1}, "decay"),
        ("fedYogi", {"learningRate": math.nan}, "learningRate"),
    ):
        with pytest.raises(ImpossibleSetting, match=message):
            optimizer_from_parameters(name, parameters)


def test_fed_avg_weighs_by_the_counts_that_the_aggregator_knows() -> None:
    rows = [np.full(SIZE, value) for value in (1.0, 5.0)]
    server = Server(FedAvg(), np.zeros(SIZE))
    result = server.round(rows, fed_avg_weights({"p0": 300, "p1": 100}))
    assert flat(server.previous) == pytest.approx(2.0)
    assert [item.weight for item in result.participants] == [0.75, 0.25]


def test_a_previous_model_of_another_shape_is_refused() -> None:
    given = model("p0", np.zeros(SIZE))
    short = MemoryModel("previous", {"a": np.zeros(3, dtype=np.float32)})
    with pytest.raises(ManifestMismatch):
        federated_round(
            [given],
            WeightedMean(),
            replace(Context(), previous=short),
            server=ServerState(FedAvg()),
            state={},
            sink=MemorySink(),
            state_sinks={},
        )
