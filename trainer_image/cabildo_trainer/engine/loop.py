"""The training loop: evaluate, commit, step, until a limit, a stop or a fault.

Here: the order of things, the same on every rank. Whatever depends on time, signals or the operator
enters through flags that are added up over all ranks on the way of each step, so that all ranks act
at the same step. Never here: gradients (`learner.py`), files (`checkpoint.py`), rules (`limits.py`,
`nan_guard.py`, `early_stopping.py`). Next: `app.py`, which turns the end into a result.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Protocol

import torch

from cabildo_trainer.engine.content import Content, Restored
from cabildo_trainer.engine.early_stopping import Judge
from cabildo_trainer.engine.evaluation import evaluate, fetch
from cabildo_trainer.engine.limits import due, total_steps
from cabildo_trainer.engine.nan_guard import NanGuard, Verdict
from cabildo_trainer.engine.state import TrainState
from cabildo_trainer.errors import BadSpecError, StoppedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch.utils.data import DataLoader

    from cabildo_api.run_spec import RunSpec
    from cabildo_trainer.engine.checkpoint import CheckpointStore
    from cabildo_trainer.engine.data_order import DataOrder
    from cabildo_trainer.engine.gang import Gang
    from cabildo_trainer.engine.learner import Learner
    from cabildo_trainer.engine.losses import LossLog
    from cabildo_trainer.engine.manifest import Committed


class Flag(IntEnum):
    """What a rank can ask all ranks for at a step."""

    STOP = 0
    CHECKPOINT = 1
    EVALUATE = 2


class Observer(Protocol):
    """What the loop tells, and what it asks."""

    def stop_requested(self) -> bool:
        """Returns whether this rank was told to stop."""

    def checkpoint_requested(self) -> bool:
        """Returns whether this rank was asked for a checkpoint since the last call."""

    def started(
        self, restored: Restored, state: TrainState, *, committed: Sequence[Committed]
    ) -> None:
        """Takes in where the attempt starts, and every checkpoint that counts, newest first."""

    def stepped(self, state: TrainState, *, loss: float, took_s: float) -> None:
        """Takes in a step, its mean loss and how long it took."""

    def evaluated(self, state: TrainState, *, best: bool) -> None:
        """Takes in an evaluation and whether it was the best so far."""

    def committed(self, state: TrainState, *, committed: Sequence[Committed]) -> None:
        """Takes in a commit: every checkpoint that counts now, newest first."""


@dataclass(frozen=True, slots=True)
class Trained:
    """A run whose training has ended.

    Attributes:
        state: Where it ended.
        final: The last checkpoint.
    """

    state: TrainState
    final: Committed


class TrainingLoop:
    """Trains a module on a gang until the run ends."""

    def __init__(
        self,
        spec: RunSpec,
        *,
        learner: Learner,
        order: DataOrder,
        train: DataLoader[Any],
        validation: DataLoader[Any],
        gang: Gang,
        store: CheckpointStore,
        losses: LossLog,
        observer: Observer,
        guard: NanGuard | None = None,
    ) -> None:
        self._spec = spec
        self._learner = learner
        self._order = order
        self._train = train
        self._validation = validation
        self._gang = gang
        self._store = store
        self._losses = losses
        self._observer = observer
        self._guard = guard or NanGuard()
        self._judge = Judge(objective=spec.objective, early_stopping=spec.early_stopping)
        self._total_steps = total_steps(spec.limits, steps_per_epoch=order.steps_per_epoch)
        self._state = TrainState()
        self._epoch_samples: tuple[int, list[int]] = (-1, [])
        self._committed: Committed | None = None
        self._asked: set[Flag] = set()
        self._evaluation_time = self._commit_time = time.monotonic()

    def run(self) -> Trained:
        """Trains from the newest checkpoint, or from scratch, to the end of the run.

        Raises:
            StoppedError: Told to stop; a checkpoint of this step is committed.
            TrainerError: As its subclass says.
        """
        restored = self._restore(self._store.start_attempt())
        torch.set_num_threads(self._store.threads)
        self._observer.started(restored, self._state, committed=self._admitted())
        if self._committed is not None and self._committed.manifest.final:
            return Trained(state=self._state, final=self._committed)
        self._learner.call("on_fit_start")
        self._learner.call("on_train_start")
        while True:
            self._stop_if_asked()
            improved = self._evaluate() if self._evaluation_due() else False
            done = self._state.ended_early or self._state.step >= self._total_steps
            if Flag.STOP in self._asked:
                continue
            if done or improved or self._commit_due():
                committed = self._commit(final=done)
                if done:
                    self._learner.call("on_train_end")
                    self._learner.call("on_fit_end")
                    return Trained(state=self._state, final=committed)
            self._step()

    def _restore(self, restored: Restored) -> Restored:
        if restored.content is None:
            self._learner.start_over()
            self._state = TrainState()
        else:
            content = restored.content
            self._learner.load(dict(content.weights), shared=content.shared, own=content.own)
            self._state = TrainState.from_dict(content.shared["state"])
        self._committed = restored.checkpoint
        return restored

    def _stop_if_asked(self) -> None:
        if Flag.STOP not in self._asked:
            return
        if self._committed is None or self._committed.manifest.step != self._state.step:
            self._commit(final=False)
        raise StoppedError(f"told to stop: the checkpoint of step {self._state.step} is committed")

    def _evaluation_due(self) -> bool:
        state = self._state
        if state.step in {state.evaluated_step, 0}:
            return False
        if Flag.EVALUATE in self._asked or state.step >= self._total_steps:
            return True
        return due(
            self._spec.evaluation.every,
            step=state.step,
            last_step=state.evaluated_step,
            steps_per_epoch=self._order.steps_per_epoch,
        )

    def _evaluate(self) -> bool:
        state = self._state
        values = evaluate(
            self._learner,
            self._validation,
            gang=self._gang,
            stop_requested=self._observer.stop_requested,
        )
        if values is None:
            self._asked.add(Flag.STOP)
            return False
        if state.epoch_loss_count:
            values["train_loss"] = state.epoch_loss_sum / state.epoch_loss_count
        name = self._spec.objective.metric
        if name not in values:
            raise BadSpecError(
                f"objective.metric is {name!r}, which is not measured: use one of"
                f" {', '.join(sorted(values))}"
            )
        state.metrics, state.evaluated_step = values, state.step
        epochs_done = state.step // self._order.steps_per_epoch
        best = self._judge.judge(
            state, epochs_done=epochs_done, min_epochs=self._spec.limits.min_epochs
        )
        self._asked.discard(Flag.EVALUATE)
        self._evaluation_time = time.monotonic()
        self._observer.evaluated(state, best=best)
        return best

    def _commit_due(self) -> bool:
        last = self._committed.manifest.step if self._committed else 0
        if self._state.step == last:
            return False
        return Flag.CHECKPOINT in self._asked or due(
            self._spec.checkpoint.every,
            step=self._state.step,
            last_step=last,
            steps_per_epoch=self._order.steps_per_epoch,
        )

    def _commit(self, *, final: bool) -> Committed:
        state = self._state
        self._learner.call("on_save_checkpoint", checkpoint={})
        content = Content(
            weights=self._learner.weights(),
            shared={"state": state.to_dict(), **self._learner.shared_state()},
            own=self._learner.own_state(),
        )
        objective = state.metrics.get(self._spec.objective.metric, math.nan)
        judged = state.evaluated_step == state.step and math.isfinite(objective)
        self._committed = self._store.commit(
            content,
            step=state.step,
            epoch=self._order.epoch_of(state.step),
            final=final,
            objective=objective if judged else None,
        )
        self._store.prune(keep=self._spec.checkpoint.keep, objective=self._spec.objective)
        admitted = self._admitted()
        self._asked.discard(Flag.CHECKPOINT)
        self._commit_time = time.monotonic()
        self._observer.committed(state, committed=admitted)
        return self._committed

    def _admitted(self) -> list[Committed]:
        # Rank 0 speaks for the run: the others need not read the manifests.
        return self._store.admitted() if self._gang.is_leader else []

    def _step(self) -> None:
        began = time.monotonic()
        state, index = self._state, self._state.step % self._order.steps_per_epoch
        samples = self._samples()
        self._order.seed_step(step=state.step, rank=self._gang.rank)
        batch = fetch(
            self._train, self._order.batch(samples, step=state.step, rank=self._gang.rank)
        )
        self._learner.call("on_train_batch_start", batch=batch, batch_idx=index)
        outcome = self._learner.compute(batch, index=index, flags=self._flags())
        self._asked |= {flag for flag in Flag if outcome.flags[flag] > 0}
        self._losses.write(step=state.step + 1, loss=outcome.loss)
        verdict = self._guard.judge(state, finite=outcome.finite)
        if verdict is Verdict.ROLL_BACK:
            self._roll_back()
            return
        if verdict is Verdict.APPLY:
            self._learner.apply()
            state.epoch_loss_sum += outcome.mean_loss
            state.epoch_loss_count += 1
        else:
            self._learner.skip()
        self._learner.advance_schedules(interval="step")
        self._learner.call("on_train_batch_end", outputs=outcome.loss, batch=batch, batch_idx=index)
        state.step += 1
        if index + 1 == self._order.steps_per_epoch:
            self._learner.advance_schedules(interval="epoch")
            self._learner.call("on_train_epoch_end")
        took_s = time.monotonic() - began
        state.trained_s += took_s
        self._observer.stepped(state, loss=outcome.mean_loss, took_s=took_s)

    def _samples(self) -> list[int]:
        """Returns the order of the current epoch, and begins the epoch if it is new."""
        state = self._state
        epoch = self._order.epoch_of(state.step)
        if self._epoch_samples[0] != epoch:
            self._epoch_samples = (epoch, self._order.epoch_samples(epoch))
            self._learner.call("on_train_epoch_start")
        if state.loss_epoch != epoch:
            state.loss_epoch, state.epoch_loss_sum, state.epoch_loss_count = epoch, 0.0, 0
        return self._epoch_samples[1]

    def _flags(self) -> list[float]:
        flags = [0.0] * len(Flag)
        flags[Flag.STOP] = float(self._observer.stop_requested())
        if self._gang.is_leader:
            now = time.monotonic()
            checkpoint_s = self._spec.checkpoint.every.seconds
            evaluation_s = self._spec.evaluation.every.seconds
            flags[Flag.CHECKPOINT] = float(
                self._observer.checkpoint_requested()
                or (checkpoint_s is not None and now - self._commit_time >= checkpoint_s)
            )
            flags[Flag.EVALUATE] = float(
                evaluation_s is not None and now - self._evaluation_time >= evaluation_s
            )
        return flags

    def _roll_back(self) -> None:
        """Goes back to the last commit and leaves out the batches up to behind the failed one."""
        failed_step, rollbacks = self._state.step, self._state.rollbacks
        trained_s = self._state.trained_s
        if self._committed is None:
            self._restore(Restored(None, None, ()))
        else:
            committed, content = self._store.read(self._committed.manifest.step)
            self._restore(Restored(committed, content, ()))
        kept = self._state.step
        self._guard.jump(self._state, failed_step=failed_step, rollbacks=rollbacks)
        self._state.step = min(self._state.step, self._total_steps)
        self._state.trained_s = trained_s
        self._learner.advance_schedules(interval="step", times=self._state.step - kept)
        epochs = self._order.epoch_of(self._state.step) - self._order.epoch_of(kept)
        self._learner.advance_schedules(interval="epoch", times=epochs)
