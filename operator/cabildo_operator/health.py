"""Whether the process should be restarted, and whether it is ready; two different questions.

Not alive: an informer has heard nothing for minutes though the API server sends bookmarks, or
the leader's queue does not move. Not ready: children are not all known yet. Leadership is no part
of readiness. `handlers/` and `telemetry/` ask; pure but for the clocks of what is asked.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cabildo_operator.kube.informer import Informer
from cabildo_operator.work_queue import WorkQueue

SILENT_S: Final = 180.0
"""Longer than an informer's own deadline and its longest back-off together."""
STUCK_S: Final = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """Answers both questions."""

    informers: Sequence[Informer[Any]]
    queue: WorkQueue
    leading: Callable[[], bool]

    def unhealthy(self) -> str:
        """Why the process should be restarted; empty when all is well."""
        for informer in self.informers:
            if informer.silent_s > SILENT_S:
                return f"the informer of {informer.kind} is silent for {informer.silent_s:.0f} s"
        if not self.leading():
            return ""
        if self.queue.oldest_waiting_s > STUCK_S:
            return f"a key waits for {self.queue.oldest_waiting_s:.0f} s"
        if (longest_s := max(self.queue.working_s, default=0.0)) > STUCK_S:
            return f"a visit takes {longest_s:.0f} s"
        return ""

    def unready(self) -> str:
        """Why the replica is not ready; empty when it is."""
        missing = [informer.kind for informer in self.informers if not informer.synced.is_set()]
        return f"not listed yet: {', '.join(missing)}" if missing else self.unhealthy()
