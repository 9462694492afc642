"""SCAFFOLD: control variates that take the drift of unlike clients out of their steps.

Karimireddy et al., ICML 2020, arXiv 1910.06378. Client i keeps c_i, the server c. A client steps by
g - c_i + c; after K steps of rate eta from x to y it has c_i' = c_i - c + (x - y) / (K eta) (option
II) and reports y and c_i' - c_i. The server moves by `FedAvg(learning_rate=eta_g)` and adds
sum (c_i' - c_i) / N to c, N all clients, present or not. A record ties c to the model and the round
that it belongs to: that of an earlier round would turn every client's steps.

Here: the clients' arithmetic on arrays and the server's pass over the reports. Never here: a
training loop, or where a client keeps c_i: it is a model like any other, in float32. Next:
`rounds.py` for the server's model.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np

from cabildo_api.consensus_limits import Check, rows_limit
from cabildo_trainer.consensus.context import Context
from cabildo_trainer.consensus.errors import DigestMismatch, ImpossibleSetting, MissingInput
from cabildo_trainer.consensus.federated.records import Record
from cabildo_trainer.consensus.manifests.agreement import agree
from cabildo_trainer.consensus.manifests.canonical_json import canonical_json
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
VERSION: Final = 1


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
            remedy="give the number and the rate of the client's own steps",
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


@dataclass(frozen=True, slots=True)
class ControlState:
    """What ties a server's control variate to the model and the round that it belongs to.

    Attributes:
        clients: N, all clients: c is the mean of their control variates, so N never changes.
        rounds: Rounds done.
        model_digest: Of the model that the last round made.
        digest: Of c.
    """

    clients: int
    rounds: int = 0
    model_digest: str = ""
    digest: str = ""

    def to_bytes(self) -> bytes:
        """Returns canonical JSON: equal states have equal bytes."""
        return canonical_json(
            {
                "version": VERSION,
                "clients": self.clients,
                "rounds": self.rounds,
                "modelDigest": self.model_digest,
                "digest": self.digest,
            }
        )

    @classmethod
    def from_bytes(cls, content: bytes) -> ControlState:
        """Returns the state that `to_bytes` described.

        Raises:
            ImpossibleSetting: It is none, or of another version.
        """
        record = Record.of(
            content,
            version=VERSION,
            what="record of a server's control",
            remedy="start from the record of the last round, or start SCAFFOLD anew",
        )
        return cls(
            clients=record.count("clients", least=1),
            rounds=record.count("rounds"),
            model_digest=record.text("modelDigest"),
            digest=record.text("digest"),
        )


def server_control(
    reports: Sequence[ModelSource],
    *,
    record: ControlState,
    server: ModelSource | None,
    start: ModelSource,
    made: str,
    sink: ModelSink,
) -> ControlState:
    """Writes c + sum (c_i' - c_i) / N into a sink and returns the record for the next round.

    Args:
        reports: c_i' - c_i of the clients that took part, keyed by participant.
        record: Of c; `ControlState(clients)` before the first round.
        server: c; None before the first round, where it is `no_control`.
        start: x, the model that the round started from.
        made: Digest of the model that this round made: the next round's start.
        sink: Where the new c goes.

    Raises:
        DigestMismatch: c belongs to another model or round.
        ImpossibleSetting: No report, more than clients, or more than the kernels take.
        MissingInput: c was not given after the first round.
    """
    n = len(reports)
    require(rows_limit("SCAFFOLD", n=n, trusted_rows=1))
    require(
        Check(
            holds=n <= record.clients,
            arithmetic=f"SCAFFOLD needs reports <= clients: {n} reports, {record.clients} clients",
            remedy="count all clients in the record, present or not",
        )
    )
    control = _current(record, server, start)
    ordered = tuple(sorted(reports, key=lambda report: report.key.encode()))
    agree(ordered, base=control)
    divisor = float(record.clients)
    recipe = WeightedSum(weights=(1.0,) * n, start_weight=divisor, divisor=divisor)
    apply(Session(sources=ordered, f=0, context=Context(previous=control)), recipe, sink=sink)
    return replace(record, rounds=record.rounds + 1, model_digest=made, digest=sink.finish())


def _current(record: ControlState, server: ModelSource | None, start: ModelSource) -> ModelSource:
    """Returns c, refusing that of another model or round."""
    if record.rounds == 0:
        if server is not None:
            raise ImpossibleSetting(
                "a server's control was given with the record of a server that has done no round",
                remedy="give the record that belongs to it, or no control",
            )
        return no_control("server", start)
    if server is None:
        raise MissingInput(
            f"the server's control of round {record.rounds} was not given",
            remedy="give the control that the last round made, or start SCAFFOLD anew",
        )
    if record.model_digest != start.digest:
        raise DigestMismatch(
            f"the server's control of round {record.rounds} belongs to the model"
            f" {record.model_digest}, and the round started from {start.digest}",
            remedy="give the record and the control of the last round, or start SCAFFOLD anew",
        )
    if record.digest != server.digest:
        raise DigestMismatch(
            f"the server's control is {server.digest}, and the record of round {record.rounds}"
            f" says {record.digest}",
            remedy="give the control that the last round made",
        )
    return server
