"""What is trained and how: model, optimiser, schedule, step, spreading over ranks.

Here: one class a member of each "one of" object, with its hyperparameters as JSON numbers. Never
here: an implementation; the trainer looks a member up by its JSON name. Next: `data.py`.
"""

from typing import Annotated

from pydantic import Field

from cabildo_api.base import ApiModel, OneOf, Remedy, Rule

HiddenSize = Annotated[int, Field(ge=1, le=8192)]
Layers = Annotated[int, Field(ge=1, le=64)]
Dropout = Annotated[float, Field(ge=0, lt=1)]


class LstmAttention(ApiModel):
    """LSTM layers whose outputs over the window are pooled by multi-head attention."""

    rules = (
        Rule(
            cel="self.hiddenSize % self.attentionHeads == 0",
            holds=lambda self: self.hidden_size % self.attention_heads == 0,
            message=(
                "attentionHeads is {attentionHeads}, which does not divide hiddenSize {hiddenSize}:"
                " make hiddenSize a multiple of attentionHeads"
            ),
            field=".attentionHeads",
        ),
    )

    hidden_size: HiddenSize = 64
    """Width of each layer, in units."""
    layers: Layers = 2
    """Number of stacked LSTM layers."""
    dropout: Dropout = 0.1
    """Share of activations dropped while training, as a ratio."""
    attention_heads: Annotated[int, Field(ge=1, le=64)] = 4
    """Number of attention heads; must divide hiddenSize."""


class Gru(ApiModel):
    """Stacked GRU layers; the last output of the window goes into a linear head."""

    hidden_size: HiddenSize = 64
    """Width of each layer, in units."""
    layers: Layers = 2
    """Number of stacked GRU layers."""
    dropout: Dropout = 0.1
    """Share of activations dropped while training, as a ratio."""


class Model(OneOf):
    """The architecture: exactly one member."""

    lstm_attention: LstmAttention | None = None
    """LSTM layers with attention pooling."""
    gru: Gru | None = None
    """GRU layers."""


class AdamW(ApiModel):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019)."""

    learning_rate: Annotated[
        float,
        Field(gt=0, le=10),
        Remedy("write a number above 0, for example 0.001, and at most 10"),
    ] = 0.001
    """Step size at its highest; the schedule multiplies it."""
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 0.01
    """Decay of the weights per step, as a multiple of the learning rate."""


class Optimizer(OneOf):
    """The optimiser: exactly one member."""

    adam_w: AdamW | None = None
    """Adam with decoupled weight decay."""


class ConstantSchedule(ApiModel):
    """The learning rate stays as the optimiser states it."""


class CosineSchedule(ApiModel):
    """A linear warm-up, then half a cosine down to zero over the steps of the whole run."""

    warmup_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of all steps that warm up, as a ratio."""


class Schedule(OneOf):
    """The learning-rate schedule: exactly one member."""

    constant: ConstantSchedule | None = None
    """No change over the run."""
    cosine: CosineSchedule | None = None
    """Warm-up, then a cosine decay."""


class GradientClip(ApiModel):
    """Scaling of gradients that are too long."""

    norm: Annotated[float, Field(ge=0, le=1e9)] = 1.0
    """Longest gradient over all parameters, as an L2 norm; 0 switches clipping off."""


class Training(ApiModel):
    """One optimiser step."""

    batch_size: Annotated[int, Field(ge=1, le=1_048_576)] = 64
    """Windows per step over the whole gang; must be divisible by nodes."""
    gradient_clip: GradientClip = GradientClip()
    """Clipping of the gradient before each step."""


class Ddp(ApiModel):
    """Every rank holds the whole model; gradients are averaged at each step."""


class Distribution(OneOf):
    """How one model is spread over the ranks: exactly one member."""

    ddp: Ddp | None = None
    """Data parallel: the whole model on every rank."""
