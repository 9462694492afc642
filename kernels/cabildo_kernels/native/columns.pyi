from typing import Any

from numpy.typing import NDArray

def run(
    path: int,
    rule: int,
    rows: tuple[NDArray[Any], ...],
    types: bytes,
    columns: int,
    out: NDArray[Any],
    out_type: int,
    *,
    threads: int = ...,
    trim: int = ...,
    keep: int = ...,
    weights: NDArray[Any] | None = ...,
    divisor: float = ...,
) -> bool: ...
