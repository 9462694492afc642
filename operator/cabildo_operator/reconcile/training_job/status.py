"""The status: what the object's standing looks like from outside.

Here: standing, snapshot and reports -> `TrainingJobStatus`. Never here: a decision; deleting the
status and building it again from the same snapshot gives the same one. Next: `reconcile/loop.py`
writes it when it changed.
"""

from datetime import datetime
from typing import Any, Final

from cabildo_api.progress import ProgressReport, TrainerDetail
from cabildo_api.result import Result
from cabildo_api.scalars import whole_seconds
from cabildo_api.training_job import TrainingJobSpec
from cabildo_api.training_job_status import (
    CheckpointStatus,
    DataStatus,
    Phase,
    Progress,
    ResultStatus,
    TrainingJobStatus,
)
from cabildo_operator.progress.board import Report
from cabildo_operator.reconcile.training_job.attempts import Ledger
from cabildo_operator.reconcile.training_job.conditions import conditions_for, with_generation
from cabildo_operator.reconcile.training_job.course import Standing
from cabildo_operator.reconcile.training_job.observed import Observed
from cabildo_operator.reconcile.training_job.render.metadata import (
    attempt_selector,
    selector_text,
)

PROGRESS_FIELDS: Final = frozenset(
    {"progress", "checkpoint", "parameters", "data", "nodes", "ready"}
)
"""Fields that change all the time: a change in these alone need not be written at once."""
FINISHED_PHASES: Final = frozenset({Phase.SUCCEEDED, Phase.FAILED})
CORRUPT_KEPT: Final = 4
"""The first ones tell enough; the trainer's log has them all."""


def build_status(
    observed: Observed, *, spec: TrainingJobSpec, standing: Standing, now: datetime
) -> TrainingJobStatus:
    """Returns the whole status of a standing."""
    ledger = with_corrupt_checkpoints(standing, report=_report(observed, ledger=standing.ledger))
    previous = observed.status
    generation = observed.meta.generation
    if standing.stays:
        kept = with_generation(previous.conditions, generation=generation)
        return previous.model_copy(
            update={
                "observed_generation": generation,
                "conditions": kept,
                "attempts": ledger.records,
                "restarts": ledger.restarts,
            }
        )
    before = TrainingJobStatus() if ledger.is_new_run else previous
    attempt = ledger.attempt
    values: dict[str, Any] = {
        "observed_generation": generation,
        "phase": standing.phase,
        "conditions": conditions_for(
            standing.phase,
            reason=standing.reason,
            message=standing.message,
            accepted=True,
            hindrance=standing.hindrance,
            previous=previous,
            generation=generation,
            now=now,
        ),
        "run": ledger.run,
        "run_id": ledger.run_id,
        "attempt": attempt,
        "restarts": ledger.restarts,
        "start_time": ledger.start_time and whole_seconds(ledger.start_time),
        "completion_time": whole_seconds(now) if standing.phase in FINISHED_PHASES else None,
        "trained_seconds": ledger.trained_seconds,
        "attempts": ledger.records,
    }
    if attempt:
        selector = attempt_selector(observed.owner, run=ledger.run, attempt=attempt)
        values["selector"] = selector_text(selector)
    values |= _pods(standing, nodes=spec.nodes)
    values |= _told(observed, standing=standing, before=before)
    return TrainingJobStatus.model_construct(None, **values)


def with_corrupt_checkpoints(standing: Standing, *, report: Report | None) -> Ledger:
    """Returns the books with the damaged checkpoints that the newest attempt came upon."""
    ledger, record = standing.ledger, standing.ledger.current
    if record is None:
        return ledger
    told = [item.path for item in _detail(report).corrupt_checkpoints]
    result = _chief_result(standing)
    if result is not None:
        told += [item.path for item in result.corrupt_checkpoints]
    known = list(record.corrupt_checkpoints)
    known += [path for path in dict.fromkeys(told) if path not in known]
    update = {"corrupt_checkpoints": tuple(known[:CORRUPT_KEPT])}
    return ledger.with_record(record.model_copy(update=update))


def _pods(standing: Standing, *, nodes: int) -> dict[str, Any]:
    gang = standing.gang
    if gang is None or gang.attempt != standing.ledger.attempt:
        return {"nodes": 0, "ready": f"0/{nodes}"}
    return {"nodes": len(gang.alive), "ready": f"{gang.ready_count}/{nodes}"}


def _told(observed: Observed, *, standing: Standing, before: TrainingJobStatus) -> dict[str, Any]:
    """Returns what the trainer told, last by report, at the end by its result record."""
    report = _report(observed, ledger=standing.ledger)
    values: dict[str, Any] = {
        "progress": before.progress,
        "checkpoint": before.checkpoint,
        "parameters": before.parameters,
        "data": before.data,
        "result": before.result,
    }
    if report is not None:
        detail = _detail(report)
        values["progress"] = _progress(report.body, detail=detail, report=report)
        values |= _facts(detail, checkpoint=before.checkpoint)
    result = _chief_result(standing)
    if result is not None:
        values |= _facts(result, checkpoint=values["checkpoint"])
    if standing.phase is Phase.SUCCEEDED and standing.ledger.result is not None:
        values |= _final(standing.ledger.result, progress=values["progress"])
    return values


def _facts(
    source: TrainerDetail | Result, *, checkpoint: CheckpointStatus | None
) -> dict[str, Any]:
    """Returns what a report and a result record tell in the same words."""
    values: dict[str, Any] = {}
    if source.checkpoint is not None:
        last = source.checkpoint.last or (checkpoint.last if checkpoint else None)
        best = source.checkpoint.best or (checkpoint.best if checkpoint else None)
        values["checkpoint"] = CheckpointStatus(last=last, best=best)
    if source.parameters is not None:
        values["parameters"] = source.parameters
    if source.data_digest is not None:
        values["data"] = DataStatus(digest=source.data_digest)
    return values


def _progress(body: ProgressReport, *, detail: TrainerDetail, report: Report) -> Progress:
    general = body.trainer_status
    loss = detail.loss or next(
        (metric.value for metric in general.metrics if metric.name == "loss"), None
    )
    return Progress(
        percentage=general.progress_percentage,
        eta_seconds=general.estimated_remaining_seconds,
        epoch=detail.epoch,
        step=detail.step,
        total_steps=detail.total_steps,
        loss=loss,
        last_report_time=whole_seconds(general.last_updated_time or report.received_at),
    )


def _final(result: Result, *, progress: Progress | None) -> dict[str, Any]:
    base = progress or Progress()
    done = base.model_copy(
        update={
            "percentage": 100,
            "eta_seconds": 0,
            "epoch": result.epoch if result.epoch is not None else base.epoch,
            "step": result.step if result.step is not None else base.step,
            "total_steps": result.total_steps or base.total_steps,
        }
    )
    return {
        "progress": done,
        "result": ResultStatus(
            metrics=result.metrics, baselines=result.baselines, artifacts=result.artifacts
        ),
    }


def _chief_result(standing: Standing) -> Result | None:
    """Returns rank 0's last word of the newest attempt, if it has one."""
    gang = standing.gang
    if gang is None or not gang.members or gang.attempt != standing.ledger.attempt:
        return None
    result = gang.members[0].result
    if result is None or (result.run, result.attempt) != (gang.run, gang.attempt):
        return None
    return result


def _report(observed: Observed, *, ledger: Ledger) -> Report | None:
    report = observed.report
    if report is None or (report.run, report.attempt) != (ledger.run, ledger.attempt):
        return None
    return report


def _detail(report: Report | None) -> TrainerDetail:
    return (report.body.cabildo if report else None) or TrainerDetail()
