"""Merges of task vectors: settings that are refused, expectations of drops, streaming."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from cabildo_kernels import SUPERBLOCK
from cabildo_trainer.consensus.context import Context
from cabildo_trainer.consensus.errors import ImpossibleSetting, NonFiniteInput
from cabildo_trainer.consensus.merges import task_vector_recipes
from cabildo_trainer.consensus.merges.sce import Sce
from cabildo_trainer.consensus.merges.task_vectors import (
    Breadcrumbs,
    Dare,
    Della,
    TaskArithmetic,
    Ties,
)
from cabildo_trainer.consensus.merging import merge
from cabildo_trainer.consensus.sinks import MemorySink
from cabildo_trainer.consensus.sources import MemoryModel

if TYPE_CHECKING:
    from cabildo_trainer.consensus.rule import Rule

SEED = b"a round's seed"


def run(rule: Rule, base: Any, *rows: Any, bf16: bool = False, **options: Any) -> MemorySink:
    names = frozenset({"w"}) if bf16 else frozenset()
    dtype = np.uint16 if bf16 else np.float32
    sink = MemorySink()
    merge(
        [
            MemoryModel(f"p{index}", {"w": np.asarray(row, dtype=dtype)}, bf16=names)
            for index, row in enumerate(rows)
        ],
        rule,
        Context(
            base=MemoryModel("base", {"w": np.asarray(base, dtype=dtype)}, bf16=names),
            seed=SEED,
            **options,
        ),
        sink=sink,
    )
    return sink


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (Ties(density=0.0), "density"),
        (Ties(density=1.1), "density"),
        (Dare(density=-0.1), "density"),
        (Della(density=0.05, window=0.2), "window"),
        (Della(density=0.95, window=0.2), "window"),
        (Della(window=-0.1), "window"),
        (Breadcrumbs(density=0.99, gamma=0.02), "sum of at most 1"),
        (Breadcrumbs(gamma=-0.5), "gamma"),
        (Sce(density=0.0), "density"),
        (TaskArithmetic(weights={"p0": 1.0}), "p1"),
        (TaskArithmetic(weights={"p0": 1.0, "p1": -1.0}, normalize=True), "sum 0"),
        (Dare(weights={"p0": 0.5, "p1": -0.5}, normalize=True), "sum 0"),
        (Ties(weights={"p0": 0.0, "p1": 0.0}), "sum 0"),
    ],
)
def test_settings_without_a_meaning_are_refused(rule: Rule, message: str) -> None:
    with pytest.raises(ImpossibleSetting, match=message):
        run(rule, [0.0, 0.0], [1.0, 2.0], [3.0, 4.0])


def test_ties_is_the_example_worked_by_hand() -> None:
    rows = (
        [4.0, -3.0, 0.1, 0.0],
        [2.0, 5.0, 0.2, -0.1],
        [-5.0, 1.0, 0.1, 3.0],
    )
    merged = run(Ties(density=0.5, scale=2.0), [1.0] * 4, *(np.array(r) + 1.0 for r in rows))
    # Kept: (4, -3), (2, 5), (-5, 3); elected: + (1), + (2), ., +; means 3, 5, 0, 3.
    np.testing.assert_allclose(merged.tensors["w"], [7.0, 11.0, 1.0, 7.0], rtol=1e-6)


def test_ties_of_one_model_at_full_density_is_the_model() -> None:
    rng = np.random.default_rng(0)
    base, row = rng.integers(-50, 50, size=(2, 1000)) / 8.0
    assert run(Ties(density=1.0), base, row).tensors["w"].tolist() == row.tolist()


def test_a_tensor_never_loses_all_to_rounding() -> None:
    merged = run(Ties(density=0.01), [0.0, 0.0], [1.0, 2.0])
    assert merged.tensors["w"].tolist() == [0.0, 2.0]


@pytest.mark.parametrize(
    "rule", [Dare(density=0.3), Della(density=0.3, window=0.3, elect="none", normalize=False)]
)
def test_random_drops_keep_the_expectation(rule: Rule) -> None:
    size = 400_000
    difference = np.linspace(0.5, 1.5, size)
    merged = run(rule, np.zeros(size), difference).tensors["w"]
    kept = merged != 0.0
    assert kept.mean() == pytest.approx(0.3, abs=0.005)
    assert merged.mean() == pytest.approx(1.0, abs=0.02)


def test_della_keeps_larger_entries_more_often_by_the_window() -> None:
    shape = (4000, 100)
    rng = np.random.default_rng(1)
    difference = rng.permuted(np.tile(np.arange(1.0, 101.0), (4000, 1)), axis=1)
    rule = Della(density=0.5, window=0.4, rescale=False, elect="none", normalize=False)
    sink = MemorySink()
    merge(
        [MemoryModel("p0", {"w": difference.astype(np.float32)})],
        rule,
        Context(base=MemoryModel("base", {"w": np.zeros(shape, dtype=np.float32)}), seed=SEED),
        sink=sink,
    )
    kept = sink.tensors["w"] != 0.0
    for value in (1.0, 25.0, 50.0, 75.0, 100.0):
        wanted = 0.3 + 0.4 * (value - 1.0) / 99.0
        assert kept[difference == value].mean() == pytest.approx(wanted, abs=0.03)


def test_drops_depend_on_seed_participant_and_tensor_but_on_no_other_model() -> None:
    ones, base = np.ones(5000), np.zeros(5000)
    first = run(Dare(), base, ones).tensors["w"]
    alone = run(Dare(weights={"p0": 1.0, "p1": 0.0}), base, ones, ones * 3).tensors["w"]
    assert first.tobytes() == alone.tobytes()
    other = run(Dare(weights={"p0": 0.0, "p1": 1.0}), base, ones, ones).tensors["w"]
    assert first.tobytes() != other.tobytes()


def test_normalising_is_only_done_when_asked_and_is_recorded() -> None:
    rows = [1.0, 2.0], [3.0, 2.0]
    weights = {"p0": 1.0, "p1": 3.0}
    plain = run(TaskArithmetic(weights=weights), [0.0, 0.0], *rows)
    assert plain.tensors["w"].tolist() == [10.0, 8.0]
    divided = run(TaskArithmetic(weights=weights, normalize=True), [0.0, 0.0], *rows)
    assert divided.tensors["w"].tolist() == [2.5, 2.0]
    assert TaskArithmetic(normalize=True).parameters()["normalize"] is True
    assert Ties().parameters()["normalize"] is True


def test_a_base_with_nan_is_named_and_no_participant_is_charged() -> None:
    with pytest.raises(NonFiniteInput) as caught:
        run(TaskArithmetic(), [np.nan, 0.0], [1.0, 2.0])
    assert caught.value.participants == ("trusted:base",)


@pytest.mark.parametrize("rule", [Ties(density=0.3), Sce(density=0.4), Breadcrumbs()])
def test_bfloat16_models_stream_to_the_same_bits_in_any_chunks(rule: Rule) -> None:
    rng = np.random.default_rng(5)
    size = 70_000
    base = rng.normal(scale=0.02, size=size).astype(np.float32)
    rows = [
        (base + rng.normal(scale=1e-3, size=size).astype(np.float32)).view(np.uint32) >> 16
        for _ in range(3)
    ]
    results = {
        run(
            rule,
            base.view(np.uint32) >> 16,
            *rows,
            bf16=True,
            chunk_elements=chunk,
            threads=threads,
        )
        .model()
        .digest
        for chunk, threads in ((0, 1), (24_576, 2))
    }
    assert len(results) == 1


@pytest.mark.parametrize("rule", [Della(), Dare()])
@pytest.mark.parametrize("columns", [768, 1000])
def test_drops_have_the_same_bits_however_chunks_and_parts_are_cut(
    rule: Rule, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By rows, by whole tensors and, where they end with rows as well, by superblocks."""
    rng = np.random.default_rng(6)
    rows = 3 * SUPERBLOCK // columns + 5
    base, *models = rng.normal(scale=0.02, size=(4, rows, columns))
    one_chunk = rows * columns
    digests = set()
    for part in (1, task_vector_recipes.PART_ELEMENTS, one_chunk):
        monkeypatch.setattr(task_vector_recipes, "PART_ELEMENTS", part)
        for chunk, threads in ((SUPERBLOCK, 1), (2 * SUPERBLOCK, 2), (one_chunk, 2)):
            if part == 1 and (isinstance(rule, Dare) or threads > 1):
                continue
            merged = run(rule, base, *models, chunk_elements=chunk, threads=threads)
            digests.add(merged.model().digest)
    assert len(digests) == 1


def test_sce_gives_no_weight_to_models_that_did_not_move() -> None:
    merged = run(Sce(), [1.0, 1.0], [1.0, 1.0], [3.0, 0.0])
    assert merged.tensors["w"].tolist() == [3.0, 0.0]
    still = run(Sce(), [1.0, 1.0], [1.0, 1.0], [1.0, 1.0])
    assert still.tensors["w"].tolist() == [1.0, 1.0]
