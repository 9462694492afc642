"""Nothing is admitted that the trainer refuses: every rule with as many models as kernels take.

A rule either refuses n (`ImpossibleSetting`, with arithmetic and remedy) or merges n models. Rules
that add a trusted row, themselves or through the rule inside, have room for one model less.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cabildo_api.consensus_limits import MAXIMUM_PARTICIPANTS, limit_of
from cabildo_trainer.consensus.errors import ImpossibleSetting
from cabildo_trainer.consensus.federated.control_variates import ControlState, server_control
from cabildo_trainer.consensus.merging import merge
from cabildo_trainer.consensus.rules import RULES, rule_from_parameters
from cabildo_trainer.consensus.sinks import MemorySink
from cabildo_trainer.consensus.sources import MemoryModel
from contract import models as make

if TYPE_CHECKING:
    from cabildo_trainer.consensus.rule import Rule

KEYS = [make.key_of(row) for row in range(MAXIMUM_PARTICIPANTS)]
PARAMETERS: dict[str, dict[str, Any]] = {
    "weightedSoup": {"weights": dict.fromkeys(KEYS, 0.5)},
    "incrementalSoup": {"order": KEYS},
    "simplexWeights": {"iterations": 2},
    "learnedSoup": {"iterations": 2},
    "dpFedAvg": {
        "clipNorm": 0.5,
        "noiseMultiplier": 5.0,
        "expectedParticipants": 64.0,
        "epsilon": 8.0,
        "delta": 1e-5,
        "accounting": "rdp",
    },
}
WRAPPED = (
    ("monna", {"reference": KEYS[0]}),
    ("nnm", {"rule": "flTrust"}),
    ("nnm", {"rule": "monna"}),
    ("nnm", {"rule": "centeredClipping"}),
    ("nnm", {"rule": {"name": "normClip", "rule": "multiKrum"}}),
    ("nnm", {"rule": {"name": "auto", "candidates": ["flTrust", "median"]}}),
    ("bucketing", {"rule": "flTrust"}),
    ("bucketing", {"rule": "monna"}),
    ("bucketing", {"rule": "centeredClipping"}),
    ("bucketing", {"rule": {"name": "arc", "rule": "weightedMean"}}),
    ("bucketing", {"rule": {"name": "auto", "candidates": ["monna", "median"]}}),
    ("normClip", {"rule": "monna"}),
    ("normClip", {"bound": 0.01, "rule": "krum"}),
    ("arc", {"rule": {"name": "nnm", "rule": "flTrust"}}),
    ("auto", {"candidates": ["flTrust", "median"]}),
)
TRUSTING = {"centeredClipping", "normClip", "arc", "monna", "flTrust"}


def named(name: str, parameters: dict[str, Any]) -> Rule:
    return rule_from_parameters(name, {**PARAMETERS.get(name, {}), **parameters})


EVERY_RULE = [named(rule.name, {}) for rule in RULES] + [named(*item) for item in WRAPPED]


def admitted(rule: Rule, *, n: int, f: int) -> bool:
    refused: ImpossibleSetting | None = None
    try:
        rule.requirement(n, f)
    except ImpossibleSetting as error:
        refused = error
    if refused is not None:
        assert refused.exit_code == 78
        assert str(n) in str(refused)
        assert refused.remedy
    return refused is None


@pytest.mark.parametrize("n", [MAXIMUM_PARTICIPANTS - 1, MAXIMUM_PARTICIPANTS])
@pytest.mark.parametrize("rule", EVERY_RULE, ids=lambda rule: rule.label)
def test_what_a_rule_admits_it_merges(rule: Rule, n: int) -> None:
    f = 1 if limit_of(rule.name).bears_faults and "weightedMean" not in rule.label else 0
    if not admitted(rule, n=n, f=f):
        return
    given = make.scene(n, f, seed=1)
    options: dict[str, Any] = {}
    if rule.named:  # those who are there
        here = {"weights": dict.fromkeys(KEYS[:n], 0.5), "order": KEYS[:n], "reference": KEYS[0]}
        told = PARAMETERS.get(rule.name, {"reference": KEYS[0]})
        rule = named(rule.name, {name: here[name] for name in told})
    if rule.name in TRUSTING | {"nnm", "bucketing", "auto"}:
        # Also what the rule does not ask for, and takes where it is given.
        options |= {
            "base": make.unflat("base", given.start),
            "root_update": make.unflat("root", given.root),
        }
    context = make.context(given, f=f, needs=rule.needs, **options)
    sink = MemorySink()
    assert merge(make.models(given), rule, context, sink=sink).n == n
    assert sink.model().digest


def test_rules_with_a_trusted_row_have_room_for_one_model_less() -> None:
    refused = {
        rule.label
        for rule in EVERY_RULE
        if rule.name != "slerp" and not admitted(rule, n=MAXIMUM_PARTICIPANTS, f=0)
    }
    wrapped = {named(*item).label for item in WRAPPED if item[0] not in {"monna", "auto"}}
    alone = {named(name, {}).label for name in TRUSTING}
    assert refused == wrapped | alone
    for rule in EVERY_RULE:
        assert rule.name == "slerp" or admitted(rule, n=MAXIMUM_PARTICIPANTS - 1, f=0)
        assert not admitted(rule, n=MAXIMUM_PARTICIPANTS + 1, f=0)


def test_the_refusal_of_row_65_says_how_it_is_counted() -> None:
    with pytest.raises(ImpossibleSetting, match=r"n \+ 1 <= 64, n = 64, 65 > 64") as caught:
        named("nnm", {"rule": "flTrust"}).requirement(64, 1)
    assert "at most 63 participants" in caught.value.remedy


def test_the_servers_control_counts_its_own_row() -> None:
    given = make.scene(MAXIMUM_PARTICIPANTS, 0, seed=1)
    start = make.unflat("start", given.start)
    reports = [
        MemoryModel(item.key, {name: item.array(name) for name in make.SHAPES})
        for item in make.models(given)
    ]

    def control(n: int) -> ControlState:
        return server_control(
            reports[:n],
            record=ControlState(clients=64),
            server=None,
            start=start,
            made="sha256:made",
            sink=MemorySink(),
        )

    with pytest.raises(ImpossibleSetting, match=r"SCAFFOLD .* n = 64, 65 > 64"):
        control(64)
    assert control(63).rounds == 1
