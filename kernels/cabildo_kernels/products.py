"""Matrix products: our own loop where calling a library costs more than the work, else a library.

Here: the choice. Never here: a blocked product of our own; nobody beats the BLAS at large sizes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from cabildo_kernels import dispatch, libraries
from cabildo_kernels.arguments import refuse_no_array
from cabildo_kernels.errors import InvalidInput

if TYPE_CHECKING:
    from numpy.typing import NDArray

OWN_SIZE: Final = 16 * 16
"""The compiled loop takes float32 matrices of at most 16 rows and columns: these many elements."""

_MATRIX_AXES: Final = 2


def matmul(a: NDArray[Any], b: NDArray[Any], *, dtype: str | None = None) -> NDArray[Any]:
    """Return a @ b.

    | operands | who does the work (measured: `make bench-kernels`, cases matmul*) |
    |---|---|
    | float32, contiguous, every axis at most 16 | our loop, compiled: calling the BLAS costs more |
    | anything else but halves | np.matmul (its BLAS) |
    | float16 | np.matmul on float32, rounded once: NumPy has but a slow loop for halves |
    | bf16, the CPU has bf16 units and torch is installed | torch |
    | bf16 elsewhere | np.matmul on float32, rounded once: torch is 20 times slower there |

    Args:
        a: [m, k], or with leading axes as np.matmul takes them.
        b: [k, n].
        dtype: "bf16" where uint16 arrays hold bf16; None reads the type off the arrays.

    Returns:
        [m, n] of the operands' type; bf16 as uint16.

    Raises:
        InvalidInput: Operands that are no NumPy arrays or have a mask, bf16 ones that are not
            uint16 matrices, or an unknown dtype. Other shapes that do not fit are np.matmul's
            ValueError.
    """
    if dtype is None:
        if type(a) is type(b) is np.ndarray and a.size <= OWN_SIZE >= b.size:
            native = dispatch.native("softmax")
            own: NDArray[np.float32] | None = (
                native.tiny_matmul(a, b, path=dispatch.path()) if native is not None else None
            )
            if own is not None:
                return own
        refuse_no_array("a", a)
        refuse_no_array("b", b)
        product: NDArray[Any] = (
            np.matmul(a.astype(np.float32), b.astype(np.float32)).astype(np.float16)
            if a.dtype.char == b.dtype.char == "e"  # halves
            else np.matmul(a, b)
        )
        return product
    if dtype != "bf16":
        raise InvalidInput(f"dtype={dtype!r}: 'bf16' for uint16 arrays that hold it, or None")
    for name, array in (("a", a), ("b", b)):
        refuse_no_array(name, array)
        if array.dtype != np.uint16:
            raise InvalidInput(f"{name}: bf16 is held in uint16 arrays")
        if array.ndim < _MATRIX_AXES:
            raise InvalidInput(f"{name}: shape {array.shape}; a matrix is needed")
    return _bf16(a, b)


def _bf16(a: NDArray[np.uint16], b: NDArray[np.uint16]) -> NDArray[np.uint16]:
    torch = libraries.torch() if libraries.has_bf16_units() else None
    if torch is None:
        return rounded_to_bf16(np.matmul(widened(a), widened(b)))
    if a.shape[-1] != b.shape[-2]:
        raise InvalidInput(f"a, b: shapes {a.shape} and {b.shape} do not fit")
    product = torch.matmul(_bf16_tensor(torch, a), _bf16_tensor(torch, b))
    result: NDArray[np.int16] = product.view(torch.int16).numpy()
    return result.view(np.uint16)


def _bf16_tensor(torch: Any, array: NDArray[np.uint16]) -> Any:
    writable = array if array.flags.writeable else array.copy()  # torch takes no others
    return torch.from_numpy(writable.view(np.int16)).view(torch.bfloat16)


def widened(array: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Return bf16 as float32: exact."""
    return (array.astype(np.uint32) << np.uint32(16)).view(np.float32)


def rounded_to_bf16(array: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Return float32 rounded to bf16, nearest even; NaN stays NaN."""
    bits = np.ascontiguousarray(array).view(np.uint32)
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    rounded = ((bits + np.uint32(0x7FFF) + odd) >> np.uint32(16)).astype(np.uint16)
    quiet = (bits >> np.uint32(16)).astype(np.uint16) | np.uint16(0x40)
    return np.where(np.isnan(array), quiet, rounded)
