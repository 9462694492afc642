"""Timing of several programs for the same work, in turn, within one run.

Here: rounds and the best of them. A machine's speed drifts while a benchmark runs, so every round
runs every contender once, each time another one first (the first finds vector units that are not
up to speed yet: 2 % of a short product); a ratio is between the best times of the same rounds. Work
on one thread is timed in the process's CPU time (all threads, should a library start some), so that
other programs on the machine cost no contender anything but memory bandwidth; work on more threads
by the clock. Never here: what is measured.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from report import Row

from cabildo_kernels.native import measure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

OURS = "cabildo"
READS = ("read (16 streams)", "read (256 columns)")
LEAST_ROUNDS = 5
SHORTEST_S = 0.005
"""A contender is called so often in a round that it takes about this long."""
LEAST_MS = 1e-3
"""Less is given in microseconds."""
SLOW_S = 1.0
SLOW_ROUNDS = 1
"""A contender that takes longer than SLOW_S runs in so many rounds, after its first call."""


@dataclass(slots=True)
class Contest:
    """One case.

    Attributes:
        case: Its name.
        contenders: What to call, by name; OURS among them.
        size_bytes: What one call of ours must read (of products and prompts also write), for GB/s.
        operations: Its double-precision operations, for the share of the FMA peak; 0 where it has
            none: work in float32, comparisons, digests.
        threads: How many of ours.
        rounds: At least LEAST_ROUNDS.
    """

    case: str
    contenders: dict[str, Callable[[], object]]
    size_bytes: float
    operations: float = 0.0
    threads: int = 1
    rounds: int = LEAST_ROUNDS
    best_s: dict[str, float] = field(default_factory=dict)
    clock_hz: float = 0.0
    fma_peak: float = 0.0

    def run(self) -> list[Row]:
        """Time everything and return a row for each reference."""
        calls = {name: self._calls(name, call) for name, call in self.contenders.items()}
        for number in range(max(self.rounds, LEAST_ROUNDS)):
            self.clock_hz = max(self.clock_hz, measure.clock_hz())
            if self.operations:
                self.fma_peak = max(self.fma_peak, measure.fma_peak())
            for name in self._in_turn(number):
                if number >= SLOW_ROUNDS and self.best_s[name] > SLOW_S:
                    continue
                self._time(name, self.contenders[name], calls=calls[name])
        return self._rows()

    def _in_turn(self, number: int) -> list[str]:
        names = list(self.contenders)
        first = number % len(names)
        return names[first:] + names[:first]

    def _calls(self, name: str, call: Callable[[], object]) -> int:
        """Return how many calls make a round; the first ones warm caches and imports up."""
        calls, least = 1, math.inf
        for _ in range(LEAST_ROUNDS):
            start = self._now()
            for _ in range(calls):
                call()
            spent = self._now() - start
            if spent > SLOW_S:
                self.best_s[name] = spent
                break
            least = min(least, spent / calls)
            calls = max(1, math.ceil(SHORTEST_S / max(least, 1e-7)))
        return calls

    def _now(self) -> float:
        return time.process_time() if self.threads == 1 else time.perf_counter()

    def _time(self, name: str, call: Callable[[], object], *, calls: int) -> None:
        start = self._now()
        for _ in range(calls):
            call()
        each = (self._now() - start) / calls
        self.best_s[name] = min(each, self.best_s.get(name, math.inf))

    def _rows(self) -> list[Row]:
        ours = self.best_s.pop(OURS)
        reads = [self.best_s.pop(name) for name in READS if name in self.best_s]
        if reads:
            self.best_s = {"read": min(reads), **self.best_s}
        peak = self.fma_peak * self.threads
        details = {
            "ghz": round(self.clock_hz / 1e9, 2),
            "gb_per_s": round(self.size_bytes / ours / 1e9, 2),
            "fma_peak_share": round(self.operations / ours / peak, 3) if peak else None,
        }
        unit, factor = ("ms", 1e3) if ours >= LEAST_MS else ("us", 1e6)
        return [
            Row(
                case=self.case,
                ours=round(ours * factor, 4),
                unit=unit,
                reference=round(reference * factor, 4),
                reference_name=name,
                details=details,
            )
            for name, reference in self.best_s.items()
        ]


def run_all(contests: Iterable[Contest], *, only: str) -> list[Row]:
    """Run the contests whose case contains `only`, telling each as it is done."""
    rows: list[Row] = []
    for contest in contests:
        if only in contest.case:
            found = contest.run()
            rows += found
            for row in found:
                ratio = "-" if row.ratio is None else f"{row.ratio:.3f}"
                print(f"{row.case}: {row.ours:.4g} {row.unit}, {ratio} of {row.reference_name}")
    return rows
