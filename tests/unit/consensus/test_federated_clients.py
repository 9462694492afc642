"""What federated clients compute: FedProx's term, and SCAFFOLD against clients that drift."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from cabildo_trainer.consensus.context import Context
from cabildo_trainer.consensus.errors import (
    DigestMismatch,
    ImpossibleSetting,
    ManifestMismatch,
    MissingInput,
)
from cabildo_trainer.consensus.federated import control_variates, proximal
from cabildo_trainer.consensus.federated.control_variates import ControlState
from cabildo_trainer.consensus.federated.optimizers import FedAvg
from cabildo_trainer.consensus.federated.rounds import ServerState, federated_round
from cabildo_trainer.consensus.robust.means import WeightedMean
from cabildo_trainer.consensus.sinks import MemorySink
from cabildo_trainer.consensus.sources import MemoryModel


def test_the_proximal_gradient_is_that_of_the_proximal_term() -> None:
    rng = np.random.default_rng(0)
    start = [torch.from_numpy(rng.normal(size=(3, 4))), torch.from_numpy(rng.normal(size=5))]
    now = [(value + 0.5).requires_grad_() for value in start]
    term = proximal.proximal_term(now, start, mu=0.3)
    assert term.item() == pytest.approx(0.5 * 0.3 * 17 * 0.25)
    term.backward()
    for value, then in zip(now, start, strict=True):
        wanted = proximal.proximal_gradient(value.detach(), then, mu=0.3)
        torch.testing.assert_close(value.grad, wanted)
    arrays = [value.detach().numpy() for value in now]
    plain = proximal.proximal_term(arrays, [value.numpy() for value in start], mu=0.3)
    assert plain == pytest.approx(term.item())
    with pytest.raises(ValueError, match="mu"):
        proximal.proximal_term(arrays, arrays, mu=-1.0)
    with pytest.raises(ValueError, match="zip"):
        proximal.proximal_term(arrays, arrays[:1], mu=1.0)


class Quadratic:
    """Clients with unlike curvatures: FedAvg's clients drift, SCAFFOLD's do not."""

    def __init__(self) -> None:
        self.curvatures = (np.array([1.0, 10.0]), np.array([10.0, 1.0]))
        self.minima = (np.array([1.0, 0.0]), np.array([0.0, 1.0]))
        total = self.curvatures[0] + self.curvatures[1]
        self.optimum = sum(c * m for c, m in zip(self.curvatures, self.minima, strict=True)) / total

    def gradient(self, client: int, x: Any) -> Any:
        return self.curvatures[client] * (x - self.minima[client])


def trained(scaffold: bool, *, steps: int = 20, rate: float = 0.02, count: int = 120) -> Any:
    problem = Quadratic()
    x = MemoryModel("previous", {"w": np.zeros(2, dtype=np.float32)})
    server, record = control_variates.no_control("server", x), ControlState(clients=2)
    own = [control_variates.no_control(f"c{client}", x) for client in range(2)]
    for _ in range(count):
        reached, reports = [], []
        for client in range(2):
            y = x.array("w").astype(np.float64)
            for _ in range(steps):
                gradient = problem.gradient(client, y)
                if scaffold:
                    gradient = control_variates.corrected_gradient(
                        gradient, own=own[client].array("w"), server=server.array("w")
                    )
                y = y - rate * gradient
            model_reached = MemoryModel(f"c{client}", {"w": y.astype(np.float32)})
            control, report = control_variates.new_control(
                own={"w": own[client].array("w")},
                server={"w": server.array("w")},
                start={"w": x.array("w")},
                reached={"w": model_reached.array("w")},
                steps=steps,
                rate=rate,
            )
            own[client] = MemoryModel(f"c{client}", control)
            reports.append(MemoryModel(f"c{client}", report))
            reached.append(model_reached)
        sink, control_sink = MemorySink(), MemorySink(key="server")
        result, _ = federated_round(
            reached,
            WeightedMean(),
            Context(previous=x),
            server=ServerState(FedAvg()),
            state={},
            sink=sink,
            state_sinks={},
        )
        record = control_variates.server_control(
            reports,
            record=ControlState.from_bytes(record.to_bytes()),
            server=server if record.rounds else None,
            start=x,
            made=result.output_digest,
            sink=control_sink,
        )
        x, server = sink.model(), control_sink.model()
    return np.linalg.norm(x.array("w") - problem.optimum), own, server


def test_scaffold_reaches_the_optimum_that_drifting_clients_miss() -> None:
    plain, _, _ = trained(scaffold=False)
    corrected, own, server = trained(scaffold=True)
    assert plain > 0.02
    assert corrected < 1e-4
    # The server's control variate stays the mean of the clients'.
    mean = np.mean([item.array("w") for item in own], axis=0)
    np.testing.assert_allclose(server.array("w"), mean, atol=1e-4)


START = MemoryModel("previous", {"w": np.zeros(2, dtype=np.float32)})


def control_of(*values: float) -> MemoryModel:
    return MemoryModel("server", {"w": np.array(values, dtype=np.float32)})


def record_of(server: MemoryModel, *, clients: int = 4) -> ControlState:
    return ControlState(clients=clients, rounds=1, model_digest=START.digest, digest=server.digest)


def control_after(
    reports: list[MemoryModel], record: ControlState, server: MemoryModel | None, **options: Any
) -> tuple[ControlState, MemorySink]:
    sink = MemorySink()
    options = {"start": START, "made": "sha256:made", **options}
    after = control_variates.server_control(
        reports, record=record, server=server, sink=sink, **options
    )
    return after, sink


def test_clients_that_are_away_leave_their_part_of_the_servers_control() -> None:
    server = control_of(1.0, -2.0)
    report = MemoryModel("c0", {"w": np.array([4.0, 8.0], dtype=np.float32)})
    after, sink = control_after([report], record_of(server), server)
    assert sink.tensors["w"].tolist() == [2.0, 0.0]
    assert after == ControlState(
        clients=4, rounds=2, model_digest="sha256:made", digest=sink.model().digest
    )
    for reports, clients in (([], 2), ([report], 0)):
        with pytest.raises(ImpossibleSetting) as refused:
            control_after(reports, record_of(server, clients=clients), server)
        assert refused.value.remedy
    other = MemoryModel("c1", {"v": np.zeros(2, dtype=np.float32)})
    with pytest.raises(ManifestMismatch):
        control_after([report, other], record_of(server), server)
    arrays = {"w": np.zeros(2, dtype=np.float32)}
    for steps, rate in ((0, 0.1), (1, 0.0)):
        with pytest.raises(ImpossibleSetting):
            control_variates.new_control(
                own=arrays, server=arrays, start=arrays, reached=arrays, steps=steps, rate=rate
            )


def test_a_server_control_of_another_model_round_or_content_is_refused() -> None:
    report = MemoryModel("c0", {"w": np.array([4.0, 8.0], dtype=np.float32)})
    first, sink = control_after([report], ControlState(clients=4), None, made=START.digest)
    assert sink.tensors["w"].tolist() == [1.0, 2.0]
    stale = sink.model()
    second, sink = control_after([report], first, stale)
    # The record of round 2 with the control of round 1, and both of round 1 for the next model.
    moved = MemoryModel("previous", {"w": np.ones(2, dtype=np.float32)})
    second = replace(second, model_digest=moved.digest)
    with pytest.raises(DigestMismatch, match="record of round 2"):
        control_after([report], second, stale, start=moved)
    with pytest.raises(DigestMismatch, match="belongs to the model"):
        control_after([report], first, stale, start=moved)
    assert control_after([report], second, sink.model(), start=moved)[0].rounds == 3
    with pytest.raises(MissingInput, match="round 2"):
        control_after([report], second, None, start=moved)
    with pytest.raises(ImpossibleSetting, match="no round"):
        control_after([report], ControlState(clients=4), stale)
    text = second.to_bytes()
    assert ControlState.from_bytes(text) == second
    for broken in (b"{}", b"[]", b"\xff", text.replace(b'"version":1', b'"version":2')):
        with pytest.raises(ImpossibleSetting):
            ControlState.from_bytes(broken)
