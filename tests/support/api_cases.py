"""Specs that the API takes and refuses: one table for pydantic and for the real API server.

Here: a smallest valid spec, one that sets every field, and one case for each rule with the field
it is reported at and words of its message. Used by `tests/unit/api` and by
`tests/cluster/test_crd_trainingjob.py`, so that the two places of a rule cannot drift apart.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any, Final

Spec = dict[str, Any]

MINIMAL: Final[Spec] = {
    "model": {"lstmAttention": {}},
    "data": {
        "sources": [{"name": "prices", "builtin": {}}],
        "target": {"logRange": {}},
        "features": [{"name": "range", "logRange": {}}],
    },
}

FULL: Final[Spec] = {
    "suspend": True,
    "runID": "spring-2",
    "trainer": "lightning",
    "image": "registry.example/trainer:1",
    "nodes": 4,
    "resources": {
        "requests": {"cpu": "500m", "memory": "1Gi"},
        "limits": {"cpu": 2, "memory": "2Gi"},
    },
    "serviceAccountName": "trainer",
    "imagePullSecrets": [{"name": "registry-key"}],
    "seed": 7,
    "objective": {"metric": "val_r2", "mode": "max"},
    "model": {"gru": {"hiddenSize": 32, "layers": 1, "dropout": 0}},
    "optimizer": {"adamW": {"learningRate": 0.01, "weightDecay": 0.1}},
    "schedule": {"cosine": {"warmupFraction": 0.1}},
    "training": {"batchSize": 128, "gradientClip": {"norm": 0.5}},
    "distribution": {"ddp": {}},
    "data": {
        "sources": [
            {
                "name": "own",
                "role": "train",
                "file": {"uri": "pvc://prices/daily/sp500.csv", "format": "csv"},
            }
        ],
        "dateColumn": "Day",
        "target": {"logRange": {"high": "Hi", "low": "Lo"}},
        "features": [
            {"name": "range", "logRange": {"high": "Hi", "low": "Lo"}},
            {"name": "return", "logReturn": {"column": "Close"}},
            {"name": "volume", "log": {"column": "Volume"}},
            {"name": "vix", "column": {"name": "VIX"}},
        ],
        "window": {"length": 22, "horizon": 5},
        "splits": {"train": 0.8, "validation": 0.1, "test": 0.1},
    },
    "evaluation": {"every": {"steps": 50}},
    "limits": {"maxEpochs": 100, "minEpochs": 2, "maxSteps": 5000},
    "earlyStopping": {"patience": 10, "minDelta": 0.001},
    "checkpoint": {
        "storage": {"claimName": "shared"},
        "every": {"seconds": 300},
        "keep": {"last": 3, "best": 2},
    },
    "runPolicy": {
        "maxRestarts": 1,
        "backoffSeconds": 5,
        "activeDeadlineSeconds": 3600,
        "terminationGracePeriodSeconds": 30,
    },
    "scheduling": {
        "nodeSelector": {"pool": "training"},
        "tolerations": [
            {
                "key": "gpu",
                "operator": "Exists",
                "effect": "NoExecute",
                "tolerationSeconds": 60,
            }
        ],
        "priorityClassName": "batch",
    },
}


@dataclass(frozen=True, slots=True)
class Refused:
    """A spec that breaks one rule.

    Args:
        what: The rule, in words.
        change: What is written into the minimal spec, by dotted JSON path.
        field: The path under which the API server reports it.
        words: What the message says besides: value and remedy.
    """

    what: str
    change: dict[str, Any]
    field: str
    words: tuple[str, ...] = field(default=())

    def spec(self) -> Spec:
        """Return the refused spec."""
        return changed(MINIMAL, self.change)


def changed(spec: Spec, change: dict[str, Any]) -> Spec:
    """Return a copy of a spec with values written at dotted paths; None removes."""
    result = copy.deepcopy(spec)
    for path, value in change.items():
        *parents, last = path.split(".")
        place = result
        for name in parents:
            place = place.setdefault(name, {})
        if value is None:
            place.pop(last, None)
        else:
            place[last] = value
    return result


FEATURE: Final = {"name": "range", "logRange": {}}

RULES: Final = (
    Refused("no node", {"nodes": 0}, "spec.nodes", ("nodes is 0", "from 1 to 1024", "suspend")),
    Refused("too many nodes", {"nodes": 1025}, "spec.nodes", ("nodes is 1025", "1 to 1024")),
    Refused(
        "a negative learning rate",
        {"optimizer": {"adamW": {"learningRate": -0.1}}},
        "spec.optimizer.adamW.learningRate",
        ("learningRate is -0.1", "write a number above 0, for example 0.001"),
    ),
    Refused(
        "a learning rate of zero",
        {"optimizer": {"adamW": {"learningRate": 0}}},
        "spec.optimizer.adamW.learningRate",
        ("learningRate is 0", "above 0"),
    ),
    Refused(
        "two models",
        {"model": {"lstmAttention": {}, "gru": {}}},
        "spec.model",
        ("lstmAttention", "gru", "keep exactly one of lstmAttention, gru"),
    ),
    Refused("no model", {"model": {}}, "spec.model", ("write one of lstmAttention, gru",)),
    Refused("no optimiser", {"optimizer": {}}, "spec.optimizer", ("write one of adamW",)),
    Refused("two schedules", {"schedule": {"constant": {}, "cosine": {}}}, "spec.schedule"),
    Refused("no way of spreading", {"distribution": {}}, "spec.distribution"),
    Refused(
        "heads that do not divide the width",
        {"model": {"lstmAttention": {"hiddenSize": 10, "attentionHeads": 4}}},
        "spec.model.lstmAttention.attentionHeads",
        ("attentionHeads is 4", "hiddenSize 10", "make hiddenSize a multiple"),
    ),
    Refused(
        "dropout of everything",
        {"model": {"gru": {"dropout": 1}}, "model.lstmAttention": None},
        "spec.model.gru.dropout",
        ("dropout is 1", "below 1"),
    ),
    Refused(
        "a batch that nodes do not divide",
        {"nodes": 2, "training": {"batchSize": 63}},
        "spec.training.batchSize",
        ("batchSize is 63", "nodes 2", "make training.batchSize a multiple of nodes"),
    ),
    Refused(
        "splits that do not sum to one",
        {"data.splits": {"train": 0.7, "validation": 0.2, "test": 0.2}},
        "spec.data.splits",
        ("train 0.7", "validation 0.2", "test 0.2", "sum to 1"),
    ),
    Refused(
        "an empty split",
        {"data.splits": {"train": 0.7, "validation": 0.3, "test": 0}},
        "spec.data.splits.test",
        ("test is 0", "between 0 and 1"),
    ),
    Refused(
        "a URI of another kind",
        {"data.sources": [{"name": "own", "file": {"uri": "s3://bucket/key"}}]},
        "spec.data.sources[0].file.uri",
        ("s3://bucket/key", "write pvc://CLAIM/PATH"),
    ),
    Refused(
        "a path out of the claim",
        {"data.sources": [{"name": "own", "file": {"uri": "pvc://claim/a/../../b"}}]},
        "spec.data.sources[0].file.uri",
        ("without '..'",),
    ),
    Refused(
        "a source with two origins",
        {"data.sources": [{"name": "own", "builtin": {}, "file": {"uri": "pvc://claim/a.csv"}}]},
        "spec.data.sources[0]",
        ("keep exactly one of builtin, file",),
    ),
    Refused(
        "a feature with two series",
        {"data.features": [{"name": "both", "logRange": {}, "log": {"column": "Close"}}]},
        "spec.data.features[0]",
        ("log logRange", "keep exactly one of column, log, logReturn, logRange"),
    ),
    Refused(
        "a feature's name with a space",
        {"data.features": [{"name": "a b", "logRange": {}}]},
        "spec.data.features[0].name",
        ("a b", "start with a letter"),
    ),
    Refused(
        "a window of nothing",
        {"data.window": {"length": 0}},
        "spec.data.window.length",
        ("length is 0", "from 1 to 4096"),
    ),
    Refused(
        "more least than most epochs",
        {"limits": {"minEpochs": 5, "maxEpochs": 2}},
        "spec.limits.minEpochs",
        ("minEpochs is 5", "maxEpochs 2", "lower minEpochs or raise maxEpochs"),
    ),
    Refused(
        "two cadences",
        {"evaluation": {"every": {"epochs": 1, "steps": 5}}},
        "spec.evaluation.every",
        ("keep exactly one of epochs, steps, seconds",),
    ),
    Refused(
        "a single kept checkpoint",
        {"checkpoint": {"keep": {"last": 1}}},
        "spec.checkpoint.keep.last",
        ("last is 1", "from 2 to 1000"),
    ),
    Refused(
        "two places for checkpoints",
        {"checkpoint": {"storage": {"claimName": "a", "claimTemplate": {}}}},
        "spec.checkpoint.storage",
        ("keep exactly one of claimTemplate, claimName",),
    ),
    Refused(
        "a negative size",
        {"checkpoint": {"storage": {"claimTemplate": {"size": "-1Gi"}}}},
        "spec.checkpoint.storage.claimTemplate.size",
        ("-1Gi", "write a quantity that is not negative"),
    ),
    Refused(
        "a memory limit that is no quantity",
        {"resources": {"limits": {"memory": "1gig"}}},
        "spec.resources.limits[memory]",
        ("1gig", "write a quantity"),
    ),
    Refused(
        "a request above its limit",
        {"resources": {"requests": {"cpu": "1500m", "memory": "1Gi"}, "limits": {"cpu": 1}}},
        "spec.resources.requests",
        ("1500m", "lower the request or raise the limit"),
    ),
    Refused(
        "a runID that cannot be a label",
        {"runID": "a/b"},
        "spec.runID",
        ("a/b", "use letters, digits"),
    ),
    Refused(
        "no time to end",
        {"runPolicy": {"terminationGracePeriodSeconds": 0}},
        "spec.runPolicy.terminationGracePeriodSeconds",
        ("terminationGracePeriodSeconds is 0",),
    ),
    Refused(
        "a seed that is too large",
        {"seed": 4294967296},
        "spec.seed",
        ("seed is 4294967296",),
    ),
)
"""Ranges and cross-field rules: CEL's messages."""

SCHEMA: Final = (
    Refused("a text for a number", {"nodes": "two"}, "spec.nodes", ("must be of type integer",)),
    Refused(
        "an unknown trainer",
        {"trainer": "torch"},
        "spec.trainer",
        ("Unsupported value", "lightning"),
    ),
    Refused(
        "an unknown mode",
        {"objective": {"mode": "lowest"}},
        "spec.objective.mode",
        ("Unsupported value", "min", "max"),
    ),
    Refused("no data", {"data": None}, "spec.data", ("Required value",)),
    Refused("no target", {"data.target": None}, "spec.data.target", ("Required value",)),
    Refused("no source", {"data.sources": []}, "spec.data.sources", ("at least 1",)),
    Refused("no feature", {"data.features": []}, "spec.data.features", ("at least 1",)),
    Refused(
        "too many features",
        {"data.features": [{"name": f"f{i}", "logRange": {}} for i in range(65)]},
        "spec.data.features",
        ("at most 64",),
    ),
    Refused(
        "no name of a column",
        {"data.dateColumn": ""},
        "spec.data.dateColumn",
        ("at least 1",),
    ),
)
"""Types, enumerations, presence and sizes: the API server's own text."""
