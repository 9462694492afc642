"""What holds whatever happens: plans come to rest, and a crash anywhere changes nothing."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unit.operator.training_job.world import KEY, SETTINGS, Crash, World

PROFILE = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
CODES = (0, 1, 65, 69, 75, 76, 78, 137, 143)
DISRUPTIONS = ("EvictionByEvictionAPI", "DeletionByTaintManager", "PreemptionByScheduler")

ranks = st.integers(0, 1)
steps = st.one_of(
    st.tuples(st.just("end"), ranks, st.sampled_from(CODES), st.booleans()),
    st.tuples(st.just("complete"), ranks),
    st.tuples(st.just("delete"), ranks),
    st.tuples(st.just("vanish"), ranks),
    st.tuples(st.just("disrupt"), ranks, st.sampled_from(DISRUPTIONS)),
    st.tuples(st.just("node"), st.sampled_from(("node1", "node2")), st.booleans()),
    st.tuples(st.just("suspend"), st.booleans()),
    st.tuples(st.just("run"), st.sampled_from(("1", "2"))),
    st.tuples(st.just("delete job")),
    st.tuples(st.just("collect")),
    st.tuples(st.just("tick"), st.sampled_from((1, 5, SETTINGS.settle_s, 30, 100, 1000))),
)


def happen(world: World, step: tuple[Any, ...]) -> None:
    """One thing happens to the newest attempt, if it can."""
    status = world.status
    place = {"run": status.run or 1, "attempt": status.attempt or 1}
    job = f"{KEY.name}-r{place['run']}-a{place['attempt']}"
    if step[0] == "tick":
        world.tick(step[1])
    elif step[0] == "suspend":
        world.change(suspend=step[1])
    elif step[0] == "run":
        world.change(runID=step[1])
    elif step[0] == "node":
        world.set_node(step[1], ready=step[2])
    elif step[0] == "collect":
        world.vanish_ended()
    elif job in world.jobs() and step[0] == "delete job":
        world.remove("Job", job)
    elif job in world.jobs():
        happen_to_pods(world, step, job=job, **place)


def happen_to_pods(
    world: World, step: tuple[Any, ...], *, job: str, run: int, attempt: int
) -> None:
    if not world.pods_of(job):
        if "deletionTimestamp" not in world.raw("Job", job)["metadata"]:
            world.start_pods(run=run, attempt=attempt)
        return
    found = [pod for pod in world.pods_of(job) if f"{job}-{step[1]}-" in pod["metadata"]["name"]]
    if not found or found[0]["status"]["phase"] != "Running" or run != 1:
        return
    rank = step[1]
    if step[0] == "end":
        message = world.result(run=run, attempt=attempt) if step[2] == 0 and step[3] else ""
        world.end(rank, step[2], attempt=attempt, message=message)
        if step[2]:
            world.fail_job(attempt=attempt)
        elif all(pod["status"]["phase"] == "Succeeded" for pod in world.pods_of(job)):
            world.complete_job(attempt=attempt)
    elif step[0] == "disrupt":
        world.disrupt(rank, reason=step[2], attempt=attempt)
    elif step[0] == "delete":
        world.delete_pod(found[0]["metadata"]["name"])
    elif step[0] == "vanish":
        world.vanish(rank, attempt=attempt)


def is_live(job: dict[str, Any]) -> bool:
    return (
        not job.get("status", {}).get("conditions") and "deletionTimestamp" not in job["metadata"]
    )


def check(world: World) -> None:
    """What is true of every state that a plan has come to rest in."""
    status = world.status
    live = [name for name in world.jobs() if is_live(world.raw("Job", name))]
    assert len(live) <= 1, "two gangs at once"
    assert (status.restarts or 0) <= 3
    charged = sum(bool(item.charged) for item in status.attempts if item.run == status.run)
    if len(status.attempts) < 10:
        assert charged - (status.restarts or 0) in {0, 1}, "the charge too many ends the run"
    finished = world.is_true("Finished")
    assert finished == (world.is_true("Succeeded") or world.is_true("Failed"))
    assert not (world.is_true("Succeeded") and world.is_true("Failed"))
    if finished or world.is_true("Suspended"):
        assert not live


@PROFILE
@given(st.lists(steps, max_size=25))
def test_plans_come_to_rest_and_nothing_is_ever_created_twice(
    story: list[tuple[Any, ...]],
) -> None:
    world = World(runPolicy={"backoffSeconds": 1})
    world.rest()
    for step in story:
        happen(world, step)
        world.rest()
        check(world)
    jobs = [name for name in world.created if name.startswith("Job/")]
    assert len(jobs) == len(set(jobs))


@PROFILE
@given(st.lists(steps, max_size=12), st.lists(st.integers(0, 5), max_size=6))
def test_a_crash_between_any_two_writes_leads_to_the_same_world(
    story: list[tuple[Any, ...]], crashes: list[int]
) -> None:
    calm, shaken = World(runPolicy={"backoffSeconds": 1}), World(runPolicy={"backoffSeconds": 1})
    for world in (calm, shaken):
        world.rest()
    pending = iter(crashes)
    for step in story:
        happen(calm, step)
        calm.rest()
        happen(shaken, step)
        for after in pending:
            try:
                shaken.visit(crash_after=after)
            except Crash:
                break
        shaken.rest()
    assert shaken.jobs() == calm.jobs()
    assert shaken.created == calm.created
    assert json.dumps(shaken.status.to_object()) == json.dumps(calm.status.to_object())
    assert {event.fact for event in shaken.events} == {event.fact for event in calm.events}


@PROFILE
@given(st.lists(steps, max_size=15))
def test_a_finished_run_stays_finished(story: list[tuple[Any, ...]]) -> None:
    world = World(runPolicy={"backoffSeconds": 1})
    world.start()
    world.succeed()
    created = list(world.created)
    for step in story:
        if step[0] != "run":
            happen(world, step)
            world.rest()
    assert world.created == created
    assert world.is_true("Succeeded")
