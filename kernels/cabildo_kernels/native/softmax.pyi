"""Types of the calls into the softmax family's C code."""

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
    q: NDArray[np.float32],
    k: NDArray[np.float32],
    v: NDArray[np.float32],
    out: NDArray[np.float32],
    *,
    scale: float,
    causal: bool,
    decode: bool,
    path: int,
    threads: int,
) -> bool: ...
def small_matmul(
    a: NDArray[np.float32], b: NDArray[np.float32], out: NDArray[np.float32], *, path: int
) -> None: ...
def exponentials(
    t: NDArray[np.float32], out: NDArray[np.float32], *, path: int
) -> None: ...
