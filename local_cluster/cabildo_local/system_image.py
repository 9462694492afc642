"""The lowest layer: Debian with Python, made on this machine by mmdebstrap.

Here: the recipes and the making, of that layer and of the same Debian with a C compiler,
where the kernels are compiled and which no image holds. Never here: when they are needed
(images.py). A base image from a registry (CABILDO_BASE_IMAGE) takes their place where one can
be reached; the Dockerfile then gets the compiler from that image's own mirror.
"""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, Literal

from cabildo_local.buildah import TIMESTAMP, Build, contained
from cabildo_local.errors import ImageError
from cabildo_local.image_sources import Recipes

if TYPE_CHECKING:
    from pathlib import Path

    from cabildo_local.buildah import Buildah

SUITE = "bookworm"
PACKAGES = {
    "system": "ca-certificates,python3,python3-venv",
    "compiler": "ca-certificates,python3,python3-venv,gcc,libc6-dev,libpython3-dev",
}

OPTIONS = (
    "--variant=minbase",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-include=/usr/share/doc/*/copyright",
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
    # The image installs nothing later, and names no mirror.
    '--customize-hook=rm -f "$1"/etc/apt/sources.list "$1"/etc/resolv.conf "$1"/etc/hostname',
)


def recipes() -> Recipes:
    """Return the texts that decide what the bases are, for their keys."""
    return Recipes(
        system="\n".join((SUITE, *_options("system"))),
        compiler="\n".join((SUITE, *_options("compiler"))),
    )


def make_debian(
    kind: Literal["system", "compiler"], *, name: str, buildah: Buildah, mirror: str | None
) -> None:
    """Make a Debian and put it into the storage as one layer.

    Args:
        kind: What it is for.
        name: The image's name in the storage.
        buildah: The storage, held exclusively.
        mirror: Debian mirror; mmdebstrap's own choice if None.

    Raises:
        ImageError: mmdebstrap failed; its own words are in the message.
    """
    folder = buildah.scratch / kind
    folder.mkdir()
    archive = folder / "system.tar"
    argv = ["mmdebstrap", "--quiet", *_options(kind), SUITE, str(archive)]
    _run([*argv, *([mirror] if mirror else [])], scratch=buildah.scratch)
    dockerfile = folder / "Dockerfile"
    dockerfile.write_text("FROM scratch\nADD system.tar /\n")
    buildah.build(Build(context=folder, file=dockerfile, output=name))
    archive.unlink()


def _options(kind: str) -> tuple[str, ...]:
    variant, *others = OPTIONS
    return (variant, f"--include={PACKAGES[kind]}", *others)


def _run(argv: list[str], *, scratch: Path) -> None:
    # The fixed time makes the archive the same at every run with the same packages.
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(TIMESTAMP), "TMPDIR": str(scratch)}
    try:
        done = subprocess.run(
            [*contained(), *argv],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except FileNotFoundError as error:
        raise ImageError(
            f"{error.filename} is not installed", remedy="Run: apt-get install mmdebstrap"
        ) from error
    if done.returncode != 0:
        tail = "\n".join(done.stderr.strip().splitlines()[-15:])
        raise ImageError(
            f"mmdebstrap could not make a Debian {SUITE}:\n{tail}",
            remedy="Check that apt-get update works, or give CABILDO_BASE_IMAGE",
        )
