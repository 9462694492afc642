"""The one place that puts a trainer process together and ends it.

Here: spec and data first (cheap, and wrong ones end the pod within a second), then the gang, then
the run; and every way a process ends, with its result record and exit code. Never here: training.
Next: `session.py`, imported once there is something to train, because it brings torch.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import TYPE_CHECKING, NoReturn

from pydantic import ValidationError

from cabildo_api.base import explain_validation
from cabildo_api.exit_codes import ExitCode
from cabildo_api.reasons import Reason
from cabildo_api.result import Outcome
from cabildo_api.run_spec import RunSpec
from cabildo_trainer.data.prepared import prepare
from cabildo_trainer.errors import (
    UNEXPECTED_EXIT_CODE,
    BadSpecError,
    StoppedError,
    TrainerError,
)
from cabildo_trainer.report.console import complain, say
from cabildo_trainer.report.record import RunRecord
from cabildo_trainer.report.termination import write_termination_message
from cabildo_trainer.settings import TrainerSettings

if TYPE_CHECKING:
    from pathlib import Path

    from cabildo_trainer.engine.signals import StopSignals


class Ending:
    """Ends the process: record first, then the code, without waiting for any thread."""

    def __init__(self, message_file: Path | None, *, record: RunRecord) -> None:
        self._message_file = message_file
        self._record = record

    def complete(self) -> NoReturn:
        """Ends a rank whose run has a result."""
        self._end(Outcome.COMPLETE, code=ExitCode.FINISHED, reason=Reason.COMPLETED)

    def failed(self, error: TrainerError) -> NoReturn:
        """Ends a rank with an error of the tree."""
        self._end(
            Outcome.PREEMPTED if isinstance(error, StoppedError) else Outcome.FAILED,
            code=error.exit_code,
            reason=error.reason,
            message=str(error),
            remedy=error.remedy,
        )

    def crashed(self, error: BaseException) -> NoReturn:
        """Ends a rank with an error that nobody expected."""
        traceback.print_exception(error)
        self._end(
            Outcome.FAILED,
            code=UNEXPECTED_EXIT_CODE,
            reason=Reason.TRAINER_ERROR,
            message=f"{type(error).__name__}: {error}",
            remedy=Reason.TRAINER_ERROR.remedy,
        )

    def stopped_at_once(self) -> NoReturn:
        """Ends a rank that was told to stop while there was nothing to save."""
        self._end(
            Outcome.PREEMPTED,
            code=ExitCode.PREEMPTED,
            reason=Reason.PREEMPTED,
            message="told to stop while there was nothing to save",
        )

    def grace_over(self) -> NoReturn:
        """Ends a rank that was told to stop and could not, because a peer does not answer."""
        self._end(
            Outcome.FAILED,
            code=ExitCode.PEER_LOST,
            reason=Reason.PEER_LOST,
            message="told to stop, but the other ranks did not answer within the grace period",
        )

    def _end(
        self, outcome: Outcome, *, code: int, reason: str, message: str = "", remedy: str = ""
    ) -> NoReturn:
        result = self._record.result(
            outcome, exit_code=code, reason=reason, message=message, remedy=remedy
        )
        write_termination_message(self._message_file, result=result)
        if message:
            complain(f"{reason}: {message}")
        if remedy:
            complain(remedy)
        sys.stdout.flush()
        sys.stderr.flush()
        # Threads of a broken process group may wait for ever: nothing may join them.
        os._exit(code)


def run_process(stop_signals: StopSignals) -> NoReturn:
    """Trains what the environment says and ends the process."""
    record = RunRecord()
    try:
        settings = TrainerSettings.from_environment(os.environ)
    except BadSpecError as error:
        Ending(None, record=record).failed(error)
    record.rank = settings.rank
    ending = Ending(settings.termination_message, record=record)
    stop_signals.on_stop(
        at_once=ending.stopped_at_once, grace_over=ending.grace_over, grace_s=settings.grace_s
    )
    try:
        _train(settings, record=record, stop_signals=stop_signals)
    except TrainerError as error:
        ending.failed(error)
    except BaseException as error:  # noqa: BLE001 - the process must end with a record
        ending.crashed(error)
    ending.complete()


def _train(settings: TrainerSettings, *, record: RunRecord, stop_signals: StopSignals) -> None:
    spec = load_spec(settings.run_file)
    record.run, record.attempt = spec.run, spec.attempt
    if settings.world_size != spec.nodes:
        raise BadSpecError(
            f"WORLD_SIZE is {settings.world_size}, but the run spec has nodes {spec.nodes}",
            remedy="Start as many ranks as the run spec says.",
        )
    say(
        f"run {spec.run} attempt {spec.attempt} of {spec.namespace}/{spec.name}:"
        f" rank {settings.rank} of {settings.world_size}, threads {settings.threads},"
        f" progress to {settings.progress.url if settings.progress else 'nobody'}"
    )
    prepared = prepare(spec.data, data_root=settings.data_root)
    record.data_digest = prepared.digest

    # Torch's C++ warnings are for its developers; it reads the level when it is imported.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    from cabildo_trainer.session import train  # noqa: PLC0415 - brings torch

    train(spec, prepared=prepared, settings=settings, record=record, stop_signals=stop_signals)


def load_spec(path: Path) -> RunSpec:
    """Returns the run spec.

    Raises:
        BadSpecError: The file is missing or not a run spec.
    """
    try:
        return RunSpec.model_validate_json(path.read_bytes())
    except OSError as error:
        raise BadSpecError(
            f"{path}: {error.strerror}", remedy="Set CABILDO_RUN_FILE to a run spec."
        ) from error
    except ValidationError as error:
        raise BadSpecError(f"{path}: {explain_validation(error, root='run')}") from error
