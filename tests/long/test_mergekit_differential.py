"""Recipes of mergekit give the model that mergekit itself gives, up to its float32 arithmetic."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from cabildo_trainer.consensus.commands.command_line import main
from support.mergekit import mergekit_program

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

MODELS = 3
SHAPES = {"a.weight": (64, 500), "b.bias": (700,)}
SEED = "00ff"

# Given to the interpreter of mergekit's environment: all recipes in one process, because importing
# its program takes far longer than these merges.
RUN_ALL = """
import sys
from mergekit.scripts.merge_raw_pytorch import main
for file in sys.argv[1:]:
    main([file, file + "-theirs", "--quiet", "--random-seed", "1"], standalone_mode=False)
"""


def arrays(seed: int) -> dict[str, NDArray[np.float32]]:
    draw = np.random.default_rng(seed)
    shared = np.random.default_rng(99)
    return {
        name: (shared.normal(0, 0.02, shape) + draw.normal(0, 0.002, shape)).astype(np.float32)
        for name, shape in SHAPES.items()
    }


def body(folder: Path, method: str, *, own: Any = None, **changes: Any) -> dict[str, Any]:
    models = []
    for number in range(MODELS):
        entry: dict[str, Any] = {"model": str(folder / f"m{number}" / "model.safetensors")}
        if own:
            entry["parameters"] = own(number)
        models.append(entry)
    return {"merge_method": method, "models": models} | changes


def weight(number: int) -> dict[str, float]:
    return {"weight": 0.5 + 0.25 * number}


def recipes(folder: Path) -> dict[str, dict[str, Any]]:
    base = {"base_model": str(folder / "base" / "model.safetensors")}

    def dense(number: int) -> dict[str, float]:
        return {**weight(number), "density": 0.6}

    def outliers(number: int) -> dict[str, float]:
        return {**dense(number), "gamma": 0.05}

    def whole(number: int) -> dict[str, float]:
        return {**weight(number), "density": 1.0}

    def whole_ranked(number: int) -> dict[str, float]:
        return {**whole(number), "epsilon": 0.0}

    def ranked(number: int) -> dict[str, float]:
        return {**dense(number), "epsilon": 0.2}

    slerp = body(folder, "slerp", base_model=str(folder / "m1" / "model.safetensors"))
    slerp |= {"models": slerp["models"][:2], "parameters": {"t": 0.3}}
    return {
        "linear": body(folder, "linear", own=weight),
        "linear-plain": body(folder, "linear", own=weight, parameters={"normalize": False}),
        "slerp": slerp,
        "multislerp": body(folder, "multislerp", own=weight),
        "multislerp-base": body(folder, "multislerp", own=weight, **base),
        "karcher": body(folder, "karcher", parameters={"max_iter": 20}),
        "model_stock": body(folder, "model_stock", **base),
        "sce": body(folder, "sce", **base, parameters={"select_topk": 0.4}),
        "task_arithmetic": body(
            folder, "task_arithmetic", own=weight, **base, parameters={"lambda": 0.8}
        ),
        "ties": body(folder, "ties", own=dense, **base),
        "ties-plain": body(
            folder, "ties", own=dense, **base, parameters={"normalize": False, "lambda": 0.7}
        ),
        "breadcrumbs": body(folder, "breadcrumbs", own=outliers, **base),
        "breadcrumbs_ties": body(folder, "breadcrumbs_ties", own=outliers, **base),
        "dare_linear": body(folder, "dare_linear", own=dense, **base),
        "dare_ties": body(folder, "dare_ties", own=dense, **base),
        "della_linear": body(folder, "della_linear", own=ranked, **base),
        "della": body(folder, "della", own=ranked, **base),
        # All entries are kept: nothing depends on what is drawn.
        **{
            f"{method}-whole": body(
                folder,
                method,
                own=whole_ranked if method.startswith("della") else whole,
                **base,
                parameters={"lambda": 0.8},
            )
            for method in DRAWN
        },
    }


DRAWN = ("dare_linear", "dare_ties", "della_linear", "della")
DETERMINISTIC = [
    "linear",
    "linear-plain",
    "slerp",
    "multislerp",
    "multislerp-base",
    "karcher",
    "model_stock",
    "sce",
    "task_arithmetic",
    "ties",
    "ties-plain",
    "breadcrumbs",
    "breadcrumbs_ties",
    *(f"{method}-whole" for method in DRAWN),
]


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, Any]]:
    """Ours and theirs by recipe."""
    folder = tmp_path_factory.mktemp("mergekit")
    for seed, name in enumerate(("base", *(f"m{number}" for number in range(MODELS)))):
        (folder / name).mkdir()
        save_file(arrays(seed), folder / name / "model.safetensors")
    files = {}
    for name, recipe in recipes(folder).items():
        files[name] = folder / name
        files[name].write_text(json.dumps(recipe))
        arguments = ["merge", "--quiet", "--seed", SEED, "--from-mergekit", str(files[name])]
        assert main([*arguments, "--output", f"{files[name]}-ours"]) == 0
    ended = subprocess.run(
        [mergekit_program().with_name("python"), "-c", RUN_ALL, *files.values()],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return {
        name: (
            load_file(f"{file}-ours/model.safetensors"),
            load_file(f"{file}-theirs/model.safetensors"),
        )
        for name, file in files.items()
    }


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", DETERMINISTIC)
def test_a_recipe_gives_mergekits_model(merged: dict[str, tuple[Any, Any]], name: str) -> None:
    ours, theirs = merged[name]
    base = arrays(0)
    assert ours.keys() == theirs.keys() == SHAPES.keys()
    for tensor in SHAPES:
        assert ours[tensor].dtype == theirs[tensor].dtype
        moved = np.abs(theirs[tensor] - base[tensor]).max()
        off = np.abs(ours[tensor] - theirs[tensor])
        # Where float32 sums fall on either side of a bound or a sign, single entries may differ.
        assert np.count_nonzero(off > 1e-4 * moved) <= off.size / 1000, (tensor, off.max(), moved)


@pytest.mark.parametrize("name", DRAWN)
def test_what_is_drawn_keeps_as_much_in_small_and_large_entries_as_mergekit(
    merged: dict[str, tuple[Any, Any]], name: str
) -> None:
    ours, theirs = merged[name]
    base, tensor = arrays(0), "a.weight"
    spread = np.mean([np.abs(arrays(1 + n)[tensor] - base[tensor]) for n in range(MODELS)], axis=0)
    small, large = spread < np.quantile(spread, 0.2), spread > np.quantile(spread, 0.8)
    for part in (small, large):
        one, two = (
            float(np.mean(model[tensor][part] != base[tensor][part])) for model in (ours, theirs)
        )
        assert abs(one - two) < 0.02, (name, one, two)
    moves = [float(np.std(model[tensor] - base[tensor])) for model in (ours, theirs)]
    assert abs(moves[0] / moves[1] - 1) < 0.1
