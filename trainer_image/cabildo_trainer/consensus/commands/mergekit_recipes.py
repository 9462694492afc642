"""Recipes of mergekit (its YAML files) as requests to our rules.

| mergekit | ours | what differs |
|---|---|---|
| linear | weightedMean; with normalize: false weightedSoup | sums in fp64, rounded once |
| slerp | slerp, `first` is base_model | |
| multislerp | multiSlerp without steps, relative when there is a base_model | |
| karcher | multiSlerp, max_iter steps, equal weights | stops by its own tolerance |
| model_stock | modelStock | stays at the base where the mean cosine is negative |
| task_arithmetic | taskArithmetic | |
| ties | ties | exactly the k largest entries, ties by index |
| dare_linear, dare_ties | dare, elect none or sum | kept entries are divided by the density |
| della_linear, della | della, elect none or sum, window = 2 epsilon | over their probability |
| breadcrumbs, breadcrumbs_ties | breadcrumbs, elect none or sum | |
| sce | sce, density is select_topk | |

`weight` is a weight by model, `lambda` is `scale`; `density`, `gamma` and `epsilon` are one value
for all models. `dtype` and `out_dtype` say the output's element type: arithmetic is always fp64 or
float32. `int8_mask` has no effect here. What is drawn needs `--seed`. Models are paths, never names
on a hub; keys are their folders' names. Everything else is refused by name: a recipe that is
half understood gives another model than its author meant.

Here: translating. Never here: YAML (`recipe_yaml.py`), or mergekit's code, which is not needed.
Next: `merge_command.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cabildo_trainer.consensus.commands.recipe_yaml import BadYamlError, read_yaml
from cabildo_trainer.consensus.errors import ImpossibleSetting, MissingInput
from cabildo_trainer.consensus.files.safetensors_files import SUFFIX

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

TOP_KEYS: Final = frozenset(
    {"merge_method", "models", "base_model", "parameters", "dtype", "out_dtype", "tokenizer_source"}
)
MODEL_KEYS: Final = frozenset({"model", "parameters"})
ELEMENT_TYPES: Final = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
LONGEST_KEY: Final = 200
TWO_MODELS: Final = 2


@dataclass(frozen=True, slots=True)
class Translated:
    """A recipe in our terms.

    Attributes:
        rule: Name of the rule.
        parameters: Its parameters.
        models: Path of each model by key.
        base: Path of the base.
        output_dtype: Element type of the output; None keeps each tensor's own.
        notes: What the user should know.
    """

    rule: str
    parameters: Mapping[str, Any]
    models: Mapping[str, Path]
    base: Path | None
    output_dtype: str | None
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class _Recipe:
    """A recipe as it stands, its models by key; each parameter is taken out when it is read."""

    file: Path
    method: str
    models: dict[str, Path]
    own: dict[str, dict[str, Any]]
    shared: dict[str, Any]
    base: str | None
    base_path: Path | None
    notes: list[str] = field(default_factory=list)

    def number(self, name: str, *, default: float | None = None) -> float:
        """Takes one number that holds for all models."""
        values = self._of_each(name, default=default)
        if len(set(values.values())) != 1:
            raise self.refused(
                f"parameter {name!r} differs between the models: {values}",
                remedy=f"{self.method} takes one {name} for all models here.",
            )
        return next(iter(values.values()))

    def weights(self) -> dict[str, float]:
        """Takes the weights by key."""
        return self._of_each("weight", default=None)

    def flag(self, name: str, *, default: bool) -> bool:
        """Takes a switch."""
        value = self.shared.pop(name, default)
        if not isinstance(value, bool):
            raise self.refused(f"parameter {name!r} is {value!r}, not true or false")
        return value

    def ignore_mask(self) -> None:
        """Takes `int8_mask`, which says how mergekit keeps its masks in memory."""
        self.flag("int8_mask", default=False)

    def refuse_rest(self) -> None:
        """Refuses every parameter that nobody took."""
        for name in self.shared:
            raise self.refused(f"unknown parameter {name!r} of {self.method}")
        for key, parameters in self.own.items():
            for name in parameters:
                raise self.refused(f"unknown parameter {name!r} of {self.method}, model {key!r}")

    def without_base(self) -> None:
        """Leaves the base out of the models: its difference to itself is nothing."""
        if self.base is None:
            raise self.refused(f"{self.method} needs base_model")
        if self.models.pop(self.base, None) is not None and self.own.pop(self.base, {}):
            self.notes.append(f"parameters of the base {self.base!r} have no effect")

    def refused(self, what: str, *, remedy: str = "") -> ImpossibleSetting:
        """Returns the error for something that is not taken."""
        return ImpossibleSetting(
            f"{self.file}: {what}",
            remedy=remedy or "Remove it, or merge with --rule and --set.",
        )

    def _of_each(self, name: str, *, default: float | None) -> dict[str, float]:
        shared = self.shared.pop(name, default)
        values: dict[str, float] = {}
        for key in self.models:
            value = self.own.get(key, {}).pop(name, shared)
            if value is None:
                raise self.refused(f"parameter {name!r} of model {key!r} is missing")
            values[key] = self._number(name, value)
        return values

    def _number(self, name: str, value: Any) -> float:
        if isinstance(value, list | dict):
            raise self.refused(
                f"parameter {name!r} is {value!r}: values by layer or filter are not taken",
                remedy="Give one number for each model.",
            )
        try:
            # YAML 1.1 reads 1e-3 as text.
            number = float(value)
        except (TypeError, ValueError) as error:
            raise self.refused(f"parameter {name!r} is {value!r}, not a number") from error
        if not math.isfinite(number):
            raise self.refused(
                f"parameter {name!r} is {value!r}, not a finite number", remedy="Give a finite one."
            )
        return number


def read_recipe(file: Path) -> Translated:
    """Returns a recipe in our terms.

    Args:
        file: The YAML file.

    Raises:
        MissingInput: The file or a model is not there.
        ImpossibleSetting: A key, method or value is not taken; the message names it.
    """
    body = _load(file)
    for name in body:
        if name not in TOP_KEYS:
            raise _bad(
                file, f"unknown key {name!r}", remedy=f"Known: {', '.join(sorted(TOP_KEYS))}."
            )
    if body.get("tokenizer_source", "base") != "base":
        raise _bad(
            file,
            f"tokenizer_source is {body['tokenizer_source']!r}",
            remedy="Models must share one tokenizer, which is copied: remove the key.",
        )
    recipe = _recipe(file, body)
    translate = METHODS.get(recipe.method)
    if translate is None:
        raise _bad(
            file,
            f"merge_method is {recipe.method!r}",
            remedy=f"Known: {', '.join(sorted(METHODS))}.",
        )
    rule, parameters = translate(recipe)
    recipe.refuse_rest()
    return Translated(
        rule=rule,
        parameters=parameters,
        models=recipe.models,
        base=recipe.base_path,
        output_dtype=_element_type(file, body),
        notes=tuple(recipe.notes),
    )


def _load(file: Path) -> dict[str, Any]:
    try:
        body = read_yaml(file)
    except OSError as error:
        raise MissingInput(f"{file}: {error.strerror}", remedy="Give the recipe's path.") from error
    except BadYamlError as error:
        raise _bad(file, f"it is no YAML: {error}") from error
    if not isinstance(body, dict) or not isinstance(body.get("merge_method"), str):
        raise _bad(file, "it has no merge_method")
    return body


def _recipe(file: Path, body: dict[str, Any]) -> _Recipe:
    entries = body.get("models")
    if not isinstance(entries, list) or not entries:
        raise _bad(file, "it has no models")
    models: dict[str, Path] = {}
    own: dict[str, dict[str, Any]] = {}
    for entry in entries:
        if not isinstance(entry, dict) or "model" not in entry:
            raise _bad(file, f"{entry!r} is no model")
        for name in entry:
            if name not in MODEL_KEYS:
                raise _bad(file, f"unknown key {name!r} of model {entry['model']!r}")
        path = _path(file, entry["model"])
        key = _key(path, taken=models)
        models[key] = path
        own[key] = _parameters(file, entry)
    base_path = _path(file, body["base_model"]) if body.get("base_model") else None
    return _Recipe(
        file=file,
        method=body["merge_method"],
        models=models,
        own=own,
        shared=_parameters(file, body),
        base=next((key for key, path in models.items() if path == base_path), "")
        if base_path
        else None,
        base_path=base_path,
    )


def _parameters(file: Path, entry: dict[str, Any]) -> dict[str, Any]:
    parameters = entry.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise _bad(file, f"parameters are {parameters!r}")
    return {str(name): value for name, value in parameters.items()}


def _path(file: Path, reference: Any) -> Path:
    if not isinstance(reference, str) or not Path(reference).exists():
        raise MissingInput(
            f"{file}: model {reference!r} is no path here",
            remedy="Models are never downloaded: get it first and give its folder, relative to"
            " where the command runs.",
        )
    return Path(reference)


def _key(path: Path, *, taken: Mapping[str, Path]) -> str:
    """Returns the folder's name, numbered where several have it."""
    absolute = path.absolute()
    name = (absolute.parent.name if absolute.name.endswith(SUFFIX) else absolute.name)[:LONGEST_KEY]
    numbered = (f"{name}-{number}" for number in range(2, len(taken) + 3))
    return name if name and name not in taken else next(key for key in numbered if key not in taken)


def _element_type(file: Path, body: dict[str, Any]) -> str | None:
    """Returns what `out_dtype` says, or else `dtype`; both are looked at, whichever counts."""
    named: list[str] = []
    for field_name in ("out_dtype", "dtype"):
        dtype = body.get(field_name)
        if dtype is None:
            continue
        if not isinstance(dtype, str) or dtype not in ELEMENT_TYPES:
            raise _bad(
                file, f"{field_name} is {dtype!r}", remedy=f"Known: {', '.join(ELEMENT_TYPES)}."
            )
        named.append(ELEMENT_TYPES[dtype])
    return named[0] if named else None


def _bad(file: Path, what: str, *, remedy: str = "") -> ImpossibleSetting:
    return ImpossibleSetting(f"{file}: {what}", remedy=remedy or "See mergekit's recipe format.")


_Translation = tuple[str, dict[str, Any]]


def _linear(recipe: _Recipe) -> _Translation:
    weights = recipe.weights()
    if recipe.flag("normalize", default=True):
        return "weightedMean", {"weights": weights}
    return "weightedSoup", {"weights": weights}


def _slerp(recipe: _Recipe) -> _Translation:
    if not recipe.base or len(recipe.models) != TWO_MODELS:
        raise recipe.refused("slerp needs two models, base_model one of them")
    recipe.base_path = None
    return "slerp", {"t": recipe.number("t"), "first": recipe.base}


def _multi_slerp(recipe: _Recipe) -> _Translation:
    relative = recipe.base_path is not None
    if relative:
        recipe.without_base()
    normalize = recipe.flag("normalize_weights", default=True)
    return "multiSlerp", {
        "weights": recipe.weights(),
        "normalize": normalize,
        "relative": relative,
        # Its one step is taken in the plane that touches the sphere at the mean: it is zero.
        "iterations": 0,
    }


def _karcher(recipe: _Recipe) -> _Translation:
    recipe.number("tol", default=0.0)
    iterations = recipe.number("max_iter", default=10.0)
    if iterations != int(iterations) or iterations < 1:
        raise recipe.refused(f"parameter 'max_iter' is {iterations}, not a count")
    return "multiSlerp", {"normalize": True, "iterations": int(iterations)}


def _model_stock(recipe: _Recipe) -> _Translation:
    recipe.without_base()
    if recipe.flag("filter_wise", default=False):
        raise recipe.refused("model_stock takes filter_wise: false only")
    return "modelStock", {}


def _sce(recipe: _Recipe) -> _Translation:
    recipe.without_base()
    recipe.ignore_mask()
    return "sce", {"density": recipe.number("select_topk", default=1.0)}


def _task_vectors(
    rule: str,
    *,
    normalize: bool,
    rescale: bool | None = None,
    elect: str = "",
    numbers: Mapping[str, tuple[str, float, float]] | None = None,
) -> Callable[[_Recipe], _Translation]:
    """Returns the translation of a method on task vectors.

    Args:
        rule: Our rule.
        normalize: mergekit's default of `normalize`.
        rescale: mergekit's default of `rescale`; None where only false is taken.
        elect: Our `elect`; empty where the rule has none or its default is meant.
        numbers: mergekit's name -> our name, mergekit's default, factor.
    """

    def translate(recipe: _Recipe) -> _Translation:
        recipe.without_base()
        recipe.ignore_mask()
        parameters: dict[str, Any] = {
            "weights": recipe.weights(),
            "scale": recipe.number("lambda", default=1.0),
            "normalize": recipe.flag("normalize", default=normalize),
        }
        for theirs, (ours, default, factor) in (numbers or {}).items():
            parameters[ours] = factor * recipe.number(theirs, default=default)
        rescaled = recipe.flag("rescale", default=bool(rescale))
        if rescale is not None:
            parameters["rescale"] = rescaled
        elif rescaled:
            raise recipe.refused(f"{recipe.method} takes rescale: false only")
        if elect:
            parameters["elect"] = elect
        return rule, parameters

    return translate


_DENSITY: Final = {"density": ("density", 1.0, 1.0)}
_GAMMA: Final = {**_DENSITY, "gamma": ("gamma", 0.01, 1.0)}
_WINDOW: Final = {**_DENSITY, "epsilon": ("window", 0.15, 2.0)}

METHODS: Final[Mapping[str, Callable[[_Recipe], _Translation]]] = {
    "linear": _linear,
    "slerp": _slerp,
    "multislerp": _multi_slerp,
    "karcher": _karcher,
    "model_stock": _model_stock,
    "sce": _sce,
    "task_arithmetic": _task_vectors("taskArithmetic", normalize=False),
    "ties": _task_vectors("ties", normalize=True, elect="sum", numbers=_DENSITY),
    "dare_linear": _task_vectors(
        "dare", normalize=False, rescale=True, elect="none", numbers=_DENSITY
    ),
    "dare_ties": _task_vectors(
        "dare", normalize=False, rescale=True, elect="sum", numbers=_DENSITY
    ),
    "della_linear": _task_vectors(
        "della", normalize=False, rescale=True, elect="none", numbers=_WINDOW
    ),
    "della": _task_vectors("della", normalize=True, rescale=True, elect="sum", numbers=_WINDOW),
    "breadcrumbs": _task_vectors("breadcrumbs", normalize=False, elect="none", numbers=_GAMMA),
    "breadcrumbs_ties": _task_vectors("breadcrumbs", normalize=False, elect="sum", numbers=_GAMMA),
}
"""How each of mergekit's methods is written in our rules."""
