"""The latest report of each object's current attempt.

`server.py` posts, `observed.py` reads, telemetry shows the values; when the object goes, so does
its place here. In memory only: after a restart the next report fills it again.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from cabildo_api.progress import ProgressReport
from cabildo_operator.kube.store import ObjectKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One accepted report.

    Attributes:
        uid: UID of the object.
        pod_uid: UID of the pod that reported, rank 0 of its attempt.
        attempt: The attempt it belongs to.
        run: The run it belongs to.
        received_at: When it came, by the operator's clock.
        body: What it said.
    """

    uid: str
    pod_uid: str
    run: int
    attempt: int
    received_at: datetime
    body: ProgressReport


class ProgressBoard:
    """Latest reports by object."""

    def __init__(self) -> None:
        self._reports: dict[ObjectKey, Report] = {}

    def __iter__(self) -> Iterator[tuple[ObjectKey, Report]]:
        return iter(tuple(self._reports.items()))

    def post(self, key: ObjectKey, *, report: Report) -> None:
        """Keep a report; the one before is forgotten."""
        self._reports[key] = report

    def latest(self, key: ObjectKey, *, uid: str) -> Report | None:
        """The latest report about the object of that UID."""
        report = self._reports.get(key)
        return report if report is not None and report.uid == uid else None

    def forget(self, key: ObjectKey) -> None:
        """The object is gone."""
        self._reports.pop(key, None)
