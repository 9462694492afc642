"""Keys that wait for a visit: each at most once, one visit at a time, delays and back-off.

Everything that happens (a watch event, a report, a wake-up time) ends as `add(key)`;
`reconcile/loop.py` takes the keys out. The rules are those of controller-runtime's queue: a key
added while it is being visited is visited once more afterwards. While there are urgent keys (new
objects) the others get one visit at a time, and more the longer they wait. No I/O; time comes
from a clock that tests replace.
"""

import asyncio
import heapq
import itertools
import math
import random
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

BASE_DELAY_S: Final = 0.05
MAX_DELAY_S: Final = 120.0
QUIET_S: Final = 0.5
"""So long after the last urgent visit the next urgent key is still expected."""
PATIENCE_S: Final = 5.0
"""For each time that others have waited so long, one more of them is visited beside urgent keys."""


class Key(NamedTuple):
    """What is visited: an object of one of our kinds."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


class Clock(Protocol):
    """The part of an event loop that the queue needs."""

    def time(self) -> float:
        """Seconds on a clock that never goes back."""
        ...

    def call_at(self, when: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        """Call back at that time."""
        ...


class QueueObserver(Protocol):
    """Told what the queue does, for metrics."""

    def added(self) -> None:
        """A key entered the queue."""

    def retried(self) -> None:
        """A key is to come back after an error."""

    def taken(self, waited_s: float) -> None:
        """A worker took a key that had waited so long."""

    def finished(self, worked_s: float) -> None:
        """A worker is done with a key."""


class WorkQueue:
    """A keyed, de-duplicating, delaying, rate-limiting queue for one event loop."""

    def __init__(self, *, clock: Clock, observer: QueueObserver | None = None) -> None:
        self._clock = clock
        self._observer = observer
        self._waiting: OrderedDict[Key, float] = OrderedDict()
        self._urgent: OrderedDict[Key, float] = OrderedDict()
        self._working: dict[Key, float] = {}
        self._working_urgent: set[Key] = set()
        self._took_urgent = False
        self._quiet_at = -math.inf
        self._quiet_timer: asyncio.TimerHandle | None = None
        self._again: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self._due: dict[Key, float] = {}
        self._heap: list[tuple[float, int, Key]] = []
        self._order = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        self._getters: list[asyncio.Future[None]] = []

    def __len__(self) -> int:
        return len(self._waiting) + len(self._urgent)

    @property
    def favours_urgent(self) -> bool:
        """Whether urgent keys wait, are visited, or were until a moment ago."""
        busy = self._urgent or self._working_urgent
        return bool(busy) or self._clock.time() < self._quiet_at

    @property
    def oldest_waiting_s(self) -> float:
        """Seconds the oldest waiting key has been waiting; 0 when none is."""
        oldest = [next(iter(lane.values())) for lane in (self._urgent, self._waiting) if lane]
        return self._clock.time() - min(oldest) if oldest else 0.0

    @property
    def working_s(self) -> tuple[float, ...]:
        """Seconds each visit in progress has taken so far."""
        now = self._clock.time()
        return tuple(now - started for started in self._working.values())

    def add(self, key: Key, *, urgent: bool = False) -> None:
        """Visit `key` soon, before all that are not urgent; a delay it was waiting for is over."""
        self._due.pop(key, None)
        if urgent and (since := self._waiting.pop(key, None)) is not None:
            self._urgent[key] = since
        if key in self._waiting or key in self._urgent or key in self._again:
            return
        if self._observer is not None:
            self._observer.added()
        if key in self._working:
            self._again.add(key)
            return
        self._enqueue(key, lane=self._urgent if urgent else self._waiting)

    def add_after(self, key: Key, *, delay_s: float) -> None:
        """Visit `key` in `delay_s` seconds unless it is due earlier already."""
        if delay_s <= 0:
            self.add(key)
            return
        if key in self._waiting or key in self._urgent or key in self._again:
            return
        when = self._clock.time() + delay_s
        if self._due.get(key, when + 1.0) <= when:
            return
        self._due[key] = when
        entry = (when, next(self._order), key)
        heapq.heappush(self._heap, entry)
        if self._heap[0] is entry:
            self._arm()

    def retry(self, key: Key, *, at_least_s: float = 0.0) -> float:
        """Visit `key` again after its back-off, which doubles each time; returns the delay."""
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        longest = min(MAX_DELAY_S, BASE_DELAY_S * 2.0 ** min(failures, 30))
        delay_s = max(at_least_s, longest * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
        if self._observer is not None:
            self._observer.retried()
        self.add_after(key, delay_s=delay_s)
        return delay_s

    def forget(self, key: Key) -> None:
        """A visit went well: the next back-off starts small again."""
        self._failures.pop(key, None)

    async def get(self) -> Key:
        """Take the key whose turn it is; `done` must follow."""
        while (lane := self._next_lane()) is None:
            getter = asyncio.get_running_loop().create_future()
            self._getters.append(getter)
            try:
                await getter
            except asyncio.CancelledError:
                # Whoever was woken in vain hands the wake-up on.
                if getter.done() and not getter.cancelled():
                    self._wake_one()
                raise
            finally:
                if getter in self._getters:
                    self._getters.remove(getter)
        key, since = lane.popitem(last=False)
        now = self._working[key] = self._clock.time()
        self._took_urgent = lane is self._urgent
        if self._took_urgent:
            self._working_urgent.add(key)
        if self._observer is not None:
            self._observer.taken(now - since)
        return key

    def done(self, key: Key) -> None:
        """The visit is over; a key that was added meanwhile waits again."""
        now, started = self._clock.time(), self._working.pop(key)
        if self._observer is not None:
            self._observer.finished(now - started)
        if key in self._working_urgent:
            self._working_urgent.discard(key)
            self._quiet_at = now + QUIET_S
            if self._quiet_timer is None:
                self._quiet_timer = self._clock.call_at(self._quiet_at, self._quieten)
        if key in self._again:
            self._again.discard(key)
            self._enqueue(key, lane=self._waiting)
        elif self._waiting:
            self._wake_one()

    def _next_lane(self) -> OrderedDict[Key, float] | None:
        """Where the next key comes from; None: nobody's turn now.

        The others' visits load the API server as well as this process: beside urgent keys they
        are kept to a few at a time, and take turns with them where there is one worker only.
        """
        others = len(self._working) - len(self._working_urgent)
        may = bool(self._waiting) and others < self._room_for_others()
        if may and (self._took_urgent or not self._urgent):
            return self._waiting
        return self._urgent or None

    def _room_for_others(self) -> float:
        """How many keys that are not urgent may be visited at a time."""
        if not self.favours_urgent:
            return math.inf
        waited_s = self._clock.time() - next(iter(self._waiting.values()))
        return 1 + waited_s // PATIENCE_S

    def _quieten(self) -> None:
        """Let all others go on once no urgent key has come for a while."""
        self._quiet_timer = None
        if not self.favours_urgent:
            for _ in range(len(self._waiting)):
                self._wake_one()
        elif not (self._urgent or self._working_urgent):
            self._quiet_timer = self._clock.call_at(self._quiet_at, self._quieten)

    def _enqueue(self, key: Key, *, lane: OrderedDict[Key, float]) -> None:
        lane[key] = self._clock.time()
        self._wake_one()

    def _wake_one(self) -> None:
        while self._getters:
            getter = self._getters.pop(0)
            if not getter.done():
                getter.set_result(None)
                return

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._heap:
            self._timer = self._clock.call_at(self._heap[0][0], self._ring)

    def _ring(self) -> None:
        self._timer = None
        now = self._clock.time()
        while self._heap and self._heap[0][0] <= now:
            when, _, key = heapq.heappop(self._heap)
            # Entries that were overtaken by an earlier visit stay in the heap and are skipped.
            if self._due.get(key) == when:
                self.add(key)
        self._arm()
