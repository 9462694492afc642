from typing import Any

from numpy.typing import NDArray

def eigen(
    path: int,
    matrices: NDArray[Any],
    values: NDArray[Any],
    vectors: NDArray[Any] | None = ...,
    *,
    sweeps: int,
    threads: int = ...,
) -> bool: ...
def top_of_subsets(
    path: int,
    gram: NDArray[Any],
    subsets: NDArray[Any],
    values: NDArray[Any],
    *,
    sweeps: int,
    threads: int = ...,
) -> bool: ...
