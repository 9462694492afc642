"""What the kernels refuse, and why.

    KernelError
    +-- InvalidInput      (also ValueError)  rows, types or parameters that no kernel takes
    +-- NonFiniteInput    (also ValueError)  NaN or infinity among the rows, which are named
    +-- UnavailablePath   (also RuntimeError) a path that was asked for and that this CPU lacks

Here: the exceptions. Never here: deciding what follows from one; the merging rules do that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterable


class KernelError(Exception):
    """Base of everything that this package raises on purpose."""

    reason: ClassVar[str] = "KernelError"


class InvalidInput(KernelError, ValueError):
    """An argument that no kernel takes; the message names it and says what is taken."""

    reason = "InvalidInput"


class NonFiniteInput(KernelError, ValueError):
    """NaN or infinity among the rows.

    Attributes:
        rows: Indices of all rows that hold such a value, ascending.
    """

    reason = "NonFiniteInput"

    def __init__(self, rows: Iterable[int]) -> None:
        self.rows = tuple(sorted(rows))
        names = ", ".join(str(row) for row in self.rows)
        super().__init__(f"NaN or infinity in row {names}: leave these rows out")

    def __reduce__(self) -> tuple[type[NonFiniteInput], tuple[tuple[int, ...]]]:
        # An exception is copied by its message otherwise, whose characters are no rows.
        return type(self), (self.rows,)


class UnavailablePath(KernelError, RuntimeError):
    """CABILDO_KERNELS_ISA names a path that cannot run here; the message lists those that can."""

    reason = "UnavailablePath"
