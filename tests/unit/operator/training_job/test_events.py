"""Each fact is told once, with a name of its own."""

from __future__ import annotations

from unit.operator.training_job.world import World


def told(world: World) -> list[tuple[str, str, str]]:
    return [(event.type, event.reason, event.fact) for event in world.events]


def test_a_healthy_run_tells_that_it_runs_and_that_it_is_done() -> None:
    world = World()
    world.start()
    world.succeed()
    assert told(world) == [
        ("Normal", "Running", "r1-a1"),
        ("Normal", "Completed", "r1-a1-end"),
        ("Normal", "Completed", "r1-end"),
    ]


def test_a_restart_tells_its_cause_and_its_price() -> None:
    world = World(runPolicy={"backoffSeconds": 0})
    world.start()
    world.end(0, 137, reason="OOMKilled")
    world.end(1, 69)
    world.fail_job()
    world.rest()
    assert told(world)[1:] == [("Warning", "OutOfMemory", "r1-a1-end")]
    assert "It costs a restart." in world.events[-1].message


def test_a_failure_tells_its_reason() -> None:
    world = World()
    world.start()
    world.end(0, 65)
    world.end(1, 69)
    world.fail_job()
    world.rest()
    assert told(world)[1:] == [
        ("Warning", "InvalidData", "r1-a1-end"),
        ("Warning", "InvalidData", "r1-end"),
    ]


def test_suspension_is_told_when_it_is_reached() -> None:
    world = World()
    world.start()
    world.tick(60)
    world.change(suspend=True)
    world.rest()
    world.vanish_ended()
    world.rest()
    assert told(world)[1:] == [
        ("Normal", "Suspended", "r1-a1-end"),
        ("Normal", "Suspended", "r1-a1"),
    ]


def test_an_event_comes_again_under_the_same_name_when_the_status_was_lost() -> None:
    world = World()
    world.rest()
    world.start_pods()
    first = world.plan().actions
    second = world.plan().actions
    assert first == second
    assert len(first) == 1
