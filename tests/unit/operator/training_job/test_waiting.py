"""What is missing before an attempt, and what keeps its pods from running."""

from __future__ import annotations

from datetime import timedelta

import pytest

from cabildo_api import names
from cabildo_api.reasons import remedy
from cabildo_api.training_job_status import Phase
from unit.operator.training_job.world import KEY, World, condition

FILE = {"name": "prices", "file": {"uri": "pvc://prices/a/b.csv"}}

OURS = {
    names.LABEL_MANAGED_BY: names.MANAGED_BY,
    names.LABEL_NAME: KEY.name,
    names.LABEL_UID: "the-one-before",
}


def waits_for(world: World, reason: str) -> str:
    world.rest()
    assert world.created == []
    assert world.status.phase is Phase.PENDING
    assert world.running()[0] == reason
    assert remedy(reason) in world.running()[1]
    assert world.is_true("Accepted"), "a dangling reference is no fault of the spec"
    assert world.is_true("Stalled") == (reason == "ChildNameConflict")
    return world.running()[1]


def storage(**member: object) -> dict[str, object]:
    return {"storage": member}


def test_a_storage_class_that_does_not_exist_is_awaited() -> None:
    template = {"storageClassName": "fast"}
    world = World(checkpoint=storage(claimTemplate=template))
    assert "'fast'" in waits_for(world, "StorageClassNotFound")
    world.add_storage_class("fast")
    world.rest()
    assert world.jobs() == ["net-r1-a1"]
    claim = world.raw("PersistentVolumeClaim", "net-checkpoints")
    assert claim["spec"]["storageClassName"] == "fast"


def test_a_default_storage_class_is_awaited() -> None:
    world = World(storage_class=False)
    world.add_storage_class("other")
    waits_for(world, "StorageClassNotFound")
    world.add_storage_class("standard", default=True)
    world.rest()
    assert world.jobs() == ["net-r1-a1"]


def test_a_claim_that_is_there_already_is_used_and_asks_for_no_class() -> None:
    world = World(storage_class=False)
    world.add_claim("net-checkpoints", labels=OURS)
    world.rest()
    assert world.created == ["Service/net", "Job/net-r1-a1"]


def test_a_strangers_claim_of_our_name_is_not_written_into() -> None:
    world = World()
    world.add_claim("net-checkpoints")
    assert "spec.checkpoint.storage.claimName" in waits_for(world, "ChildNameConflict")
    world.remove("PersistentVolumeClaim", "net-checkpoints")
    world.rest()
    assert "PersistentVolumeClaim/net-checkpoints" in world.created


def test_a_claim_that_is_still_to_be_collected_is_not_used() -> None:
    world = World()
    owner = {"kind": "TrainingJob", "name": "net", "uid": "the-one-before", "controller": True}
    world.add_claim("net-checkpoints", labels=OURS, ownerReferences=[owner])
    world.rest()
    assert world.created == []
    assert world.running()[0] == "ClaimPending"


def test_a_claim_left_behind_cannot_be_deleted_with_this_object() -> None:
    world = World(checkpoint=storage(claimTemplate={"retentionPolicy": "Delete"}))
    world.add_claim("net-checkpoints", labels=OURS)
    assert "write Retain" in waits_for(world, "ChildNameConflict")


def test_a_claim_of_the_users_is_awaited_by_name() -> None:
    world = World(checkpoint=storage(claimName="mine"))
    assert "spec.checkpoint.storage.claimName" in waits_for(world, "ClaimNotFound")
    world.add_claim("mine")
    world.rest()
    assert world.created == ["Service/net", "Job/net-r1-a1"]


def test_a_claim_with_data_is_awaited_by_name() -> None:
    data = {"sources": [FILE]}
    world = World(data=data)
    assert "spec.data.sources[prices].file.uri" in waits_for(world, "ClaimNotFound")
    world.add_claim("prices")
    world.rest()
    assert world.jobs() == ["net-r1-a1"]


@pytest.mark.parametrize(
    ("phase", "meta"),
    [("Lost", {}), ("Bound", {"deletionTimestamp": "2026-11-22T12:00:00Z"})],
    ids=["lost", "being deleted"],
)
def test_a_claim_on_its_way_out_is_not_used(phase: str, meta: dict[str, str]) -> None:
    world = World(checkpoint=storage(claimName="mine"))
    world.add_claim("mine", phase=phase, **meta)
    waits_for(world, "ClaimPending")


def test_an_unbound_claim_does_not_hold_up_the_pods_that_bind_it() -> None:
    world = World(checkpoint=storage(claimName="mine"))
    world.add_claim("mine", phase="Pending")
    world.rest()
    assert world.jobs() == ["net-r1-a1"]


def test_children_of_a_deleted_object_of_the_same_name_are_awaited() -> None:
    world = World()
    labels = {
        names.LABEL_KIND: names.KIND,
        names.LABEL_NAME: KEY.name,
        names.LABEL_UID: "the-one-before",
    }
    meta = {"name": "net", "namespace": KEY.namespace, "uid": "s", "labels": labels}
    world.put("Service", {"metadata": meta})
    made = world.rest()
    assert world.created == []
    assert world.running()[0] == "Pending"
    assert "Service net" in world.running()[1]
    assert made.wake_at is not None
    world.remove("Service", "net")
    world.rest()
    assert world.jobs() == ["net-r1-a1"]


def test_a_later_attempt_waits_in_the_same_way() -> None:
    world = World(checkpoint=storage(claimName="mine"), runPolicy={"backoffSeconds": 0})
    world.add_claim("mine")
    world.start()
    world.end(0, 1)
    world.end(1, 1)
    world.fail_job()
    world.remove("PersistentVolumeClaim", "mine")
    world.rest()
    assert world.status.phase is Phase.RESTARTING
    assert world.running()[0] == "ClaimNotFound"


@pytest.mark.parametrize(
    ("waiting", "text", "reason", "shown"),
    [
        ("ErrImagePull", "not found", "ImageUnavailable", "image repo/x:1: not found."),
        (
            "ImagePullBackOff",
            'Back-off pulling image "repo/x:1": ErrImagePull: not found',
            "ImageUnavailable",
            "image repo/x:1: not found.",
        ),
        (
            "ImagePullBackOff",
            'Back-off pulling image "repo/x:1"',
            "ImageUnavailable",
            "image repo/x:1: ImagePullBackOff.",
        ),
        ("InvalidImageName", "cannot parse", "ImageUnavailable", "image repo/x:1: cannot parse."),
        (
            "CreateContainerConfigError",
            'secret "s" not found',
            "ContainerConfigInvalid",
            'CreateContainerConfigError: secret "s" not found.',
        ),
        ("RunContainerError", "", "ContainerConfigInvalid", "RunContainerError."),
    ],
)
def test_a_container_that_cannot_start_is_explained(
    waiting: str, text: str, reason: str, shown: str
) -> None:
    world = World()
    world.rest()
    world.add_pod(0)
    world.add_pod(1)
    world.wait_pod(1, reason=waiting, message=text, image="repo/x:1")
    world.rest()
    assert world.running() == (reason, f"rank 1: {shown} {remedy(reason)}")
    assert world.status.phase is Phase.PENDING
    told = [event for event in world.events if event.reason == reason]
    assert [event.type for event in told] == ["Warning"]


def test_a_pull_that_fails_again_and_again_is_written_once() -> None:
    world = World()
    world.rest()
    world.add_pod(0)
    world.wait_pod(0, reason="ErrImagePull", message="not found")
    world.rest()
    before = world.status
    back_off = 'Back-off pulling image "i:1": ErrImagePull: not found'
    world.wait_pod(0, reason="ImagePullBackOff", message=back_off)
    world.rest()
    assert world.status == before


@pytest.mark.parametrize("waiting", ["ContainerCreating", "PodInitializing"])
def test_a_container_on_its_way_is_no_trouble(waiting: str) -> None:
    world = World()
    world.rest()
    world.add_pod(0)
    world.wait_pod(0, reason=waiting)
    world.rest()
    assert world.running()[0] == "WaitingForPods"


@pytest.mark.parametrize(
    ("text", "reason", "patience_s"),
    [
        ("0/2 nodes are available: 2 Insufficient cpu.", "Unschedulable", 3),
        (
            "0/2 nodes are available: pod has unbound immediate PersistentVolumeClaims.",
            "ClaimPending",
            7,
        ),
    ],
)
def test_the_schedulers_words_are_passed_on_when_they_last(
    text: str, reason: str, patience_s: int
) -> None:
    world = World()
    world.rest()
    world.add_pod(0)
    raw = world.pod(0)
    told = condition("PodScheduled", at=world.now, reason="Unschedulable", message=text)
    raw["status"]["conditions"] = [told | {"status": "False"}]
    world.put("Pod", raw)
    world.rest()
    assert world.running()[0] == "WaitingForPods", "a claim may be bound in a moment"
    wake_at = world.plan().wake_at
    assert wake_at == world.now + timedelta(seconds=patience_s)
    world.tick(patience_s)
    world.rest()
    assert world.running() == (reason, f"rank 0: {text} {remedy(reason)}")


def test_a_lost_node_is_told_while_the_gang_still_hopes() -> None:
    world = World()
    world.start()
    world.set_node("node2", ready=False)
    world.rest()
    assert world.running()[0] == "NodeLost"
    assert "node2" in world.running()[1]
    assert not world.is_true("Running")
    world.set_node("node2", ready=True)
    world.rest()
    assert world.is_true("Running")
    assert world.status.attempt == 1


QUOTA = "is forbidden: exceeded quota: pods, requested: pods=1, used: pods=0, limited: pods=0"


def test_pods_that_cannot_be_created_are_told_in_the_api_servers_words() -> None:
    world = World()
    world.rest()
    world.refuse_pod(f'Error creating: pods "net-r1-a1-0-bd8zk" {QUOTA}')
    world.rest()
    assert world.running()[0] == "WaitingForPods", "a hiccup is over at the next try"
    assert world.plan().wake_at == world.now + timedelta(seconds=3)
    world.tick(3)
    world.rest()
    told = f"rank 0: the pod {QUOTA}. {remedy('CreateRefused')}"
    assert world.running() == ("CreateRefused", told)
    assert world.status.phase is Phase.PENDING
    assert world.is_true("Stalled")
    assert [event.type for event in world.events if event.reason == "CreateRefused"] == ["Warning"]


@pytest.mark.parametrize("prefix", ["", "(combined from similar events): "])
def test_a_refusal_that_is_repeated_is_written_once(prefix: str) -> None:
    world = World()
    world.rest()
    world.refuse_pod(f'Error creating: pods "net-r1-a1-0-bd8zk" {QUOTA}')
    world.tick(3)
    world.rest()
    before = world.status
    world.refuse_pod(f'{prefix}Error creating: pods "net-r1-a1-0-x2x2x" {QUOTA}', number=2)
    world.rest()
    assert world.status == before


def test_the_last_refusal_counts_also_when_its_event_was_made_first() -> None:
    world = World()
    world.rest()
    world.refuse_pod("Error creating: Internal error occurred: no answer")
    world.tick(3)
    world.refuse_pod(f'Error creating: pods "net-r1-a1-1-x2x2x" {QUOTA}', number=2)
    world.rest()
    assert world.running()[1].startswith("rank 1: the pod is forbidden: exceeded quota")
    world.refuse_pod("Error creating: Internal error occurred: no answer")
    world.rest()
    assert world.running()[1].startswith("Internal error occurred: no answer.")


def test_a_refusal_is_over_when_all_pods_are_there() -> None:
    world = World()
    world.rest()
    world.add_pod(0)
    world.refuse_pod(f'Error creating: pods "net-r1-a1-1-bd8zk" {QUOTA}')
    world.tick(3)
    world.rest()
    assert world.running()[0] == "CreateRefused", "one pod of two is no gang"
    world.add_pod(1)
    world.rest()
    assert world.running()[0] == "WaitingForPods"
    assert not world.is_true("Stalled")
    world.run_pod(0)
    world.run_pod(1)
    world.rest()
    assert world.is_true("Running")


def test_what_was_told_about_an_earlier_job_of_that_name_counts_no_more() -> None:
    world = World()
    world.rest()
    world.refuse_pod(f'Error creating: pods "net-r1-a1-0-bd8zk" {QUOTA}')
    raw = world.raw("Event", "net-r1-a1.1")
    raw["regarding"]["uid"] = "the-one-before"
    world.put("Event", raw)
    world.tick(3)
    world.rest()
    assert world.running()[0] == "WaitingForPods"
