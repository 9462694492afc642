"""A LightningModule, its optimiser and its gradients over all ranks, on Lightning Fabric.

Here: one forward and backward pass, one optimiser step, and the state of both. Never here: which
batch, whether the step counts, when to save: that is `loop.py`. Next: `loop.py`.

Gradients are averaged by DistributedDataParallel. It normally regroups its buckets after the first
iteration, so that the first step of a resumed run would add up in another order than the same step
of the uninterrupted run. With `find_unused_parameters` the groups stay as they were made, in the
order of the parameters: that, not unused parameters, is why it is set.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.loggers.logger import Logger
from lightning_fabric.plugins.environments.kubeflow import KubeflowEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import Tensor

from cabildo_trainer.engine.gang import peers_expected
from cabildo_trainer.engine.packing import parameters_digest
from cabildo_trainer.errors import BadSpecError, TrainerError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytorch_lightning import LightningModule

    from cabildo_trainer.engine.gang import Gang


class LoggedValues(Logger):
    """Catches what a module logs with `self.log`."""

    def __init__(self) -> None:
        self._values: dict[str, float] = {}

    @property
    def name(self) -> str:
        """Name of the logger."""
        return "cabildo"

    @property
    def version(self) -> str:
        """Version of the logger."""
        return "1"

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:  # noqa: ARG002
        """Keeps the last value of each name."""
        self._values.update(metrics)

    def log_hyperparams(self, *_args: Any, **_kwargs: Any) -> None:
        """Keeps nothing: the spec has them."""

    def take(self) -> dict[str, float]:
        """Returns what was logged since the last call."""
        values, self._values = self._values, {}
        return values


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """A forward and backward pass.

    Attributes:
        loss: Loss of this rank.
        mean_loss: Mean loss over ranks.
        finite: Whether all losses and the gradient are finite.
        flags: Sums over ranks of the flags that were handed in.
    """

    loss: float
    mean_loss: float
    finite: bool
    flags: tuple[float, ...]


class Learner:
    """What is trained."""

    def __init__(
        self,
        module: LightningModule,
        *,
        gang: Gang,
        clip_norm: float,
        collective_timeout_s: float,
        callbacks: Sequence[Any] = (),
    ) -> None:
        self.module = module
        self.logged = LoggedValues()
        self.fabric = _fabric(
            gang, timeout_s=collective_timeout_s, callbacks=callbacks, logger=self.logged
        )
        self._callbacks = callbacks
        self._gang = gang
        self._max_norm = clip_norm or math.inf
        optimizer, self._schedulers = _optimizers(module)
        with peers_expected():
            self._model, self._optimizer = self.fabric.setup(module, optimizer)
        self._initial = (self.weights(), self.shared_state())

    def compute(self, batch: Any, *, index: int, flags: Sequence[float]) -> StepOutcome:
        """Computes loss and gradient of a batch, the mean over all ranks.

        Args:
            batch: What the module's `training_step` takes.
            index: Number of the batch in its epoch.
            flags: Numbers to add up over all ranks on the way.
        """
        self._model.train()
        with peers_expected():
            output = self._model.training_step(batch, index)
            loss = output["loss"] if isinstance(output, dict) else output
            if not isinstance(loss, Tensor):
                raise TrainerError(f"training_step returned {type(loss).__name__}, not a loss")
            own = float(loss.detach())
            # The small sum travels while the gradient is computed.
            bad = 0.0 if math.isfinite(own) else 1.0
            pending = self._gang.begin_sum(torch.tensor([own, bad, *flags], dtype=torch.float64))
            self.fabric.backward(loss)
            total, bad_ranks, *sums = pending.wait().tolist()
        norm = self.fabric.clip_gradients(
            self._model, self._optimizer, max_norm=self._max_norm, error_if_nonfinite=False
        )
        assert norm is not None
        return StepOutcome(
            loss=own,
            mean_loss=total / self._gang.world_size,
            finite=bad_ranks == 0 and math.isfinite(float(norm)),
            flags=tuple(sums),
        )

    def apply(self) -> None:
        """Takes the optimiser step for the gradient that was computed."""
        self.call("on_before_optimizer_step", optimizer=self._optimizer)
        self._optimizer.step()
        self._optimizer.zero_grad()

    def skip(self) -> None:
        """Drops the gradient that was computed."""
        self._optimizer.zero_grad()

    def advance_schedules(self, *, interval: str, times: int = 1) -> None:
        """Moves the schedules of an interval, `step` or `epoch`, forward."""
        for scheduler, their_interval in self._schedulers:
            if their_interval == interval:
                for _ in range(times):
                    scheduler.step()

    def call(self, hook: str, **arguments: Any) -> None:
        """Calls a hook of the module and of the callbacks, as Lightning's Trainer would."""
        method = getattr(self.module, hook, None)
        if method is not None:
            method(*arguments.values())
        self.fabric.call(hook, trainer=self.fabric, pl_module=self.module, **arguments)

    def weights(self) -> dict[str, Tensor]:
        """Returns copies of parameters and buffers."""
        state: dict[str, Tensor] = self.module.state_dict()
        return {name: value.detach().clone() for name, value in state.items()}

    def shared_state(self) -> dict[str, Any]:
        """Returns what is equal on all ranks besides the weights."""
        return {
            "optimizer": self._optimizer.state_dict(),
            "schedulers": [scheduler.state_dict() for scheduler, _ in self._schedulers],
            "callbacks": {
                _key(callback): callback.state_dict()
                for callback in self._callbacks
                if hasattr(callback, "state_dict")
            },
        }

    def own_state(self) -> dict[str, Any]:
        """Returns what differs between ranks (buffers), and the digest of what must not."""
        return {
            "rank": self._gang.rank,
            "buffers": {name: value.clone() for name, value in self.module.named_buffers()},
            "parameters_sha256": parameters_digest(dict(self.module.named_parameters())),
        }

    def load(
        self, weights: dict[str, Tensor], *, shared: dict[str, Any], own: dict[str, Any]
    ) -> None:
        """Puts everything back as it was saved.

        Raises:
            BadSpecError: The weights are of another model.
        """
        self.load_weights(weights | own.get("buffers", {}))
        self._optimizer.load_state_dict(shared["optimizer"])
        self._optimizer.zero_grad()
        for (scheduler, _), state in zip(self._schedulers, shared["schedulers"], strict=True):
            # PyTorch keeps lambdas out of the state and expects None in their place.
            scheduler.load_state_dict(dict(state))
        for callback in self._callbacks:
            if _key(callback) in shared["callbacks"]:
                callback.load_state_dict(shared["callbacks"][_key(callback)])

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        """Replaces parameters and buffers.

        Raises:
            BadSpecError: They are of another model.
        """
        try:
            self.module.load_state_dict(weights)
        except RuntimeError as error:
            raise BadSpecError(
                f"the run's checkpoint is of another model: {error}",
                remedy="Put spec.model and spec.data back, or set a new spec.runID.",
            ) from error

    def start_over(self) -> None:
        """Goes back to the state before the first step."""
        weights, shared = self._initial
        self.load(weights, shared=shared, own={})

    def parameter_counts(self) -> tuple[int, int]:
        """Returns the number of parameters, all and those that are trained."""
        sizes = [(value.numel(), value.requires_grad) for value in self.module.parameters()]
        return sum(size for size, _ in sizes), sum(size for size, trains in sizes if trains)


def _fabric(gang: Gang, *, timeout_s: float, callbacks: Sequence[Any], logger: Logger) -> Fabric:
    strategy: Any = "auto"
    if gang.world_size > 1:
        warnings.filterwarnings("ignore", message=".*find_unused_parameters=True was specified.*")
        strategy = DDPStrategy(
            cluster_environment=KubeflowEnvironment(),
            process_group_backend="gloo",
            timeout=timedelta(seconds=timeout_s),
            find_unused_parameters=True,
        )
    fabric = Fabric(
        accelerator="cpu",
        devices=1,
        num_nodes=gang.world_size,
        strategy=strategy,
        callbacks=list(callbacks),
        loggers=logger,
    )
    fabric.launch()
    return fabric


def _optimizers(module: LightningModule) -> tuple[torch.optim.Optimizer, list[tuple[Any, str]]]:
    """Returns the optimiser and the schedules with their intervals from `configure_optimizers`."""
    configured: Any = module.configure_optimizers()
    if isinstance(configured, torch.optim.Optimizer):
        return configured, []
    if isinstance(configured, dict):
        entries = [configured["lr_scheduler"]] if "lr_scheduler" in configured else []
        return configured["optimizer"], [_schedule(entry) for entry in entries]
    if isinstance(configured, tuple) and len(configured) == 2:  # noqa: PLR2004 - Lightning's form
        optimizers, schedulers = configured
        if len(optimizers) == 1:
            return optimizers[0], [_schedule(entry) for entry in schedulers]
    raise BadSpecError(
        f"configure_optimizers of {type(module).__name__} returned {type(configured).__name__}:"
        " return one optimiser, or a dict with optimizer and lr_scheduler"
    )


def _schedule(entry: Any) -> tuple[Any, str]:
    if not isinstance(entry, dict):
        return entry, "epoch"
    if entry.get("frequency", 1) != 1 or entry.get("reduce_on_plateau", False):
        raise BadSpecError("lr_scheduler: only a frequency of 1 and no plateau is supported")
    return entry["scheduler"], entry.get("interval", "epoch")


def _key(callback: Any) -> str:
    return str(getattr(callback, "state_key", type(callback).__qualname__))
