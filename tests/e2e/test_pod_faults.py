"""A rank is killed, at any time and inside a checkpoint write, or its pod is deleted."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from support.disruption import container_pids, kill_container, send_signal, wait_container_ended
from support.kube import PODS
from support.outcome import assert_exact
from support.training_jobs import TOTAL_STEPS
from support.volumes import RunFolder

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.outcome import Outcome
    from support.site import Site
    from support.training_jobs import TrainingRun

TRIES = 5


@pytest.mark.long
@pytest.mark.parametrize("seed", range(4))
def test_a_rank_killed_at_a_random_step_costs_one_restart_and_no_digit(
    seed: int, disruptable: Site, reference: Outcome, train: Callable[..., TrainingRun]
) -> None:
    disruptable.local_cluster()
    chance = random.Random(seed)
    run = train()
    pods = run.wait_training()
    RunFolder.of(run).wait_logged(step=chance.randrange(1, TOTAL_STEPS * 3 // 4), within_s=120)
    kill_container(pods[chance.randrange(len(pods))])
    assert_exact(run, reference=reference, restarts=1, attempts=2)


def test_rank_0_killed_inside_a_checkpoint_write_costs_one_restart_and_no_digit(
    disruptable: Site, reference: Outcome, train: Callable[..., TrainingRun]
) -> None:
    disruptable.local_cluster()
    for number in range(TRIES):
        run = train(f"net-{number}")
        pod = run.wait_training()[0]
        pids = container_pids(pod)
        folder = RunFolder.of(run)
        folder.wait_staging(attempt=1, after_steps=2, within_s=120)
        send_signal(pids, "SIGKILL")
        wait_container_ended(run, pod=pod)
        unfinished = folder.unfinished_writes(attempt=1)
        if unfinished:
            break  # else the write was done before the kill: not what is to be tested
        run.delete()
    assert unfinished, f"no kill landed inside a write in {TRIES} tries"
    assert_exact(run, reference=reference, restarts=1, attempts=2)


@pytest.mark.long
@pytest.mark.parametrize(("rank", "checkpoints"), [(0, 2), (1, 2), (1, 0)])
def test_a_deleted_pod_costs_no_restart_and_no_digit(
    rank: int,
    checkpoints: int,
    disruptable: Site,
    reference: Outcome,
    train: Callable[..., TrainingRun],
) -> None:
    # Without a checkpoint the pod is told to stop while it still starts up.
    run = train()
    pods = run.wait_training()
    RunFolder.of(run).wait_steps(checkpoints, within_s=120)
    name = pods[rank]["metadata"]["name"]
    disruptable.kube.delete(PODS, name, namespace=run.namespace)
    assert_exact(run, reference=reference, restarts=0, attempts=2)
