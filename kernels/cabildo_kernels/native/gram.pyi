from typing import Any

from numpy.typing import NDArray

WIDE: int
NARROW: int

def run(
    path: int,
    rows: tuple[NDArray[Any], ...],
    types: bytes,
    columns: int,
    first: int,
    sums: NDArray[Any],
    *,
    base: NDArray[Any] | None = ...,
    base_type: int = ...,
    vector: NDArray[Any] | None = ...,
    vector_type: int = ...,
    threads: int = ...,
) -> None: ...
def add(total: NDArray[Any], sums: NDArray[Any]) -> None: ...
