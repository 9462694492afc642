"""Run spec, progress report and result: what crosses from one process to another."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from cabildo_api.progress import Directive, ProgressAnswer, ProgressReport
from cabildo_api.result import RESULT_MAX_BYTES, Outcome, Result
from cabildo_api.run_spec import RunSpec
from cabildo_api.training_job import TrainingJobSpec
from cabildo_api.training_job_status import BaselineMetric, Metric
from support.api_cases import FULL, MINIMAL, changed


def run_spec(spec: dict[str, Any] | None = None, **where: Any) -> RunSpec:
    place = {
        "namespace": "team",
        "name": "demo",
        "uid": "u-1",
        "run": 1,
        "attempt": 1,
        "uri_prefix": "pvc://demo-checkpoints",
    }
    return RunSpec.from_spec(TrainingJobSpec.model_validate(spec or FULL), **{**place, **where})


def test_a_run_spec_survives_its_annotation() -> None:
    spec = run_spec(attempt=3)
    assert RunSpec.model_validate_json(spec.to_json()) == spec
    written = json.loads(spec.to_json())
    assert written["version"] == "v1"
    assert written["attempt"] == 3
    assert written["model"] == FULL["model"]
    assert written["checkpoint"]["root"] == "/checkpoints"
    assert written["checkpoint"]["every"] == {"seconds": 300}


def test_the_annotation_is_the_same_text_each_time() -> None:
    assert run_spec().to_json() == run_spec().to_json()


def test_a_run_spec_of_another_version_is_refused() -> None:
    written = {**json.loads(run_spec().to_json()), "version": "v2"}
    with pytest.raises(ValidationError, match="version"):
        RunSpec.model_validate(written)


def test_the_digest_stays_over_attempts_places_and_cadences() -> None:
    digest = run_spec().config_digest()
    assert digest.startswith("sha256:")
    assert run_spec(attempt=2, run=5, namespace="other", uid="u-2").config_digest() == digest
    slower = changed(FULL, {"checkpoint.every": {"epochs": 9}, "image": "other"})
    assert run_spec(slower).config_digest() == digest


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 8},
        {"nodes": 2},
        {"model": {"gru": {"hiddenSize": 33}}},
        {"data.window.length": 23},
        {"limits.maxEpochs": 99},
        {"earlyStopping.patience": 1},
    ],
    ids=str,
)
def test_the_digest_changes_with_what_decides_the_numbers(change: dict[str, Any]) -> None:
    assert run_spec(changed(FULL, change)).config_digest() != run_spec().config_digest()


def test_a_default_written_out_does_not_change_the_digest() -> None:
    full = TrainingJobSpec.model_validate(MINIMAL).to_object()
    assert run_spec(MINIMAL).config_digest() == run_spec(full).config_digest()


def test_a_report_of_another_client_is_taken() -> None:
    """The callback in transformers sends numbers and nothing of ours."""
    body = {
        "trainerStatus": {
            "progressPercentage": 45,
            "estimatedRemainingSeconds": 120,
            "metrics": [{"name": "loss", "value": 0.25}, {"name": "lr", "value": "1e-4"}],
            "lastUpdatedTime": "2026-11-22T12:00:00.123456Z",
            "somethingNew": 1,
        }
    }
    report = ProgressReport.model_validate(body)
    assert report.cabildo is None
    assert [metric.value for metric in report.trainer_status.metrics] == ["0.25", "1e-4"]
    assert report.trainer_status.last_updated_time == datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    "body",
    [{}, {"trainerStatus": {"progressPercentage": 101}}, {"trainerStatus": {"metrics": [{}]}}],
    ids=str,
)
def test_a_report_that_makes_no_sense_is_refused(body: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ProgressReport.model_validate(body)


def test_the_answer_asks_for_nothing_by_default() -> None:
    assert ProgressAnswer().to_object() == {"directive": "none"}
    assert ProgressAnswer(directive=Directive.STOP).to_object() == {"directive": "stop"}


def result(**fields: Any) -> Result:
    needed = {"outcome": Outcome.COMPLETE, "run": 1, "attempt": 1, "exit_code": 0}
    return Result(**{**needed, **fields})


def test_a_result_survives_the_termination_message() -> None:
    written = result(
        metrics=(Metric(name="test_r2", value="0.731"),),
        baselines=(BaselineMetric(name="har", metric="r2", value="0.72"),),
        trained_seconds=41.5,
    )
    assert Result.parse(written.to_bytes().decode()) == written


@pytest.mark.parametrize("text", ["", "Killed", '{"outcome": "complete"}', "[]"])
def test_what_is_no_result_is_none(text: str) -> None:
    assert Result.parse(text) is None


def test_a_long_message_leaves_the_metrics_in_place() -> None:
    written = result(
        outcome=Outcome.FAILED,
        exit_code=65,
        message="ä" * 5000,
        metrics=(Metric(name="test_r2", value="0.731"),),
    )
    read = Result.parse(written.to_bytes().decode())
    assert read is not None
    assert read.metrics == written.metrics
    assert read.message.endswith("...")


@settings(deadline=None)
@given(
    message=st.text(max_size=6000),
    names=st.lists(st.text(min_size=1, max_size=128), max_size=64, unique=True),
    baselines=st.integers(0, 64),
)
def test_a_result_always_fits_and_can_be_read(
    message: str, names: list[str], baselines: int
) -> None:
    written = result(
        message=message,
        remedy=message[:1000],
        metrics=tuple(Metric(name=name, value="0.5") for name in names),
        baselines=tuple(
            BaselineMetric(name=f"baseline-{i}", metric="r2", value="0.5") for i in range(baselines)
        ),
    )
    encoded = written.to_bytes()
    assert len(encoded) <= RESULT_MAX_BYTES
    read = Result.parse(encoded.decode())
    assert read is not None
    assert read.outcome is Outcome.COMPLETE
