"""Alive and ready are two questions."""

import asyncio
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from cabildo_operator.health import SILENT_S, STUCK_S, Health
from cabildo_operator.work_queue import Key, WorkQueue
from support.fake_clock import FakeClock


@dataclass
class Heard:
    """What `Health` asks of an informer."""

    kind: str = "Pod"
    silent_s: float = 0.0
    synced: asyncio.Event = field(default_factory=asyncio.Event)


class Bench:
    def __init__(self) -> None:
        self.informer = Heard()
        self.informer.synced.set()
        self.clock = FakeClock()
        self.queue = WorkQueue(clock=cast("Any", self.clock))
        self.leads = True
        self.health = Health(
            informers=[cast("Any", self.informer)],
            queue=self.queue,
            leading=lambda: self.leads,
        )


@pytest.fixture
async def bench() -> Bench:
    return Bench()


async def test_all_well(bench: Bench) -> None:
    assert (bench.health.unhealthy(), bench.health.unready()) == ("", "")


async def test_a_silent_informer_is_a_reason_to_restart_leading_or_not(bench: Bench) -> None:
    bench.leads = False
    bench.informer.silent_s = SILENT_S + 1
    assert bench.health.unhealthy() == "the informer of Pod is silent for 181 s"
    assert bench.health.unready() == bench.health.unhealthy()


async def test_not_listed_yet_is_not_ready_but_alive(bench: Bench) -> None:
    bench.informer.synced.clear()
    assert bench.health.unready() == "not listed yet: Pod"
    assert bench.health.unhealthy() == ""


async def test_a_queue_that_does_not_move_is_the_leaders_trouble_only(bench: Bench) -> None:
    bench.queue.add(Key("Kind", "ns", "a"))
    bench.clock.advance(STUCK_S + 1)
    assert bench.health.unhealthy() == "a key waits for 301 s"
    bench.leads = False
    assert bench.health.unhealthy() == ""


async def test_a_visit_without_end_is_a_reason_to_restart(bench: Bench) -> None:
    bench.queue.add(Key("Kind", "ns", "a"))
    await bench.queue.get()
    bench.clock.advance(STUCK_S + 1)
    assert bench.health.unhealthy() == "a visit takes 301 s"
