"""Keys say what an image is made of, so that nothing is built twice and nothing is missed."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from cabildo_local.errors import ImageError
from cabildo_local.image_sources import (
    KERNELS,
    SOURCES,
    Choices,
    Keys,
    Recipes,
    read_keys,
    split_stages,
    take_snapshot,
)
from cabildo_local.settings import find_checkout

if TYPE_CHECKING:
    from pathlib import Path

CHOICES = Choices(
    base=None,
    pip_arguments="",
    wheels=None,
    requirements={
        "operator": "requirements/operator.txt",
        "trainer": "requirements/trainer.txt",
    },
    mirror=None,
)

RECIPES = Recipes(system="system", compiler="compiler")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what this checkout's images are built from."""
    for target in SOURCES:
        folder = tmp_path / target
        folder.mkdir()
        take_snapshot(target, checkout=find_checkout(), folder=folder, choices=CHOICES)
        shutil.copytree(folder, tmp_path / "both", dirs_exist_ok=True)
    return tmp_path / "both"


def keys(
    checkout: Path, target: str, choices: Choices = CHOICES, recipes: Recipes = RECIPES
) -> Keys:
    return read_keys(target, checkout=checkout, choices=choices, recipes=recipes)


def add_line(path: Path, line: str = "# another line\n") -> None:
    path.write_text(path.read_text() + line)


def changed(before: Keys, after: Keys) -> set[str]:
    return {name for name in Keys.__slots__ if getattr(before, name) != getattr(after, name)}


@pytest.mark.parametrize(
    ("file", "operator", "trainer"),
    [
        ("operator/cabildo_operator/__init__.py", {"code", "image"}, set()),
        ("trainer_image/cabildo_trainer/__init__.py", set(), {"code", "image"}),
        ("crds/cabildo_api/__init__.py", {"code", "image"}, {"code", "image"}),
        ("operator/pyproject.toml", {"code", "image"}, set()),
        ("kernels/cabildo_kernels/native/cpu.pyx", set(), {"kernels", "code", "image"}),
        ("kernels/cabildo_kernels/native/cpu.h", set(), {"kernels", "code", "image"}),
        ("kernels/cabildo_kernels/grid.py", set(), {"kernels", "code", "image"}),
        ("kernels/setup.py", set(), {"kernels", "code", "image"}),
    ],
)
def test_a_source_moves_only_the_images_that_hold_it(
    checkout: Path, file: str, operator: set[str], trainer: set[str]
) -> None:
    before = {target: keys(checkout, target) for target in SOURCES}
    add_line(checkout / file)
    assert changed(before["operator"], keys(checkout, "operator")) == operator
    assert changed(before["trainer"], keys(checkout, "trainer")) == trainer


def test_a_lock_file_moves_the_dependency_layer_of_its_image(checkout: Path) -> None:
    before = {target: keys(checkout, target) for target in SOURCES}
    add_line(checkout / "requirements/trainer.txt", "another==1.0\n")
    assert changed(before["trainer"], keys(checkout, "trainer")) == {"dependencies", "image"}
    assert before["operator"] == keys(checkout, "operator")


def test_a_comment_in_a_lock_file_moves_nothing(checkout: Path) -> None:
    before = keys(checkout, "trainer")
    add_line(checkout / "requirements/trainer.txt", "    # via torch\n\n")
    assert keys(checkout, "trainer") == before


def test_a_comment_in_the_dockerfile_moves_nothing(checkout: Path) -> None:
    before = keys(checkout, "trainer")
    add_line(checkout / "Dockerfile", "\n# Said better.\n")
    assert keys(checkout, "trainer") == before


def test_a_changed_stage_moves_what_it_makes(checkout: Path) -> None:
    before = keys(checkout, "trainer")
    text = (checkout / "Dockerfile").read_text()
    stage = "FROM tools AS trainer-wheels\n"
    (checkout / "Dockerfile").write_text(text.replace(stage, f"{stage}RUN true\n"))
    assert changed(before, keys(checkout, "trainer")) == {"code", "image"}


@pytest.mark.parametrize("stage", ["FROM compiler AS kernels-wheel\n", "FROM scratch AS kernels\n"])
def test_a_changed_stage_of_the_kernels_compiles_them_again(checkout: Path, stage: str) -> None:
    before = {target: keys(checkout, target) for target in SOURCES}
    text = (checkout / "Dockerfile").read_text()
    assert stage in text
    (checkout / "Dockerfile").write_text(text.replace(stage, f"{stage}ENV A=1\n"))
    assert changed(before["trainer"], keys(checkout, "trainer")) == {"kernels", "code", "image"}
    assert keys(checkout, "operator") == before["operator"]


def test_another_compiler_moves_what_it_compiles(checkout: Path) -> None:
    recipes = replace(RECIPES, compiler="another")
    for target, moved in (
        ("operator", {"compiler"}),
        ("trainer", {"compiler", "kernels", "code", "image"}),
    ):
        before = keys(checkout, target)
        assert changed(before, keys(checkout, target, recipes=recipes)) == moved


def test_what_a_build_in_the_checkout_leaves_moves_nothing(checkout: Path, tmp_path: Path) -> None:
    before = keys(checkout, "trainer")
    for left in ("build/cython/cpu.c", "cabildo_kernels/native/cpu.cpython-311.so"):
        (checkout / "kernels" / left).parent.mkdir(parents=True, exist_ok=True)
        (checkout / "kernels" / left).write_bytes(b"x")
    assert keys(checkout, "trainer") == before
    folder = tmp_path / "snapshot"
    folder.mkdir()
    take_snapshot("trainer", checkout=checkout, folder=folder, choices=CHOICES)
    assert keys(folder, "trainer") == before
    assert not list(folder.rglob("*.so"))
    assert not (folder / "kernels/build").exists()


def test_docker_sees_the_same_files_as_the_keys() -> None:
    lines = (find_checkout() / ".dockerignore").read_text().splitlines()
    let_through = {line.removeprefix("!") for line in lines if line.startswith("!")}
    wanted = {path for paths in (*SOURCES.values(), KERNELS) for path in paths}
    assert let_through == {*wanted, "requirements/*.txt"}
    assert {"**/__pycache__", "**/*.so"} <= set(lines)


def test_files_that_python_leaves_behind_move_nothing(checkout: Path) -> None:
    before = keys(checkout, "operator")
    cache = checkout / "operator/cabildo_operator/__pycache__"
    cache.mkdir()
    (cache / "x.cpython-311.pyc").write_bytes(b"x")
    assert keys(checkout, "operator") == before


def test_a_new_empty_file_moves_the_code(checkout: Path) -> None:
    before = keys(checkout, "operator")
    (checkout / "operator/cabildo_operator/new.py").touch()
    assert changed(before, keys(checkout, "operator")) == {"code", "image"}


def test_a_users_choices_move_the_dependency_layer(checkout: Path, tmp_path: Path) -> None:
    before = keys(checkout, "trainer")
    for choices in (
        replace(CHOICES, pip_arguments="--no-index"),
        replace(CHOICES, wheels=tmp_path),
    ):
        assert changed(before, keys(checkout, "trainer", choices)) == {"dependencies", "image"}


def test_another_base_moves_everything(checkout: Path) -> None:
    before = keys(checkout, "trainer")
    after = keys(checkout, "trainer", replace(CHOICES, base="debian:bookworm-slim"))
    assert changed(before, after) == set(Keys.__slots__)


def test_an_unknown_target_lists_the_known_ones(checkout: Path) -> None:
    with pytest.raises(ImageError, match=r"jax: no such target.*operator, trainer"):
        keys(checkout, "jax")


@pytest.mark.parametrize(
    "path", ["requirements/trainer.txt", "crds/cabildo_api", "kernels/setup.py"]
)
def test_a_missing_file_is_named(checkout: Path, tmp_path: Path, path: str) -> None:
    target = checkout / path
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    with pytest.raises(ImageError, match=f"{path}.* is missing"):
        keys(checkout, "trainer")
    with pytest.raises(ImageError, match=f"{path}.* is missing"):
        take_snapshot("trainer", checkout=checkout, folder=tmp_path / "new", choices=CHOICES)


def test_a_snapshot_has_the_same_keys(checkout: Path, tmp_path: Path) -> None:
    folder = tmp_path / "snapshot"
    folder.mkdir()
    take_snapshot("operator", checkout=checkout, folder=folder, choices=CHOICES)
    assert keys(folder, "operator") == keys(checkout, "operator")
    assert not (folder / "trainer_image").exists()
    assert not (folder / "kernels").exists()


def test_stages_are_found_by_name_without_comments() -> None:
    stages = split_stages("ARG A=1\nFROM x AS one\n# why\nRUN a\n\nFROM one AS two\nRUN b\n")
    assert stages == {"one": "FROM x AS one\nRUN a\n", "two": "FROM one AS two\nRUN b"}


def test_a_stage_without_a_name_is_refused() -> None:
    with pytest.raises(ImageError, match="a stage has no name: FROM x"):
        split_stages("FROM x\nRUN a\n")


def test_choices_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("BASE_IMAGE", "PIP_ARGS", "WHEELS", "TRAINER_REQUIREMENTS", "DEBIAN_MIRROR"):
        monkeypatch.delenv(f"CABILDO_{name}", raising=False)
    assert Choices.from_environment() == CHOICES
    monkeypatch.setenv("CABILDO_BASE_IMAGE", "base")
    monkeypatch.setenv("CABILDO_PIP_ARGS", "--find-links /wheels")
    monkeypatch.setenv("CABILDO_WHEELS", str(tmp_path))
    monkeypatch.setenv("CABILDO_TRAINER_REQUIREMENTS", "requirements/cpu.txt")
    chosen = Choices.from_environment()
    assert (chosen.base, chosen.pip_arguments, chosen.wheels) == (
        "base",
        "--find-links /wheels",
        tmp_path,
    )
    assert chosen.requirements["trainer"] == "requirements/cpu.txt"


def test_the_locks_cover_what_the_distributions_ask_for() -> None:
    import tomllib  # noqa: PLC0415

    from packaging.requirements import Requirement  # noqa: PLC0415

    root = find_checkout()
    for target, roots in {
        "operator": ("crds", "operator"),
        "trainer": ("crds", "trainer_image", "kernels"),
    }.items():
        locked = {}
        for line in (root / f"requirements/{target}.txt").read_text().splitlines():
            if "==" in line and not line.startswith((" ", "#")):
                name, version = line.split(";")[0].rstrip(" \\").split("==")
                locked[name.strip().lower()] = version.strip()
        for source_root in roots:
            project = tomllib.loads((root / source_root / "pyproject.toml").read_text())["project"]
            for text in project["dependencies"]:
                wanted = Requirement(text)
                if not wanted.name.startswith("cabildo"):
                    assert wanted.specifier.contains(locked[wanted.name.lower()]), (target, text)
        assert "kubernetes" not in locked
