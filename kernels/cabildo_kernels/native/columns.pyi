from numpy.typing import NDArray

def run(
    path: int,
    rule: int,
    rows: tuple[NDArray, ...],
    types: bytes,
    columns: int,
    out: NDArray,
    out_type: int,
    *,
    threads: int = ...,
    trim: int = ...,
    keep: int = ...,
    weights: NDArray | None = ...,
    divisor: float = ...,
) -> bool: ...
