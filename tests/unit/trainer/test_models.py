"""Every model of the registry keeps the same promises."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from cabildo_api.learning import Model, Optimizer, Schedule
from cabildo_trainer import models
from cabildo_trainer.engine.data_order import seed_everything
from cabildo_trainer.errors import BadSpecError
from cabildo_trainer.models.forecaster import Forecaster, schedule_factor

SMALL: dict[str, dict[str, Any]] = {
    "lstmAttention": {"hiddenSize": 8, "layers": 2, "dropout": 0.5, "attentionHeads": 2},
    "gru": {"hiddenSize": 8, "layers": 2, "dropout": 0.5},
}


def network(name: str, *, seed: int = 0, **changes: Any) -> torch.nn.Module:
    seed_everything(seed)
    return models.build(Model.model_validate({name: SMALL[name] | changes}), features=3)


def test_the_registry_has_every_model_of_the_api() -> None:
    assert set(models.REGISTRY) == set(Model.member_names()) == set(SMALL)


@pytest.mark.parametrize("name", SMALL)
class TestEveryModel:
    def test_maps_windows_to_one_number_each(self, name: str) -> None:
        assert network(name)(torch.randn(5, 7, 3)).shape == (5,)
        assert network(name, layers=1)(torch.randn(1, 1, 3)).shape == (1,)

    def test_every_parameter_learns(self, name: str) -> None:
        made = network(name)
        made(torch.randn(5, 7, 3)).sum().backward()
        assert all(value.grad is not None for value in made.parameters())
        weights = dict(made.named_parameters())
        assert all(weights[key].grad.abs().sum() > 0 for key in weights if "bias" not in key)  # type: ignore[union-attr]

    def test_weights_follow_from_the_seed(self, name: str) -> None:
        one, same, other = network(name), network(name), network(name, seed=1)
        assert all(map(torch.equal, one.parameters(), same.parameters()))
        assert not all(map(torch.equal, one.parameters(), other.parameters()))

    def test_dropout_works_in_training_only(self, name: str) -> None:
        made, inputs = network(name), torch.randn(5, 7, 3)
        assert not torch.equal(made(inputs), made(inputs))
        made.eval()
        assert torch.equal(made(inputs), made(inputs))

    def test_a_window_does_not_see_its_batch(self, name: str) -> None:
        made, inputs = network(name).eval(), torch.randn(5, 7, 3)
        assert torch.allclose(made(inputs)[2], made(inputs[2:3])[0], atol=1e-6)


def test_a_model_that_the_image_lacks_is_a_fault_of_the_spec(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(models.REGISTRY, "gru")
    with pytest.raises(BadSpecError, match=r"model\.gru is not in this trainer image"):
        network("gru")


def test_the_cosine_schedule_warms_up_and_ends_at_zero() -> None:
    factor = schedule_factor(
        Schedule.model_validate({"cosine": {"warmupFraction": 0.1}}), total_steps=100
    )
    warmup = [factor(step) for step in range(10)]
    assert warmup == sorted(warmup)
    assert 0 < warmup[0] < warmup[-1] < 1
    assert factor(10) == 1.0
    assert factor(55) == pytest.approx(0.5)
    assert factor(100) == pytest.approx(0.0)
    assert factor(200) == pytest.approx(0.0)
    assert schedule_factor(Schedule.model_validate({"constant": {}}), total_steps=9)(5) == 1.0


def test_a_forecaster_predicts_what_its_network_says() -> None:
    module = Forecaster(
        network("gru"),
        optimizer=Optimizer.model_validate({"adamW": {"learningRate": 0.5}}),
        schedule=Schedule.model_validate({"constant": {}}),
        total_steps=10,
    ).eval()
    inputs = torch.randn(4, 7, 3)
    assert torch.equal(module.predict_step((inputs, torch.zeros(4))), module.network(inputs))
    assert module.configure_optimizers()["optimizer"].defaults["lr"] == 0.5
