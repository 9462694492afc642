"""Where models come from: named tensors that are read in runs of elements.

Here: the protocol of a source, and models in memory. Never here: files; they are in
`safetensors_files.py`. Next: `passes.py` reads sources chunk by chunk.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from cabildo_trainer.consensus.errors import ManifestMismatch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

FLOATING: Final = {"F32": "f32", "F16": "f16", "BF16": "bf16"}
"""Element types that rules work on: safetensors' spelling to the kernels'."""
INTEGERS: Final = frozenset({"BOOL", "U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64"})
"""Element types that are carried along: equal everywhere, or under a named policy."""
NUMPY_TYPES: Final = {
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "BOOL": "|b1",
    "U8": "|u1",
    "I8": "|i1",
    "U16": "<u2",
    "I16": "<i2",
    "U32": "<u4",
    "I32": "<i4",
    "U64": "<u8",
    "I64": "<i8",
}
"""What `read` returns for each element type; BF16 has no NumPy type and comes as its 16 bits."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, element type (safetensors' spelling: F32, BF16, I64 ...) and shape of a tensor."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def is_floating(self) -> bool:
        """Whether rules compute on it; other tensors are carried along."""
        return self.dtype in FLOATING

    @property
    def kernel_dtype(self) -> str:
        """The kernels' name of a floating element type: f32, f16 or bf16."""
        return FLOATING[self.dtype]


class ModelSource(Protocol):
    """A model that can be read in pieces: a participant's, the base, the previous one."""

    @property
    def key(self) -> str:
        """The participant's key; rows are sorted by it. For other models, their role."""

    @property
    def digest(self) -> str:
        """`sha256:<hex>` of the model's manifest."""

    @property
    def tensors(self) -> Mapping[str, TensorSpec]:
        """The tensors by name."""

    def read(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Returns elements [start, stop) in C order, as in `NUMPY_TYPES`."""


class MemoryModel:
    """A model in memory.

    Args:
        key: The participant's key.
        arrays: Tensors by name; float32, float16, integers, booleans, and uint16 for BF16.
        bf16: Names of the uint16 tensors that hold BF16.
    """

    def __init__(
        self, key: str, arrays: Mapping[str, NDArray[Any]], *, bf16: frozenset[str] = frozenset()
    ) -> None:
        self.key = key
        self._flat: dict[str, NDArray[Any]] = {}
        tensors: dict[str, TensorSpec] = {}
        for name in sorted(arrays, key=str.encode):
            array = np.asarray(arrays[name])
            dtype = "BF16" if name in bf16 else _element_type(name, array.dtype)
            tensors[name] = TensorSpec(name=name, dtype=dtype, shape=array.shape)
            self._flat[name] = np.ascontiguousarray(array).reshape(-1)
        self.tensors: Mapping[str, TensorSpec] = tensors

    @cached_property
    def digest(self) -> str:
        """The digest of the model's manifest: that of a file with the same tensors."""
        from cabildo_trainer.consensus.manifests.manifest import model_digest  # noqa: PLC0415 - needs us

        return model_digest(self)

    def read(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Returns elements [start, stop) of a tensor; a view that must not be written."""
        view = self._flat[name][start:stop]
        view.flags.writeable = False
        return view

    def array(self, name: str) -> NDArray[Any]:
        """Returns a whole tensor in its shape."""
        return self._flat[name].reshape(self.tensors[name].shape)


def _element_type(name: str, dtype: np.dtype[Any]) -> str:
    for element_type, spelling in NUMPY_TYPES.items():
        if element_type != "BF16" and np.dtype(spelling) == dtype:
            return element_type
    raise ManifestMismatch(
        f"tensor {name}: no rule works on element type {dtype}",
        remedy="convert the tensor to float32, float16 or bfloat16",
    )


def to_float32(values: NDArray[Any], *, dtype: str) -> NDArray[np.float32]:
    """Returns floating elements as float32, exactly; `dtype` is the kernels' name."""
    if dtype == "bf16":
        return (values.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return values.astype(np.float32, copy=False)
