"""mergekit's recipes become our rules, and whatever is not understood is refused by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml

from cabildo_trainer.consensus.commands.mergekit_recipes import METHODS, Translated, read_recipe
from cabildo_trainer.consensus.errors import ConsensusError, ImpossibleSetting, MissingInput
from cabildo_trainer.consensus.rules import by_name, rule_from_parameters

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("base", "a", "b"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def body(method: str, **changes: Any) -> dict[str, Any]:
    """A recipe of two models and a base as mergekit's documentation has them."""
    task = {"task_arithmetic", "ties", "sce", "model_stock"} | {
        name for name in METHODS if name.startswith(("dare", "della", "breadcrumbs"))
    }
    models: list[dict[str, Any]] = [
        {"model": "a", "parameters": {"weight": 0.5}},
        {"model": "b", "parameters": {"weight": 0.25}},
    ]
    recipe: dict[str, Any] = {"merge_method": method, "models": models}
    if method in {"sce", "model_stock", "slerp", "karcher"}:
        for model in models:
            del model["parameters"]
    if method in task:
        recipe["base_model"] = "base"
    if method == "slerp":
        recipe |= {"base_model": "b", "parameters": {"t": 0.25}}
    return recipe | changes


def read(folder: Path, recipe: dict[str, Any] | str) -> Translated:
    file = folder / "recipe.yml"
    file.write_text(recipe if isinstance(recipe, str) else yaml.safe_dump(recipe))
    return read_recipe(file)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_becomes_a_rule_that_takes_its_parameters(folder: Path, method: str) -> None:
    translated = read(folder, body(method))
    assert translated.rule in by_name
    rule = rule_from_parameters(translated.rule, translated.parameters)
    assert rule.name == translated.rule
    assert sorted(translated.models) == ["a", "b"]


@pytest.mark.parametrize(
    ("method", "rule", "parameters"),
    [
        ("linear", "weightedMean", {"weights": {"a": 0.5, "b": 0.25}}),
        ("slerp", "slerp", {"t": 0.25, "first": "b"}),
        (
            "multislerp",
            "multiSlerp",
            {
                "weights": {"a": 0.5, "b": 0.25},
                "normalize": True,
                "relative": False,
                "iterations": 0,
            },
        ),
        ("karcher", "multiSlerp", {"normalize": True, "iterations": 10}),
        ("model_stock", "modelStock", {}),
        ("sce", "sce", {"density": 1.0}),
        (
            "ties",
            "ties",
            {
                "weights": {"a": 0.5, "b": 0.25},
                "scale": 1.0,
                "normalize": True,
                "density": 1.0,
                "elect": "sum",
            },
        ),
        (
            "della_linear",
            "della",
            {
                "weights": {"a": 0.5, "b": 0.25},
                "scale": 1.0,
                "normalize": False,
                "density": 1.0,
                "window": 0.3,
                "rescale": True,
                "elect": "none",
            },
        ),
    ],
)
def test_defaults_are_mergekits(
    folder: Path, method: str, rule: str, parameters: dict[str, Any]
) -> None:
    translated = read(folder, body(method))
    assert translated.rule == rule
    assert translated.parameters == parameters


def test_linear_without_normalising_sums_as_given(folder: Path) -> None:
    translated = read(folder, body("linear", parameters={"normalize": False}))
    assert translated.rule == "weightedSoup"
    assert translated.parameters == {"weights": {"a": 0.5, "b": 0.25}}


def test_a_models_parameter_overrides_the_shared_one(folder: Path) -> None:
    models = [{"model": "a"}, {"model": "b", "parameters": {"weight": "2e-1"}}]
    translated = read(folder, body("linear", models=models, parameters={"weight": 1}))
    assert translated.parameters == {"weights": {"a": 1.0, "b": 0.2}}


def test_the_base_among_the_models_is_no_task_vector(folder: Path) -> None:
    models = [{"model": "base"}, *body("ties")["models"]]
    translated = read(folder, body("ties", models=models))
    assert sorted(translated.models) == ["a", "b"]
    assert str(translated.base) == "base"


def test_the_output_has_the_recipes_element_type(folder: Path) -> None:
    assert read(folder, body("linear")).output_dtype is None
    assert read(folder, body("linear", dtype="bfloat16")).output_dtype == "BF16"
    both = body("linear", dtype="float32", out_dtype="float16")
    assert read(folder, both).output_dtype == "F16"


def test_models_of_one_name_get_keys_of_their_own(folder: Path) -> None:
    (folder / "other" / "a").mkdir(parents=True)
    file = folder / "a" / "model.safetensors"
    file.touch()
    models = [
        {"model": path, "parameters": {"weight": 1}}
        for path in ("a", "other/a", "a/model.safetensors")
    ]
    translated = read(folder, body("linear", models=models))
    assert {key: str(path) for key, path in translated.models.items()} == {
        "a": "a",
        "a-2": "other/a",
        "a-3": "a/model.safetensors",
    }


@pytest.mark.parametrize(
    ("recipe", "named"),
    [
        (body("linear", slices=[]), "unknown key 'slices'"),
        (body("linear", parameters={"wieght": 1}), "unknown parameter 'wieght' of linear"),
        (
            body("linear", models=[{"model": "a", "parameters": {"weight": 1, "density": 1}}]),
            "unknown parameter 'density' of linear, model 'a'",
        ),
        (body("linear", models=[{"model": "a", "layers": 1}]), "unknown key 'layers' of model 'a'"),
        (body("linear", models=["a"]), "'a' is no model"),
        (body("linear", models=[]), "no models"),
        (body("linear", models=[{"model": "a"}]), "'weight' of model 'a' is missing"),
        (body("linear", parameters=[1]), "parameters are"),
        (body("linear", parameters={"normalize": 1}), "not true or false"),
        (body("linear", dtype="int8"), "dtype is 'int8'"),
        (body("linear", dtype="int8", out_dtype="float32"), ": dtype is 'int8'"),
        (body("linear", dtype="float32", out_dtype="int8"), "out_dtype is 'int8'"),
        (body("linear", dtype=["float32"], out_dtype="float32"), ": dtype is ['float32']"),
        (body("linear", tokenizer_source="union"), "tokenizer_source"),
        (body("passthrough"), "merge_method is 'passthrough'"),
        (body("ties", base_model=None), "needs base_model"),
        (body("slerp", base_model="base"), "base_model one of them"),
        (body("ties", parameters={"density": [0.1, 0.9]}), "by layer or filter"),
        (body("ties", parameters={"density": "much"}), "not a number"),
        (body("ties", parameters={"rescale": True}), "rescale: false only"),
        (body("karcher", parameters={"max_iter": 0.5}), "not a count"),
        (body("model_stock", parameters={"filter_wise": True}), "filter_wise"),
        (
            body(
                "ties",
                models=[
                    {"model": "a", "parameters": {"weight": 1, "density": 0.5}},
                    {"model": "b", "parameters": {"weight": 1, "density": 0.7}},
                ],
            ),
            "'density' differs",
        ),
        ("merge_method: linear\nmerge_method: ties\n", "stands twice"),
        ("[", "no YAML"),
        ("[" * 2000, "nested too deeply"),
        ("- " * 5000, "nested too deeply"),
        ("a: 2020-13-45", "month must be in 1..12"),
        ("a: !!int x", "no YAML: invalid literal"),
        ("a: !!float x", "no YAML: could not convert"),
        ("a: !!timestamp 99", "no YAML"),
        (f"a: {'9' * 400}", "an integer of 1329 bits"),
        (f"a: {'9' * 5000}", "no YAML"),
        (f"a: 0x{'f' * 5000}", "an integer of 20000 bits"),
        (body("karcher", parameters={"max_iter": float("inf")}), "'max_iter' is inf, not a finite"),
        (body("karcher", parameters={"max_iter": float("nan")}), "'max_iter' is nan, not a finite"),
        (body("ties", parameters={"density": "1e999"}), "'density' is '1e999', not a finite"),
        ("models: []", "no merge_method"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(folder: Path, recipe: Any, named: str) -> None:
    with pytest.raises(ImpossibleSetting) as caught:
        read(folder, recipe)
    assert named in str(caught.value)
    assert "recipe.yml" in str(caught.value)
    assert caught.value.remedy


def test_a_model_of_a_hub_is_not_downloaded(folder: Path) -> None:
    with pytest.raises(MissingInput, match="'org/name' is no path") as caught:
        read(folder, body("linear", models=[{"model": "org/name"}]))
    assert "never downloaded" in caught.value.remedy


def test_a_recipe_that_is_not_there_is_a_missing_input(folder: Path) -> None:
    with pytest.raises(ConsensusError) as caught:
        read_recipe(folder / "none.yml")
    assert caught.value.exit_code == 78
