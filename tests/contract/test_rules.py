"""The contract of rules and merges: what a verifier, an operator and a user may rely on.

Here: properties that hold for every rule; a rule joins by a line in `settings.py`.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import cabildo_kernels as kernels
from cabildo_api.consensus_limits import limit_of
from cabildo_api.merge_result import MergeResult
from cabildo_trainer.consensus.errors import ImpossibleSetting, MissingInput, NonFiniteInput
from cabildo_trainer.consensus.merging import merge, replay
from cabildo_trainer.consensus.recipes import recipe_from_json
from cabildo_trainer.consensus.rules import by_name, rule_from_parameters
from cabildo_trainer.consensus.sinks import MemorySink
from cabildo_trainer.consensus.sources import MemoryModel
from contract import models as make
from contract.settings import SETTINGS, Setting

if TYPE_CHECKING:
    from collections.abc import Callable

    from cabildo_trainer.consensus.context import Context

ATTACKS = ("shifted", "sign", "far", "copies", "honest")


def context_of(setting: Setting, given: make.Scene, **options: Any) -> Context:
    if setting.centred:
        options.setdefault("base", make.unflat("base", given.start))
    return make.context(given, f=setting.f, needs=setting.rule.needs, **options)


def run(
    setting: Setting, given: make.Scene, inputs: list[MemoryModel] | None = None, **options: Any
) -> tuple[MergeResult, MemorySink]:
    sink = MemorySink()
    inputs = make.models(given) if inputs is None else inputs
    return merge(inputs, setting.rule, context_of(setting, given, **options), sink=sink), sink


def scene_of(setting: Setting, *, seed: int = 1, attack: str = "shifted") -> make.Scene:
    return make.scene(setting.n, setting.f, seed=seed, attack=attack)


def spread(given: make.Scene) -> float:
    return float(np.sqrt(np.mean(np.var(given.rows, axis=0)))) or 1.0


def with_value(given: make.Scene, row: int, value: float) -> list[MemoryModel]:
    inputs = make.models(given)
    arrays = {name: inputs[row].array(name).copy() for name in inputs[row].tensors}
    arrays["c.deep.weight"][1, 2, 3] = value
    inputs[row] = MemoryModel(inputs[row].key, arrays)
    return inputs


def test_every_registered_rule_is_under_contract() -> None:
    assert {setting.rule.name for setting in SETTINGS} == set(by_name)


def where(applies: Callable[[Setting], object]) -> pytest.MarkDecorator:
    """Runs a test for the settings that promise what it asks."""
    chosen = [setting for setting in SETTINGS if applies(setting)]
    return pytest.mark.parametrize("setting", chosen, ids=[item.name for item in chosen])


everywhere = where(lambda setting: True)


class TestRuleContract:
    """Runs for every line of `SETTINGS`."""

    @everywhere
    def test_the_order_of_the_inputs_changes_no_bit(self, setting: Setting) -> None:
        given = scene_of(setting)
        inputs = make.models(given)
        shuffled = [inputs[row] for row in np.random.default_rng(5).permutation(setting.n)]
        assert run(setting, given, inputs)[0] == run(setting, given, shuffled)[0]

    @everywhere
    def test_chunks_and_threads_change_no_bit(self, setting: Setting) -> None:
        results = []
        for chunk, threads in ((0, 1), (kernels.SUPERBLOCK, 2), (2 * kernels.SUPERBLOCK, 3)):
            shapes = {"w": (3 * kernels.SUPERBLOCK + 777,), "v": (5, 11)}
            size = sum(int(np.prod(shape)) for shape in shapes.values())
            given = make.scene(setting.n, setting.f, seed=2, d=size)
            inputs = [
                make.unflat(make.key_of(row), values, shapes=shapes)
                for row, values in enumerate(given.rows)
            ]
            trusted = {
                need: make.unflat(need, values, shapes=shapes)
                for need, values in (
                    ("base", given.start),
                    ("previous", given.start),
                    ("root_update", given.root),
                )
                if need in {item.value for item in setting.rule.needs}
                or (setting.centred and need == "base")
            }
            if "statistics" in {item.value for item in setting.rule.needs}:
                trusted["statistics"] = make.statistics(given, shapes=shapes)
            result, _ = run(
                setting, given, inputs, chunk_elements=chunk, threads=threads, **trusted
            )
            results.append(result)
        assert results[0] == results[1] == results[2]

    @where(lambda setting: setting.reference)
    def test_the_result_is_that_of_its_float64_definition(self, setting: Setting) -> None:
        for seed, attack in enumerate(ATTACKS):
            given = scene_of(setting, seed=10 + seed, attack=attack)
            _, sink = run(setting, given)
            wanted = setting.reference(given.rows, setting.f, given)
            error = np.max(np.abs(make.flat(sink.model()) - wanted))
            assert error <= setting.tolerance * spread(given), attack

    @where(lambda setting: setting.translation)
    def test_moving_all_models_moves_the_result(self, setting: Setting) -> None:
        given = scene_of(setting, seed=3)
        by = 0.25
        _, plain = run(setting, given)
        _, moved = run(setting, given.moved(by))
        error = np.abs(make.flat(moved.model()) - by - make.flat(plain.model()))
        assert np.max(error) <= 1e-5 * spread(given)

    @where(lambda setting: setting.scale)
    @pytest.mark.parametrize("factor", [2.0, 2.0**-10], ids=["larger", "smaller"])
    def test_scaling_all_models_scales_every_bit(self, setting: Setting, factor: float) -> None:
        """By a power of two, so that scaling is exact; smaller ones lie below fixed smoothings."""
        given = scene_of(setting, seed=4)
        _, plain = run(setting, given)
        _, scaled = run(setting, given.scaled(factor))
        assert np.array_equal(make.flat(scaled.model()), factor * make.flat(plain.model()))

    @where(lambda setting: setting.rotation)
    def test_turning_all_models_turns_the_result(self, setting: Setting) -> None:
        given = scene_of(setting, seed=6)
        rng = np.random.default_rng(0)
        rotation, _ = np.linalg.qr(rng.normal(size=(given.rows.shape[1],) * 2))
        _, plain = run(setting, given)
        _, turned = run(setting, given.turned(rotation))
        error = np.abs(make.flat(turned.model()) - make.flat(plain.model()) @ rotation.T)
        assert np.max(error) <= 2e-3 * spread(given)

    @everywhere
    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_a_model_with_nan_or_infinity_is_excluded_and_counted_into_f(
        self, setting: Setting, value: float
    ) -> None:
        given = scene_of(setting, seed=7)
        bad = min(2, setting.n - 1)
        inputs = with_value(given, bad, value)
        if setting.f == 0:
            with pytest.raises(NonFiniteInput) as caught:
                run(setting, given, inputs)
            assert caught.value.participants == (make.key_of(bad),)
            return
        result, sink = run(setting, given, inputs)
        assert (result.f_declared, result.f_effective) == (setting.f, setting.f - 1)
        assert result.participants[2].reason == "NonFinite"
        assert not result.participants[2].accepted
        without, known = run(setting, given, inputs, faulty={make.key_of(2): "NonFinite"})
        assert without == result
        assert np.isfinite(make.flat(sink.model())).all()
        assert known.model().digest == sink.model().digest

    @everywhere
    def test_more_non_finite_models_than_faults_end_the_merge(self, setting: Setting) -> None:
        given = scene_of(setting, seed=7)
        inputs = make.models(given)
        bad = with_value(given, 0, np.nan)[0]
        for row in range(setting.f + 1):
            arrays = {name: bad.array(name) for name in bad.tensors}
            inputs[row] = MemoryModel(make.key_of(row), arrays)
        with pytest.raises(NonFiniteInput):
            run(setting, given, inputs)

    @everywhere
    def test_too_many_faults_are_refused_with_the_arithmetic(self, setting: Setting) -> None:
        limit = limit_of(setting.rule.name)
        f = setting.f + 1 if limit.bears_faults else 1
        n = limit.needed(f) - 1 if limit.bears_faults else setting.n
        with pytest.raises(ImpossibleSetting) as caught:
            setting.rule.requirement(n, f)
        assert str(f) in str(caught.value)
        assert caught.value.exit_code == 78

    @everywhere
    def test_limits_are_checked_again_after_exclusions(self, setting: Setting) -> None:
        given = scene_of(setting)
        late = frozenset(make.key_of(row) for row in range(1, setting.n))
        if setting.f == 0:
            late = frozenset(make.key_of(row) for row in range(setting.n))
        with pytest.raises(ImpossibleSetting):
            run(setting, given, absent=late)

    @where(lambda setting: setting.rule.needs)
    def test_a_missing_input_is_named(self, setting: Setting) -> None:
        given = scene_of(setting)
        for need in setting.rule.needs:
            context = context_of(setting, given)
            gone = (
                {"previous": None, "base": None}
                if need.value == "previous"
                else {need.value: {} if need.value == "statistics" else None}
            )
            with pytest.raises(MissingInput, match=need.value):
                merge(
                    make.models(given),
                    setting.rule,
                    replace(context, **gone),
                    sink=MemorySink(),
                )

    @everywhere
    def test_the_recipe_in_the_result_is_enough_to_repeat_the_merge(self, setting: Setting) -> None:
        given = scene_of(setting, seed=8)
        inputs = with_value(given, 1, np.nan) if setting.f else make.models(given)
        result, _ = run(setting, given, inputs)
        text = result.model_dump_json(by_alias=True)
        read = MergeResult.model_validate_json(text)
        assert read == result
        keys = [item.key for item in read.participants if item.reason != "NonFinite"]
        digest = replay(
            inputs,
            recipe_from_json(json.loads(text)["recipe"]),
            context_of(setting, given),
            keys=keys,
            sink=MemorySink(),
        )
        assert digest == result.output_digest

    @everywhere
    def test_parameters_in_the_result_make_the_same_rule(self, setting: Setting) -> None:
        parameters = json.loads(json.dumps(setting.rule.parameters()))
        assert rule_from_parameters(setting.rule.name, parameters) == setting.rule

    @everywhere
    def test_passes_are_as_declared(self, setting: Setting) -> None:
        given = scene_of(setting)
        reads: dict[str, int] = {}
        inputs = [CountingModel(model, reads) for model in make.models(given)]
        merge(inputs, setting.rule, context_of(setting, given), sink=MemorySink())
        most = max(reads.values())
        assert most <= setting.rule.passes, f"{most} passes, {setting.rule.passes} declared"

    @where(lambda setting: setting.rule.kappa(setting.n, setting.f) is not None)
    def test_kappa_bounds_the_error_for_every_honest_set(self, setting: Setting) -> None:
        kappa = setting.rule.kappa(setting.n, setting.f)
        for seed, attack in itertools.product(range(3), (*ATTACKS, "away")):
            given = make.scene(setting.n, setting.f, seed=100 + seed, attack=attack)
            _, sink = run(setting, given)
            output = make.flat(sink.model())
            for honest in itertools.combinations(range(setting.n), setting.n - setting.f):
                rows = given.rows[list(honest)]
                middle = rows.mean(axis=0)
                variance = np.mean(np.sum((rows - middle) ** 2, axis=1))
                error = np.sum((output - middle) ** 2)
                assert error <= kappa * variance * (1 + 1e-5) + 1e-9, (attack, honest)


class CountingModel:
    """Counts how often the first element is read."""

    def __init__(self, model: MemoryModel, reads: dict[str, int]) -> None:
        self.key, self.digest, self.tensors = model.key, model.digest, model.tensors
        self._model, self._reads = model, reads

    def read(self, name: str, start: int, stop: int) -> Any:
        if name == "a.weight" and start == 0:
            self._reads[self.key] = self._reads.get(self.key, 0) + 1
        return self._model.read(name, start, stop)


@pytest.fixture(scope="module")
def digests_of() -> Callable[[str], dict[str, list[str]]]:
    """Digests of all settings, computed in a process that is forced onto a path."""
    tests = Path(__file__).parents[1]
    known: dict[str, dict[str, list[str]]] = {}

    def compute(path: str) -> dict[str, list[str]]:
        if path not in known:
            environment = {
                **os.environ,
                "CABILDO_KERNELS_ISA": path,
                "PYTHONPATH": os.pathsep.join(sys.path),
            }
            done = subprocess.run(
                [sys.executable, "-m", "contract.digests"],
                cwd=tests,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
                timeout=600,
            )
            assert done.returncode == 0, done.stderr
            known[path] = json.loads(done.stdout)
        return known[path]

    return compute


@pytest.mark.parametrize("path", kernels.info().available)
def test_every_path_of_this_cpu_gives_the_same_bits(
    path: str, digests_of: Callable[[str], dict[str, list[str]]]
) -> None:
    forced = digests_of(path)
    assert forced.pop("path") == [path]
    best = dict(digests_of(kernels.info().isa))
    best.pop("path", None)
    assert forced == best
