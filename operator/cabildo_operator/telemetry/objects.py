"""The state of all TrainingJobs as metrics, computed when they are read.

Nothing is kept here: series come from the store and from the latest reports, so those of an
object end with it, and values of short jobs, once in the status, are not lost.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Final

import msgspec
from prometheus_client import Metric
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.registry import Collector

from cabildo_api.training_job_status import Phase
from cabildo_operator.kube.store import ObjectKey, key_of
from cabildo_operator.reconcile.stores import Stores

LABELS: Final = ("namespace", "name")
MEASURED: Final = "cabildo_training_metric"
MAX_MEASURED: Final = 32
"""Series of one object's own metrics: a trainer may report hundreds."""
GAUGES: Final = {
    "cabildo_training_progress_ratio": "Share of the work done, 0 to 1.",
    "cabildo_training_remaining_seconds": "Estimated time left.",
    "cabildo_training_epoch": "Epoch being trained, from 0.",
    "cabildo_training_step": "Optimiser steps done.",
    "cabildo_training_loss": "Last training loss.",
    "cabildo_training_restarts": "Restarts charged to the current run.",
    "cabildo_training_attempt": "Current attempt of the current run.",
}


class _Progress(msgspec.Struct, frozen=True, rename="camel"):
    percentage: int | None = None
    eta_seconds: int | None = None
    epoch: int | None = None
    step: int | None = None
    loss: str | None = None


class _Metric(msgspec.Struct, frozen=True):
    name: str
    value: str


class _Result(msgspec.Struct, frozen=True):
    metrics: tuple[_Metric, ...] = ()


class _Status(msgspec.Struct, frozen=True):
    phase: str = Phase.PENDING.value
    restarts: int = 0
    attempt: int = 0
    progress: _Progress = _Progress()
    result: _Result = _Result()


class ObjectCollector(Collector):
    """Reads the stores."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self._decoder = msgspec.json.Decoder(_Status)

    def describe(self) -> Iterator[Metric]:
        """Names without values, so that registering reads nothing."""
        yield GaugeMetricFamily("cabildo_trainingjobs", "")
        yield GaugeMetricFamily(MEASURED, "")
        for name in GAUGES:
            yield GaugeMetricFamily(name, "")

    def collect(self) -> Iterator[Metric]:
        """All series."""
        phases = Counter({phase.value: 0 for phase in Phase})
        families = {
            name: GaugeMetricFamily(name, text, labels=LABELS) for name, text in GAUGES.items()
        }
        measured = GaugeMetricFamily(
            MEASURED, "Last value of what the trainer measured.", labels=(*LABELS, "metric")
        )
        for obj in self._stores.training_jobs:
            key = key_of(obj)
            status = self._decoder.decode(obj.status)
            phases[status.phase] += 1
            progress = self._latest(obj.metadata.uid, key=key, known=status.progress)
            values = _values(progress) | {
                "cabildo_training_restarts": float(status.restarts),
                "cabildo_training_attempt": float(status.attempt),
            }
            for name, value in values.items():
                families[name].add_metric(key, value)
            for name, value in self._measured(obj.metadata.uid, key=key, status=status).items():
                measured.add_metric((*key, name), value)
        by_phase = GaugeMetricFamily(
            "cabildo_trainingjobs", "TrainingJobs by phase.", labels=["phase"]
        )
        for phase, count in phases.items():
            by_phase.add_metric([phase], count)
        yield by_phase
        yield measured
        yield from families.values()

    def _measured(self, uid: str, *, key: ObjectKey, status: _Status) -> dict[str, float]:
        """The final metrics once there are some, else the latest reported ones."""
        found = {metric.name: metric.value for metric in status.result.metrics}
        report = self._stores.reports.latest(key, uid=uid)
        if not found and report is not None:
            found = {metric.name: metric.value for metric in report.body.trainer_status.metrics}
        numbers = {name: _number(text) for name, text in found.items()}
        kept = [(name, value) for name, value in numbers.items() if value is not None]
        return dict(kept[:MAX_MEASURED])

    def _latest(self, uid: str, *, key: ObjectKey, known: _Progress) -> _Progress:
        """The report, which is newer than the status, where there is one."""
        report = self._stores.reports.latest(key, uid=uid)
        if report is None:
            return known
        status, detail = report.body.trainer_status, report.body.cabildo
        return _Progress(
            percentage=status.progress_percentage,
            eta_seconds=status.estimated_remaining_seconds,
            epoch=detail.epoch if detail else None,
            step=detail.step if detail else None,
            loss=detail.loss if detail else None,
        )


def _values(progress: _Progress) -> dict[str, float]:
    values = {
        "cabildo_training_progress_ratio": (
            None if progress.percentage is None else progress.percentage / 100
        ),
        "cabildo_training_remaining_seconds": progress.eta_seconds,
        "cabildo_training_epoch": progress.epoch,
        "cabildo_training_step": progress.step,
        "cabildo_training_loss": _number(progress.loss),
    }
    return {name: float(value) for name, value in values.items() if value is not None}


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
