from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

def histogram(
    row: NDArray[Any],
    kind: int,
    base: NDArray[Any] | None,
    base_kind: int,
    prefix: int,
    counts: NDArray[Any],
    path: int,
) -> None: ...
def find(
    row: NDArray[Any],
    kind: int,
    base: NDArray[Any] | None,
    base_kind: int,
    bits: int,
    nth: int,
    path: int,
) -> tuple[int, int]: ...
def combine(
    rows: Sequence[NDArray[Any]],
    kinds: Sequence[int],
    base: NDArray[Any],
    base_kind: int,
    start: int,
    weights: NDArray[Any],
    votes: NDArray[Any],
    bounds: tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]],
    factors: Sequence[NDArray[Any] | None] | None,
    columns: NDArray[Any] | None,
    elect: int,
    normalise: bool,
    scale: float,
    out: NDArray[Any],
    out_kind: int,
    path: int,
    threads: int,
) -> tuple[int, bool]: ...
