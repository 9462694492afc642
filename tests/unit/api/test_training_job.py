"""The models take what the API takes and refuse what it refuses, with its words."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from cabildo_api.base import explain_validation
from cabildo_api.training_job import TrainingJob, TrainingJobSpec
from support.api_cases import FULL, MINIMAL, RULES, SCHEMA, Refused


def test_a_minimal_spec_is_filled_with_defaults() -> None:
    spec = TrainingJobSpec.model_validate(MINIMAL)
    assert spec.nodes == 1
    assert spec.model.member == "lstmAttention"
    assert spec.model.choice.hidden_size == 64
    assert spec.optimizer.adam_w is not None
    assert spec.optimizer.adam_w.learning_rate == 0.001
    assert spec.checkpoint.storage.member == "claimTemplate"
    assert spec.checkpoint.keep.last == 2


def test_a_full_spec_comes_back_as_it_was_written() -> None:
    assert TrainingJobSpec.model_validate(FULL).to_object() == FULL


def test_defaults_written_out_change_nothing() -> None:
    spec = TrainingJobSpec.model_validate(MINIMAL)
    assert TrainingJobSpec.model_validate(spec.to_object()) == spec


@pytest.mark.parametrize("case", [*RULES, *SCHEMA], ids=lambda case: case.what)
def test_a_broken_rule_is_refused(case: Refused) -> None:
    with pytest.raises(ValidationError):
        TrainingJobSpec.model_validate(case.spec())


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"model": {}}, "spec.model: has no member: write one of lstmAttention, gru"),
        (
            {"limits": {"minEpochs": 5, "maxEpochs": 2}},
            "spec.limits: minEpochs is 5, above maxEpochs 2: lower minEpochs or raise maxEpochs",
        ),
    ],
)
def test_the_text_names_field_value_and_remedy(change: dict[str, object], text: str) -> None:
    with pytest.raises(ValidationError) as refused:
        TrainingJobSpec.model_validate({**MINIMAL, **change})
    assert explain_validation(refused.value) == text


def test_the_text_points_into_lists() -> None:
    wrong = Refused("", {"data.features": [{"name": "a", "logRange": {}}, {"name": "b"}]}, "")
    with pytest.raises(ValidationError) as refused:
        TrainingJobSpec.model_validate(wrong.spec())
    assert explain_validation(refused.value).startswith("spec.data.features[1]: has no member")


def test_unknown_fields_are_refused() -> None:
    with pytest.raises(ValidationError, match="learningRate"):
        TrainingJobSpec.model_validate({**MINIMAL, "learningRate": 1})


def test_specs_are_frozen() -> None:
    spec = TrainingJobSpec.model_validate(MINIMAL)
    with pytest.raises(ValidationError, match="frozen"):
        spec.nodes = 3


def test_the_claim_and_path_of_a_file_are_told_apart() -> None:
    file = TrainingJobSpec.model_validate(FULL).data.sources[0].file
    assert file is not None
    assert (file.claim, file.path) == ("prices", "daily/sp500.csv")


def an_object(**metadata: object) -> dict[str, object]:
    return {
        "apiVersion": "cabildo.dev/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {
            "name": "quickstart",
            "namespace": "default",
            "uid": "1234",
            "generation": 3,
            "managedFields": [{"manager": "kubectl"}],
            **metadata,
        },
        "spec": MINIMAL,
    }


def test_an_object_is_read_with_what_the_api_server_adds() -> None:
    job = TrainingJob.model_validate(an_object(creationTimestamp="2026-11-22T13:00:00Z"))
    assert job.metadata.generation == 3
    assert job.metadata.creation_timestamp is not None
    assert job.status.phase is None


@pytest.mark.parametrize("name", ["a" * 46, "with.dot", "1st", "ends-"])
def test_names_that_cannot_name_pods_and_services_are_refused(name: str) -> None:
    with pytest.raises(ValidationError, match=r"metadata\.name"):
        TrainingJob.model_validate(an_object(name=name))


def test_a_status_of_a_newer_version_is_read_without_its_news() -> None:
    body = {**an_object(), "status": {"phase": "Running", "fromTheFuture": 1}}
    assert TrainingJob.model_validate(body).status.to_object() == {
        "phase": "Running",
        "conditions": [],
        "attempts": [],
    }
