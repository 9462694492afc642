"""Running buildah on a storage of its own in the cache.

Here: one build at a time, its settings, its log, and what a killed one left. Never here:
what is built and when (image_job.py). The storage holds the small images that builds start
from; what is built goes straight into a registry.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cabildo_local.errors import ImageError
from cabildo_local.file_lock import file_lock

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from cabildo_local.reporter import Reporter

TIMESTAMP = 1735689600
"""When every file of an image says it was made (2025-01-01): builds give the same bytes."""

OUTPUT_LINES = 25


def contained() -> list[str]:
    """Return the words before a command of which nothing shall be left when it is killed.

    pdeathsig ends it with the process that wanted it; the end of its process namespace ends
    whatever it had started; its mounts go with its mount namespace.
    """
    return [
        *("setpriv", "--pdeathsig", "KILL"),
        *("unshare", "--pid", "--fork", "--kill-child", "--mount-proc"),
        *("--mount", "--propagation", "private"),
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """One run of a Dockerfile.

    Attributes:
        context: The folder that COPY reads.
        file: The Dockerfile; the context's own if None.
        target: The stage to build; the last one if None.
        output: Where the image goes: a name in the storage, or `docker://...`.
        arguments: Values of its ARGs.
        stages: Images of the storage that stand in for stages, by the stage's name.
        secrets: Files that RUN may read without their entering the image, by id.
        volumes: Folders mounted read-only while it runs, by path inside.
    """

    context: Path
    file: Path | None = None
    target: str | None = None
    output: str
    arguments: Mapping[str, str] = field(default_factory=dict)
    stages: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, Path] = field(default_factory=dict)
    volumes: Mapping[str, Path] = field(default_factory=dict)


class Buildah:
    """A storage and the one that builds in it.

    Args:
        folder: The storage's folder; made when it is missing.
        reporter: Hears when another process builds.
    """

    def __init__(self, folder: Path, *, reporter: Reporter) -> None:
        self._folder = folder
        self._reporter = reporter

    @property
    def scratch(self) -> Path:
        """A folder for temporary files, emptied before each use of the storage."""
        return self._folder / "scratch"

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keep other processes out while the context lasts, and clear what a killed one left."""
        with file_lock(
            self._folder / "lock",
            waiting_for="it builds an image",
            reporter=self._reporter,
        ):
            self._clear()
            try:
                yield
            finally:
                self._clear()

    def has_image(self, name: str) -> bool:
        """Tell whether the storage has an image of that name."""
        return self._run(["inspect", "--type", "image", name], log=None, check=False) == 0

    def keep_images(self, names: Collection[str]) -> int:
        """Remove the storage's other images; returns how many bytes that freed.

        Raises:
            ImageError: One could not be removed.
        """
        if not (self._folder / "root").exists():
            return 0
        listed = self._folder / "logs/images.log"
        self._run(["images", "--format", "{{.Name}}:{{.Tag}}"], log=listed, check=True)
        images = {word for word in listed.read_text().split() if word.startswith("localhost/")}
        stale = sorted(images.difference(names))
        if not stale:
            return 0
        before_bytes = self._size_bytes()
        self._run(["rmi", "--force", *stale], log=None, check=True)
        return before_bytes - self._size_bytes()

    def build(self, build: Build) -> None:
        """Build one stage.

        Raises:
            ImageError: It failed; the end of its log is in the message.
        """
        argv = ["build", "--isolation", "chroot", "--network", "host"]
        argv += ["--timestamp", str(TIMESTAMP), "--omit-history", "--identity-label=false"]
        # Compressed as it is read: an uncompressed copy of torch would be 5 GB of temporary file.
        argv += ["--disable-compression=false", "--tls-verify=false", "--tag", build.output]
        for name, value in sorted(build.arguments.items()):
            argv += ["--build-arg", f"{name}={value}"]
        for name, image in sorted(build.stages.items()):
            argv += ["--build-context", f"{name}=docker-image://{image}"]
        for name, path in sorted(build.secrets.items()):
            argv += ["--secret", f"id={name},src={path}"]
        for inside, path in sorted(build.volumes.items()):
            argv += ["--volume", f"{path}:{inside}:ro"]
        if build.target is not None:
            argv += ["--target", build.target]
        if build.file is not None:
            argv += ["--file", str(build.file)]
        log = self._folder / "logs" / f"{build.target or 'system'}.log"
        self._run([*argv, str(build.context)], log=log, check=True)

    def _size_bytes(self) -> int:
        statuses = (path.lstat() for path in (self._folder / "root").rglob("*"))
        return sum(status.st_size for status in statuses if stat.S_ISREG(status.st_mode))

    def _clear(self) -> None:
        """Drop working containers and temporary files: nobody else is building."""
        # buildah 1.28 also leaves the containers of stages that others only mount.
        if any((self._folder / "root" / "overlay-containers").glob("*/")):
            self._run(["rm", "--all"], log=None, check=False)
        shutil.rmtree(self.scratch, ignore_errors=True)
        self.scratch.mkdir(parents=True)

    def _run(self, argv: Sequence[str], *, log: Path | None, check: bool) -> int:
        line = [*contained(), "buildah"]
        line += ["--root", str(self._folder / "root"), "--runroot", str(self._folder / "run")]
        line += ["--storage-driver", "overlay", *argv]
        try:
            done = subprocess.run(
                line,
                env={**os.environ, "TMPDIR": str(self.scratch)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                check=False,
            )
        except FileNotFoundError as error:
            raise ImageError(
                f"{error.filename} is not installed", remedy="Run: apt-get install buildah"
            ) from error
        if log is not None:
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_text(done.stdout)
        if check and done.returncode != 0:
            tail = "\n".join(done.stdout.strip().splitlines()[-OUTPUT_LINES:])
            raise ImageError(f"buildah {argv[0]} failed; the end of its log {log}:\n{tail}")
        return done.returncode
