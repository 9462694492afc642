"""`cabildo follow` against a real API server: what it prints and how it ends."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from cabildo_cli.__main__ import main
from support.kube import TRAINING_JOBS, Kube
from support.training_jobs import E2E_SPEC, training_job

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future
    from pathlib import Path

    from click.testing import Result

NOW = "2026-01-01T00:00:00Z"
WITHIN_S = 20


def condition(kind: str, *, reason: str, message: str, status: str = "True") -> dict[str, Any]:
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": NOW,
        "observedGeneration": 1,
    }


@pytest.fixture
def job(kube: Kube, namespace: str) -> str:
    kube.create(TRAINING_JOBS, training_job("walk", spec=E2E_SPEC), namespace=namespace)
    return "walk"


@pytest.fixture
def start_following(kubeconfig: Path, namespace: str) -> Iterator[Callable[..., Future[Result]]]:
    """Run `cabildo follow` beside the test."""
    with ThreadPoolExecutor(max_workers=1) as beside:

        def start(*arguments: str) -> Future[Result]:
            return beside.submit(
                CliRunner().invoke,
                main,
                ["follow", "--namespace", namespace, "--timeout", str(WITHIN_S), *arguments],
                env={"KUBECONFIG": str(kubeconfig), "COLUMNS": "120"},
            )

        yield start


def set_status(kube: Kube, name: str, *, namespace: str, status: dict[str, Any]) -> None:
    kube.patch(TRAINING_JOBS, name, {"status": status}, namespace=namespace, sub="status")


def finish(kube: Kube, name: str, *, namespace: str, outcome: str, message: str) -> None:
    set_status(
        kube,
        name,
        namespace=namespace,
        status={
            "observedGeneration": 1,
            "runID": "1",
            "phase": outcome,
            "startTime": "2026-01-01T00:00:00Z",
            "completionTime": "2026-01-01T00:12:34Z",
            "progress": {"percentage": 100, "epoch": 3, "step": 90, "totalSteps": 90},
            "result": {
                "metrics": [{"name": "test_r2", "value": "0.71"}],
                "baselines": [{"name": "har", "metric": "r2", "value": "0.72"}],
            },
            "conditions": [
                condition(outcome, reason=message.split(":", maxsplit=1)[0], message=message),
                condition("Finished", reason=outcome, message=message),
            ],
        },
    )


def test_a_run_that_succeeds_ends_with_its_table_and_status_0(
    kube: Kube, namespace: str, job: str, start_following: Callable[..., Future[Result]]
) -> None:
    following = start_following(job)
    set_status(
        kube,
        job,
        namespace=namespace,
        status={"observedGeneration": 1, "runID": "1", "phase": "Running"},
    )
    finish(kube, job, namespace=namespace, outcome="Succeeded", message="Completed: all done")

    ended = following.result()

    assert ended.exit_code == 0, ended.output
    assert "walk Succeeded" in ended.output
    assert "100%" in ended.output
    assert "0.7100" in ended.output
    assert "0.7200" in ended.output


def test_a_run_that_had_ended_before_is_shown_with_the_time_that_it_took(
    kube: Kube, namespace: str, job: str, start_following: Callable[..., Future[Result]]
) -> None:
    finish(kube, job, namespace=namespace, outcome="Succeeded", message="Completed: all done")

    ended = start_following(job).result()

    assert ended.exit_code == 0, ended.output
    assert "0:12:34" in ended.output


def test_a_run_that_fails_ends_with_its_reason_and_status_1(
    kube: Kube, namespace: str, job: str, start_following: Callable[..., Future[Result]]
) -> None:
    following = start_following(job)
    finish(kube, job, namespace=namespace, outcome="Failed", message="InvalidData: prices.csv")

    ended = following.result()

    assert ended.exit_code == 1
    assert "InvalidData: prices.csv" in ended.output


def test_a_finish_of_an_earlier_generation_is_not_taken_for_the_end(
    kube: Kube, namespace: str, job: str, start_following: Callable[..., Future[Result]]
) -> None:
    finish(kube, job, namespace=namespace, outcome="Succeeded", message="Completed: first run")
    kube.patch(TRAINING_JOBS, job, {"spec": {"runID": "second"}}, namespace=namespace)

    ended = start_following(job, "--timeout", "2").result()

    assert ended.exit_code == 1
    assert f"TrainingJob {namespace}/walk had not finished after 2.0 s" in ended.output


def test_a_name_that_does_not_exist_is_told_with_the_servers_words(
    namespace: str, start_following: Callable[..., Future[Result]]
) -> None:
    ended = start_following("nobody").result()

    assert ended.exit_code == 1
    assert '"nobody" not found' in ended.output
    assert f"kubectl get trainingjobs -n {namespace}" in ended.output


def test_an_object_deleted_meanwhile_ends_the_wait(
    kube: Kube, namespace: str, job: str, start_following: Callable[..., Future[Result]]
) -> None:
    following = start_following(job)
    kube.delete(TRAINING_JOBS, job, namespace=namespace)

    ended = following.result()

    assert ended.exit_code == 1
    assert "walk was deleted" in ended.output or '"walk" not found' in ended.output


def test_without_any_cluster_the_remedy_is_named(tmp_path: Path) -> None:
    nowhere = tmp_path / "none"

    ended = CliRunner().invoke(main, ["follow", "walk"], env={"KUBECONFIG": str(nowhere)})

    assert ended.exit_code == 1
    assert "no cluster to talk to" in ended.output
    assert "cabildo cluster up" in ended.output
