"""What participants claim of their base: lies end no round that f has room for."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from cabildo_trainer.consensus.context import Context
from cabildo_trainer.consensus.errors import ManifestMismatch
from cabildo_trainer.consensus.exclusions import MISMATCH, NON_FINITE
from cabildo_trainer.consensus.manifests.manifest import ModelFacts
from cabildo_trainer.consensus.merging import merge
from cabildo_trainer.consensus.robust.columns import TrimmedMean
from cabildo_trainer.consensus.sinks import MemorySink
from cabildo_trainer.consensus.sources import MemoryModel


def models_claiming(claims: str, *, nan: frozenset[int] = frozenset()) -> list[MemoryModel]:
    """Returns a model for every sign: a digit is the base that it claims, `-` claims none."""
    models = []
    for row, claim in enumerate(claims):
        values = np.random.default_rng(row).normal(size=5).astype(np.float32)
        if row in nan:
            values[2] = np.nan
        made = MemoryModel(f"p{row}", {"w": values})
        digest = None if claim == "-" else f"sha256:{claim * 64}"
        made.facts = ModelFacts(base_digest=digest)  # type: ignore[attr-defined]
        models.append(made)
    return models


def excluded(models: list[MemoryModel], *, f: int) -> dict[str, str | None]:
    result = merge(models, TrimmedMean(), Context(maximum_faulty=f), sink=MemorySink())
    assert result.f_effective == f - sum(not item.accepted for item in result.participants)
    return {item.key: item.reason for item in result.participants if not item.accepted}


@pytest.mark.parametrize(
    ("claims", "f", "false"),
    [
        ("-----1", 1, set()),  # nobody contradicts it
        ("-----12", 2, set()),  # either may be the honest one whose others wrote no manifest
        ("-----12", 1, set()),
        ("1----22", 2, set()),
        ("-11112", 1, {5}),
        ("-11112", 2, {5}),
        ("2-1111", 1, {0}),  # whoever comes first by key decides nothing
        ("1111123", 2, {5, 6}),
        ("11-2--3-4", 4, set()),
        ("112-3----", 2, {2, 4}),  # 2 is contradicted by three, 1 only by two
        ("1112222--", 4, set()),
        ("1122222--", 4, {0, 1}),
    ],
)
def test_a_claim_is_false_where_more_than_f_others_contradict_it(
    claims: str, f: int, false: set[int]
) -> None:
    found = excluded(models_claiming(claims), f=f)
    assert found == {f"p{row}": MISMATCH for row in false}


@pytest.mark.parametrize(
    ("claims", "f"), [("12", 0), ("--1--2", 0), ("1122---", 1), ("123----", 1), ("111222", 2)]
)
def test_claims_that_f_cannot_explain_are_refused(claims: str, f: int) -> None:
    with pytest.raises(ManifestMismatch, match="the base differs: 'p") as caught:
        excluded(models_claiming(claims), f=f)
    assert caught.value.remedy


def test_the_order_of_the_models_changes_nothing() -> None:
    claims = "-1112"
    found = [excluded(list(order), f=1) for order in permutations(models_claiming(claims))]
    assert found == [{"p4": MISMATCH}] * len(found)


def test_other_proven_faults_make_a_false_claim_plain() -> None:
    # With f = 2 one other claim proves nothing; without the two that hold NaN, it does.
    models = models_claiming("--112--", nan=frozenset({5}))
    assert excluded(models, f=2) == {"p5": NON_FINITE, "p4": MISMATCH}


def test_a_false_claim_and_another_form_are_told_apart() -> None:
    models = models_claiming("-111121")
    models[6] = MemoryModel("p6", {"other": np.ones(5, np.float32)})
    assert excluded(models, f=2) == {"p5": MISMATCH, "p6": MISMATCH}
