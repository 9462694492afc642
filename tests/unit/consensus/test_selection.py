"""Selection by magnitude: exactly the k largest with ties by index, in memory and streamed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cabildo_trainer.consensus.context import Context
from cabildo_trainer.consensus.errors import NonFiniteInput
from cabildo_trainer.consensus.merges import selection
from cabildo_trainer.consensus.merges.selection import row_bounds
from cabildo_trainer.consensus.merges.task_vector_recipes import inside
from cabildo_trainer.consensus.passes import Session
from cabildo_trainer.consensus.sources import MemoryModel, to_float32


def bf16(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


def session_of(rows: list[Any], base: Any, *, as_bf16: bool, chunk: int = 0) -> Session:
    names = frozenset({"w"}) if as_bf16 else frozenset()
    models = tuple(
        MemoryModel(f"p{index}", {"w": row}, bf16=names) for index, row in enumerate(rows)
    )
    context = Context(base=MemoryModel("base", {"w": base}, bf16=names), chunk_elements=chunk)
    return Session(sources=models, f=0, context=context)


def wanted(difference: np.ndarray[Any, Any], count: int) -> np.ndarray[Any, Any]:
    kept = np.zeros(difference.size, dtype=bool)
    kept[np.argsort(-np.abs(difference), kind="stable")[:count]] = True
    return kept


@pytest.mark.parametrize("as_bf16", [True, False])
@pytest.mark.parametrize("cached", [True, False])
def test_bounds_take_exactly_the_largest_with_ties_by_index(
    as_bf16: bool, cached: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not cached:
        monkeypatch.setattr(selection, "CACHED_BYTES", 1000)
    rng = np.random.default_rng(1)
    size = 3 * 24_576 + 1000
    base = rng.normal(scale=0.02, size=size).astype(np.float32)
    rows = [(base + rng.normal(scale=0.002, size=size)).astype(np.float32) for _ in range(3)]
    rows[1] = np.round(rows[1] * 64.0) / 64.0  # many ties
    rows[2] = base.copy()  # nothing but ties, at zero
    if as_bf16:
        base, rows = bf16(base), [bf16(row) for row in rows]
    ranks = [0, 1, 2, 777, size // 2, size - 1, size, size + 5]
    session = session_of(rows, base, as_bf16=as_bf16, chunk=24_576)
    found = dict(row_bounds(session, session.context.base, lambda spec: ranks))
    kind = "bf16" if as_bf16 else "f32"
    for row, bounds in zip(rows, found["w"], strict=True):
        difference = to_float32(row, dtype=kind) - to_float32(base, dtype=kind)
        for rank, bound in zip(ranks, bounds, strict=True):
            chosen = inside(difference, bound, start=0)
            assert np.array_equal(chosen, wanted(difference, rank)), rank


def test_caching_and_chunks_change_no_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    base = np.round(rng.normal(size=60_000), 1).astype(np.float32)
    rows = [np.round(rng.normal(size=60_000), 1).astype(np.float32) for _ in range(2)]
    results = []
    for limit, chunk in ((2**30, 0), (10, 24_576), (10, 2 * 24_576)):
        monkeypatch.setattr(selection, "CACHED_BYTES", limit)
        session = session_of(rows, base, as_bf16=False, chunk=chunk)
        results.append(list(row_bounds(session, session.context.base, lambda spec: [100, 30_001])))
    assert results[0] == results[1] == results[2]


def test_the_participant_with_nan_is_named() -> None:
    rows = [np.ones(10, dtype=np.float32) for _ in range(3)]
    rows[1][4] = np.nan
    session = session_of(rows, np.zeros(10, dtype=np.float32), as_bf16=False)
    with pytest.raises(NonFiniteInput) as caught:
        list(row_bounds(session, session.context.base, lambda spec: [3]))
    assert caught.value.participants == ("p1",)
