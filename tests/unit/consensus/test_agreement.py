"""Models that do not fit each other are refused, with the first difference named."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from cabildo_trainer.consensus.errors import ImpossibleSetting, ManifestMismatch
from cabildo_trainer.consensus.manifests.agreement import agree
from cabildo_trainer.consensus.manifests.manifest import ModelFacts
from cabildo_trainer.consensus.sources import MemoryModel, TensorSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

DIGEST = "sha256:" + "a" * 64
OTHER = "sha256:" + "b" * 64


def model(key: str, *, facts: ModelFacts | None = None, **changes: Any) -> MemoryModel:
    tensors: dict[str, NDArray[Any]] = {
        "a.weight": np.ones((2, 3), np.float32),
        "position": np.arange(4),
        "z.bias": np.zeros(3, np.float32),
    } | changes
    made = MemoryModel(key, {name: array for name, array in tensors.items() if array is not None})
    made.facts = facts or ModelFacts()  # type: ignore[attr-defined]
    return made


def refusal(one: MemoryModel, two: MemoryModel, **options: Any) -> ManifestMismatch:
    with pytest.raises(ManifestMismatch) as caught:
        agree([one, two], **options)
    assert caught.value.remedy
    assert caught.value.exit_code == 65
    return caught.value


def test_equal_models_agree_whatever_their_weights() -> None:
    agree([model("a"), model("b", **{"z.bias": np.ones(3, np.float32)})], base=model("base"))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"z.bias": None}, "tensor 'z.bias': 'a' has it and 'b' does not"),
        ({"more": np.ones(1)[:0].astype(np.float32)}, "tensor 'more': 'b' has it and 'a' does not"),
        ({"a.weight": np.ones((3, 2), np.float32)}, r"'a' and 'b': \[2, 3\] and \[3, 2\]"),
        ({"a.weight": np.ones((2, 3), np.float16)}, "'a' and 'b': F32 and F16"),
        ({"position": np.array([0, 1, 7, 3])}, "element 2 differs between 'a' and 'b': 2 and 7"),
    ],
)
def test_the_first_difference_of_the_tensors_is_named(changes: Any, named: str) -> None:
    refused = refusal(model("a"), model("b", **changes))
    assert re.search(named, str(refused))


def test_of_several_differences_the_first_in_byte_order_is_named() -> None:
    changes = {"z.bias": None, "a.weight": np.ones((1, 1), np.float32)}
    assert "a.weight" in str(refusal(model("a"), model("b", **changes)))


@pytest.mark.parametrize("policy", ["first", "max"])
def test_integers_may_differ_under_a_named_policy(policy: str) -> None:
    agree([model("a"), model("b", position=np.zeros(4, np.int64))], integers=policy)


def test_a_policy_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ImpossibleSetting, match="average"):
        agree([model("a")], integers="average")


@pytest.mark.parametrize("facts", [ModelFacts(tokenizer_digest=OTHER), ModelFacts()])
def test_another_tokenizer_or_none_is_refused(facts: ModelFacts) -> None:
    refused = refusal(
        model("a", facts=ModelFacts(tokenizer_digest=DIGEST)), model("b", facts=facts)
    )
    assert "tokenizer differs between 'a' and 'b'" in str(refused)


def test_other_tied_weights_are_refused() -> None:
    tied = ModelFacts(tied_names=(("head", "wte"),))
    refused = refusal(model("a"), model("b", facts=tied))
    assert "'b' ties head = wte, 'a' does not" in str(refused)


def test_models_of_another_base_are_refused() -> None:
    one, two = (
        model(key, facts=ModelFacts(base_digest=digest))
        for key, digest in (("a", DIGEST), ("b", OTHER))
    )
    assert "the base differs" in str(refusal(one, two))
    assert f"'a' was trained from {DIGEST}" in str(refusal(one, one, base=model("base")))


def test_models_of_the_given_base_agree() -> None:
    base = model("base")
    agree([model("a", facts=ModelFacts(base_digest=base.digest)), model("b")], base=base)


@pytest.mark.parametrize(
    ("dtype", "named"), [("C64", "is complex"), ("F64", "no rule"), ("F8_E4M3", "quantised")]
)
def test_element_types_that_cannot_be_averaged_are_refused(dtype: str, named: str) -> None:
    strange = model("b")
    spec = strange.tensors["z.bias"]
    strange.tensors = dict(strange.tensors) | {
        "z.bias": TensorSpec(name="z.bias", dtype=dtype, shape=spec.shape)
    }
    assert named in str(refusal(model("a"), strange))


def test_quantised_models_are_refused_even_if_all_are_alike() -> None:
    packed = {"z.qweight": np.zeros(4, np.int32)}
    assert "'a' is quantised: tensor 'z.qweight'" in str(
        refusal(model("a", **packed), model("b", **packed))
    )
    facts = replace(ModelFacts(), quantised="config.json has a quantization_config")
    assert "quantization_config" in str(refusal(model("a", facts=facts), model("b", facts=facts)))
