"""A recipe's record: whatever tensors are called, a verifier reads back what was written."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pytest

from cabildo_api.merge_result import MergeResult
from cabildo_trainer.consensus.context import Context
from cabildo_trainer.consensus.errors import ImpossibleSetting
from cabildo_trainer.consensus.merging import merge, replay
from cabildo_trainer.consensus.recipes import (
    PerTensor,
    Recipe,
    WeightedSum,
    recipe_from_json,
    single,
)
from cabildo_trainer.consensus.rules import rule_from_parameters
from cabildo_trainer.consensus.sinks import MemorySink
from cabildo_trainer.consensus.sources import MemoryModel

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMES = ("kind", "recipes", "default", "weights", "w")


def model(key: str, *, seed: int) -> MemoryModel:
    rng = np.random.default_rng(seed)
    return MemoryModel(key, {name: rng.normal(size=6).astype(np.float32) for name in NAMES})


@pytest.mark.parametrize("rule", ["ties", "modelStock", "sce", "multiSlerp"])
def test_a_merge_of_tensors_named_like_a_recipes_members_is_repeated(rule: str) -> None:
    base, models = model("base", seed=9), [model(f"p{row}", seed=row) for row in range(4)]
    context = Context(base=base)
    result = merge(models, rule_from_parameters(rule, {}), context, sink=MemorySink())
    told = MergeResult.model_validate_json(result.model_dump_json(by_alias=True))
    found = replay(
        models,
        recipe_from_json(told.recipe),
        context,
        keys=[item.key for item in models],
        sink=MemorySink(),
    )
    assert found == result.output_digest


@pytest.fixture
def labelled() -> Iterator[Any]:
    """A recipe with a text for each tensor."""

    @dataclass(frozen=True, slots=True)
    class Labelled(Recipe):
        kind: ClassVar[str] = "labelled"
        labels: dict[str, str]

        def apply(self, chunk: Any, *, out_dtype: str) -> Any:
            raise NotImplementedError

    yield Labelled
    del Recipe.registry["labelled"]


def test_a_text_for_a_tensor_called_kind_is_no_recipe(labelled: Any) -> None:
    recipe = PerTensor(
        recipes={"kind": labelled(labels={"kind": "weightedSum", "w": "x"})},
        default=single(0, n=2),
    )
    assert recipe_from_json(json.loads(json.dumps(recipe.to_json()))) == recipe


def test_the_record_keeps_its_form() -> None:
    quarter = {"kind": "weightedSum", "weights": [0.25, 0.75], "start_weight": 0.0, "divisor": 1.0}
    record = {
        "kind": "perTensor",
        "recipes": {"kind": quarter},
        "default": {"kind": "columnMedian", "rows": None},
    }
    recipe: Any = recipe_from_json(record)
    assert recipe.recipes == {"kind": WeightedSum(weights=(0.25, 0.75))}
    assert recipe.to_json() == record


@pytest.mark.parametrize("record", [{}, {"kind": None}, {"kind": ["weightedSum"]}, [], "column"])
def test_what_is_no_recipe_is_refused(record: Any) -> None:
    for value in (record, {"kind": "perTensor", "recipes": {}, "default": record}):
        with pytest.raises(ImpossibleSetting, match="no recipe"):
            recipe_from_json(value)
