"""One cause an attempt, one charge a cause: the whole table."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cabildo_api.training_job_status import AttemptRecord, Phase
from cabildo_operator.kube.actions import Create
from unit.operator.training_job.world import SETTINGS, World

Fault = Callable[[World], None]


def code(value: int, reason: str = "") -> tuple[int, str]:
    return value, reason


@pytest.mark.parametrize(
    ("first", "second", "reason", "charged"),
    [
        # a non-retryable code stands before everything
        (code(65), code(69), "InvalidData", False),
        (code(76), code(69), "NonFiniteLoss", False),
        (code(78), code(78), "InvalidSpec", False),
        (code(137, "OOMKilled"), code(65), "InvalidData", False),
        (code(69), code(65), "InvalidData", False),
        # told to stop: somebody else's wish
        (code(75), code(75), "Preempted", False),
        (code(75), code(69), "Preempted", False),
        (code(75), code(1), "Preempted", False),
        # the job's own fault
        (code(137, "OOMKilled"), code(69), "OutOfMemory", True),
        (code(69), code(137, "OOMKilled"), "OutOfMemory", True),
        (code(137), code(69), "Killed", True),
        (code(143), code(69), "Killed", True),
        (code(1), code(69), "TrainerError", True),
        (code(1), code(137, "OOMKilled"), "OutOfMemory", True),
        # only 69
        (code(69), code(69), "PeerLost", True),
        # what the kubelet lost is not the trainer's fault
        (code(137, "ContainerStatusUnknown"), code(69), "PodDisrupted", False),
    ],
)
def test_the_first_cause_that_holds_over_all_ranks_counts(
    first: tuple[int, str], second: tuple[int, str], reason: str, charged: bool
) -> None:
    for order in ((0, 1), (1, 0)):
        world = World()
        world.start()
        world.end(order[0], first[0], reason=first[1])
        world.end(order[1], second[0], reason=second[1])
        world.fail_job()
        world.rest()
        record = only(world)
        assert (record.reason, record.charged) == (reason, charged)
        assert world.status.restarts == int(charged)


@pytest.mark.parametrize(
    ("reason", "shown"),
    [
        ("EvictionByEvictionAPI", "PodDisrupted"),
        ("PreemptionByScheduler", "PodDisrupted"),
        ("TerminationByKubelet", "PodDisrupted"),
        ("DeletionByTaintManager", "PodDisrupted"),
        ("DeletionByPodGC", "NodeLost"),
    ],
)
@pytest.mark.parametrize("ended_with", [75, 137, 69, 1])
def test_a_disruption_excuses_every_code_but_a_final_one(
    reason: str, shown: str, ended_with: int
) -> None:
    world = World()
    world.start()
    world.disrupt(0, reason=reason)
    world.tick(5)
    world.end(0, ended_with)
    world.end(1, 69)
    world.fail_job()
    world.rest()
    record = only(world)
    assert (record.reason, record.charged) == (shown, False)


def test_a_final_code_is_final_also_in_a_drain() -> None:
    world = World()
    world.start()
    world.disrupt(0, reason="EvictionByEvictionAPI")
    world.end(0, 65)
    world.fail_job()
    world.rest()
    assert world.status.phase is Phase.FAILED


@pytest.mark.parametrize("ended_with", [75, 137, 143, 69])
def test_a_pod_that_somebody_deleted_costs_nothing(ended_with: int) -> None:
    world = World()
    world.start()
    world.delete_pod(world.pod(0)["metadata"]["name"])
    world.tick(61)
    world.end(0, ended_with)
    world.end(1, 69)
    world.fail_job()
    world.rest()
    assert only(world).charged is False


@pytest.mark.parametrize("obeyed_with", [75, 137, 143])
def test_a_rank_told_to_stop_after_anothers_failure_excuses_nothing(obeyed_with: int) -> None:
    world = World()
    world.start()
    world.end(1, 137, reason="OOMKilled")
    world.fail_job()
    world.tick(3)
    world.end(0, obeyed_with)
    world.rest()
    record = only(world)
    assert (record.reason, record.charged) == ("OutOfMemory", True)


def test_a_kill_that_is_heard_of_after_the_peers_69_is_still_a_kill() -> None:
    """The kubelets speak in any order, and rank 1's pod goes as soon as its 137 is told."""
    world = World()
    world.start()
    world.tick(10)
    world.end(0, 69)
    world.fail_job()
    world.visit()
    assert only(world).charged is None
    world.end(1, 137)
    world.vanish(1)
    world.rest()
    record = only(world)
    assert (record.reason, record.charged) == ("Killed", True)


def test_final_data_faults_are_waited_for_before_another_attempt() -> None:
    world = World(runPolicy={"backoffSeconds": 0})
    world.start()
    world.end(1, 69)
    world.fail_job()
    world.rest()
    world.tick(SETTINGS.settle_s - 1)
    world.rest()
    assert world.jobs() == ["net-r1-a1"]
    world.end(0, 65)
    world.rest()
    assert world.status.phase is Phase.FAILED
    assert world.jobs() == ["net-r1-a1"]


def test_a_lost_node_costs_nothing_even_when_69_came_first() -> None:
    world = World(runPolicy={"backoffSeconds": 1})
    world.start()
    world.tick(60)
    world.end(1, 69)
    world.fail_job()
    world.rest()
    assert only(world).charged is None
    assert world.running()[0] == "PeerLost"
    world.tick(SETTINGS.settle_s)
    world.rest()
    assert world.jobs() == ["net-r1-a1", "net-r1-a2"], "the next attempt does not wait"
    assert world.status.restarts == 0
    world.tick(20)
    world.set_node("node1", ready=False)
    world.rest()
    first, second = world.status.attempts
    assert (first.reason, first.charged) == ("NodeLost", False)
    assert second.charged is None
    assert world.status.restarts == 0


def test_a_node_that_stays_ready_makes_69_a_charge_after_90_s() -> None:
    world = World(runPolicy={"backoffSeconds": 1})
    world.start()
    world.end(1, 69)
    world.fail_job()
    world.rest()
    world.tick(SETTINGS.settle_s)
    made = world.rest()
    assert world.status.restarts == 0
    assert made.wake_at is not None
    world.tick(SETTINGS.node_verdict_s - SETTINGS.settle_s)
    assert made.wake_at <= world.now
    world.rest()
    first, second = world.status.attempts
    assert (first.reason, first.charged) == ("PeerLost", True)
    assert (second.end_time, world.status.restarts) == (None, 1)


def test_a_verdict_is_told_in_the_books_of_a_finished_run_too() -> None:
    world = World(runPolicy={"backoffSeconds": 1})
    world.start()
    world.end(1, 69)
    world.fail_job()
    world.rest()
    world.tick(SETTINGS.settle_s)
    world.rest()
    world.start_pods(attempt=2)
    world.succeed(attempt=2)
    assert world.status.phase is Phase.SUCCEEDED
    assert world.status.restarts == 0
    world.tick(SETTINGS.node_verdict_s)
    world.rest()
    assert world.status.restarts == 1
    assert world.status.phase is Phase.SUCCEEDED


def test_a_charge_that_the_limit_forbids_is_waited_for() -> None:
    world = World(runPolicy={"maxRestarts": 0, "backoffSeconds": 0})
    world.start()
    world.end(1, 69)
    world.fail_job()
    world.tick(SETTINGS.settle_s)
    world.rest()
    assert world.jobs() == ["net-r1-a1"]
    world.set_node("node1", ready=False)
    world.rest()
    assert world.jobs() == ["net-r1-a1", "net-r1-a2"]


def test_a_lost_node_holds_the_next_attempt_up_no_longer() -> None:
    world = World(runPolicy={"backoffSeconds": 0})
    world.start()
    world.tick(30)
    world.set_node("node1", ready=False)
    world.end(1, 69)
    world.fail_job()
    world.rest()
    assert only(world, attempt=1).reason == "NodeLost"
    assert world.jobs() == ["net-r1-a1", "net-r1-a2"]


@pytest.mark.parametrize("operator_restarted", [False, True])
def test_a_deleted_node_costs_nothing_when_its_pod_was_collected(operator_restarted: bool) -> None:
    world = World()
    world.start()
    world.tick(60)
    world.end(1, 69)
    world.fail_job("Container trainer for pod lab/net-r1-a1-1-x2 failed with exit code 69 matching")
    world.remove("Node", "node1", namespace="")
    world.vanish(0)
    if operator_restarted:
        world.forget_departed()
    world.rest()
    assert only(world).charged is False


def test_a_gang_whose_only_pods_are_on_a_lost_node_does_not_wait_for_the_job_controller() -> None:
    world = World(nodes=1)
    world.start(nodes=1)
    world.tick(30)
    world.set_node("node1", ready=False)
    world.rest()
    assert world.running()[0] == "NodeLost"
    assert world.jobs() == ["net-r1-a1"], "the node may come back"
    world.tick(30)
    world.disrupt(0, reason="DeletionByTaintManager")
    world.rest()
    assert only(world, attempt=1).reason == "NodeLost"
    assert world.status.attempt == 2
    assert world.status.restarts == 0


def test_peers_of_an_evicted_rank_get_the_collective_timeout_to_end_by_themselves() -> None:
    world = World()
    world.start()
    world.tick(30)
    world.set_node("node1", ready=False)
    world.disrupt(0, reason="DeletionByTaintManager")
    made = world.rest()
    assert world.jobs() == ["net-r1-a1"]
    patience = SETTINGS.collective_timeout_s + SETTINGS.settle_s
    assert made.wake_at is not None
    assert (made.wake_at - world.now).total_seconds() == patience
    world.tick(patience)
    world.rest()
    assert world.status.attempt == 2
    assert only(world, attempt=1).reason == "NodeLost"
    assert "deletionTimestamp" in world.raw("Job", "net-r1-a1")["metadata"], "told to stop at last"


def test_a_deleted_job_costs_nothing() -> None:
    world = World()
    world.start()
    world.tick(20)
    for rank in (0, 1):
        world.delete_pod(world.pod(rank)["metadata"]["name"])
    world.remove("Job", "net-r1-a1")
    world.rest()
    record = only(world)
    assert (record.reason, record.charged) == ("PodDeleted", False)
    for rank in (0, 1):
        world.end(rank, 75)
    world.rest()
    assert world.jobs() == ["net-r1-a2"]


def test_a_job_that_the_cache_does_not_show_yet_is_not_taken_for_deleted() -> None:
    world = World()
    world.rest()
    world.remove("Job", "net-r1-a1")
    made = world.rest()
    assert world.status.attempt == 1
    assert made.wake_at is not None
    world.tick(SETTINGS.cache_lag_s)
    world.rest()
    assert world.status.attempt == 2


@pytest.mark.parametrize(
    ("message", "reason", "charged"),
    [
        ("failed with exit code 65 matching FailJob rule at index 0", "InvalidData", False),
        ("failed with exit code 75 matching FailJob rule at index 4", "Preempted", False),
        ("failed with exit code 69 matching FailJob rule at index 7", "PeerLost", True),
        ("failed with exit code 137 matching FailJob rule at index 5", "Killed", True),
        ("failed with exit code 3 matching FailJob rule at index 8", "TrainerError", True),
        ("has condition DisruptionTarget matching FailJob rule at index 3", "PodDisrupted", False),
    ],
)
def test_the_jobs_message_speaks_for_a_pod_that_nobody_saw_end(
    message: str, reason: str, charged: bool
) -> None:
    world = World()
    world.start()
    subject = "Pod" if "condition" in message else "Container trainer for pod"
    pod = world.pod(0)["metadata"]["name"]
    world.vanish(0)
    world.forget_departed()
    world.end(1, 69)
    world.fail_job(f"{subject} lab/{pod} {message}")
    world.rest()
    record = only(world)
    assert (record.reason, record.charged) == (reason, charged)


def test_a_pod_that_the_kubelet_rejected_costs_nothing() -> None:
    world = World()
    world.rest()
    world.add_pod(0)
    raw = world.pod(0)
    raw["status"] = {"phase": "Failed", "reason": "OutOfcpu", "message": "not enough cpu"}
    world.put("Pod", raw)
    world.fail_job(reason="BackoffLimitExceeded", message="Job has reached the limit")
    world.rest()
    record = only(world)
    assert (record.reason, record.charged) == ("PodDisrupted", False)
    assert "OutOfcpu: not enough cpu" in (record.message or "")


def test_a_failure_that_nothing_explains_is_charged_and_quotes_the_job() -> None:
    world = World()
    world.start()
    world.end(0, 0)
    world.end(1, 0)
    world.fail_job(reason="Weird", message="for no reason")
    world.rest()
    record = only(world)
    assert record.charged is True
    assert "Weird: for no reason" in (record.message or "")


def test_news_of_the_job_before_news_of_its_pods_decide_nothing() -> None:
    world = World()
    world.start()
    world.fail_job()
    made = world.rest()
    assert only(world).end_time is None
    assert world.status.phase is Phase.RUNNING
    assert made.wake_at is not None
    world.end(0, 137)
    world.end(1, 69)
    world.rest()
    assert only(world).reason == "Killed"


def test_the_trainers_own_words_file_row_and_column_reach_the_conditions() -> None:
    world = World()
    world.start()
    said = "prices.csv row 17 column Close: 'n/a' is not a number"
    message = world.result(
        outcome="failed", exit_code=65, reason="InvalidData", message=said, remedy="Mend the row."
    )
    world.end(0, 65, message=message)
    world.end(1, 69)
    world.fail_job()
    world.rest()
    failed = world.status.condition("Failed")
    assert failed is not None
    assert (failed.status, failed.reason) == ("True", "InvalidData")
    assert said in failed.message
    assert failed.message.endswith("Mend the row.")
    assert world.status.restarts == 0
    assert world.jobs() == ["net-r1-a1"]


def test_65_for_want_of_a_checkpoint_has_a_reason_of_its_own() -> None:
    world = World()
    world.start()
    message = world.result(outcome="failed", exit_code=65, reason="NoValidCheckpoint")
    world.end(0, 65, message=message)
    world.fail_job()
    world.rest()
    failed = world.status.condition("Failed")
    assert failed is not None
    assert failed.reason == "NoValidCheckpoint"


def only(world: World, *, attempt: int = 1) -> AttemptRecord:
    (found,) = [item for item in world.status.attempts if item.attempt == attempt]
    return found


def test_a_cause_once_written_is_not_forgotten_with_its_pod() -> None:
    world = World()
    world.start()
    world.end(1, 137)
    world.fail_job()
    world.rest()
    assert (only(world).reason, only(world).charged) == ("Killed", None)
    world.vanish(1)
    world.forget_departed()
    world.end(0, 69)
    world.rest()
    assert (only(world).reason, only(world).charged) == ("Killed", True)


def test_a_charge_is_written_before_the_next_attempt_is_created() -> None:
    world = World(runPolicy={"backoffSeconds": 0})
    world.start()
    world.tick(10)
    world.end(1, 69)
    world.fail_job()
    world.rest()
    world.end(0, 137)
    world.tick(SETTINGS.settle_s)
    made = world.visit()
    assert not [action for action in made.actions if isinstance(action, Create)]
    assert only(world).charged is True
    assert "Job/net-r1-a2" not in world.created
    world.rest()
    assert "Job/net-r1-a2" in world.created


def test_a_job_whose_charge_awaits_a_verdict_is_not_removed() -> None:
    world = World(runPolicy={"maxRestarts": 9, "backoffSeconds": 0})
    world.start()
    world.end(1, 69)
    world.fail_job()
    world.rest()
    world.tick(SETTINGS.settle_s)
    world.rest()
    for attempt in (2, 3, 4):
        world.start_pods(attempt=attempt)
        for rank in (0, 1):
            world.end(rank, 1, attempt=attempt)
        world.fail_job(attempt=attempt)
        world.rest()
    assert world.jobs()[0] == "net-r1-a1"
    world.set_node("node1", ready=False)
    world.rest()
    assert world.jobs()[0] == "net-r1-a3"


@pytest.mark.parametrize("named", [True, False])
def test_a_pod_deleted_and_ended_within_one_second_costs_nothing(named: bool) -> None:
    """Its deletion and the Job's failure then bear the same time."""
    world = World()
    world.start()
    pod = world.pod(0)["metadata"]["name"]
    world.delete_pod(pod)
    for rank in (0, 1):
        world.end(rank, 75)
    blamed = pod if named else world.pod(1)["metadata"]["name"]
    world.fail_job(
        f"Container trainer for pod lab/{blamed} failed with exit code 75 matching FailJob rule"
    )
    world.rest()
    assert only(world).charged is False


def test_ranks_that_only_obeyed_are_not_charged() -> None:
    world = World()
    world.start()
    for rank in (0, 1):
        world.delete_pod(world.pod(rank)["metadata"]["name"])
        world.end(rank, 75)
    world.fail_job(reason="Weird", message="for no reason")
    world.rest()
    assert (only(world).reason, only(world).charged) == ("Preempted", False)
