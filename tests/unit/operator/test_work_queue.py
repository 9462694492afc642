"""The queue: each key once, one visit at a time, delays and back-off on a clock of the test."""

import asyncio
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cabildo_operator.work_queue import MAX_DELAY_S, PATIENCE_S, QUIET_S, Key, WorkQueue
from support.fake_clock import FakeClock

A, B, C = (Key("Kind", "ns", name) for name in "abc")
NEW = tuple(Key("Kind", "ns", f"new-{number}") for number in range(3))


class Tally:
    """What the queue told its observer."""

    def __init__(self) -> None:
        self.adds = self.retries = 0
        self.waits: list[float] = []
        self.works: list[float] = []

    def added(self) -> None:
        self.adds += 1

    def retried(self) -> None:
        self.retries += 1

    def taken(self, waited_s: float) -> None:
        self.waits.append(waited_s)

    def finished(self, worked_s: float) -> None:
        self.works.append(worked_s)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def tally() -> Tally:
    return Tally()


@pytest.fixture
def queue(clock: FakeClock, tally: Tally) -> WorkQueue:
    return WorkQueue(clock=clock, observer=tally)


async def test_gives_keys_in_order_and_each_once(queue: WorkQueue, tally: Tally) -> None:
    for key in (A, B, A, A):
        queue.add(key)
    assert len(queue) == 2
    assert [await queue.get(), await queue.get()] == [A, B]
    assert tally.adds == 2


async def test_a_key_added_during_its_visit_is_visited_once_more(queue: WorkQueue) -> None:
    queue.add(A)
    key = await queue.get()
    queue.add(A)
    queue.add(A)
    assert len(queue) == 0, "never two visits of one key at a time"
    queue.done(key)
    assert await queue.get() == A
    queue.done(A)
    assert len(queue) == 0


async def test_beside_urgent_keys_the_others_get_one_visit_at_a_time(queue: WorkQueue) -> None:
    for key in (A, B):
        queue.add(key)
    for key in NEW:
        queue.add(key, urgent=True)
    assert len(queue) == 2 + len(NEW)
    assert [await queue.get() for _ in range(1 + len(NEW))] == [NEW[0], A, *NEW[1:]]
    waits = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    assert not waits.done(), "one other is being visited"
    queue.done(A)
    assert await waits == B


async def test_the_others_wait_a_moment_longer_than_the_last_urgent_visit(
    queue: WorkQueue, clock: FakeClock
) -> None:
    queue.add(NEW[0], urgent=True)
    queue.done(await queue.get())
    clock.advance(QUIET_S * 0.8)
    queue.add(NEW[1], urgent=True)
    queue.done(await queue.get())
    for key in (A, B, C):
        queue.add(key)
    workers = [asyncio.create_task(queue.get()) for _ in range(3)]
    await asyncio.sleep(0)
    assert [worker.done() for worker in workers] == [True, False, False]
    clock.advance(QUIET_S * 0.8)
    await asyncio.sleep(0)
    assert not workers[1].done()
    assert queue.favours_urgent
    clock.advance(QUIET_S * 0.2)
    assert not queue.favours_urgent
    assert {await worker for worker in workers} == {A, B, C}


async def test_the_longer_the_others_wait_the_more_of_them_are_visited(
    queue: WorkQueue, clock: FakeClock
) -> None:
    for key in (A, B, C):
        queue.add(key)
    queue.add(NEW[0], urgent=True)
    assert [await queue.get(), await queue.get()] == [NEW[0], A]
    clock.advance(PATIENCE_S)
    assert await queue.get() == B
    assert len(queue) == 1
    waits = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    assert not waits.done()
    queue.done(NEW[0])
    clock.advance(QUIET_S)
    assert await waits == C


async def test_a_single_worker_takes_urgent_keys_and_others_in_turn(queue: WorkQueue) -> None:
    for key in (A, B):
        queue.add(key)
    for key in NEW:
        queue.add(key, urgent=True)
    taken = []
    for _ in range(5):
        taken.append(await queue.get())
        queue.done(taken[-1])
    assert taken == [NEW[0], A, NEW[1], B, NEW[2]]


async def test_a_waiting_key_may_become_urgent(queue: WorkQueue, clock: FakeClock) -> None:
    queue.add(A)
    queue.add(B)
    clock.advance(1.0)
    queue.add(B, urgent=True)
    queue.add(B)
    assert len(queue) == 2
    assert queue.oldest_waiting_s == 1.0
    assert [await queue.get(), await queue.get()] == [B, A]


async def test_a_delay_of_a_key_that_waits_already_is_nothing(
    queue: WorkQueue, clock: FakeClock
) -> None:
    queue.add(A)
    queue.add_after(A, delay_s=1.0)
    queue.done(await queue.get())
    clock.advance(2.0)
    assert len(queue) == 0


async def test_a_waiting_worker_is_woken(queue: WorkQueue) -> None:
    worker = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add(A)
    assert await worker == A


async def test_a_worker_cancelled_as_it_was_woken_hands_the_key_on(queue: WorkQueue) -> None:
    first, second = asyncio.create_task(queue.get()), asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add(A)
    first.cancel()
    assert await second == A
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_a_delayed_key_comes_when_its_time_is_there(
    queue: WorkQueue, clock: FakeClock
) -> None:
    queue.add_after(A, delay_s=5.0)
    clock.advance(4.9)
    assert len(queue) == 0
    clock.advance(0.2)
    assert await queue.get() == A


async def test_the_earliest_of_several_delays_counts_and_only_once(
    queue: WorkQueue, clock: FakeClock
) -> None:
    queue.add_after(A, delay_s=5.0)
    queue.add_after(A, delay_s=2.0)
    queue.add_after(A, delay_s=9.0)
    clock.advance(2.0)
    assert await queue.get() == A
    queue.done(A)
    clock.advance(20.0)
    assert len(queue) == 0


async def test_a_visit_before_its_time_ends_the_delay(queue: WorkQueue, clock: FakeClock) -> None:
    queue.add_after(A, delay_s=5.0)
    queue.add(A)
    queue.done(await queue.get())
    clock.advance(10.0)
    assert len(queue) == 0


async def test_no_delay_is_now(queue: WorkQueue) -> None:
    queue.add_after(A, delay_s=0.0)
    assert await queue.get() == A


async def test_back_off_doubles_is_jittered_and_bounded_and_forgotten(
    queue: WorkQueue, clock: FakeClock, tally: Tally
) -> None:
    delays = []
    for _ in range(40):
        delays.append(queue.retry(A))
        clock.advance(MAX_DELAY_S + 1)
        queue.done(await queue.get())
    assert 0.05 <= delays[0] <= 0.1
    assert all(later > earlier for earlier, later in itertools.pairwise(delays[::2][:5]))
    assert MAX_DELAY_S / 2 <= delays[-1] <= MAX_DELAY_S
    assert len(set(delays[-10:])) > 1, "jitter keeps keys apart"
    queue.forget(A)
    assert queue.retry(A) <= 0.1
    assert tally.retries == 41


async def test_the_server_may_ask_for_more_patience(queue: WorkQueue) -> None:
    assert queue.retry(A, at_least_s=30.0) == 30.0


async def test_tells_how_long_keys_wait_and_visits_take(
    queue: WorkQueue, clock: FakeClock, tally: Tally
) -> None:
    assert queue.oldest_waiting_s == 0.0
    queue.add(A)
    clock.advance(3.0)
    queue.add(B)
    assert queue.oldest_waiting_s == 3.0
    await queue.get()
    clock.advance(2.0)
    assert queue.working_s == (2.0,)
    queue.done(A)
    assert (tally.waits, tally.works) == ([3.0], [2.0])


@given(
    st.lists(
        st.tuples(st.sampled_from(["add", "after", "get", "done", "advance"]), st.integers(0, 2)),
        max_size=60,
    )
)
def test_no_key_is_lost_and_none_is_visited_twice_at_a_time(steps: list[tuple[str, int]]) -> None:
    async def play() -> None:
        clock, keys = FakeClock(), (A, B, C)
        queue = WorkQueue(clock=clock)
        owed: set[Key] = set()
        working: list[Key] = []
        for step, number in steps:
            key = keys[number]
            if step == "add":
                queue.add(key)
                owed.add(key)
            elif step == "after":
                queue.add_after(key, delay_s=1.0 + number)
                owed.add(key)
            elif step == "get" and len(queue):
                taken = await queue.get()
                assert taken not in working
                working.append(taken)
                owed.discard(taken)
            elif step == "done" and working:
                queue.done(working.pop(0))
            elif step == "advance":
                clock.advance(1.0)
        for key in working:
            queue.done(key)
        clock.advance(10.0)
        left = {await queue.get() for _ in range(len(queue))}
        assert owed <= left

    asyncio.run(play())
