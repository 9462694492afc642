"""One build of an image: the parts that are missing, then the stack.

Here: the order of the parts, each built straight into the store (image_store.py) or, where
builds start from it, into buildah's own storage: the Debian, pip, the compiler, the kernels.
Never here: what is there already and who asks (images.py), what a part is made of
(image_sources.py and the Dockerfile).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal

from cabildo_local.buildah import Build
from cabildo_local.image_pruning import mark_used, prune_store
from cabildo_local.image_store import clear_uploads, serve_store, stored_digest
from cabildo_local.pip_access import write_secrets
from cabildo_local.prerequisites import GIB, check_space
from cabildo_local.registry_client import RegistryClient
from cabildo_local.system_image import make_debian

if TYPE_CHECKING:
    from pathlib import Path

    from cabildo_local.buildah import Buildah
    from cabildo_local.image_sources import Choices, Keys
    from cabildo_local.reporter import Reporter

NEEDED_BYTES = {
    "system": int(1.0 * GIB),
    "compiler": int(1.5 * GIB),
    "operator": int(0.5 * GIB),
    "trainer": int(13.5 * GIB),
}
"""Free space asked for while a part is made: for a dependency layer what pip unpacks, its copy as a
layer, and what stays in the store. The trainer's peak was 13.1 GiB with an uncompressed copy."""

KEPT_DEPENDENCIES = 2
"""Dependency layers of each image that stay: one lock file's change can be taken back."""

KEPT_IMAGES = 50
"""Images of each repository that stay then; each takes as much as its code layer."""


def local_images(keys: Keys) -> dict[str, str]:
    """Return the names in buildah's storage of what an image is built from, by its stage."""
    parts = {"system": keys.system, "tools": keys.tools}
    if keys.kernels is not None:
        parts |= {"compiler": keys.compiler, "kernels": keys.kernels}
    return {kind: f"localhost/cabildo/{kind}:{key}" for kind, key in parts.items()}


class ImageJob:
    """One build of one image: the parts that are missing, then the stack.

    Args:
        target: `operator` or `trainer`.
        name: The image's repository.
        keys: What its parts are called.
        context: A snapshot of the checkout.
        cache: Shared folder.
        choices: What the user said.
        buildah: The storage, held exclusively.
        reporter: Hears the steps.
    """

    def __init__(
        self,
        target: str,
        *,
        name: str,
        keys: Keys,
        context: Path,
        cache: Path,
        choices: Choices,
        buildah: Buildah,
        reporter: Reporter,
    ) -> None:
        self._target = target
        self._name = name
        self._keys = keys
        self._context = context
        self._cache = cache
        self._choices = choices
        self._buildah = buildah
        self._reporter = reporter

    def run(self) -> str:
        """Build what is missing and return the image's digest."""
        # Another process may have made it while this one waited.
        digest = stored_digest(self._cache, name=self._name, tag=self._keys.image)
        return digest if digest is not None else self._make()

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
                self._make_debian("system", name=name)
        else:
            with self._reporter.step(f"make the base image from {self._choices.base}"):
                self._build("system", output=name, arguments={"BASE": self._choices.base})

    def _make_debian(self, kind: Literal["system", "compiler"], *, name: str) -> None:
        make_debian(kind, name=name, buildah=self._buildah, mirror=self._choices.mirror)

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
        stages: tuple[str, ...] = ("tools",)
        if self._keys.kernels is not None:
            self._make_kernels()
            stages = ("tools", "kernels")
        with self._reporter.step(f"build the {self._target}'s wheels"):
            self._build(
                f"{self._target}-code",
                output=f"docker://{address}/{self._name}:{tag}",
                stages=stages,
            )

    def _make_kernels(self) -> None:
        name = self._local("kernels")
        if self._buildah.has_image(name):
            return
        self._make_compiler()
        with self._reporter.step("compile the kernels (about 1 min)"):
            self._build("kernels", output=name, stages=("system", "tools", "compiler"))

    def _make_compiler(self) -> None:
        name = self._local("compiler")
        if self._buildah.has_image(name):
            return
        self._require("compiler", title="the compiler's image")
        with self._reporter.step("make a base image with a compiler (about 1 min)"):
            if self._choices.base is None:
                self._make_debian("compiler", name=name)
            else:
                self._build("compiler", output=name, stages=("system",))

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
        return local_images(self._keys)[kind]

    def _require(self, part: str, *, title: str) -> None:
        check_space(self._cache, needed_bytes=NEEDED_BYTES[part], purpose=title)
