"""The loop takes LightningModules, DataModules and callbacks as people write them for Lightning."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from cabildo_api.run_spec import RunSpec
from support.trainer_ranks import run_spec, small_spec

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what Lightning's own imports complain about is not ours
    from pytorch_lightning import Callback, LightningDataModule, LightningModule

from cabildo_trainer.engine.checkpoint import CheckpointStore
from cabildo_trainer.engine.content import Identity, Restored
from cabildo_trainer.engine.data_order import DataOrder
from cabildo_trainer.engine.folder import RunFolder
from cabildo_trainer.engine.gang import Gang
from cabildo_trainer.engine.learner import Learner
from cabildo_trainer.engine.loop import Trained, TrainingLoop
from cabildo_trainer.engine.losses import LossLog
from cabildo_trainer.errors import BadSpecError, StoppedError, TrainerError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cabildo_trainer.engine.manifest import Committed
    from cabildo_trainer.engine.state import TrainState


class Plain(LightningModule):
    """Dropout, batch norm and an epoch schedule: all that makes exactness hard."""

    def __init__(self, optimizers: str = "dict") -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.3))
        self.head = nn.Linear(8, 1)
        self.form = optimizers

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        inputs, targets = batch
        loss = nn.functional.mse_loss(self.head(self.layers(inputs)).squeeze(-1), targets)
        self.log("train_step_loss", loss)
        return {"loss": loss}

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        inputs, targets = batch
        error = self.head(self.layers(inputs)).squeeze(-1) - targets
        self.log_dict({"val_loss": (error**2).mean(), "val_mae": error.abs().mean()})

    def on_validation_epoch_end(self) -> None:
        self.log("at_end", 1.5)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
        return {
            "dict": {"optimizer": optimizer, "lr_scheduler": scheduler},
            "single": optimizer,
            "lists": ([optimizer], [{"scheduler": scheduler, "interval": "step"}]),
            "two": ([optimizer, optimizer], []),
            "plateau": {
                "optimizer": optimizer,
                "lr_scheduler": {"scheduler": scheduler, "reduce_on_plateau": True},
            },
        }[self.form]


class Numbers(LightningDataModule):
    def loader(self, seed: int) -> DataLoader[Any]:
        generator = torch.Generator().manual_seed(seed)
        inputs = torch.randn(40, 3, generator=generator)
        return DataLoader(TensorDataset(inputs, inputs.sum(1)), batch_size=10)

    def train_dataloader(self) -> DataLoader[Any]:
        return self.loader(1)

    def val_dataloader(self) -> DataLoader[Any]:
        return self.loader(2)


class Counter(Callback):
    """Keeps a count in its state, as EMA callbacks do."""

    def __init__(self) -> None:
        self.batches = 0
        self.called: list[str] = []

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        self.called.append("fit")

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.batches += 1

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.called.append("epoch")

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.called.append("validation")

    def state_dict(self) -> dict[str, Any]:
        return {"batches": self.batches}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.batches = state_dict["batches"]


class Silent:
    """An observer that asks for nothing, or for a stop or a checkpoint at a step."""

    def __init__(
        self, *, stop_at: int = -1, checkpoint_at: int = -1, in_evaluation: bool = False
    ) -> None:
        self.stop_at, self.checkpoint_at = stop_at, checkpoint_at
        self.in_evaluation = in_evaluation
        self.step, self.losses, self.commits = 0, [], []
        self.evaluations: list[dict[str, float]] = []

    def stop_requested(self) -> bool:
        return self.step == self.stop_at

    def checkpoint_requested(self) -> bool:
        return self.step == self.checkpoint_at

    def started(
        self, restored: Restored, state: TrainState, *, committed: Sequence[Committed]
    ) -> None:
        self.step = state.step

    def stepped(self, state: TrainState, *, loss: float, took_s: float) -> None:
        self.step = state.step
        self.losses.append(loss)

    def evaluated(self, state: TrainState, *, best: bool) -> None:
        self.evaluations.append(state.metrics)

    def committed(self, state: TrainState, *, committed: Sequence[Committed]) -> None:
        self.commits.append(state.step)


def train(folder: Path, *, attempt: int = 1, module: Any = None, observer: Any = None,
          callbacks: Any = (), **changes: Any) -> tuple[Trained, Any]:  # fmt: skip
    document = run_spec(small_spec(nodes=1, training={"batchSize": 10}, **changes), root=folder)
    spec = RunSpec.model_validate(document)
    torch.manual_seed(0)
    gang = Gang(rank=0, world_size=1)
    learner = Learner(
        module or Plain(), gang=gang, clip_norm=1.0, collective_timeout_s=10, callbacks=callbacks
    )
    identity = Identity(
        uid="u", run=1, attempt=attempt, threads=1, config_digest="c", fixed={}, data_digest="d",
        libraries={},
    )  # fmt: skip
    store = CheckpointStore(RunFolder(folder), identity=identity, gang=gang)
    watch = observer or Silent()
    data = Numbers()
    with LossLog(store.folder.losses(attempt=attempt, rank=0)) as losses:
        loop = TrainingLoop(
            spec,
            learner=learner,
            order=DataOrder(seed=spec.seed, samples=40, batch_size=10, world_size=1),
            train=data.train_dataloader(),
            validation=data.val_dataloader(),
            gang=gang,
            store=store,
            losses=losses,
            observer=watch,
        )
        return loop.run(), learner


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def test_a_module_with_hooks_schedules_and_callbacks_trains(tmp_path: Path) -> None:
    callback, observer = Counter(), Silent()
    trained, learner = train(tmp_path, callbacks=[callback], observer=observer)
    assert trained.state.step == 12
    assert callback.batches == 12
    assert callback.called == ["fit"] + ["epoch", "validation"] * 3
    assert set(observer.evaluations[-1]) == {
        "val_loss", "val_mae", "at_end", "train_loss",
    }  # fmt: skip
    assert observer.evaluations[-1]["val_loss"] < observer.evaluations[0]["val_loss"]
    assert learner.shared_state()["optimizer"]["param_groups"][0]["lr"] == 0.05 * 0.5**3


def test_a_stopped_run_resumes_bit_equal_with_its_callbacks(tmp_path: Path) -> None:
    whole, whole_learner = train(tmp_path / "whole", callbacks=[Counter()])
    with pytest.raises(StoppedError, match="the checkpoint of step 6 is committed"):
        train(tmp_path / "parts", observer=Silent(stop_at=5), callbacks=[Counter()])
    callback = Counter()
    parts, parts_learner = train(tmp_path / "parts", attempt=2, callbacks=[callback])
    assert callback.batches == 12
    assert same(whole_learner.weights(), parts_learner.weights())
    assert parts.state.metrics == whole.state.metrics


def test_a_stop_during_evaluation_leaves_the_evaluation_to_the_next_attempt(tmp_path: Path) -> None:
    whole = Silent()
    train(tmp_path / "whole", observer=whole)
    with pytest.raises(StoppedError, match="the checkpoint of step 4 is committed"):
        train(tmp_path / "parts", observer=Silent(stop_at=4))
    rest = Silent()
    train(tmp_path / "parts", attempt=2, observer=rest)
    assert rest.evaluations == whole.evaluations


def test_the_operator_can_ask_for_a_checkpoint(tmp_path: Path) -> None:
    observer = Silent(checkpoint_at=5)
    train(tmp_path, observer=observer, checkpoint={"every": {"epochs": 2}, "keep": {"last": 9}})
    assert 6 in observer.commits


def test_cadences_in_seconds_follow_the_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cabildo_trainer.engine import loop  # noqa: PLC0415 - its clock is replaced

    ticks = iter(range(10_000))
    monkeypatch.setattr(loop.time, "monotonic", lambda: float(next(ticks)))
    observer = Silent()
    every = {"every": {"seconds": 7}}
    train(tmp_path, observer=observer, checkpoint=every | {"keep": {"last": 9}}, evaluation=every)
    assert len(observer.commits) > 3
    assert len(observer.evaluations) > 2


def test_early_stopping_ends_the_run_with_a_final_checkpoint(tmp_path: Path) -> None:
    trained, _ = train(
        tmp_path,
        limits={"maxEpochs": 50},
        earlyStopping={"patience": 1, "minDelta": 100.0},
    )
    assert trained.state.step == 8
    assert trained.final.manifest.final


@pytest.mark.parametrize("form", ["single", "lists"])
def test_optimizers_come_in_lightnings_forms(tmp_path: Path, form: str) -> None:
    assert train(tmp_path, module=Plain(form))[0].state.step == 12


@pytest.mark.parametrize("form", ["two", "plateau"])
def test_forms_that_are_not_supported_are_refused(tmp_path: Path, form: str) -> None:
    with pytest.raises(BadSpecError):
        train(tmp_path, module=Plain(form))


def test_an_objective_that_nothing_measures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadSpecError, match="use one of at_end, train_loss, val_loss, val_mae"):
        train(tmp_path, objective={"metric": "accuracy", "mode": "max"})


def test_a_training_step_without_a_loss_is_told(tmp_path: Path) -> None:
    module = Plain()
    module.training_step = lambda *_args: None  # type: ignore[method-assign]
    with pytest.raises(TrainerError, match="training_step returned NoneType, not a loss"):
        train(tmp_path, module=module)


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StoppedError):
        train(tmp_path, observer=Silent(stop_at=2))
    other = Plain()
    other.head = nn.Linear(8, 2)
    with pytest.raises(BadSpecError, match="the run's checkpoint is of another model"):
        train(tmp_path, attempt=2, module=other)
