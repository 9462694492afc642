"""The image of the process that holds a pod's namespaces: one static program, no more.

Here: compiling it and storing it as an image of one layer. Never here: who runs it
(node.py writes its name into containerd's configuration).
"""

from __future__ import annotations

import gzip
import hashlib
import io
import platform
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from cabildo_local.buildah import TIMESTAMP
from cabildo_local.errors import ImageError
from cabildo_local.image_store import serve_store, stored_digest
from cabildo_local.images import BuiltImage, ImageRef, push
from cabildo_local.registry_client import LAYER_TYPE, RegistryClient
from cabildo_local.upstreams import ARCHITECTURES

if TYPE_CHECKING:
    from cabildo_local.reporter import Reporter

NAME = "cabildo/pause"
SOURCE = "local_cluster/tools/pause/pause.c"
COMPILER = ("gcc", "-Os", "-static", "-s", "-Wall", "-Werror", "-Wl,--build-id=none")


def pause_image(*, registry: str, cache: Path, checkout: Path, reporter: Reporter) -> ImageRef:
    """Have the pause image in a registry.

    Args:
        registry: `host:port`.
        cache: Shared folder.
        checkout: The repository's root.
        reporter: Hears of a copy to a registry that does not serve the store.

    Raises:
        ImageError: It could not be compiled or stored.
    """
    source = checkout / SOURCE
    machine = platform.machine()
    identity = " ".join((*COMPILER, machine)).encode() + source.read_bytes()
    tag = hashlib.sha256(identity).hexdigest()[:16]
    digest = stored_digest(cache, name=NAME, tag=tag)
    if digest is None:
        program = _compile(source)
        with serve_store(cache) as address:
            digest = _store(program, tag=tag, machine=machine, client=RegistryClient(address))
    built = BuiltImage(name=NAME, tag=tag, digest=digest)
    return push(built, registry=registry, reporter=reporter, cache=cache)


def _compile(source: Path) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "pause"
        argv = [*COMPILER, "-o", str(target), str(source)]
        try:
            done = subprocess.run(argv, capture_output=True, text=True, check=False)
        except FileNotFoundError as error:
            raise ImageError(
                "gcc is not installed", remedy="Run: apt-get install gcc libc6-dev"
            ) from error
        if done.returncode != 0:
            raise ImageError(f"{source.name} could not be compiled: {done.stderr.strip()}")
        return target.read_bytes()


def _store(program: bytes, *, tag: str, machine: str, client: RegistryClient) -> str:
    archive = _archive(program)
    layer = client.put_blob(NAME, content=gzip.compress(archive, mtime=0), media_type=LAYER_TYPE)
    config = {
        "architecture": ARCHITECTURES.get(machine, machine),
        "os": "linux",
        "config": {"Entrypoint": ["/pause"], "User": "65535:65535"},
        "rootfs": {
            "type": "layers",
            "diff_ids": [f"sha256:{hashlib.sha256(archive).hexdigest()}"],
        },
    }
    return client.put_image(NAME, reference=tag, layers=[layer], config=config)


def _archive(program: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        entry = tarfile.TarInfo("pause")
        entry.size, entry.mode, entry.mtime = len(program), 0o755, TIMESTAMP
        tar.addfile(entry, io.BytesIO(program))
    return buffer.getvalue()
