"""The images of this checkout: built by buildah, stacked in the store, pushed.

Here: `build`, `push`, `build_and_push`, what they return, and `prune_bases`. How it goes:
the keys of image_sources.py say what is there already; image_job.py has buildah build the
missing parts and stacks them in the store (image_store.py), as the Dockerfile's last stage
does. Never here: the cluster's registry process (registry.py) or who uses the images
(deploy.py).
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cabildo_local.buildah import Buildah
from cabildo_local.errors import ImageError
from cabildo_local.image_job import ImageJob, local_images
from cabildo_local.image_sources import SOURCES, Choices, read_keys, take_snapshot
from cabildo_local.image_store import serve_store, stored_digest
from cabildo_local.registry_client import RegistryClient
from cabildo_local.settings import default_cache
from cabildo_local.system_image import recipes

if TYPE_CHECKING:
    from pathlib import Path

    from cabildo_local.reporter import Reporter


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
    keys = read_keys(target, checkout=checkout, choices=choices, recipes=recipes())
    digest = stored_digest(cache, name=_name(target), tag=keys.image)
    if digest is not None:
        return BuiltImage(name=_name(target), tag=keys.image, digest=digest)
    buildah = Buildah(cache / "buildah", reporter=reporter)
    with buildah.exclusive():
        snapshot = buildah.scratch / "context"
        take_snapshot(target, checkout=checkout, folder=snapshot, choices=choices)
        # Of the snapshot: a save since then belongs to the next build.
        keys = read_keys(target, checkout=snapshot, choices=choices, recipes=recipes())
        job = ImageJob(
            target,
            name=_name(target),
            keys=keys,
            context=snapshot,
            cache=cache,
            choices=choices,
            buildah=buildah,
            reporter=reporter,
        )
        return BuiltImage(name=_name(target), tag=keys.image, digest=job.run())


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


def prune_bases(*, checkout: Path, reporter: Reporter, cache: Path | None = None) -> int:
    """Remove what builds of other checkouts and days started from; returns the bytes freed.

    Args:
        checkout: The folder of the Dockerfile; what its builds start from stays.
        reporter: Hears when a build is waited for.
        cache: Shared folder; the environment's if None.

    Raises:
        ImageError: A file is missing, or buildah failed.
    """
    choices = Choices.from_environment()
    kept: set[str] = set()
    for target in SOURCES:
        keys = read_keys(target, checkout=checkout, choices=choices, recipes=recipes())
        kept |= set(local_images(keys).values())
    buildah = Buildah((cache or default_cache()) / "buildah", reporter=reporter)
    with buildah.exclusive():
        return buildah.keep_images(kept)


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
