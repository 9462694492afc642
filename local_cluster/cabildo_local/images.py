"""The images of this checkout: built by buildah, stacked in the store, pushed.

Here: `build`, `push`, `build_and_push` and what they return. How it goes: the keys of
image_sources.py say what is there already; buildah (buildah.py) builds the dependency
layer and the code layer, each straight into the store (image_store.py); the two are
stacked there, which is what the Dockerfile's last stage does. Never here: the cluster's
registry process (registry.py) or who uses the images (deploy.py).
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cabildo_local.buildah import Build, Buildah
from cabildo_local.errors import ImageError
from cabildo_local.image_pruning import mark_used, prune_store
from cabildo_local.image_sources import Choices, read_keys, take_snapshot
from cabildo_local.image_store import clear_uploads, serve_store, stored_digest
from cabildo_local.pip_access import write_secrets
from cabildo_local.prerequisites import GIB, check_space
from cabildo_local.registry_client import RegistryClient
from cabildo_local.settings import default_cache
from cabildo_local.system_image import make_system, system_recipe

if TYPE_CHECKING:
    from pathlib import Path

    from cabildo_local.image_sources import Keys
    from cabildo_local.reporter import Reporter

NEEDED_BYTES = {
    "system": int(1.0 * GIB),
    "operator": int(0.5 * GIB),
    "trainer": int(13.5 * GIB),
}
"""Free space asked for while a dependency layer is made: what pip unpacks, its copy as a layer, and
what stays in the store. The trainer's peak was 13.1 GiB with an uncompressed copy."""


KEPT_DEPENDENCIES = 2
"""Dependency layers of each image that stay: one lock file's change can be taken back."""

KEPT_IMAGES = 50
"""Images of each repository that stay then; each takes as much as its code layer."""


@dataclass(frozen=True, slots=True)
class BuiltImage:
    """An image in the store.

    Attributes:
        name: Its repository, such as `cabildo/operator`.
        tag: A digest of everything it is made of.
        digest: Its manifest's digest.
    """

    name: str
    tag: str
    digest: str


@dataclass(frozen=True, slots=True)
class ImageRef:
    """An image in a registry.

    Attributes:
        registry: `host:port`, or the host with a folder.
        name: Its repository there.
        tag: Its tag.
        digest: Its manifest's digest.
    """

    registry: str
    name: str
    tag: str
    digest: str

    @property
    def repository(self) -> str:
        """The reference without the tag."""
        return f"{self.registry}/{self.name}"

    def __str__(self) -> str:
        return f"{self.repository}:{self.tag}"


def build_and_push(
    target: str, *, checkout: Path, registry: str, reporter: Reporter, cache: Path | None = None
) -> ImageRef:
    """Build an image where it is not there yet, and have it in a registry.

    Args:
        target: `operator` or `trainer`.
        checkout: The folder of the Dockerfile.
        registry: `host:port`.
        reporter: Hears the steps.
        cache: Shared folder; the environment's if None.

    Raises:
        ImageError: The build or the push failed.
        PrerequisiteError: The disk is too full for the build.
    """
    built = build(target, checkout=checkout, reporter=reporter, cache=cache)
    return push(built, registry=registry, reporter=reporter, cache=cache)


def build(
    target: str, *, checkout: Path, reporter: Reporter, cache: Path | None = None
) -> BuiltImage:
    """Build an image into the store; does nothing when it is there.

    Args:
        target: `operator` or `trainer`.
        checkout: The folder of the Dockerfile.
        reporter: Hears the steps.
        cache: Shared folder; the environment's if None.

    Raises:
        ImageError: The build failed.
        PrerequisiteError: The disk is too full for it.
    """
    cache = cache or default_cache()
    choices = Choices.from_environment()
    keys = read_keys(target, checkout=checkout, choices=choices, system_recipe=system_recipe())
    digest = stored_digest(cache, name=_name(target), tag=keys.image)
    if digest is not None:
        return BuiltImage(name=_name(target), tag=keys.image, digest=digest)
    buildah = Buildah(cache / "buildah", reporter=reporter)
    with buildah.exclusive():
        snapshot = buildah.scratch / "context"
        take_snapshot(target, checkout=checkout, folder=snapshot, choices=choices)
        job = _Job(
            target,
            keys=read_keys(
                target, checkout=snapshot, choices=choices, system_recipe=system_recipe()
            ),
            context=snapshot,
            cache=cache,
            choices=choices,
            buildah=buildah,
            reporter=reporter,
        )
        return job.run()


def push(
    built: BuiltImage, *, registry: str, reporter: Reporter, cache: Path | None = None
) -> ImageRef:
    """Have an image in a registry. A cluster's registry serves the store: then it is there.

    Args:
        built: What `build` returned.
        registry: `host:port`, or a host with a folder such as `registry.example/team`.
        reporter: Hears of a copy.
        cache: Shared folder; the environment's if None.

    Raises:
        ImageError: The copy failed.
    """
    reference = ImageRef(registry=registry, name=built.name, tag=built.tag, digest=built.digest)
    plain = _is_plain_http(registry)
    if plain and "/" not in registry:
        client = RegistryClient(registry)
        if client.digest(built.name, reference=built.tag) == built.digest:
            return reference
    with (
        reporter.step(f"push {reference}"),
        serve_store(cache or default_cache()) as address,
    ):
        argv = ["skopeo", "copy", "--quiet", "--preserve-digests", "--src-tls-verify=false"]
        argv += ["--dest-tls-verify=false"] if plain else []
        argv += [f"docker://{address}/{built.name}:{built.tag}", f"docker://{reference}"]
        _copy(argv, reference=str(reference))
    return reference


def _copy(argv: list[str], *, reference: str) -> None:
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:
        raise ImageError("skopeo is not installed", remedy="Run: apt-get install skopeo") from error
    if done.returncode != 0:
        raise ImageError(
            f"{reference} could not be pushed: {done.stderr.strip()}",
            remedy="Check the address, and log in with `skopeo login` where it asks for it",
        )


def _is_plain_http(registry: str) -> bool:
    """Tell registries of this machine and its clusters, reached by address, from public ones."""
    host = registry.split("/", 1)[0].rsplit(":", 1)[0]
    return host == "localhost" or re.fullmatch(r"[0-9.]+|\[.*\]", host) is not None


def _name(target: str) -> str:
    return f"cabildo/{target}"


class _Job:
    """One build of one image: the parts that are missing, then the stack."""

    def __init__(
        self,
        target: str,
        *,
        keys: Keys,
        context: Path,
        cache: Path,
        choices: Choices,
        buildah: Buildah,
        reporter: Reporter,
    ) -> None:
        self._target = target
        self._name = _name(target)
        self._keys = keys
        self._context = context
        self._cache = cache
        self._choices = choices
        self._buildah = buildah
        self._reporter = reporter

    def run(self) -> BuiltImage:
        """Build what is missing. The storage is held exclusively."""
        # Another process may have made it while this one waited.
        digest = stored_digest(self._cache, name=self._name, tag=self._keys.image)
        if digest is None:
            digest = self._make()
        return BuiltImage(name=self._name, tag=self._keys.image, digest=digest)

    def _make(self) -> str:
        clear_uploads(self._cache, name=self._name)
        secrets = write_secrets(self._buildah.scratch, environment=os.environ)
        self._make_system()
        self._make_tools(secrets)
        with serve_store(self._cache) as address:
            new = self._make_dependencies(secrets, address=address)
            self._make_code(address=address)
            digest = self._stack(address)
        if new:
            prune_store(
                self._cache,
                names=[self._name],
                dependencies=KEPT_DEPENDENCIES,
                images=KEPT_IMAGES,
                reporter=self._reporter,
            )
        return digest

    def _make_system(self) -> None:
        name = self._local("system")
        if self._buildah.has_image(name):
            return
        self._require("system", title="the base image")
        if self._choices.base is None:
            with self._reporter.step("make the base image with mmdebstrap (about 45 s)"):
                make_system(name, buildah=self._buildah, mirror=self._choices.mirror)
        else:
            with self._reporter.step(f"make the base image from {self._choices.base}"):
                self._build("system", output=name, arguments={"BASE": self._choices.base})

    def _make_tools(self, secrets: dict[str, Path]) -> None:
        name = self._local("tools")
        if not self._buildah.has_image(name):
            with self._reporter.step("install pip and setuptools for the builds"):
                self._build("tools", output=name, stages=("system",), secrets=secrets)

    def _make_dependencies(self, secrets: dict[str, Path], *, address: str) -> bool:
        """Have the dependency layer in the store; tells whether it is a new one."""
        tag = f"dependencies-{self._keys.dependencies}"
        if stored_digest(self._cache, name=self._name, tag=tag) is not None:
            mark_used(self._cache, name=self._name, tag=tag)
            return False
        self._require(self._target, title=f"the {self._target} image")
        title = f"install the {self._target}'s dependencies into its image"
        if self._target == "trainer":
            title += " (torch: about 4 min and a download of 2.5 GB)"
        with self._reporter.step(title):
            self._build(
                f"{self._target}-dependencies",
                output=f"docker://{address}/{self._name}:{tag}",
                stages=("system", "tools"),
                secrets=secrets,
                arguments={
                    "PIP_ARGS": self._choices.pip_arguments,
                    "REQUIREMENTS": self._choices.requirements[self._target],
                },
            )
        return True

    def _make_code(self, *, address: str) -> None:
        tag = f"code-{self._keys.code}"
        if stored_digest(self._cache, name=self._name, tag=tag) is not None:
            return
        with self._reporter.step(f"build the {self._target}'s wheels"):
            self._build(
                f"{self._target}-code",
                output=f"docker://{address}/{self._name}:{tag}",
                stages=("tools",),
            )

    def _stack(self, address: str) -> str:
        """Put the code layer on the dependencies, as the Dockerfile's last stage does."""
        client = RegistryClient(address)
        below = client.image(self._name, reference=f"dependencies-{self._keys.dependencies}")
        code = client.image(self._name, reference=f"code-{self._keys.code}")
        config: dict[str, Any] = dict(below.config)
        config.pop("history", None)
        config["rootfs"] = {
            "type": "layers",
            "diff_ids": [
                *below.config["rootfs"]["diff_ids"],
                *code.config["rootfs"]["diff_ids"],
            ],
        }
        return client.put_image(
            self._name,
            reference=self._keys.image,
            layers=[*below.manifest["layers"], *code.manifest["layers"]],
            config=config,
        )

    def _build(
        self,
        target: str,
        *,
        output: str,
        stages: tuple[str, ...] = (),
        secrets: dict[str, Path] | None = None,
        arguments: dict[str, str] | None = None,
    ) -> None:
        wheels = self._choices.wheels
        self._buildah.build(
            Build(
                context=self._context,
                target=target,
                output=output,
                arguments=arguments or {},
                stages={stage: self._local(stage) for stage in stages},
                secrets=secrets or {},
                volumes={} if wheels is None else {"/wheels": wheels},
            )
        )

    def _local(self, kind: str) -> str:
        key = self._keys.system if kind == "system" else self._keys.tools
        return f"localhost/cabildo/{kind}:{key}"

    def _require(self, part: str, *, title: str) -> None:
        check_space(self._cache, needed_bytes=NEEDED_BYTES[part], purpose=title)
