"""Where a merged model goes: begun once a pass, written in order, finished with a digest.

Here: the protocol of a sink, and the sink in memory. Never here: files; they are in
`safetensors_files.py`. Next: `merging.py` writes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from cabildo_trainer.consensus.sources import NUMPY_TYPES, MemoryModel

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from cabildo_trainer.consensus.sources import ModelSource, TensorSpec


class ModelSink(Protocol):
    """Takes a model tensor by tensor, in byte order of name, each from its first element on."""

    def begin(self, tensors: Mapping[str, TensorSpec]) -> None:
        """Starts a model. Called again, it throws away what was written since the last call."""

    def write(self, name: str, start: int, values: NDArray[Any]) -> None:
        """Takes the elements of a tensor from `start` on."""

    def finish(self) -> str:
        """Commits the model and returns its digest."""


class WorkingSink(ModelSink, Protocol):
    """A sink whose model can be read once it is written: a place for candidates."""

    def model(self) -> ModelSource:
        """Returns what was written."""


class MemorySink:
    """Keeps the model in memory.

    Attributes:
        tensors: The arrays by name, in their shapes.
    """

    def __init__(self, *, key: str = "output") -> None:
        self.key = key
        self.tensors: dict[str, NDArray[Any]] = {}
        self._specs: Mapping[str, TensorSpec] = {}

    def begin(self, tensors: Mapping[str, TensorSpec]) -> None:
        """Makes room."""
        self._specs = tensors
        self.tensors = {
            name: np.empty(spec.shape, dtype=NUMPY_TYPES[spec.dtype])
            for name, spec in tensors.items()
        }

    def write(self, name: str, start: int, values: NDArray[Any]) -> None:
        """Copies elements."""
        self.tensors[name].reshape(-1)[start : start + values.size] = values

    def finish(self) -> str:
        """Returns the digest."""
        return self.model().digest

    def model(self) -> MemoryModel:
        """Returns what was written as a source."""
        bf16 = frozenset(name for name, spec in self._specs.items() if spec.dtype == "BF16")
        return MemoryModel(self.key, self.tensors, bf16=bf16)
