"""Restarts, limits, deadlines, suspension, new runs."""

from __future__ import annotations

import pytest

from cabildo_api import names
from cabildo_api.run_policy import RunPolicy
from cabildo_api.training_job_status import Phase
from cabildo_operator.kube.actions import Delete
from cabildo_operator.reconcile.training_job.timing import backoff_s
from unit.operator.training_job.world import SETTINGS, World


def kill(world: World, *, attempt: int = 1) -> None:
    """An attempt that ends by its own fault."""
    world.end(0, 137, attempt=attempt)
    world.end(1, 69, attempt=attempt)
    world.fail_job(attempt=attempt)


def test_the_next_attempt_waits_for_its_back_off() -> None:
    world = World(runPolicy={"backoffSeconds": 10})
    world.start()
    world.tick(100)
    kill(world)
    made = world.rest()
    assert world.status.phase is Phase.RESTARTING
    assert world.running()[0] == "Killed"
    assert made.wake_at is not None
    assert (made.wake_at - world.now).total_seconds() == 10
    world.tick(9)
    world.rest()
    assert world.jobs() == ["net-r1-a1"]
    world.tick(1)
    world.rest()
    assert world.jobs() == ["net-r1-a1", "net-r1-a2"]
    assert (world.status.attempt, world.status.restarts) == (2, 1)


def test_the_last_cause_is_shown_until_the_next_attempt_runs() -> None:
    world = World(runPolicy={"backoffSeconds": 0})
    world.start()
    kill(world)
    world.rest()
    world.add_pod(0, attempt=2)
    world.rest()
    assert world.running()[0] == "Killed"
    world.add_pod(1, attempt=2)
    for rank in (0, 1):
        world.run_pod(rank, attempt=2)
    world.rest()
    assert world.running()[0] == "Running"


@pytest.mark.parametrize(
    ("restarts", "seconds"), [(1, 10), (2, 20), (3, 40), (5, 160), (6, 300), (1000, 300)]
)
def test_the_back_off_doubles_up_to_five_minutes(restarts: int, seconds: int) -> None:
    assert backoff_s(RunPolicy(backoff_seconds=10), restarts=restarts) == seconds


def test_a_longer_back_off_than_five_minutes_is_taken_as_it_is() -> None:
    assert backoff_s(RunPolicy(backoff_seconds=3600), restarts=3) == 3600


def test_uncharged_attempts_follow_at_once_but_not_in_a_loop() -> None:
    world = World(runPolicy={"backoffSeconds": 10})
    world.start()
    world.tick(3)
    for rank in (0, 1):
        world.end(rank, 75)
    world.fail_job()
    world.rest()
    assert world.jobs() == ["net-r1-a1"], "3 s after its start"
    world.tick(7)
    world.rest()
    assert world.jobs() == ["net-r1-a1", "net-r1-a2"]
    world.start_pods(attempt=2)
    world.tick(60)
    for rank in (0, 1):
        world.end(rank, 75, attempt=2)
    world.fail_job(attempt=2)
    world.rest()
    assert world.status.attempt == 3
    assert world.status.restarts == 0


def test_an_attempt_follows_only_an_ending_that_the_api_server_knows() -> None:
    world = World(runPolicy={"backoffSeconds": 0})
    world.start()
    kill(world)
    made = world.plan()
    assert not [action for action in made.actions if type(action).__name__ == "Create"]
    world.write_status(made)
    world.visit()
    assert world.jobs() == ["net-r1-a1", "net-r1-a2"]


def test_more_failures_than_restarts_end_the_run_with_the_last_cause() -> None:
    world = World(runPolicy={"maxRestarts": 1, "backoffSeconds": 0})
    world.start()
    kill(world)
    world.rest()
    world.start_pods(attempt=2)
    world.end(0, 137, attempt=2, reason="OOMKilled")
    world.end(1, 69, attempt=2)
    world.fail_job(attempt=2)
    world.rest()
    failed = world.status.condition("Failed")
    assert failed is not None
    assert (failed.status, failed.reason) == ("True", "RestartLimitReached")
    assert "maxRestarts 1 used up" in failed.message
    assert "OutOfMemory" in failed.message
    assert "spec.resources.limits.memory" in failed.message
    assert (world.status.restarts, world.status.phase) == (1, Phase.FAILED)
    assert world.is_true("Finished")
    assert world.is_true("Stalled")


def test_only_the_last_three_attempts_keep_their_jobs() -> None:
    world = World(runPolicy={"maxRestarts": 9, "backoffSeconds": 0})
    world.start()
    for attempt in range(1, 6):
        kill(world, attempt=attempt)
        world.rest()
        world.start_pods(attempt=attempt + 1)
    assert world.jobs() == ["net-r1-a4", "net-r1-a5", "net-r1-a6"]
    assert world.status.restarts == 5


def test_the_books_keep_ten_attempts() -> None:
    world = World(runPolicy={"maxRestarts": 99, "backoffSeconds": 0})
    world.start()
    for attempt in range(1, 13):
        kill(world, attempt=attempt)
        world.rest()
        world.start_pods(attempt=attempt + 1)
    assert [item.attempt for item in world.status.attempts] == list(range(4, 14))
    assert world.status.restarts == 12


def test_trained_seconds_add_up_over_attempts() -> None:
    world = World(runPolicy={"backoffSeconds": 0})
    world.start()
    world.tick(50)
    kill(world)
    world.rest()
    world.start_pods(attempt=2)
    world.tick(30)
    world.succeed(attempt=2)
    assert world.status.trained_seconds == 80


def test_an_attempt_that_never_ran_together_adds_nothing() -> None:
    world = World()
    world.rest()
    world.add_pod(0)
    world.run_pod(0)
    world.tick(50)
    world.end(0, 1)
    world.fail_job()
    world.rest()
    assert world.status.trained_seconds == 0


def test_a_run_past_its_deadline_has_failed_and_its_pods_are_told_to_stop() -> None:
    world = World(runPolicy={"activeDeadlineSeconds": 100})
    world.start()
    made = world.rest()
    assert made.wake_at is not None
    assert (made.wake_at - world.now).total_seconds() == 100
    world.tick(100)
    world.visit()
    failed = world.status.condition("Failed")
    assert failed is not None
    assert (failed.status, failed.reason) == ("True", "DeadlineExceeded")
    assert world.status.attempts[0].charged is False
    assert "deletionTimestamp" in world.raw("Job", "net-r1-a1")["metadata"]
    world.rest()


def test_a_raised_deadline_holds() -> None:
    world = World(runPolicy={"activeDeadlineSeconds": 100})
    world.start()
    world.change(runPolicy={"activeDeadlineSeconds": 200})
    world.tick(150)
    world.rest()
    assert world.status.phase is Phase.RUNNING


def test_suspending_stops_gracefully_and_resuming_costs_nothing() -> None:
    world = World()
    world.start()
    world.tick(40)
    world.change(suspend=True)
    made = world.visit()
    (stop,) = [action for action in made.actions if isinstance(action, Delete)]
    assert (stop.name, stop.propagation) == ("net-r1-a1", "Foreground")
    assert world.status.phase is Phase.SUSPENDING
    assert not world.is_true("Suspended")
    world.rest()
    for rank in (0, 1):
        world.end(rank, 75)
        world.rest()
    world.vanish_ended()
    world.rest()
    assert world.status.phase is Phase.SUSPENDED
    assert world.is_true("Suspended")
    (record,) = world.status.attempts
    assert (record.cause, record.charged) == ("Suspended", False)
    world.tick(1000)
    assert world.rest().wake_at is None
    world.change(suspend=False)
    world.rest()
    status = world.status
    assert (status.phase, status.attempt, status.restarts) == (Phase.PENDING, 2, 0)
    assert world.running()[0] == "Resuming"
    assert not world.is_true("Suspended")
    assert status.start_time == world.now


def test_a_suspended_object_creates_nothing() -> None:
    world = World(suspend=True)
    world.rest()
    assert world.created == []
    assert world.status.phase is Phase.SUSPENDED
    assert world.status.attempt == 0
    world.change(suspend=False)
    world.rest()
    assert world.jobs() == ["net-r1-a1"]


def test_resuming_before_the_pods_have_ended_waits_for_them() -> None:
    world = World()
    world.start()
    world.tick(40)
    world.change(suspend=True)
    world.rest()
    world.change(suspend=False)
    world.rest()
    assert world.status.phase is Phase.SUSPENDING
    assert world.jobs() == ["net-r1-a1"]
    world.vanish_ended()
    world.rest()
    assert world.jobs() == ["net-r1-a2"]
    assert world.status.attempts[0].cause == "Suspended"


def test_suspending_in_the_moment_of_creation_waits_for_the_caches() -> None:
    world = World()
    world.rest()
    world.remove("Job", "net-r1-a1")
    world.change(suspend=True)
    made = world.rest()
    assert world.status.phase is Phase.SUSPENDING
    assert made.wake_at is not None
    world.tick(SETTINGS.cache_lag_s)
    world.rest()
    assert world.status.phase is Phase.SUSPENDED


def test_a_pod_on_a_lost_node_does_not_hold_up_the_suspension() -> None:
    world = World()
    world.start()
    world.tick(40)
    world.set_node("node1", ready=False)
    world.change(suspend=True)
    world.rest()
    world.end(1, 69)
    world.rest()
    assert world.status.phase is Phase.SUSPENDED


def test_a_final_fault_found_while_suspending_is_still_final() -> None:
    world = World()
    world.start()
    world.tick(40)
    world.change(suspend=True)
    world.rest()
    world.end(0, 65)
    world.rest()
    assert world.status.phase is Phase.FAILED


def test_a_failed_attempt_is_charged_though_the_object_is_suspended() -> None:
    world = World()
    world.start()
    kill(world)
    world.change(suspend=True)
    world.rest()
    assert world.status.phase is Phase.SUSPENDED
    assert world.status.restarts == 1
    assert world.jobs() == ["net-r1-a1"]


def test_the_deadline_does_not_run_while_suspended() -> None:
    world = World(runPolicy={"activeDeadlineSeconds": 100})
    world.start()
    world.tick(90)
    world.change(suspend=True)
    world.rest()
    world.vanish_ended()
    world.rest()
    world.tick(1000)
    world.change(suspend=False)
    world.rest()
    world.start_pods(attempt=2)
    world.tick(90)
    world.rest()
    assert world.status.phase is Phase.RUNNING


def test_the_deadline_does_not_run_while_suspended_between_two_attempts() -> None:
    world = World(runPolicy={"activeDeadlineSeconds": 100, "backoffSeconds": 60})
    world.start()
    kill(world)
    world.rest()
    world.change(suspend=True)
    world.rest()
    assert world.status.start_time is None
    world.tick(1000)
    world.change(suspend=False)
    world.rest()
    assert (world.status.phase, world.status.attempt) == (Phase.RESTARTING, 2)


def test_a_deadline_ends_a_run_whose_last_charge_awaits_a_verdict() -> None:
    world = World(runPolicy={"activeDeadlineSeconds": 20, "maxRestarts": 0})
    world.start()
    world.end(1, 69)
    world.fail_job()
    world.tick(20)
    world.rest()
    failed = world.status.condition("Failed")
    assert failed is not None
    assert failed.reason == "DeadlineExceeded"
    assert world.status.attempts[0].charged is False


def test_a_new_run_id_trains_again_from_nothing() -> None:
    world = World()
    world.start()
    world.succeed()
    world.change(runID="2")
    world.rest()
    status = world.status
    assert (status.run, status.run_id, status.attempt, status.restarts) == (2, "2", 1, 0)
    assert status.phase is Phase.PENDING
    assert not world.is_true("Finished")
    assert (status.result, status.progress, status.completion_time) == (None, None, None)
    assert world.jobs() == ["net-r1-a1", "net-r2-a1"]
    assert [(item.run, item.attempt) for item in status.attempts] == [(1, 1), (2, 1)]


def test_a_new_run_waits_until_the_pods_of_the_old_one_have_ended() -> None:
    world = World()
    world.start()
    world.change(runID="again")
    world.rest()
    assert world.jobs() == ["net-r1-a1"]
    assert "deletionTimestamp" in world.raw("Job", "net-r1-a1")["metadata"]
    assert world.status.phase is Phase.PENDING
    assert world.status.attempts[0].cause == "Superseded"
    world.vanish_ended()
    world.rest()
    assert world.jobs() == ["net-r2-a1"]


def test_a_run_whose_first_status_was_lost_is_found_by_its_job() -> None:
    world = World()
    world.start()
    world.succeed()
    world.change(runID="2")
    made = world.plan()
    for action in made.actions:
        world.carry_out(action)
    world.rest()
    assert world.jobs() == ["net-r1-a1", "net-r2-a1"]
    assert (world.status.run, world.status.attempt) == (2, 1)


def test_a_job_of_a_run_given_up_unseen_is_not_taken_over() -> None:
    world = World()
    world.start()
    world.succeed()
    world.change(runID="2")
    for action in world.plan().actions:
        world.carry_out(action)
    world.change(runID="3")
    world.rest()
    world.vanish_ended()
    world.rest()
    assert world.status.run == 3
    assert "net-r3-a1" in world.jobs()
    label = world.raw("Job", "net-r3-a1")["metadata"]["labels"][names.LABEL_RUN_ID]
    assert label == "3"
