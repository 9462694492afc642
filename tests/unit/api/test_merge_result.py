"""The record of a merge: frozen, exact through JSON, and its committed schema up to date."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from cabildo_api import merge_result
from cabildo_api.merge_result import MergeResult
from cabildo_api.schema import checkout

DIGEST = f"sha256:{'ab' * 32}"


def record(**changes: Any) -> dict[str, Any]:
    return {
        "rule": "krum",
        "parameters": {"neighbours": None},
        "n": 3,
        "fDeclared": 1,
        "fEffective": 0,
        "participants": [
            {"key": "a", "digest": DIGEST, "accepted": True, "score": 0.1, "weight": 1.0},
            {"key": "b", "accepted": False, "reason": "Absent"},
        ],
        "recipe": {"kind": "weightedSum", "weights": [0.1, 1 / 3]},
        "outputDigest": DIGEST,
        "gridVersion": "v1",
        "kernelPath": "avx2",
        **changes,
    }


def test_numbers_come_back_to_the_bit() -> None:
    result = MergeResult.model_validate(record())
    again = MergeResult.model_validate_json(result.model_dump_json(by_alias=True))
    assert again == result
    assert again.recipe["weights"][1] == 1 / 3


def test_it_is_frozen() -> None:
    result = MergeResult.model_validate(record())
    with pytest.raises(ValidationError):
        result.n = 4  # type: ignore[misc]


@pytest.mark.parametrize(
    "changes",
    [
        {"outputDigest": "ab" * 32},
        {"gramDigest": "sha256:xyz"},
        {"n": 0},
        {"fEffective": -1},
        {"epsilon": -0.1},
        {"delta": 1.5},
    ],
)
def test_values_that_cannot_be_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        MergeResult.model_validate(record(**changes))


def test_the_committed_schema_is_what_the_model_says(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert merge_result.main(["--check"]) == 0
    assert capsys.readouterr().err == ""


def test_drift_is_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(merge_result, "SCHEMA_ID", "https://cabildo.dev/schemas/other.json")
    assert merge_result.main(["--check"]) == 1
    assert merge_result.SCHEMA_PATH in capsys.readouterr().err


def test_the_schema_names_every_field_in_camel_case() -> None:
    schema = json.loads((checkout() / merge_result.SCHEMA_PATH).read_text())
    assert {
        "rule",
        "parameters",
        "candidates",
        "n",
        "fDeclared",
        "fEffective",
        "participants",
        "gramDigest",
        "outputDigest",
        "epsilon",
        "delta",
        "signalToNoise",
        "gridVersion",
        "kernelPath",
    } <= schema["properties"].keys()
