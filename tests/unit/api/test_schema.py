"""The generated CRD and reference: complete, bounded, described, and what is committed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from cabildo_api import reference, schema
from cabildo_api.base import ApiModel
from cabildo_api.cel import Bounds, message_expression
from cabildo_api.names import CRD_NAME
from cabildo_api.reasons import Reason
from cabildo_api.structural import object_schema
from cabildo_api.training_job import TrainingJobSpec

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SIZE_LIMIT = 150_000


def openapi() -> dict[str, Any]:
    version = schema.custom_resource_definition()["spec"]["versions"][0]
    return dict(version["schema"]["openAPIV3Schema"])


def walk(node: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema below `node` with its JSON path."""
    yield path, node
    for name, inner in node.get("properties", {}).items():
        yield from walk(inner, f"{path}.{name}")
    for key, suffix in (("items", "[]"), ("additionalProperties", "{}")):
        if key in node:
            yield from walk(node[key], path + suffix)


def fields() -> list[tuple[str, dict[str, Any]]]:
    root = openapi()["properties"]
    return [*walk(root["spec"], "spec"), *walk(root["status"], "status")]


def test_committed_files_are_what_the_models_say() -> None:
    assert schema.main(["--check"]) == 0
    assert reference.main(["--check"]) == 0


def test_the_crd_is_small_enough_to_be_embedded() -> None:
    compact = json.dumps(schema.custom_resource_definition(), separators=(",", ":"))
    assert len(compact.encode()) < SIZE_LIMIT


def test_every_field_is_described() -> None:
    undescribed = [
        path
        for path, node in fields()
        if not path.endswith(("[]", "{}")) and not node["description"].endswith((".", "\n"))
    ]
    assert undescribed == []


def test_every_description_gives_the_default_and_the_range() -> None:
    spec = dict(fields())
    learning_rate = spec["spec.optimizer.adamW.learningRate"]["description"]
    assert "Default 0.001." in learning_rate
    assert "Above 0 and up to 10." in learning_rate
    silent = [
        path
        for path, node in fields()
        if "default" in node
        and not isinstance(node["default"], dict)
        and "Default" not in node["description"]
    ]
    assert silent == []


def test_everything_is_bounded() -> None:
    """What has no bound makes the API server refuse CEL rules over it."""
    unbounded = []
    for path, node in fields():
        if node.get("x-kubernetes-int-or-string"):
            bounded = "maxLength" in node
        elif node["type"] == "array":
            bounded = "maxItems" in node and "x-kubernetes-list-type" in node
        elif node["type"] == "string":
            bounded = "maxLength" in node or "enum" in node or node.get("format") == "date-time"
        elif "additionalProperties" in node:
            bounded = "maxProperties" in node
        elif path.startswith("spec") and node["type"] in {"integer", "number"}:
            bounded = "x-kubernetes-validations" in node
        else:
            bounded = True
        if not bounded:
            unbounded.append(path)
    assert unbounded == ["spec.scheduling.tolerations[].tolerationSeconds"]


def test_a_status_has_no_defaults_and_no_rules() -> None:
    """A default in a status would claim something that nobody has observed."""
    status = [node for path, node in fields() if path.startswith("status")]
    assert not [node for node in status if "default" in node or "x-kubernetes-validations" in node]


def test_defaults_of_the_schema_are_those_of_the_models() -> None:
    def filled(node: dict[str, Any], value: Any) -> Any:
        """What the API server does: defaults go in where nothing is written."""
        if isinstance(value, list):
            return [filled(node["items"], item) for item in value]
        if not isinstance(value, dict) or "properties" not in node:
            return value
        result = dict(value)
        for name, inner in node["properties"].items():
            if name not in result and "default" in inner:
                result[name] = inner["default"]
            if name in result:
                result[name] = filled(inner, result[name])
        return result

    written = {
        "model": {"gru": {}},
        "data": {
            "sources": [{"name": "a", "builtin": {}}],
            "target": {"logRange": {}},
            "features": [{"name": "b", "logRange": {}}],
        },
    }
    defaulted = filled(openapi()["properties"]["spec"], written)
    by_model = TrainingJobSpec.model_validate(written)
    assert TrainingJobSpec.model_validate(defaulted) == by_model
    explicit = by_model.to_object()
    assert set(explicit) - set(defaulted) == {"image", "serviceAccountName", "imagePullSecrets"}


def test_every_object_of_a_choice_asks_for_one_member() -> None:
    model = dict(fields())["spec.model"]
    assert [rule["rule"] for rule in model["x-kubernetes-validations"]] == [
        "has(self.lstmAttention) || has(self.gru)",
        "[has(self.lstmAttention), has(self.gru)].filter(x, x).size() <= 1",
    ]


def test_every_field_of_a_spec_but_three_is_immutable() -> None:
    rules = openapi()["properties"]["spec"]["x-kubernetes-validations"]
    fixed = {rule["fieldPath"] for rule in rules if "oldSelf" in rule["rule"]}
    top = {f".{name}" for name in openapi()["properties"]["spec"]["properties"]}
    assert top - fixed == {".suspend", ".runID", ".runPolicy"}
    assert {path for path in fixed if path.startswith(".runPolicy")} == {
        ".runPolicy.maxRestarts",
        ".runPolicy.backoffSeconds",
        ".runPolicy.terminationGracePeriodSeconds",
    }


def test_the_chart_keeps_the_crd_when_it_is_uninstalled() -> None:
    text = schema.chart_template()
    assert text.count("{{") == 2
    body = yaml.safe_load("\n".join(line for line in text.splitlines() if "{{" not in line))
    assert body["metadata"]["name"] == CRD_NAME
    assert body["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert body["spec"] == schema.custom_resource_definition()["spec"]


def test_drift_is_said_and_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(schema, "checkout", lambda: tmp_path)
    files = {"docs/page.md": "as generated"}
    assert schema.write_or_check(files, check=True, command="cabildo_api.schema") == 1
    said = "docs/page.md is not what the models say: run `python -m cabildo_api.schema`\n"
    assert capsys.readouterr().err == said
    assert schema.write_or_check(files, check=False, command="cabildo_api.schema") == 0
    assert schema.write_or_check(files, check=True, command="cabildo_api.schema") == 0
    (tmp_path / "docs/page.md").write_text("edited by hand")
    assert schema.write_or_check(files, check=True, command="cabildo_api.schema") == 1


def test_every_reason_and_every_field_is_in_the_reference() -> None:
    reasons = reference.reasons_page()
    assert [reason for reason in Reason if f"`{reason}`" not in reasons] == []
    page = reference.api_page()
    names = {path.split(".")[-1].rstrip("[]{}") for path, _ in fields()} - {"spec", "status"}
    assert [name for name in names if f"`{name}`" not in page] == []


@pytest.mark.parametrize(
    ("bounds", "words"),
    [
        (Bounds(ge=1, le=3), "from 1 to 3"),
        (Bounds(ge=0), "0 or more"),
        (Bounds(ge=0, lt=1), "0 or more, below 1"),
        (Bounds(gt=0), "above 0"),
        (Bounds(gt=0, le=10), "above 0 and up to 10"),
        (Bounds(gt=0, lt=1), "above 0 and below 1"),
        (Bounds(le=2.5), "up to 2.5"),
        (Bounds(), ""),
    ],
    ids=str,
)
def test_ranges_are_said_in_words(bounds: Bounds, words: str) -> None:
    assert bounds.in_words() == words


def test_messages_are_safe_in_cel() -> None:
    assert message_expression("it's {a.b} of 5%") == "'it\\'s %s of 5%%'.format([dyn(self.a.b)])"


def test_inherited_fields_keep_their_description() -> None:
    class Base(ApiModel):
        """A base."""

        one: bool = True
        """First."""

    class Derived(Base):
        """A derived model."""

        two: bool = False
        """Second."""

    properties = object_schema(Derived)["properties"]
    assert properties["one"]["description"] == "First. Default true."
    assert properties["two"]["description"] == "Second. Default false."


def test_times_are_texts_and_unknown_types_are_refused() -> None:
    seen = dict(fields())["status.conditions[].lastTransitionTime"]
    assert (seen["type"], seen["format"]) == ("string", "date-time")

    class Odd(ApiModel):
        """A model with a type that JSON does not have."""

        blob: bytes = b""
        """Bytes."""

    with pytest.raises(TypeError, match="blob"):
        object_schema(Odd)
