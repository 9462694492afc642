"""One run in one process, from a checked spec to a result: the parts put together.

Here: torch's settings, the gang, module, data, store and loop, and what follows training: the test
rows and the baselines, on rank 0. Never here: how any of them works. Next: `engine/loop.py`.
"""

from __future__ import annotations

import hashlib
import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from cabildo_api.base import ApiModel
from cabildo_api.progress import TrainerPhase
from cabildo_api.training_job_status import Artifact, Parameters
from cabildo_trainer import baselines, models
from cabildo_trainer.data.windows import WindowDataModule
from cabildo_trainer.engine.checkpoint import CheckpointStore
from cabildo_trainer.engine.content import Identity
from cabildo_trainer.engine.data_order import DataOrder, Purpose, seed_everything, stream
from cabildo_trainer.engine.folder import RunFolder
from cabildo_trainer.engine.learner import Learner
from cabildo_trainer.engine.limits import total_steps
from cabildo_trainer.engine.loop import Trained, TrainingLoop
from cabildo_trainer.engine.losses import LossLog
from cabildo_trainer.engine.packing import WEIGHTS_FILE
from cabildo_trainer.errors import DamagedCheckpointError
from cabildo_trainer.models.forecaster import Forecaster
from cabildo_trainer.rendezvous import Facts, join
from cabildo_trainer.report.console import say
from cabildo_trainer.report.observer import RunObserver
from cabildo_trainer.report.progress import ProgressReporter
from cabildo_trainer.report.scores import Scores, score, table

if TYPE_CHECKING:
    from cabildo_api.run_spec import RunSpec
    from cabildo_trainer.data.prepared import Prepared
    from cabildo_trainer.data.series import Numbers
    from cabildo_trainer.engine.manifest import Committed
    from cabildo_trainer.engine.signals import StopSignals
    from cabildo_trainer.report.record import RunRecord
    from cabildo_trainer.settings import TrainerSettings


FIXED_PARTS: Final = (
    "nodes", "seed", "model", "optimizer", "schedule", "training", "distribution", "data",
)  # fmt: skip
"""Parts of the spec that a checkpoint is bound to; limits and cadences may change on the way."""


def train(
    spec: RunSpec,
    *,
    prepared: Prepared,
    settings: TrainerSettings,
    record: RunRecord,
    stop_signals: StopSignals,
) -> None:
    """Trains a run to its end and puts the result into the record.

    Raises:
        TrainerError: The attempt ended otherwise; the subclass says how.
    """
    configure_torch(threads=settings.threads)
    timeout_s = float(spec.collective_timeout_seconds)
    gang = join(
        settings,
        facts=Facts(
            attempt=spec.attempt,
            config_digest=spec.config_digest(),
            data_digest=prepared.digest,
        ),
        collective_timeout_s=timeout_s,
    )
    order = DataOrder(
        seed=spec.seed,
        samples=len(prepared.rows.train),
        batch_size=spec.training.batch_size,
        world_size=gang.world_size,
    )
    record.total_steps = total_steps(spec.limits, steps_per_epoch=order.steps_per_epoch)
    module = build_module(spec, prepared=prepared, steps=record.total_steps)
    learner = Learner(
        module,
        gang=gang,
        clip_norm=spec.training.gradient_clip.norm,
        collective_timeout_s=timeout_s,
    )
    total, trainable = learner.parameter_counts()
    record.parameters = Parameters(total=total, trainable=trainable)
    folder = RunFolder(Path(spec.checkpoint.root) / spec.uid / f"run-{spec.run}")
    store = CheckpointStore(
        folder, identity=_identity(spec, prepared=prepared, threads=settings.threads), gang=gang
    )
    reporter = ProgressReporter(settings.progress if gang.is_leader else None)
    observer = RunObserver(
        spec,
        record=record,
        reporter=reporter,
        stop_signals=stop_signals,
        order=order,
        is_leader=gang.is_leader,
    )
    data = WindowDataModule(prepared, batch_size=spec.training.batch_size)
    with LossLog(folder.losses(attempt=spec.attempt, rank=gang.rank)) as losses:
        loop = TrainingLoop(
            spec,
            learner=learner,
            order=order,
            train=data.train_dataloader(),
            validation=data.val_dataloader(),
            gang=gang,
            store=store,
            losses=losses,
            observer=observer,
        )
        stop_signals.cooperate()
        trained = loop.run()
    # The final checkpoint is committed: a stop from here on loses nothing.
    stop_signals.stop_cooperating()
    record.finished, record.phase = True, TrainerPhase.FINISHING
    if gang.is_leader:
        reporter.publish(record)
        _conclude(spec, learner=learner, store=store, trained=trained, data=data,
                  prepared=prepared, record=record, observer=observer)  # fmt: skip
        reporter.publish(record)
        reporter.close()


def configure_torch(*, threads: int) -> None:
    """Makes torch compute the same numbers each time: threads and algorithms are fixed."""
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    # Filling fresh memory would only cost time: nothing here reads what it has not written.
    # torch adds the attribute when it runs, so its types do not have it.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def build_module(spec: RunSpec, *, prepared: Prepared, steps: int) -> Forecaster:
    """Returns the module with its first weights, which depend on the seed alone."""
    seed_everything(stream(spec.seed, Purpose.WEIGHTS))
    network = models.build(spec.model, features=len(prepared.feature_names))
    return Forecaster(network, optimizer=spec.optimizer, schedule=spec.schedule, total_steps=steps)


def _identity(spec: RunSpec, *, prepared: Prepared, threads: int) -> Identity:
    return Identity(
        uid=spec.uid,
        run=spec.run,
        attempt=spec.attempt,
        threads=threads,
        config_digest=spec.config_digest(),
        fixed={part: _digest(getattr(spec, part)) for part in FIXED_PARTS},
        data_digest=prepared.digest,
        libraries={
            "python": platform.python_version(),
            **{
                name: version(name)
                for name in ("torch", "pytorch-lightning", "numpy", "cabildo-trainer")
            },
        },
    )


def _digest(part: ApiModel | int) -> str:
    """Returns the digest of the canonical JSON of a part of the spec."""
    value = part.to_object() if isinstance(part, ApiModel) else part
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return "sha256:" + hashlib.sha256(canonical.encode()).hexdigest()


def _conclude(
    spec: RunSpec,
    *,
    learner: Learner,
    store: CheckpointStore,
    trained: Trained,
    data: WindowDataModule,
    prepared: Prepared,
    record: RunRecord,
    observer: RunObserver,
) -> None:
    """Scores the best weights and the baselines on the test rows. Rank 0 only."""
    chosen = _load_best(learner, store=store, trained=trained)
    forecast = _forecast(learner, data=data, prepared=prepared)
    scores: dict[str, Scores] = {spec.model.member: score(forecast, prepared=prepared)}
    for name, values in scores[spec.model.member].by_name().items():
        record.metrics[f"test_{name}"] = values
    for name, their_forecast in baselines.forecasts(prepared, seed=spec.seed).items():
        scores[name] = score(their_forecast, prepared=prepared)
        record.baselines += [
            (name, metric, value) for metric, value in scores[name].by_name().items()
        ]
    weights = chosen.manifest.entry(WEIGHTS_FILE)
    record.artifacts = [
        Artifact(
            name="weights",
            uri=f"{observer.uri(chosen.manifest.step)}/{WEIGHTS_FILE}",
            digest=f"sha256:{weights.sha256}",
        )
    ]
    say(f"weights of step {chosen.manifest.step}, the best by {spec.objective.metric}")
    say(table(scores, prepared=prepared))


def _load_best(learner: Learner, *, store: CheckpointStore, trained: Trained) -> Committed:
    """Loads the best weights that verify: the best checkpoint's, else the last one's."""
    steps = dict.fromkeys((trained.state.best_step, trained.final.manifest.step))
    for step in steps:
        if any(item.manifest.step == step for item in store.admitted()):
            try:
                committed, content = store.read(step)
            except DamagedCheckpointError as error:
                say(f"the weights of step {step} do not verify: {error}")
                continue
            learner.load_weights(dict(content.weights))
            return committed
    raise DamagedCheckpointError("neither the best nor the last checkpoint verifies")


def _forecast(learner: Learner, *, data: WindowDataModule, prepared: Prepared) -> Numbers:
    """Returns the forecasts of the test rows in the target's unit."""
    learner.module.eval()
    with torch.no_grad():
        scaled = torch.cat(
            [learner.module.predict_step(batch, 0) for batch in data.test_dataloader()]
        )
    return np.asarray(scaled.double().numpy() * prepared.target_scale + prepared.target_mean)
