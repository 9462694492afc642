"""Matrix products: our own loop for tiny ones, where a library gains nothing, else a library.

Here: the choice, by type and shape alone. Never here: a blocked product of our own; nobody beats
the BLAS at large sizes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from cabildo_kernels import dispatch, libraries
from cabildo_kernels.arguments import refuse_no_array
from cabildo_kernels.errors import InvalidInput
from cabildo_kernels.fallback import products as fallback
from cabildo_kernels.fallback.floating_point import default_environment

if TYPE_CHECKING:
    from numpy.typing import NDArray

OWN_AXIS: Final = 16
"""Our loop takes float32 matrices of at most so many rows and columns; as TINY in
native/softmax.pyx.

A bare np.matmul takes as long (ours is 0.90 of its time at 4, 1.03 to 1.07 at 16), but it cannot be
had here: finding out that the work is the library's costs another 0.4 us, half of such a product.
"""
OWN_SIZE: Final = OWN_AXIS * OWN_AXIS

_MATRIX_AXES: Final = 2
_UINT16: Final = np.dtype(np.uint16)


def matmul(a: NDArray[Any], b: NDArray[Any], *, dtype: str | None = None) -> NDArray[Any]:
    """Return a @ b.

    | operands | who does the work (measured: `make bench-kernels`, cases matmul*) |
    |---|---|
    | two float32 matrices, every axis 1 to 16 | our loop: as fast as np.matmul called directly |
    | anything else but halves | np.matmul (its BLAS) |
    | float16 | np.matmul on float32, rounded once: NumPy has but a slow loop for halves |
    | bf16, the CPU has bf16 units and torch is installed | torch |
    | bf16 elsewhere | np.matmul on float32, rounded once: torch is 20 times slower there |

    Our loop's sums go in the order of k from +0: the same bits on every path and machine (which
    NaN comes of a NaN is left open). Every other row gives the library's bits, which differ
    between builds and CPUs. NaN and infinity are not refused.

    Args:
        a: [m, k], or with leading axes as np.matmul takes them.
        b: [k, n].
        dtype: "bf16" where uint16 arrays hold bf16; None reads the type off the arrays.

    Returns:
        [m, n] of the operands' type; bf16 as uint16.

    Raises:
        InvalidInput: Operands that are no NumPy arrays or have a mask, bf16 ones that are not
            uint16 matrices or do not fit each other, or an unknown dtype. Other shapes that do
            not fit are np.matmul's ValueError.
    """
    if dtype is None:
        if type(a) is type(b) is np.ndarray and a.size <= OWN_SIZE >= b.size:
            native = dispatch.native("softmax")
            own: NDArray[np.float32] | None = (
                native.tiny_matmul(a, b, path=dispatch.path()) if native is not None else None
            )
            own = own if own is not None else _tiny(a, b)
            if own is not None:
                return own
        refuse_no_array("a", a)
        refuse_no_array("b", b)
        if not type(a) is type(b) is np.ndarray:  # a memmap, say: its values decide, as any array's
            return matmul(np.asarray(a), np.asarray(b))
        product: NDArray[Any] = (
            np.matmul(a.astype(np.float32), b.astype(np.float32)).astype(np.float16)
            if a.dtype.char == b.dtype.char == "e"  # halves
            else np.matmul(a, b)
        )
        return product
    if dtype != "bf16":
        raise InvalidInput(f"dtype={dtype!r}: 'bf16' for uint16 arrays that hold it, or None")
    _refuse_no_bf16(a, b)
    return _bf16(a, b)


def _tiny(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float32] | None:
    """Return the product of matrices that are our loop's, however they lie; None for others."""
    if not (
        a.dtype == b.dtype == np.float32
        and a.ndim == b.ndim == _MATRIX_AXES
        and all(1 <= axis <= OWN_AXIS for axis in a.shape + b.shape)
        and a.shape[1] == b.shape[0]
    ):
        return None
    native = dispatch.native("softmax")
    if native is not None:  # it refused gaps or the alignment: a copy has neither
        own: NDArray[np.float32] = native.tiny_matmul(a.copy(), b.copy(), path=dispatch.path())
        return own
    with default_environment():
        return fallback.small_matmul(a, b)


def _refuse_no_bf16(a: NDArray[Any], b: NDArray[Any]) -> None:
    for name, array in (("a", a), ("b", b)):
        refuse_no_array(name, array)
        if array.dtype != _UINT16:
            raise InvalidInput(f"{name}: bf16 is held in uint16 arrays")
        if array.ndim < _MATRIX_AXES:
            raise InvalidInput(f"{name}: shape {array.shape}; a matrix is needed")
    if a.ndim == b.ndim == _MATRIX_AXES and a.shape[1] == b.shape[0]:
        return
    shapes = f"a, b: shapes {a.shape} and {b.shape} do not fit"
    if a.shape[-1] != b.shape[-2]:
        raise InvalidInput(f"{shapes}: a's last axis must be b's last but one")
    try:
        np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    except ValueError as error:
        raise InvalidInput(f"{shapes}: leading axes must be equal, or 1") from error


def _bf16(a: NDArray[np.uint16], b: NDArray[np.uint16]) -> NDArray[np.uint16]:
    torch = libraries.torch() if libraries.has_bf16_units() else None
    if torch is None:
        return rounded_to_bf16(np.matmul(widened(a), widened(b)))
    product = torch.matmul(_bf16_tensor(torch, a), _bf16_tensor(torch, b))
    result: NDArray[np.uint16] = product.view(torch.uint16).numpy()
    return result


def _bf16_tensor(torch: Any, array: NDArray[np.uint16]) -> Any:
    flags = array.flags
    # torch takes no others: neither backwards nor off their alignment.
    usable = flags.carray or (flags.behaved and min(array.strides) >= 0)
    return torch.from_numpy(array if usable else array.copy()).view(torch.bfloat16)


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
