"""Routing of a mixture of experts: softmax over the experts and the k best, in one pass.

Here: the checks and the choice between compiled code and NumPy; both give the same bits on every
path and number of threads. Never here: a loop over tokens; see `native/` and `fallback/`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from cabildo_kernels import dispatch
from cabildo_kernels.arguments import refuse_no_array, whole_number
from cabildo_kernels.errors import InvalidInput, NonFiniteInput
from cabildo_kernels.fallback import moe as fallback
from cabildo_kernels.fallback.floating_point import default_environment
from cabildo_kernels.layout import in_one_piece
from cabildo_kernels.threads import threads_for

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_EXPERTS: Final = 1 << 16


class Routing(NamedTuple):
    """The experts of each token.

    Attributes:
        weights: [tokens, k], float32, descending.
        indices: [tokens, k], int64.
    """

    weights: NDArray[np.float32]
    indices: NDArray[np.int64]


def moe_topk(
    logits: NDArray[np.float32], k: int, *, renormalise: bool = False, threads: int | None = None
) -> Routing:
    """Return the k experts with the largest logits of each token and their softmax weights.

    No library does this work. The order is that of the logits, so that two experts whose weights
    round to the same number still stand in the order of their logits; equal logits stand by index,
    the lower first. An expert at -inf is masked: its weight is 0 and it is never chosen.
    exp is a polynomial of ours (within 1 unit in the last place; 0 below -87); the sum goes over
    the experts in their order. Source: Shazeer et al. 2017, "Outrageously large neural networks".

    Args:
        logits: [tokens, experts], float32.
        k: 1 to the number of experts.
        renormalise: Divide by the sum over the chosen k (softmax after top-k, as Mixtral does)
            instead of over all experts.
        threads: None: the CPU quota, on inputs above 1 MB. No number changes the result.

    Raises:
        NonFiniteInput: Naming the tokens with NaN or +inf.
        InvalidInput: An argument that is not as described, or tokens with fewer than k experts
            that are not masked.
    """
    k = whole_number("k", k)
    values = _checked(logits, k=k)
    count = threads_for(values.nbytes, asked=threads)
    weights = np.empty((len(values), k), dtype=np.float32)
    indices = np.empty((len(values), k), dtype=np.int64)
    native = dispatch.native("softmax")
    if native is None:
        with default_environment():
            bad = fallback.moe_topk(
                values, k, renormalise=renormalise, weights=weights, indices=indices
            )
        good = len(bad) == 0
    else:
        good = native.moe_topk(
            values,
            weights,
            indices,
            renormalise=renormalise,
            path=dispatch.path(),
            threads=count,
        )
    if not good:
        _refuse(values, k=k)
    return Routing(weights=weights, indices=indices)


def _checked(logits: NDArray[np.float32], *, k: int) -> NDArray[np.float32]:
    if not isinstance(logits, np.ndarray) or logits.ndim != 2 or logits.dtype != np.float32:  # noqa: PLR2004 - tokens and experts
        found = f"{logits.dtype}{logits.shape}" if isinstance(logits, np.ndarray) else type(logits)
        raise InvalidInput(f"logits: {found}; a float32 array [tokens, experts] is needed")
    refuse_no_array("logits", logits)
    experts = logits.shape[1]
    if not 1 <= experts <= MOST_EXPERTS:
        raise InvalidInput(f"logits: {experts} experts; 1 to {MOST_EXPERTS} are taken")
    if not 1 <= k <= experts:
        raise InvalidInput(f"k={k}: 1 to the {experts} experts")
    return in_one_piece(logits)


def _refuse(logits: NDArray[np.float32], *, k: int) -> None:
    rows = np.flatnonzero((np.isnan(logits) | (logits == np.inf)).any(axis=1))
    if len(rows):
        raise NonFiniteInput(rows.tolist())
    short = np.flatnonzero((logits > -np.inf).sum(axis=1) < k)
    names = ", ".join(map(str, short[:8])) + (", ..." if len(short) > 8 else "")  # noqa: PLR2004 - a readable message
    raise InvalidInput(f"logits: fewer than k={k} experts are not masked (-inf) for token {names}")
