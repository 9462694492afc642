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
KILLED = 137


def was_killed(pod: Object) -> bool:
    """Whether a container of the pod ended as one that is killed does; not one told to stop."""
    if "deletionTimestamp" in pod["metadata"]:
        return False  # the one that was there before the fault was armed
    states = [
        state
        for one in pod["status"].get("containerStatuses", [])
        for state in (one["state"], one["lastState"])
    ]
    return any(state.get("terminated", {}).get("exitCode") == KILLED for state in states)


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
            lambda seen: any(was_killed(one) for one in seen.values()),
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
