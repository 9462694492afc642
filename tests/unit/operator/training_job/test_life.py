"""From the first visit to a result."""

from __future__ import annotations

from datetime import timedelta

import pytest

from cabildo_api.conditions import ConditionType
from cabildo_api.progress import ProgressReport
from cabildo_api.training_job_status import Phase
from cabildo_operator.kube.actions import Apply, Create
from cabildo_operator.kube.store import ObjectKey
from cabildo_operator.progress.board import Report
from cabildo_operator.reconcile.kind import Refusal
from cabildo_operator.reconcile.training_job.observed import observe
from unit.operator.training_job.world import KEY, START, UID, World


@pytest.fixture
def world() -> World:
    return World()


def test_the_first_visit_creates_claim_service_and_job_in_this_order(world: World) -> None:
    world.visit()
    assert world.created == [
        "PersistentVolumeClaim/net-checkpoints",
        "Service/net",
        "Job/net-r1-a1",
    ]


def test_the_first_write_of_a_start_and_its_job_demand_a_fresh_read(world: World) -> None:
    def asked() -> list[tuple[str, bool]]:
        found = [action for action in world.plan().actions if isinstance(action, Create)]
        return [(action.kind, action.requires_fresh_read) for action in found]

    assert asked() == [("PersistentVolumeClaim", True), ("Service", False), ("Job", True)]
    for action in world.plan().actions[:2]:
        world.carry_out(action)
    assert asked() == [("Job", True)]


def test_all_conditions_are_there_from_the_first_visit_on(world: World) -> None:
    world.visit()
    assert {item.type for item in world.status.conditions} == set(ConditionType)
    assert {item.observed_generation for item in world.status.conditions} == {1}
    assert world.is_true("Accepted")
    assert not world.is_true("Finished")
    succeeded = world.status.condition("Succeeded")
    assert succeeded is not None
    assert succeeded.status == "Unknown"


def test_a_started_attempt_waits_for_its_pods(world: World) -> None:
    world.rest()
    status = world.status
    assert (status.phase, status.run, status.attempt, status.ready) == ("Pending", 1, 1, "0/2")
    assert world.running()[0] == "WaitingForPods"
    assert status.selector == f"cabildo.dev/uid={UID},cabildo.dev/run=1,cabildo.dev/attempt=1"
    assert status.start_time == START


def test_pods_coming_up_one_by_one_change_nothing_but_the_counts(world: World) -> None:
    world.rest()
    before = world.status.conditions
    world.add_pod(0)
    world.add_pod(1)
    world.run_pod(0)
    world.rest()
    assert world.status.conditions == before
    assert (world.status.ready, world.status.nodes) == ("1/2", 2)


def test_a_gang_runs_when_all_its_ranks_run(world: World) -> None:
    world.start()
    assert world.status.phase is Phase.RUNNING
    assert world.is_true("Running")
    assert world.status.ready == "2/2"


def test_a_condition_keeps_its_time_while_its_status_stays(world: World) -> None:
    world.start()
    world.tick(60)
    world.change(suspend=False)
    world.rest()
    running = world.status.condition("Running")
    assert running is not None
    assert running.last_transition_time == START
    assert running.observed_generation == 2


def test_a_rank_that_is_through_first_does_not_end_the_running(world: World) -> None:
    world.start()
    world.end(1, 0)
    world.rest()
    assert world.status.phase is Phase.RUNNING


def test_a_complete_result_of_rank_0_is_success(world: World) -> None:
    world.start()
    world.tick(90)
    world.succeed()
    status = world.status
    assert status.phase is Phase.SUCCEEDED
    assert world.is_true("Succeeded")
    assert world.is_true("Finished")
    assert not world.is_true("Failed")
    assert not world.is_true("Stalled")
    assert status.result is not None
    assert status.result.metrics[0].value == "0.71"
    assert status.completion_time == START + timedelta(seconds=90)
    assert status.trained_seconds == 90
    assert status.progress is not None
    assert status.progress.percentage == 100


def test_success_waits_for_the_news_of_rank_0s_end(world: World) -> None:
    world.start()
    world.end(1, 0)
    world.complete_job()
    world.rest()
    assert world.status.phase is Phase.RUNNING
    world.end(0, 0, message=world.result())
    world.rest()
    assert world.status.phase is Phase.SUCCEEDED


@pytest.mark.parametrize(
    "message",
    ["", "done", '{"outcome":"preempted"}'],
    ids=["nothing", "no record", "another outcome"],
)
def test_code_0_without_a_complete_record_costs_a_restart(world: World, message: str) -> None:
    world.start()
    world.end(1, 0)
    world.end(0, 0, message=message)
    world.complete_job()
    world.rest()
    (record,) = world.status.attempts
    assert (record.reason, record.charged) == ("ResultMissing", True)
    assert world.status.phase is Phase.RESTARTING


def test_the_record_of_another_attempt_is_no_result(world: World) -> None:
    world.start()
    world.end(1, 0)
    world.end(0, 0, message=world.result(attempt=7))
    world.complete_job()
    world.rest()
    assert world.status.attempts[0].reason == "ResultMissing"


def test_a_result_that_was_deleted_with_its_pod_costs_no_restart(world: World) -> None:
    world.start()
    world.end(1, 0)
    world.vanish(0)
    world.forget_departed()
    world.complete_job()
    world.rest()
    (record,) = world.status.attempts
    assert (record.reason, record.charged) == ("PodDeleted", False)


def test_a_service_that_was_deleted_is_made_again(world: World) -> None:
    world.start()
    world.remove("Service", "net")
    world.rest()
    assert world.created.count("Service/net") == 2


def test_a_service_that_was_changed_is_repaired(world: World) -> None:
    world.start()
    raw = world.raw("Service", "net")
    raw["spec"]["selector"] = {"app": "other"}
    world.put("Service", raw)
    made = world.visit()
    assert [action.uid for action in made.actions if isinstance(action, Apply)] == [
        raw["metadata"]["uid"]
    ]
    raw = world.raw("Service", "net")
    raw["spec"]["selector"].pop("app")
    world.put("Service", raw)
    world.rest()


def test_an_object_that_is_being_deleted_is_left_alone(world: World) -> None:
    world.start()
    raw = world.raw("TrainingJob", KEY.name)
    raw["metadata"]["deletionTimestamp"] = "2026-11-22T12:00:00Z"
    world.put("TrainingJob", raw)
    made = world.plan()
    assert (made.actions, made.status) == ((), None)


def test_a_report_becomes_progress(world: World) -> None:
    world.start()
    world.stores.reports.post(KEY, report=report(attempt=1))
    world.rest()
    progress, checkpoint = world.status.progress, world.status.checkpoint
    assert progress is not None
    assert (progress.percentage, progress.eta_seconds, progress.step) == (40, 95, 1200)
    assert progress.loss == "0.231"
    assert checkpoint is not None
    assert checkpoint.last is not None
    assert checkpoint.last.step == 1100


def test_a_report_of_an_earlier_attempt_is_not_shown(world: World) -> None:
    world.start()
    world.stores.reports.post(KEY, report=report(attempt=0))
    world.rest()
    assert world.status.progress is None


def test_a_report_of_kubeflows_own_client_will_do(world: World) -> None:
    world.start()
    body = ProgressReport.model_validate(
        {"trainerStatus": {"progressPercentage": 3, "metrics": [{"name": "loss", "value": 1.5}]}}
    )
    world.stores.reports.post(KEY, report=report(attempt=1, body=body))
    world.rest()
    assert world.status.progress is not None
    assert (world.status.progress.percentage, world.status.progress.loss) == (3, "1.5")


def test_a_damaged_checkpoint_is_told_once(world: World) -> None:
    world.start()
    world.stores.reports.post(KEY, report=report(attempt=1))
    world.rest()
    world.rest()
    told = [event for event in world.events if event.reason == "CheckpointCorrupt"]
    assert [event.type for event in told] == ["Warning"]
    assert "step-000000001000" in told[0].message
    assert world.status.attempts[0].corrupt_checkpoints == ("step-000000001000.corrupt",)


def report(*, attempt: int, body: ProgressReport | None = None) -> Report:
    own = {
        "epoch": 8,
        "step": 1200,
        "totalSteps": 3000,
        "loss": "0.231",
        "checkpoint": {"last": {"step": 1100, "uri": "pvc://c/x", "digest": "sha256:00"}},
        "parameters": {"total": 10, "trainable": 10},
        "dataDigest": "sha256:11",
        "corruptCheckpoints": [{"path": "step-000000001000.corrupt", "reason": "digest"}],
    }
    general = {"progressPercentage": 40, "estimatedRemainingSeconds": 95}
    return Report(
        uid=UID,
        pod_uid="p",
        run=1,
        attempt=attempt,
        received_at=START,
        body=body or ProgressReport.model_validate({"trainerStatus": general, "cabildo": own}),
    )


@pytest.mark.parametrize(
    ("reason", "shown"),
    [("ChildNameConflict", "ChildNameConflict"), ("Invalid", "CreateRefused")],
)
def test_a_refused_child_is_explained_and_nothing_is_counted(
    world: World, reason: str, shown: str
) -> None:
    refusal = Refusal(kind="Job", name="net-r1-a1", code=409, reason=reason, message="taken")
    made = world.plan(refusal=refusal)
    world.write_status(made)
    assert {type(action).__name__ for action in made.actions} == {"EmitEvent"}
    assert world.running()[0] == shown
    assert "Job net-r1-a1: taken." in world.running()[1]
    assert world.is_true("Stalled")
    assert world.status.attempt == 0
    assert world.status.attempts == ()
    world.rest()
    assert world.status.attempt == 1
    assert not world.is_true("Stalled")


def test_a_refusal_beside_a_live_attempt_is_told_and_lets_it_run(world: World) -> None:
    world.start()
    refusal = Refusal(kind="Service", name="net", code=403, reason="Forbidden", message="no")
    made = world.plan(refusal=refusal)
    world.write_status(made)
    assert [(type(one).__name__, one.reason) for one in made.actions] == [
        ("EmitEvent", "CreateRefused")
    ]
    assert world.plan(refusal=refusal).actions == ()
    assert world.status.phase is Phase.RUNNING
    stalled = world.status.condition("Stalled")
    assert stalled is not None
    assert (stalled.status, stalled.reason) == ("True", "CreateRefused")
    assert "Service net: no." in stalled.message
    world.rest()
    assert not world.is_true("Stalled")


def test_of_many_damaged_checkpoints_the_first_four_are_told(world: World) -> None:
    world.start()
    many = [{"path": f"step-{number}", "reason": "digest"} for number in range(6)]
    body = ProgressReport.model_validate(
        {"trainerStatus": {}, "cabildo": {"corruptCheckpoints": many}}
    )
    world.stores.reports.post(KEY, report=report(attempt=1, body=body))
    world.rest()
    told = [event for event in world.events if event.reason == "CheckpointCorrupt"]
    assert len(told) == 4


def test_damage_that_only_the_result_record_tells_is_told_too(world: World) -> None:
    world.start()
    damage = ({"path": "step-1.corrupt", "reason": "digest"},)
    world.end(1, 75)
    world.end(0, 75, message=world.result(outcome="preempted", corrupt_checkpoints=damage))
    world.fail_job()
    world.rest()
    assert "CheckpointCorrupt" in [event.reason for event in world.events]


def test_a_spec_that_cannot_be_read_is_final_until_it_changes(world: World) -> None:
    world.change(nodes="two")
    world.rest()
    assert world.created == []
    accepted = world.status.condition("Accepted")
    assert accepted is not None
    assert (accepted.status, accepted.reason) == ("False", "InvalidSpec")
    assert "spec.nodes" in accepted.message
    assert world.is_true("Finished")
    assert world.is_true("Stalled")
    world.change(nodes=2)
    world.rest()
    assert world.is_true("Accepted")
    assert "Job/net-r1-a1" in world.created
    assert not world.is_true("Finished")


def test_a_waiting_object_recovers_from_an_unreadable_spec() -> None:
    world = World(storage_class=False)
    world.rest()
    world.change(nodes="two")
    world.rest()
    assert world.is_true("Finished")
    world.change(nodes=2)
    world.rest()
    assert world.running()[0] == "StorageClassNotFound"
    assert not world.is_true("Finished")


def test_a_status_that_cannot_be_read_is_found_again_from_the_jobs(world: World) -> None:
    world.start()
    raw = world.raw("TrainingJob", KEY.name)
    raw["status"] = {"run": "one"}
    world.put("TrainingJob", raw)
    world.rest()
    assert (world.status.run, world.status.attempt) == (1, 1)
    assert world.status.phase is Phase.RUNNING
    assert world.jobs() == ["net-r1-a1"]


def test_an_object_that_is_gone_is_not_observed(world: World) -> None:
    assert observe(ObjectKey("lab", "other"), stores=world.stores) is None


def test_an_unreadable_spec_does_not_stop_a_running_attempt(world: World) -> None:
    world.start()
    world.change(fieldOfTheFuture=1)
    world.rest()
    assert world.status.phase is Phase.RUNNING
    assert not world.is_true("Accepted")
    assert not world.is_true("Finished")
    assert world.jobs() == ["net-r1-a1"]


def test_an_unreadable_spec_does_not_undo_a_finish(world: World) -> None:
    world.start()
    world.succeed()
    world.change(fieldOfTheFuture=1)
    world.rest()
    assert world.status.phase is Phase.SUCCEEDED
    assert world.is_true("Succeeded")


@pytest.mark.parametrize("code", [0, 65])
def test_a_finished_object_is_not_run_again_because_its_children_were_deleted(
    world: World, code: int
) -> None:
    world.start()
    if code:
        world.end(0, code)
        world.fail_job()
        world.end(1, 69)
        world.rest()
    else:
        world.succeed()
    finished = world.status
    assert world.is_true("Finished")
    for rank in (0, 1):
        world.vanish(rank)
    world.remove("Job", "net-r1-a1")
    world.remove("Service", "net")
    world.tick(3600)
    created = len(world.created)
    world.rest()
    assert len(world.created) == created
    assert world.status == finished
