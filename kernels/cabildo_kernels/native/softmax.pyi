from typing import Any

import numpy as np
from numpy.typing import NDArray

def sparse_softmax(
    data: NDArray[np.float32],
    indptr: NDArray[np.int64],
    out: NDArray[np.float32],
    *,
    path: int,
    threads: int,
) -> bool: ...
def moe_topk(
    logits: NDArray[np.float32],
    weights: NDArray[np.float32],
    indices: NDArray[np.int64],
    *,
    renormalise: bool,
    path: int,
    threads: int,
) -> bool: ...
def attention(
    q: NDArray[Any],
    k: NDArray[Any],
    v: NDArray[Any],
    *,
    scale: float | None,
    causal: bool,
    decode: bool,
    path: int,
    threads: int,
) -> NDArray[np.float32] | None: ...
def tiny_matmul(a: NDArray[Any], b: NDArray[Any], *, path: int) -> NDArray[np.float32] | None: ...
def exponentials(t: NDArray[np.float32], out: NDArray[np.float32], *, path: int) -> None: ...
