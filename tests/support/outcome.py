"""What a finished run left behind, in a form that two runs can be compared by.

Here: the comparison that the whole product stands on: a run that was disturbed equals one
that was not. Never here: how it was disturbed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from support.kube import NODES
from support.training_jobs import condition, label
from support.volumes import RunFolder

if TYPE_CHECKING:
    from support.kube import Object
    from support.training_jobs import TrainingRun

FINISH_WITHIN_S = 240
# The pods of a deleted Node are kept for 40 s and collected every 20 s (pod garbage collector);
# a run on the other nodes may be finished before that.
COLLECTED_WITHIN_S = 120


@dataclass(frozen=True, slots=True)
class Outcome:
    """A run's every loss and its final weights."""

    last_step: int
    weights_sha256: str
    losses: dict[tuple[int, int], set[str]]

    @classmethod
    def of(cls, run: TrainingRun) -> Outcome:
        """Read the outcome of a finished run."""
        folder = RunFolder.of(run)
        last = folder.steps()[-1]
        return cls(
            last_step=last, weights_sha256=folder.weights_sha256(last), losses=folder.losses()
        )


def finish(run: TrainingRun, *, within_s: float = FINISH_WITHIN_S) -> Object:
    """Wait until a run is finished, demand success, and return its status."""
    run.wait_condition("Finished", within_s=within_s)
    status = run.status
    assert condition(status, "Succeeded")["status"] == "True", status
    assert status["phase"] == "Succeeded"
    return status


def assert_same(run: TrainingRun, *, reference: Outcome) -> None:
    """Demand that every logged loss and the final weights equal the reference's."""
    outcome = Outcome.of(run)
    wrong = {
        key: (sorted(values), sorted(reference.losses.get(key, set())))
        for key, values in outcome.losses.items()
        if values != reference.losses.get(key)
    }
    assert not wrong, f"{len(wrong)} losses differ, for instance {dict(list(wrong.items())[:3])}"
    missing = reference.losses.keys() - outcome.losses.keys()
    assert not missing, f"{len(missing)} steps were never logged: {sorted(missing)[:3]}"
    assert outcome.last_step == reference.last_step
    assert outcome.weights_sha256 == reference.weights_sha256


def assert_nothing_left_over(
    run: TrainingRun, *, attempts: int, suspended: frozenset[int] = frozenset()
) -> None:
    """Demand one Job an attempt (the last three), one Service, one claim, no live pod.

    Args:
        run: The finished run.
        attempts: How many attempts it took.
        suspended: Attempts whose Job was deleted because the run was suspended.
    """
    last_three = set(range(max(1, attempts - 2), attempts + 1))
    kept = [f"{run.name}-r1-a{number}" for number in last_three - suspended]
    jobs = run.jobs()
    assert sorted(one["metadata"]["name"] for one in jobs) == sorted(kept)
    assert [one["metadata"]["name"] for one in run.services()] == [run.name]
    assert [one["metadata"]["name"] for one in run.claims()] == [f"{run.name}-checkpoints"]
    for one in [*jobs, *run.services()]:
        owners = one["metadata"]["ownerReferences"]
        assert [owner["uid"] for owner in owners if owner.get("controller")] == [run.uid]
    job_uids = {one["metadata"]["uid"] for one in jobs}
    nodes = run.object["spec"]["nodes"]
    for number in range(1, attempts + 1):
        pods = run.pods(attempt=number)
        assert len(pods) <= nodes, f"attempt {number} has {len(pods)} pods"
    there = {one["metadata"]["name"] for one in run.kube.list(NODES)}
    for pod in run.pods():
        name = pod["metadata"]["name"]
        assert pod["metadata"]["ownerReferences"][0]["uid"] in job_uids, f"{name} is an orphan"
        if pod["spec"].get("nodeName") in there:
            assert _ended(pod), f"{name} still runs"
    run.wait_pods(
        lambda pods: all(_ended(one) for one in pods),
        within_s=COLLECTED_WITHIN_S,
        what="pods of a lost node are gone",
    )
    assert {label(one, "cabildo.dev/uid") for one in run.pods()} <= {run.uid}


def _ended(pod: Object) -> bool:
    return pod["status"]["phase"] in ("Succeeded", "Failed")


def assert_exact(
    run: TrainingRun,
    *,
    reference: Outcome,
    restarts: int,
    attempts: int,
    suspended: frozenset[int] = frozenset(),
    within_s: float = FINISH_WITHIN_S,
) -> Object:
    """Wait for the end and demand everything: success, equality, counts, no leftovers."""
    status = finish(run, within_s=within_s)
    assert status["restarts"] == restarts, status
    assert status["attempt"] == attempts, status
    assert_same(run, reference=reference)
    assert_nothing_left_over(run, attempts=attempts, suspended=suspended)
    return status
