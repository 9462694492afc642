"""A node is drained, or cut off for good; a cut-off rank 0 comes back as a zombie."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from support.disruption import container_pids, drain, node_ready, send_signal, wait_pids_ended
from support.kube import NODES, Object
from support.outcome import Outcome, assert_exact, assert_same
from support.volumes import RunFolder

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.site import Site
    from support.training_jobs import TrainingRun

# The survivor's collective timeout (60 s), the Node's end and a second attempt.
AFTER_NODE_LOSS_WITHIN_S = 420


def node_of(pod: Object) -> str:
    """Return the name of the pod's node."""
    return str(pod["spec"]["nodeName"])


def cut_for_good(site: Site, *, node: str) -> None:
    """Cut a node's link, wait until it is lost and delete it, as a cloud controller would."""
    site.local_cluster().cut_link(node)
    site.kube.wait(
        NODES, lambda seen: not node_ready(seen, node), within_s=60, what=f"{node} is not ready"
    )
    site.kube.delete(NODES, node)


def test_a_drained_node_costs_no_restart_and_no_digit(
    disruptable: Site, reference: Outcome, train: Callable[..., TrainingRun]
) -> None:
    run = train()
    pods = run.wait_training()
    RunFolder.of(run).wait_steps(2, within_s=120)
    drain(disruptable.kube, node_of(pods[1]))
    assert_exact(run, reference=reference, restarts=0, attempts=2)


@pytest.mark.long
@pytest.mark.parametrize("with_operator", [False, True])
def test_a_node_cut_off_for_good_costs_no_restart_and_no_digit(
    with_operator: bool,
    disruptable: Site,
    reference: Outcome,
    train: Callable[..., TrainingRun],
) -> None:
    site = disruptable
    run = train()
    pods = run.wait_training()
    RunFolder.of(run).wait_steps(2, within_s=120)
    operators = node_of(site.operator_pod())
    hit = [one for one in pods if (node_of(one) == operators) == with_operator]
    assert hit, "no rank on the node that is to be cut"
    cut_for_good(site, node=node_of(hit[0]))
    assert_exact(
        run,
        reference=reference,
        restarts=0,
        attempts=2,
        within_s=AFTER_NODE_LOSS_WITHIN_S,
    )


@pytest.mark.long
def test_a_fenced_zombie_changes_nothing(
    disruptable: Site, reference: Outcome, train: Callable[..., TrainingRun]
) -> None:
    site = disruptable
    site.local_cluster()
    run = train()
    pods = run.wait_training()
    folder = RunFolder.of(run)
    pids = container_pids(pods[0])
    folder.wait_staging(attempt=1, after_steps=2, within_s=120)
    send_signal(pids, "SIGSTOP")
    try:
        cut_for_good(site, node=node_of(pods[0]))
        run.wait_training(attempt=2, within_s=AFTER_NODE_LOSS_WITHIN_S)
        folder.wait_steps(len(folder.steps()) + 1, within_s=120)
        fence = folder.fence()
        site.local_cluster().restore_link(node_of(pods[0]))
    finally:
        send_signal(pids, signal.SIGCONT.name)
    wait_pids_ended(pids, within_s=120)
    assert folder.fence() == fence
    status = assert_exact(run, reference=reference, restarts=0, attempts=2)
    assert status["attempts"][0]["attempt"] == 1
    assert_same(run, reference=reference)
