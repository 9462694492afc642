"""SCAFFOLD: control variates that take the drift of unlike clients out of their steps.

Karimireddy et al., ICML 2020, arXiv 1910.06378. Client i keeps c_i, the server c. A client steps by
g - c_i + c; after K steps of rate eta from x to y it has c_i' = c_i - c + (x - y) / (K eta) (option
II) and reports y and c_i' - c_i. The server moves by `FedAvg(learning_rate=eta_g)` and adds
sum (c_i' - c_i) / N to c, N all clients, present or not.

Here: the clients' arithmetic on arrays and the server's pass over the reports. Never here: a
training loop, or where a client keeps c_i: it is a model like any other, in float32. Next:
`rounds.py` for the server's model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from cabildo_api.consensus_limits import Check
from cabildo_trainer.consensus.context import Context
from cabildo_trainer.consensus.manifests.agreement import agree
from cabildo_trainer.consensus.passes import Session, apply
from cabildo_trainer.consensus.recipes import WeightedSum
from cabildo_trainer.consensus.rule import require
from cabildo_trainer.consensus.sources import MemoryModel

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from cabildo_trainer.consensus.sinks import ModelSink
    from cabildo_trainer.consensus.sources import ModelSource

    Arrays = Mapping[str, NDArray[np.float32]]

T = TypeVar("T")


def corrected_gradient(gradient: T, *, own: T, server: T) -> T:
    """Returns g - c_i + c, for torch tensors and NumPy arrays alike."""
    value: Any = gradient
    corrected: T = value - own + server
    return corrected


def no_control(key: str, like: ModelSource) -> MemoryModel:
    """Returns the control variate before the first round: zeros of the floating tensors' shapes."""
    return MemoryModel(
        key,
        {
            name: np.zeros(spec.shape, dtype=np.float32)
            for name, spec in like.tensors.items()
            if spec.is_floating
        },
    )


def new_control(
    *, own: Arrays, server: Arrays, start: Arrays, reached: Arrays, steps: int, rate: float
) -> tuple[dict[str, NDArray[np.float32]], dict[str, NDArray[np.float32]]]:
    """Returns (c_i', c_i' - c_i) by tensor: fp64, each rounded once to float32.

    Args:
        own: c_i.
        server: c of this round.
        start: x, the model that the round started from.
        reached: y, the client's model after its steps.
        steps: K >= 1.
        rate: eta > 0, the rate of the steps.
    """
    require(
        Check(
            holds=steps >= 1 and 0.0 < rate < float("inf"),
            arithmetic=f"SCAFFOLD needs steps >= 1 and rate > 0: steps = {steps}, rate = {rate!r}",
        )
    )
    control, report = {}, {}
    for name, last in own.items():
        before = last.astype(np.float64)
        moved = start[name].astype(np.float64) - reached[name].astype(np.float64)
        now = (before - server[name].astype(np.float64)) + moved / (steps * rate)
        control[name] = now.astype(np.float32)
        # The report is the difference of what is kept, so that server and clients never drift.
        report[name] = (control[name].astype(np.float64) - before).astype(np.float32)
    return control, report


def server_control(
    reports: Sequence[ModelSource], *, server: ModelSource, clients: int, sink: ModelSink
) -> str:
    """Writes c + sum (c_i' - c_i) / N into a sink and returns its digest.

    Args:
        reports: c_i' - c_i of the clients that took part, keyed by participant.
        server: c.
        clients: N, all clients.
        sink: Where the new c goes.
    """
    n = len(reports)
    require(
        Check(
            holds=1 <= n <= clients,
            arithmetic=f"SCAFFOLD needs 1 <= reports <= clients: {n} reports, {clients} clients",
        )
    )
    ordered = tuple(sorted(reports, key=lambda report: report.key.encode()))
    agree(ordered, base=server)
    recipe = WeightedSum(weights=(1.0,) * n, start_weight=float(clients), divisor=float(clients))
    apply(Session(sources=ordered, f=0, context=Context(previous=server)), recipe, sink=sink)
    return sink.finish()
