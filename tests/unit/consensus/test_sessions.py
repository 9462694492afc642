"""What rules see: the Gram matrix, ties, chunks on the grid, mixtures of models."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import cabildo_kernels as kernels
from cabildo_trainer.consensus.context import Context
from cabildo_trainer.consensus.errors import MissingInput
from cabildo_trainer.consensus.passes import BYTES_IN_FLIGHT, Session, spans
from cabildo_trainer.consensus.recipes import (
    ColumnMedian,
    Mixed,
    PerTensor,
    WeightedSum,
    mean_of,
    recipe_from_json,
    single,
)
from cabildo_trainer.consensus.robust.mixtures import MixedSession, Mixing, lifted_decision
from cabildo_trainer.consensus.robust.selection import selection
from cabildo_trainer.consensus.sinks import MemorySink
from cabildo_trainer.consensus.sources import MemoryModel, TensorSpec


def model(key: str, values: np.ndarray) -> MemoryModel:
    return MemoryModel(key, {"w": np.asarray(values, dtype=np.float32)})


def session(rows: np.ndarray, *, start: np.ndarray | None = None, f: int = 0) -> Session:
    base = None if start is None else model("base", start)
    sources = tuple(model(f"p{row:02d}", values) for row, values in enumerate(rows))
    return Session(sources=sources, f=f, context=Context(base=base))


def values_of(model: MemoryModel) -> np.ndarray:
    return model.array("w").astype(np.float64)


def test_one_far_row_leaves_the_other_distances_right() -> None:
    """Deltas of 1e-5 on a base of 0.02, and one row at 1e3: right to 1e-6 of each distance."""
    rng = np.random.default_rng(1)
    start = rng.normal(scale=0.02, size=50_000).astype(np.float32)
    deltas = rng.normal(scale=1e-5, size=(6, start.size)).astype(np.float32)
    rows = start + deltas
    rows[3] += np.float32(1e3)
    distances = session(rows, start=start).gram().squared_distances()
    centred = (rows - start).astype(np.float64)
    for i in (0, 1, 2, 4, 5):
        for j in (0, 1, 2, 4, 5):
            if i != j:
                exact = np.sum((centred[i] - centred[j]) ** 2)
                assert distances[i, j] == pytest.approx(exact, rel=1e-6)


def test_the_gram_matrix_is_read_once() -> None:
    given = session(np.eye(4))
    first = given.gram()
    assert given.gram() is first
    assert given.reads == 1


def test_the_digest_of_a_gram_matrix_holds_keys_and_numbers() -> None:
    rows = np.eye(3)
    digest = session(rows).gram().digest
    assert session(rows).gram().digest == digest
    assert session(2 * rows).gram().digest != digest
    renamed = Session(
        sources=tuple(model(f"q{row}", values) for row, values in enumerate(rows)),
        f=0,
        context=Context(),
    )
    assert renamed.gram().digest != digest


def test_the_previous_model_is_the_centre_before_the_base() -> None:
    rows = np.full((2, 3), 5.0)
    context = Context(base=model("base", np.zeros(3)), previous=model("previous", np.full(3, 4.0)))
    sources = tuple(model(f"p{row}", values) for row, values in enumerate(rows))
    gram = Session(sources=sources, f=0, context=context).gram()
    assert gram.matrix.tolist() == [[3.0, 3.0], [3.0, 3.0]]
    assert gram.centred


def test_extra_rows_stand_behind_the_participants() -> None:
    given = session(np.eye(3), start=np.zeros(3))
    root = model("root", np.array([2.0, 0.0, 1.0]))
    matrix = given.gram(extra=(root,)).matrix
    assert matrix[3].tolist() == [2.0, 0.0, 1.0, 5.0]


def test_inner_products_with_a_vector_are_centred_alike() -> None:
    given = session(np.eye(3) + 1.0, start=np.ones(3))
    assert given.dots(model("gradient", np.array([1.0, 2.0, 3.0]))).tolist() == [1.0, 2.0, 3.0]


def test_equal_scores_go_by_digest_and_not_by_key() -> None:
    rows = np.arange(8.0)[:, None] * np.ones(3)
    given = session(rows)
    digests = [source.digest for source in given.sources]
    assert given.order([0.0] * 8) == sorted(range(8), key=digests.__getitem__)
    assert given.lowest(dict.fromkeys(range(8), 1.0)) == int(np.argmin(digests))
    assert given.order([3.0, 1.0, 2.0, 0.0, 7.0, 6.0, 5.0, 4.0]) == [3, 1, 2, 0, 7, 6, 5, 4]


def test_equal_models_with_equal_scores_go_by_key() -> None:
    given = session(np.ones((3, 2)))
    assert given.order([1.0, 1.0, 0.0]) == [2, 0, 1]


@pytest.mark.parametrize("unit", [1, 7, 1000])
@pytest.mark.parametrize("size", [1, 30_000, 100_000])
def test_chunks_cover_a_tensor_in_whole_superblocks_or_units(unit: int, size: int) -> None:
    spec = TensorSpec("w", "F32", (700_001,))
    cuts = list(spans(spec, unit=unit, size=size))
    assert cuts[0][0] == 0
    assert cuts[-1][1] == spec.size
    for (_, stop), (start, _) in itertools.pairwise(cuts):
        assert stop == start
        assert start % (kernels.SUPERBLOCK if unit == 1 else unit) == 0
    most = max(size, unit, kernels.SUPERBLOCK)
    assert all(stop - start <= most for start, stop in cuts)


def test_an_empty_tensor_has_no_chunk() -> None:
    assert list(spans(TensorSpec("w", "F32", (0, 4)), unit=1, size=1)) == []


@pytest.mark.parametrize("n", [1, 16, 64])
def test_the_rows_of_a_chunk_fit_into_their_memory(n: int) -> None:
    given = session(np.zeros((n, 1)))
    assert 4 * n * given.chunk_elements <= BYTES_IN_FLIGHT


def test_a_loss_needs_an_evaluator() -> None:
    with pytest.raises(MissingInput, match="evaluator"):
        session(np.eye(2)).loss(single(0, n=2))


def test_candidates_are_kept_where_the_context_says() -> None:
    kept: list[MemorySink] = []

    def workspace(name: str) -> MemorySink:
        kept.append(MemorySink(key=name))
        return kept[-1]

    sources = tuple(model(f"p{row}", values) for row, values in enumerate(np.eye(2)))
    given = Session(sources=sources, f=0, context=Context(workspace=workspace))
    made = given.materialise(single(1, n=2), key="krum")
    assert (made.key, kept[0].tensors["w"].tolist()) == ("krum", [0.0, 1.0])


MIXING = Mixing.of([[0.5, 0.5, 0.0], [0.0, 0.25, 0.5]], owners=(0, 0, 1), starts=(0.0, 0.25))


def mixtures(rows: np.ndarray, start: np.ndarray) -> np.ndarray:
    return MIXING.array() @ rows + np.asarray(MIXING.starts)[:, None] * start


def test_mixtures_have_the_gram_matrix_of_the_mixed_rows() -> None:
    rng = np.random.default_rng(0)
    rows, start = rng.normal(size=(3, 40)).astype("f4"), rng.normal(size=40).astype("f4")
    root = model("root", rng.normal(size=40))
    vector = model("vector", rng.normal(size=40))
    outer = session(rows, start=start)
    mixed = MixedSession.of(outer, MIXING, f=0)
    direct = mixtures(rows.astype(float), start.astype(float)) - start
    everything = np.vstack((direct, values_of(root) - start))
    gram = mixed.gram(extra=(root,)).matrix
    assert np.allclose(gram, everything @ everything.T, rtol=1e-6)
    assert np.array_equal(gram, gram.T)
    assert np.allclose(mixed.dots(vector), direct @ values_of(vector), rtol=1e-5)


def test_a_mixture_can_be_read_like_a_model() -> None:
    rows, start = np.eye(3), np.array([4.0, 0.0, 0.0])
    mixed = MixedSession.of(session(rows, start=start), MIXING, f=0)
    read = np.array([source.read("w", 0, 3) for source in mixed.sources])
    assert read.tolist() == mixtures(rows, start).tolist()
    assert mixed.keys == ("bucket-00", "bucket-01")
    assert mixed.sources[0].digest != mixed.sources[1].digest


def test_mixtures_that_hold_nothing_but_the_rows_keep_the_keys() -> None:
    mixing = Mixing.of(np.eye(3).tolist(), owners=range(3))
    assert MixedSession.of(session(np.eye(3)), mixing, f=0).keys == ("p00", "p01", "p02")


@pytest.mark.parametrize(
    "recipe",
    [
        WeightedSum(weights=(0.5, 2.0), start_weight=-1.0, divisor=4.0),
        mean_of((1,), n=2),
        ColumnMedian(),
        PerTensor(recipes={"w": ColumnMedian()}, default=mean_of((0, 1), n=2)),
    ],
    ids=["sum", "single", "columns", "per tensor"],
)
def test_a_recipe_over_mixtures_is_lifted_to_the_models(recipe: object) -> None:
    rng = np.random.default_rng(3)
    rows, start = rng.normal(size=(3, 40)).astype("f4"), rng.normal(size=40).astype("f4")
    outer = session(rows, start=start)
    mixed = MixedSession.of(outer, MIXING, f=0)
    lifted = values_of(mixed.materialise(recipe))
    over = mixtures(rows.astype(float), start.astype(float)).astype("f4")
    direct = values_of(session(over, start=start).materialise(recipe))
    assert np.allclose(lifted, direct, rtol=1e-5, atol=1e-6)


def test_mixtures_of_mixtures_are_lifted_through_both() -> None:
    rows = np.eye(3)
    outer = session(rows, start=np.zeros(3))
    first = MixedSession.of(outer, MIXING, f=0)
    second = MixedSession.of(first, Mixing.of([[1.0, 0.0], [0.5, 0.5]], owners=(0, 1)), f=0)
    recipe = single(1, n=2)
    expected = mixtures(rows, np.zeros(3)).mean(axis=0)
    assert values_of(second.materialise(recipe)).tolist() == expected.tolist()
    assert second.root is outer


def test_a_decision_over_mixtures_is_told_by_participants() -> None:
    mixed = MixedSession.of(session(np.eye(3), start=np.zeros(3)), MIXING, f=0)
    decision = lifted_decision(selection(mixed, [0], scores=[1.0, 7.0]), MIXING)
    assert decision.accepted == (True, True, False)
    assert decision.scores == (1.0, 1.0, 7.0)
    assert decision.reasons == ("", "", "NotSelected")
    assert decision.weights == (0.5, 0.5, 0.0)


def test_recipes_come_back_from_json_as_they_were() -> None:
    recipe = PerTensor(
        recipes={"w": Mixed(matrix=((0.1, 0.9),), start_weights=(0.0,), inner=ColumnMedian())},
        default=WeightedSum(weights=(1 / 3, 2 / 3)),
    )
    assert recipe_from_json(recipe.to_json()) == recipe


def test_a_recipe_knows_the_rows_that_it_uses() -> None:
    columns = ColumnMedian(rows=(0, 2))
    assert [columns.uses(row) for row in range(3)] == [True, False, True]
    per_tensor = PerTensor(recipes={"w": single(1, n=3)}, default=single(0, n=3))
    assert [per_tensor.uses(row) for row in range(3)] == [True, True, False]
    mixed = Mixed(matrix=((1.0, 0.0, 0.0),), start_weights=(0.0,), inner=ColumnMedian())
    assert [mixed.uses(row) for row in range(3)] == [True, False, False]
