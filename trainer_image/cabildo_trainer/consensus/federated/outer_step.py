"""The sink that takes an aggregate chunk by chunk and writes the server's step instead.

So every rule that streams, robust or not, can drive every optimiser, and no aggregate is ever held
as a whole. The aggregate arrives in float32, the step is fp64, parameters and state are rounded
once (state to float32).

What it leaves of the aggregate is a digest, so that the step can be checked apart from it.

Here: one pass. Never here: which state belongs to which model (`rounds.py`). Next: the sinks that
it was given.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from cabildo_kernels.fallback.columns import rounded
from cabildo_kernels.fallback.floating_point import default_environment
from cabildo_trainer.consensus.errors import ImpossibleSetting, ManifestMismatch
from cabildo_trainer.consensus.manifests.manifest import ModelFacts, manifest_of
from cabildo_trainer.consensus.sources import TensorSpec, to_float32

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from cabildo_trainer.consensus.federated.optimizers import ServerOptimizer
    from cabildo_trainer.consensus.sinks import ModelSink
    from cabildo_trainer.consensus.sources import ModelSource


class DigestSink:
    """Keeps no more of a model than its digest: that of a model in memory."""

    def __init__(self) -> None:
        self._specs: Mapping[str, TensorSpec] = {}
        self._hashes: dict[str, hashlib._Hash] = {}

    def begin(self, tensors: Mapping[str, TensorSpec]) -> None:
        """Starts a model."""
        self._specs = tensors
        self._hashes = {name: hashlib.sha256() for name in tensors}

    def write(self, name: str, start: int, values: NDArray[Any]) -> None:
        """Hashes the elements of a tensor; they come in order."""
        del start
        self._hashes[name].update(np.ascontiguousarray(values).data)

    def finish(self) -> str:
        """Returns the digest."""
        digests = {name: state.hexdigest() for name, state in self._hashes.items()}
        return manifest_of(self._specs, digests, ModelFacts()).digest


class OuterStepSink:
    """Writes previous + step(aggregate - previous) into a sink, and the new state into others.

    Args:
        optimizer: The step.
        previous: The model that the round started from.
        state: The last round's state by name; empty before the first round.
        sink: Where the new model goes, in the element types of `previous`.
        state_sinks: Where the new state goes, by name, in float32.

    Attributes:
        state_digests: Of the new state, by name, once it is finished.
        aggregate_digest: Of the aggregate in float32, once it is finished.
    """

    def __init__(
        self,
        optimizer: ServerOptimizer,
        *,
        previous: ModelSource,
        state: Mapping[str, ModelSource],
        sink: ModelSink,
        state_sinks: Mapping[str, ModelSink],
    ) -> None:
        self._optimizer, self._previous, self._state = optimizer, previous, state
        self._sink, self._state_sinks = sink, state_sinks
        self._aggregate = DigestSink()
        self.state_digests: dict[str, str] = {}
        self.aggregate_digest = ""

    def begin(self, tensors: Mapping[str, TensorSpec]) -> None:
        """Begins the model and its state."""
        self._aggregate.begin(tensors)
        floating = {name: spec for name, spec in tensors.items() if spec.is_floating}
        for name, spec in floating.items():
            known = self._previous.tensors.get(name)
            if known is None or known.shape != spec.shape:
                raise ManifestMismatch(f"the previous model has no tensor {name} {spec.shape}")
        self._sink.begin(dict(tensors) | {name: self._previous.tensors[name] for name in floating})
        for sink in self._state_sinks.values():
            sink.begin(
                {
                    name: TensorSpec(name=name, dtype="F32", shape=spec.shape)
                    for name, spec in floating.items()
                }
            )

    def write(self, name: str, start: int, values: NDArray[Any]) -> None:
        """Steps from the previous model's elements towards the aggregate's."""
        self._aggregate.write(name, start, values)
        spec = self._previous.tensors[name]
        if not spec.is_floating:
            self._sink.write(name, start, values)
            return
        last = self._previous.read(name, start, start + values.size)
        with default_environment():
            parameters = to_float32(last, dtype=spec.kernel_dtype).astype(np.float64)
            moved, state = self._step(name, start, values.astype(np.float64), parameters)
        self._sink.write(name, start, _checked(moved, spec.kernel_dtype, name=name))
        for key, array in state.items():
            self._state_sinks[key].write(name, start, _checked(array, "f32", name=name))

    def _step(
        self,
        name: str,
        start: int,
        aggregate: NDArray[np.float64],
        parameters: NDArray[np.float64],
    ) -> tuple[NDArray[np.float64], dict[str, NDArray[np.float64]]]:
        state = {
            key: self._before(key, name, start, start + aggregate.size)
            for key in self._optimizer.states
        }
        return self._optimizer.step(parameters, aggregate - parameters, state)

    def finish(self) -> str:
        """Commits the state, then the model, and returns the model's digest."""
        self.aggregate_digest = self._aggregate.finish()
        self.state_digests = {key: sink.finish() for key, sink in self._state_sinks.items()}
        return self._sink.finish()

    def _before(self, key: str, name: str, start: int, stop: int) -> NDArray[np.float64]:
        if not self._state:
            return self._optimizer.initial(key, stop - start)
        return self._state[key].read(name, start, stop).astype(np.float64)


def _checked(values: NDArray[np.float64], dtype: str, *, name: str) -> NDArray[Any]:
    with default_environment():
        result = rounded(values, element_type=dtype)
    if not np.isfinite(to_float32(result, dtype=dtype)).all():
        raise ImpossibleSetting(
            f"the server's step leaves the range of {dtype} in tensor {name}",
            remedy="lower the server's learning rate or momentum, or start from an older state",
        )
    return result
