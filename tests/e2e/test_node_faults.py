"""A node is drained, or cut off for good; a cut-off rank 0 comes back as a zombie."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from support.clusters import namespace as throw_away_namespace
from support.disruption import container_pids, drain, node_ready, send_signal, wait_pids_ended
from support.kube import NODES, Object
from support.outcome import Outcome, assert_exact, finish
from support.training_jobs import CHECKPOINT_EVERY_STEPS, E2E_SPEC, TrainingRun, merged
from support.volumes import RunFolder

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.site import Site

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


def stop_inside_commit(folder: RunFolder, *, pids: list[int]) -> None:
    """Stop rank 0 between the last word of its peers and the rename that commits."""
    manifest = folder.staging(attempt=1) / "manifest.json"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if not manifest.exists():
            continue
        send_signal(pids, "SIGSTOP")
        if manifest.exists():
            return
        send_signal(pids, "SIGCONT")  # the commit was done before the stop
    msg = "rank 0 was never caught inside a commit"
    raise AssertionError(msg)


def stop_in_training(folder: RunFolder, *, pids: list[int]) -> None:
    """Stop rank 0 anywhere after its second checkpoint."""
    folder.wait_steps(2, within_s=120)
    send_signal(pids, "SIGSTOP")


@pytest.fixture(scope="module")
def lone_reference(site: Site) -> Outcome:
    """The outcome of the tests' TrainingJob with one rank, without any fault."""
    site.local_cluster()
    with throw_away_namespace(site.kube, prefix="e2e") as name:
        spec = merged(E2E_SPEC, {"nodes": 1})
        run = TrainingRun.start(site.kube, namespace=name, name="reference", spec=spec)
        finish(run)
        return Outcome.of(run)


@pytest.mark.long
@pytest.mark.parametrize("ranks", [2, 1])
def test_a_fenced_zombie_changes_nothing(
    ranks: int,
    disruptable: Site,
    reference: Outcome,
    lone_reference: Outcome,
    train: Callable[..., TrainingRun],
) -> None:
    # Of two ranks, rank 0 comes back inside a commit; a lone rank comes back in training,
    # needs nobody, and tries to commit its next checkpoint: only the fence is in its way.
    site = disruptable
    site.local_cluster()
    run = train(nodes=ranks)
    pods = run.wait_training()
    folder = RunFolder.of(run)
    pids = container_pids(pods[0])
    stop = stop_inside_commit if ranks > 1 else stop_in_training
    stop(folder, pids=pids)
    try:
        logged = folder.logged_steps(attempt=1)
        cut_for_good(site, node=node_of(pods[0]))
        folder.wait_fence(attempt=2, within_s=AFTER_NODE_LOSS_WITHIN_S)
        started_from = folder.fence()[-1]["step"]
    finally:
        send_signal(pids, "SIGCONT")  # its kubelet is still cut off and cannot end it
    wait_pids_ended(pids, within_s=120)
    after = folder.logged_steps(attempt=1)
    if ranks == 1:
        assert len(after) > len(logged), "the zombie did not train on"
    # Its next commit is refused and ends it: it never trains past that checkpoint.
    assert max(after) <= started_from + CHECKPOINT_EVERY_STEPS, "the zombie got past the fence"
    late = [step for step in folder.steps() if step > started_from]
    assert {folder.attempt_of(step) for step in late} <= {2, None}, "the zombie committed"
    assert_exact(run, reference=reference if ranks > 1 else lone_reference, restarts=0, attempts=2)
    assert [entry["attempt"] for entry in folder.fence()] == [1, 2]
