"""What an image is made of, and the keys that say whether it is there already.

Here: the Dockerfile's stages, the files each one reads, the user's choices (base image,
pip arguments, lock file) and the digests over them. Never here: building (images.py).

A dependency layer's key covers its stage's text, its lock file and the system below; the
code layer's key its stage's text and the sources that stage copies. So a changed line of
the operator moves neither the trainer's key nor any dependency layer's. The compiled
kernels have a key of their own below the trainer's code, so that its Python compiles nothing.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from cabildo_local.errors import ImageError

KEY_LENGTH = 16
SKIPPED_FOLDERS = frozenset({"__pycache__"})
SKIPPED_SUFFIX = ".so"
"""What a build in the checkout leaves beside the kernels' sources."""

SOURCES = {
    "operator": (
        "crds/pyproject.toml",
        "crds/cabildo_api",
        "operator/pyproject.toml",
        "operator/cabildo_operator",
    ),
    "trainer": (
        "crds/pyproject.toml",
        "crds/cabildo_api",
        "trainer_image/pyproject.toml",
        "trainer_image/cabildo_trainer",
    ),
}
"""What each target's wheels of pure Python are built from."""

KERNELS = ("kernels/pyproject.toml", "kernels/setup.py", "kernels/cabildo_kernels")
"""What the compiled wheel is built from; .dockerignore lets just this and SOURCES through."""

COMPILED = frozenset({"trainer"})
"""The targets that hold the kernels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What the user may say about how images are built.

    Attributes:
        base: A base image to pull; a Debian made on this machine if None.
        pip_arguments: Further arguments for pip, such as another index for torch.
        wheels: Folder with wheels, seen as /wheels by pip.
        requirements: Lock file by target, relative to the checkout.
        mirror: Debian mirror for the base made here; mmdebstrap's own choice if None.
    """

    base: str | None
    pip_arguments: str
    wheels: Path | None
    requirements: dict[str, str]
    mirror: str | None

    @classmethod
    def from_environment(cls) -> Choices:
        """Read CABILDO_BASE_IMAGE, _PIP_ARGS, _WHEELS, _TRAINER_REQUIREMENTS, _DEBIAN_MIRROR."""
        read = os.environ.get
        wheels = read("CABILDO_WHEELS")
        return cls(
            base=read("CABILDO_BASE_IMAGE") or None,
            pip_arguments=read("CABILDO_PIP_ARGS", ""),
            wheels=Path(wheels).absolute() if wheels else None,
            requirements={
                "operator": "requirements/operator.txt",
                "trainer": read("CABILDO_TRAINER_REQUIREMENTS") or "requirements/trainer.txt",
            },
            mirror=read("CABILDO_DEBIAN_MIRROR") or None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipes:
    """How this machine makes what others pull: text that decides what comes out.

    Attributes:
        system: The base.
        compiler: The base with a C compiler.
    """

    system: str
    compiler: str


@dataclass(frozen=True, slots=True)
class Keys:
    """The digests that an image's parts are found again by.

    Attributes:
        system: The base.
        tools: The base with pip, setuptools, wheel and Cython.
        compiler: The base with a C compiler.
        kernels: The compiled kernels; None if the image holds none.
        dependencies: The system with the dependencies.
        code: The layer with our wheels.
        image: All of them: the image's tag.
    """

    system: str
    tools: str
    compiler: str
    kernels: str | None
    dependencies: str
    code: str
    image: str


def read_keys(target: str, *, checkout: Path, choices: Choices, recipes: Recipes) -> Keys:
    """Compute the keys of one target.

    Args:
        target: `operator` or `trainer`.
        checkout: The repository's root.
        choices: What the user said.
        recipes: How bases are made here.

    Raises:
        ImageError: There is no such target, or a file is missing.
    """
    if target not in SOURCES:
        raise ImageError(
            f"{target}: no such target", remedy=f"Targets are: {', '.join(sorted(SOURCES))}"
        )
    try:
        stages = split_stages((checkout / "Dockerfile").read_text())
        lock = _lock_lines(checkout / choices.requirements[target])
        tools_lock = _lock_lines(checkout / "requirements/build.txt")
        sources = _hash_files(checkout, paths=SOURCES[target])
        compiled = _hash_files(checkout, paths=KERNELS) if target in COMPILED else None
    except FileNotFoundError as error:
        raise ImageError(f"{error.filename} is missing") from error
    pulled = choices.base is not None
    system = _digest(choices.base or recipes.system, stages["system"] if pulled else "")
    tools = _digest(system, stages["tools"], tools_lock)
    compiler = _digest(system, stages["compiler"] if pulled else recipes.compiler)
    kernels = None
    if compiled is not None:
        kernels = _digest(compiler, tools, stages["kernels-wheel"], stages["kernels"], compiled)
    dependencies = _digest(
        system,
        stages[f"{target}-dependencies"],
        lock,
        choices.pip_arguments,
        str(choices.wheels or ""),
    )
    own = (stages[f"{target}-wheels"], stages[f"{target}-code"], sources)
    code = _digest(tools, *own, *([] if kernels is None else [kernels]))
    return Keys(
        system=system,
        tools=tools,
        compiler=compiler,
        kernels=kernels,
        dependencies=dependencies,
        code=code,
        image=_digest(dependencies, code),
    )


def take_snapshot(target: str, *, checkout: Path, folder: Path, choices: Choices) -> None:
    """Copy what a target is built from, so that a save during the build cannot mix in.

    Args:
        target: `operator` or `trainer`.
        checkout: The repository's root.
        folder: An empty folder; becomes the build's context.
        choices: What the user said.

    Raises:
        ImageError: A file is missing.
    """
    locks = ("requirements/build.txt", choices.requirements[target])
    kernels = KERNELS if target in COMPILED else ()
    skipped = shutil.ignore_patterns(*SKIPPED_FOLDERS, f"*{SKIPPED_SUFFIX}")
    for path in ("Dockerfile", *locks, *SOURCES[target], *kernels):
        source, copy = checkout / path, folder / path
        copy.parent.mkdir(parents=True, exist_ok=True)
        try:
            if source.is_dir():
                shutil.copytree(source, copy, ignore=skipped)
            else:
                shutil.copy(source, copy)
        except FileNotFoundError as error:
            raise ImageError(f"{error.filename} is missing") from error


def split_stages(dockerfile: str) -> dict[str, str]:
    """Return the text of each stage of a Dockerfile by its name, without comments.

    Raises:
        ImageError: A stage has no name.
    """
    lines = [line for line in dockerfile.splitlines() if not line.lstrip().startswith("#")]
    text = "\n".join(line.rstrip() for line in lines if line.strip())
    stages = {}
    for part in re.split(r"^(?=FROM )", text, flags=re.MULTILINE)[1:]:
        name = re.match(r"FROM \S+ AS (\S+)", part)
        if name is None:
            raise ImageError(f"Dockerfile: a stage has no name: {part.splitlines()[0]}")
        stages[name[1]] = part
    return stages


def _lock_lines(path: Path) -> str:
    """Return what a lock file says, without comments on who needs what."""
    lines = (line.split("#", 1)[0].strip() for line in path.read_text().splitlines())
    return "\n".join(line for line in lines if line)


def _hash_files(checkout: Path, *, paths: tuple[str, ...]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        root = checkout / path
        files = [root] if root.is_file() else sorted(root.rglob("*"))
        if not files:
            raise FileNotFoundError(2, "no files", str(root))
        for file in files:
            relative = file.relative_to(checkout)
            if file.is_file() and not _is_skipped(relative):
                executable = bool(file.stat().st_mode & 0o100)
                content = hashlib.sha256(file.read_bytes()).hexdigest()
                digest.update(f"{relative} {executable} {content}\n".encode())
    return digest.hexdigest()


def _is_skipped(path: Path) -> bool:
    return path.suffix == SKIPPED_SUFFIX or not SKIPPED_FOLDERS.isdisjoint(path.parts)


def _digest(*parts: str) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{len(part)}:{part}".encode())
    return digest.hexdigest()[:KEY_LENGTH]
