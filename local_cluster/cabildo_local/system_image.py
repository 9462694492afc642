"""The lowest layer: Debian with Python, made on this machine by mmdebstrap.

Here: the recipe and the making. Never here: when it is needed (images.py). A base image
from a registry (CABILDO_BASE_IMAGE) takes its place where one can be reached.
"""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from cabildo_local.buildah import TIMESTAMP, Build, contained
from cabildo_local.errors import ImageError

if TYPE_CHECKING:
    from pathlib import Path

    from cabildo_local.buildah import Buildah

SUITE = "bookworm"
PACKAGES = "ca-certificates,python3,python3-venv"

OPTIONS = (
    "--variant=minbase",
    f"--include={PACKAGES}",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-include=/usr/share/doc/*/copyright",
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
    # The image installs nothing later, and names no mirror.
    '--customize-hook=rm -f "$1"/etc/apt/sources.list "$1"/etc/resolv.conf "$1"/etc/hostname',
)


def system_recipe() -> str:
    """Return the text that decides what the system is, for its key."""
    return "\n".join((SUITE, *OPTIONS))


def make_system(name: str, *, buildah: Buildah, mirror: str | None) -> None:
    """Make a Debian and put it into the storage as one layer.

    Args:
        name: The image's name in the storage.
        buildah: The storage, held exclusively.
        mirror: Debian mirror; mmdebstrap's own choice if None.

    Raises:
        ImageError: mmdebstrap failed; its own words are in the message.
    """
    folder = buildah.scratch / "system"
    folder.mkdir()
    archive = folder / "system.tar"
    argv = ["mmdebstrap", "--quiet", *OPTIONS, SUITE, str(archive), *([mirror] if mirror else [])]
    _run(argv, scratch=buildah.scratch)
    dockerfile = folder / "Dockerfile"
    dockerfile.write_text("FROM scratch\nADD system.tar /\n")
    buildah.build(Build(context=folder, file=dockerfile, output=name))


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
