"""Cabildo's arithmetic over many models: compiled kernels with a NumPy fallback of the same bits.

Here: the public names. The same inputs give the same bits on any machine, path and number of
threads (`grid`), with two exceptions that hand work to a library and then give the library's bits:
`fast_attention` on prompts (`prefill` and `decode_attention` are ours) and `matmul` above 16 x 16
float32. Never here: what a result means; the merging rules call these kernels and decide.
Start at `columns` for rules on one parameter of all models; `dispatch` chooses the path.
"""

from __future__ import annotations

from cabildo_kernels.attention import decode_attention, fast_attention, prefill
from cabildo_kernels.columns import mean_around_median, median, mix, trimmed_mean, weighted_sum
from cabildo_kernels.csr_softmax import sparse_softmax
from cabildo_kernels.dispatch import Info, info
from cabildo_kernels.errors import InvalidInput, KernelError, NonFiniteInput, UnavailablePath
from cabildo_kernels.gram_matrix import dots, gram
from cabildo_kernels.grid import BLOCK, GRID_VERSION, SUPERBLOCK
from cabildo_kernels.linear_algebra import (
    jacobi_eigen,
    smallest_diameter_subset,
    squared_distances,
    top_eigenvalues_of_subsets,
)
from cabildo_kernels.moe import Routing, moe_topk
from cabildo_kernels.products import matmul
from cabildo_kernels.task_vectors import combine_task_vectors, find_magnitude, magnitude_counts

__all__ = [
    "BLOCK",
    "GRID_VERSION",
    "SUPERBLOCK",
    "Info",
    "InvalidInput",
    "KernelError",
    "NonFiniteInput",
    "Routing",
    "UnavailablePath",
    "combine_task_vectors",
    "decode_attention",
    "dots",
    "fast_attention",
    "find_magnitude",
    "gram",
    "info",
    "jacobi_eigen",
    "magnitude_counts",
    "matmul",
    "mean_around_median",
    "median",
    "mix",
    "moe_topk",
    "prefill",
    "smallest_diameter_subset",
    "sparse_softmax",
    "squared_distances",
    "top_eigenvalues_of_subsets",
    "trimmed_mean",
    "weighted_sum",
]
