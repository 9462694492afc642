"""Names, reasons, exit codes and conditions keep their contracts."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone

import pytest

from cabildo_api import names, reasons
from cabildo_api.conditions import MESSAGE_MAX_LENGTH, Condition
from cabildo_api.exit_codes import ExitCode, exit_code
from cabildo_api.reasons import Reason
from cabildo_api.scalars import format_time
from cabildo_api.training_job_status import Progress, TrainingJobStatus

NOON = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)


def test_the_longest_names_still_fit_into_a_hostname() -> None:
    assert len(names.pod_hostname("a" * names.NAME_MAX_LENGTH, 999, 999, 1023)) <= 63


def test_children_are_named_after_run_and_attempt() -> None:
    assert names.job_name("demo", 2, 3) == "demo-r2-a3"
    assert names.pod_fqdn("demo", 2, 3, 0, namespace="team") == "demo-r2-a3-0.demo.team.svc"
    assert names.claim_name("demo") == "demo-checkpoints"
    assert names.data_mount("prices") == "/data/prices"


def test_checkpoints_are_named_after_their_step() -> None:
    uri = names.checkpoint_uri("claim", "uid", 1, 1200)
    assert uri == "pvc://claim/uid/run-1/step-000000001200"


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_is_camel_case_and_explained(reason: Reason) -> None:
    assert reason.value.isalnum()
    assert reason.value[0].isupper()
    assert reason.meaning.endswith(".")
    assert not reason.remedy or reason.remedy.endswith(".")


def test_a_remedy_is_found_by_the_word() -> None:
    assert "StorageClass" in reasons.remedy("StorageClassNotFound")
    assert reasons.remedy("NoSuchReason") == ""


def test_codes_that_never_retry_cost_nothing() -> None:
    final = {code for code in ExitCode if not code.retryable}
    assert final == {0, 65, 76, 78}
    assert not any(code.charged for code in final)
    assert {code for code in ExitCode if code.charged} == {ExitCode.PEER_LOST}


def test_a_code_outside_the_contract_has_no_row() -> None:
    assert exit_code(75) is ExitCode.PREEMPTED
    assert exit_code(1) is None


def test_reasons_and_codes_need_the_standard_library_only() -> None:
    """The trainer reads the codes before it imports anything heavy."""
    program = (
        "import sys, cabildo_api.exit_codes, cabildo_api.names\n"
        "print([m for m in ('pydantic', 'yaml') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_condition_keeps_its_time_while_its_status_stays() -> None:
    before = condition("True", at=NOON)
    later = NOON + timedelta(minutes=1)
    assert condition("True", at=later).since(before).last_transition_time == NOON
    assert condition("False", at=later).since(before).last_transition_time == later
    assert condition("True", at=later).since(None).last_transition_time == later


def condition(status: str, *, at: datetime) -> Condition:
    body = {"type": "Running", "status": status, "reason": "Running", "lastTransitionTime": at}
    return Condition.model_validate(body)


def test_a_long_message_is_cut_to_what_the_schema_takes() -> None:
    body = {**condition("True", at=NOON).to_object(), "message": "x" * 5000}
    message = Condition.model_validate(body).message
    assert len(message) == MESSAGE_MAX_LENGTH
    assert message.endswith("...")


def test_conditions_are_found_by_type() -> None:
    status = TrainingJobStatus(conditions=(condition("True", at=NOON),))
    assert status.is_true("Running")
    assert not status.is_true("Failed")
    assert status.condition("Failed") is None
    running = status.condition("Running")
    assert running is not None
    assert running.status == "True"


def test_times_are_whole_seconds_in_utc() -> None:
    berlin = datetime(2026, 11, 22, 13, 0, 0, 999_999, tzinfo=timezone(timedelta(hours=1)))
    assert format_time(berlin) == "2026-11-22T12:00:00Z"
    progress = Progress(last_report_time=berlin)
    assert progress.last_report_time == NOON
    assert Progress.model_validate(progress.to_object()) == progress
