"""FedProx at the client: a loss that holds it near the model that the round started from.

Li et al., "Federated optimization in heterogeneous networks", MLSys 2020, arXiv 1812.06127:
minimise loss(w) + mu/2 |w - w_t|^2. The server's side is that of FedAvg.

Here: the term and its gradient, for torch tensors and NumPy arrays alike. Never here: a training
loop. Next: the client adds the term to its loss, or the gradient to its gradient.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable

T = TypeVar("T")


def proximal_term(parameters: Iterable[T], start: Iterable[T], *, mu: float) -> T:
    """Returns mu/2 sum |w - w_t|^2 over all tensors.

    Args:
        parameters: The client's tensors; torch differentiates through them.
        start: The tensors that the round started from, in the same order, detached.
        mu: Strength, >= 0.

    Raises:
        ValueError: mu is below zero, or the lengths differ.
    """
    if not mu >= 0.0:
        raise ValueError(f"mu = {mu!r}: a number >= 0 is needed")
    total: Any = 0.0
    tensors: Any = zip(parameters, start, strict=True)
    for now, then in tensors:
        difference = now - then
        total = total + (difference * difference).sum()
    result: T = 0.5 * mu * total
    return result


def proximal_gradient(parameters: T, start: T, *, mu: float) -> T:
    """Returns mu (w - w_t), the term's gradient in one tensor."""
    now: Any = parameters
    gradient: T = mu * (now - start)
    return gradient
