"""The one host copy of each image: the registry's own folder in the cache.

Here: whether a tag is there, and a registry process on the loopback address for as long as
a build writes into the folder. The cluster's registry (registry.py) serves the same folder,
so that what was built is pushed already. Never here: building (images.py).

Several registry processes may serve one folder: blobs and manifests are named by their
digests and renamed into place.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

from cabildo_local.errors import ImageError
from cabildo_local.file_lock import file_lock
from cabildo_local.reporter import SilentReporter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LISTENING = "listening on "


def store_folder(cache: Path) -> Path:
    """Return the folder that every registry of this cache serves."""
    return cache / "registry"


def tags_folder(cache: Path, *, name: str) -> Path:
    """Return the folder with a repository's tags, each with a file `current/link`.

    The layout of the registry's version 2, unchanged since 2015.
    """
    return _repository(cache, name=name) / "_manifests/tags"


def blob_file(cache: Path, *, digest: str) -> Path:
    """Return the file of a blob or manifest in the store."""
    plain = digest.removeprefix("sha256:")
    blobs = store_folder(cache) / "docker/registry/v2/blobs/sha256"
    return blobs / plain[:2] / plain / "data"


def stored_digest(cache: Path, *, name: str, tag: str) -> str | None:
    """Return the digest of a tag in the store, None if it is not there.

    Reads the registry's files: no process is started to learn that nothing is to be done.
    """
    link = tags_folder(cache, name=name) / tag / "current/link"
    try:
        return link.read_text().strip()
    except FileNotFoundError:
        return None


def clear_uploads(cache: Path, *, name: str) -> None:
    """Remove what a killed build had uploaded of a layer: up to 3 GB that nothing names.

    Only for the one who holds the builds' lock: nobody else uploads to these repositories.
    """
    shutil.rmtree(_repository(cache, name=name) / "_uploads", ignore_errors=True)


@contextmanager
def serve_store(cache: Path) -> Iterator[str]:
    """Run a registry on the store while the context lasts; yields its `host:port`.

    Raises:
        ImageError: The registry did not start.
    """
    with file_lock(
        cache / "registry.lock",
        waiting_for="it removes old images",
        reporter=SilentReporter(),
        shared=True,
    ):
        try:
            # pdeathsig: a killed build leaves no registry behind.
            process = subprocess.Popen(
                [
                    *("setpriv", "--pdeathsig", "KILL"),
                    *("docker-registry", "serve", str(write_configuration(cache))),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
        except FileNotFoundError as error:
            raise ImageError(
                f"{error.filename} is not installed",
                remedy="Run: apt-get install docker-registry util-linux",
            ) from error
        with process:
            try:
                yield _listening_address(process)
            finally:
                process.kill()


def write_configuration(cache: Path) -> Path:
    """Write what a registry on the store is told, and return the file; always the same."""
    folder = store_folder(cache)
    folder.mkdir(parents=True, exist_ok=True)
    configuration = {
        "version": "0.1",
        "log": {"level": "info", "accesslog": {"disabled": True}},
        "storage": {
            "filesystem": {"rootdirectory": str(folder)},
            "maintenance": {"uploadpurging": {"enabled": False}},
        },
        "http": {"addr": "127.0.0.1:0"},
    }
    path = folder / "build-registry.yml"
    draft = folder / f".build-registry.{os.getpid()}.{threading.get_ident()}"
    # JSON is YAML.
    draft.write_text(json.dumps(configuration))
    draft.replace(path)
    return path


def _repository(cache: Path, *, name: str) -> Path:
    return store_folder(cache) / "docker/registry/v2/repositories" / name


def _listening_address(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    lines: list[str] = []
    for line in process.stderr:
        lines.append(line.rstrip())
        if LISTENING in line:
            address = line.split(LISTENING, 1)[1].split('"', 1)[0].split(",", 1)[0].strip()
            # Its log must be read on, or it stops when the pipe is full.
            threading.Thread(target=_drain, args=(process.stderr,), daemon=True).start()
            return address
    raise ImageError("docker-registry did not start: " + "\n".join(lines[-5:]))


def _drain(stream: IO[str]) -> None:
    try:
        for _ in stream:
            pass
    except ValueError:
        # Closed under us: the process has been ended.
        return
