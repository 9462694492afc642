"""The operator dies after each of its first writes of a run; training does not notice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.disruption import kill_container
from support.kube import PODS
from support.outcome import assert_exact
from support.volumes import RunFolder

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.kube import Object
    from support.outcome import Outcome
    from support.site import Site
    from support.training_jobs import TrainingRun

FAULT = "CABILDO_EXIT_AFTER_WRITES"


def has_crashed(pod: Object) -> bool:
    """Whether a container of the pod was restarted, or waits for it."""
    statuses = pod["status"].get("containerStatuses", [])
    return any(one["restartCount"] > 0 or "terminated" in one["state"] for one in statuses)


@pytest.mark.parametrize(
    "writes", [pytest.param(n, marks=pytest.mark.long if n != 3 else []) for n in range(1, 6)]
)
def test_an_operator_killed_after_its_nth_write_of_a_run_loses_and_repeats_nothing(
    writes: int, disruptable: Site, reference: Outcome, train: Callable[..., TrainingRun]
) -> None:
    site = disruptable
    site.change_operator({FAULT: str(writes)})
    try:
        run = train()
        site.kube.wait(
            PODS,
            lambda seen: any(has_crashed(one) for one in seen.values()),
            namespace=site.deployed.namespace,
            within_s=60,
            what=f"the operator dies after {writes} writes",
        )
    finally:
        site.change_operator({FAULT: None})
    assert_exact(run, reference=reference, restarts=0, attempts=1)


@pytest.mark.long
def test_an_operator_killed_while_a_run_trains_loses_and_repeats_nothing(
    disruptable: Site, reference: Outcome, train: Callable[..., TrainingRun]
) -> None:
    site = disruptable
    site.local_cluster()
    run = train()
    run.wait_training()
    RunFolder.of(run).wait_steps(2, within_s=120)
    pod = site.operator_pod()
    kill_container(pod, container=pod["spec"]["containers"][0]["name"])
    assert_exact(run, reference=reference, restarts=0, attempts=1)


@pytest.mark.long
def test_a_standby_takes_over_from_a_killed_leader(
    disruptable: Site, reference: Outcome, train: Callable[..., TrainingRun]
) -> None:
    site = disruptable
    site.local_cluster()
    site.scale_operator(2)
    try:
        leader = site.operator_pod()
        run = train()
        run.wait_training()
        RunFolder.of(run).wait_steps(1, within_s=120)
        kill_container(leader, container=leader["spec"]["containers"][0]["name"])
        site.kube.delete(PODS, leader["metadata"]["name"], namespace=site.deployed.namespace)
        assert_exact(run, reference=reference, restarts=0, attempts=1)
        assert site.operator_pod()["metadata"]["name"] != leader["metadata"]["name"]
    finally:
        site.scale_operator(1)
