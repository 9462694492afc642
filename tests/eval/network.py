"""A network of 64 inputs, 32 hidden units and 10 classes, in NumPy: 2410 parameters.

Here: gradients of all participants in one call, loss, accuracy, and the way from a vector of
parameters to a model with named tensors. Never here: momentum, rounds. Next: `federation.py`.

Shapes: P participants, B samples of a batch, D = 2410 parameters.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from cabildo_trainer.consensus.sources import MemoryModel

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from cabildo_trainer.consensus.sources import ModelSource
    from eval.digits import Samples

INPUTS, HIDDEN, CLASSES = 64, 32, 10
SHAPES = {
    "hidden.bias": (HIDDEN,),
    "hidden.weight": (INPUTS, HIDDEN),
    "output.bias": (CLASSES,),
    "output.weight": (HIDDEN, CLASSES),
}
"""Tensors in the order of the vector, which is that of the models: byte order of name."""
PARAMETERS = sum(math.prod(shape) for shape in SHAPES.values())


def initial(random: np.random.Generator) -> NDArray[np.float32]:
    """Return fresh parameters [D]: uniform weights by He et al. (2015), biases zero."""
    tensors = {
        name: random.uniform(-1, 1, shape) * math.sqrt(6 / shape[0])
        if name.endswith("weight")
        else np.zeros(shape)
        for name, shape in SHAPES.items()
    }
    return np.concatenate([array.reshape(-1) for array in tensors.values()]).astype(np.float32)


def tensors_of(vector: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Return the named tensors of a vector [D]; views."""
    tensors, start = {}, 0
    for name, shape in SHAPES.items():
        stop = start + math.prod(shape)
        tensors[name] = vector[start:stop].reshape(shape)
        start = stop
    return tensors


def vector_of(tensors: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
    """Return the vector [D] of named tensors."""
    return np.concatenate([tensors[name].reshape(-1) for name in SHAPES])


def model_of(key: str, vector: NDArray[np.float32]) -> MemoryModel:
    """Return a participant's model."""
    return MemoryModel(key, tensors_of(vector))


def logits_of(vector: NDArray[np.float32], images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the network's outputs [samples, 10]."""
    net = tensors_of(vector)
    hidden = np.maximum(images @ net["hidden.weight"] + net["hidden.bias"], 0)
    logits: NDArray[np.float32] = hidden @ net["output.weight"] + net["output.bias"]
    return logits


def gradients(
    vector: NDArray[np.float32], images: NDArray[np.float32], digits: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return each participant's gradient [P, D] of its mean cross-entropy.

    Args:
        vector: The parameters, the same for all.
        images: [P, B, 64].
        digits: [P, B].
    """
    net = tensors_of(vector)
    people, batch = digits.shape
    hidden = np.maximum(images @ net["hidden.weight"] + net["hidden.bias"], 0)
    errors = probabilities(hidden @ net["output.weight"] + net["output.bias"])
    errors[np.arange(people)[:, None], np.arange(batch)[None], digits] -= 1
    errors /= batch
    inner = (errors @ net["output.weight"].T) * (hidden > 0)
    parts = {
        "hidden.bias": inner.sum(axis=1),
        "hidden.weight": images.transpose(0, 2, 1) @ inner,
        "output.bias": errors.sum(axis=1),
        "output.weight": hidden.transpose(0, 2, 1) @ errors,
    }
    return np.concatenate([parts[name].reshape(people, -1) for name in SHAPES], axis=1)


def probabilities(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the softmax over the last axis."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shares: NDArray[np.float32] = powers / powers.sum(axis=-1, keepdims=True)
    return shares


def accuracy(vector: NDArray[np.float32], samples: Samples) -> float:
    """Return the share of samples whose largest output is their digit."""
    guesses = logits_of(vector, samples.images).argmax(axis=1)
    return float((guesses == samples.digits).mean())


class TrustedLoss:
    """The mean cross-entropy on samples that the aggregator holds: a rule's evaluator."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples

    def loss(self, model: ModelSource) -> float:
        """Return the loss of a model."""
        tensors = {
            name: model.read(name, 0, spec.size).reshape(spec.shape)
            for name, spec in model.tensors.items()
        }
        logits = logits_of(vector_of(tensors), self._samples.images).astype(np.float64)
        largest = logits.max(axis=1, keepdims=True)
        normaliser = largest[:, 0] + np.log(np.exp(logits - largest).sum(axis=1))
        own = logits[np.arange(len(logits)), self._samples.digits]
        return float((normaliser - own).mean())
