"""Building an upstream's commands from its pinned Go module.

Here: the key of a build, and the build. Never here: where the result is kept
(binaries.py). Nothing is fetched but Go modules, each checked against the committed
go.sum.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import time
from collections import deque
from typing import TYPE_CHECKING

from cabildo_local.errors import BinaryError, PrerequisiteError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from cabildo_local.reporter import Reporter
    from cabildo_local.upstreams import Upstream

NOTE_EVERY_S = 20.0
OUTPUT_LINES = 30


def build_key(upstream: Upstream, *, folder: Path, architecture: str) -> str:
    """Return the digest of everything that decides what a build gives.

    Args:
        upstream: The project.
        folder: Its module below `local_cluster/tools/`.
        architecture: As Go names it.

    Raises:
        BinaryError: The module is not there.
    """
    if not (folder / "go.mod").is_file():
        raise BinaryError(
            f"{folder}: no go.mod there", remedy="Run from a complete checkout of Cabildo"
        )
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.name in {"go.mod", "go.sum"} or path.suffix == ".go":
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            digest.update(f"{path.name} {content}\n".encode())
    digest.update(json.dumps([upstream.version, architecture, _flags(upstream)]).encode())
    return digest.hexdigest()[:16]


def build(
    upstream: Upstream, *, names: Iterable[str], folder: Path, output: Path, reporter: Reporter
) -> None:
    """Build commands into a folder.

    Args:
        upstream: The project.
        names: Which of its commands.
        folder: Its module.
        output: Folder that receives one executable per name.
        reporter: Hears how far a long build is.

    Raises:
        PrerequisiteError: Go is missing or too old.
        BinaryError: The build failed; Go's own words are in the message.
    """
    wanted = sorted(names)
    go = _find_go(upstream, folder=folder, names=wanted)
    # Our own mains are called like their folder's package, upstream's like their import path.
    with reporter.step(
        f"build {', '.join(wanted)} {upstream.version} from source"
        f" (the first time about {upstream.build_minutes:g} min on 2 cores)"
    ):
        if any(upstream.packages[name] == "." for name in wanted):
            (name,) = wanted
            target = str(output / name)
        else:
            target = f"{output}/"
        argv = [go, "build", "-v", *_flags(upstream), "-o", target]
        argv += [upstream.packages[name] for name in wanted]
        _run(argv, folder=folder, title=upstream.name, reporter=reporter)


def _flags(upstream: Upstream) -> list[str]:
    stamps = " ".join(f"-X {name}={value}" for name, value in upstream.stamps.items())
    return ["-trimpath", "-mod=readonly", "-ldflags", f"-s -w {stamps}"]


def _find_go(upstream: Upstream, *, folder: Path, names: Sequence[str]) -> str:
    needed = re.search(r"^go (\d+)\.(\d+)", (folder / "go.mod").read_text(), re.MULTILINE)
    if needed is None:
        raise BinaryError(f"{folder / 'go.mod'}: no line `go VERSION`")
    wanted = (int(needed[1]), int(needed[2]))
    remedy = (
        f"Install Go {wanted[0]}.{wanted[1]} or newer (https://go.dev/dl), or give a folder with"
        f" {', '.join(names)} by --binaries, or let this machine reach the release site"
    )
    go = shutil.which("go")
    if go is None:
        raise PrerequisiteError(
            f"Go is not installed: {', '.join(names)} {upstream.version} cannot be built",
            remedy=remedy,
        )
    # GOTOOLCHAIN=local: what is installed, not what it could fetch for this module.
    answer = subprocess.run(
        [go, "env", "GOVERSION"],
        env={**os.environ, "GOTOOLCHAIN": "local"},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    found = re.match(r"go(\d+)\.(\d+)", answer)
    if found is None or (int(found[1]), int(found[2])) < wanted:
        raise PrerequisiteError(
            f"Go at {go} is {answer.strip() or 'too old to say its version'}:"
            f" {upstream.name} {upstream.version} needs {wanted[0]}.{wanted[1]}",
            remedy=remedy,
        )
    return go


def _run(argv: Sequence[str], *, folder: Path, title: str, reporter: Reporter) -> None:
    environment = {**os.environ, "CGO_ENABLED": "0", "GOWORK": "off", "GOFLAGS": ""}
    began = last_note = time.monotonic()
    packages = 0
    tail: deque[str] = deque(maxlen=OUTPUT_LINES)
    with subprocess.Popen(
        argv,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        try:
            for line in process.stderr:
                tail.append(line.rstrip())
                packages += 1
                now = time.monotonic()
                if now - last_note >= NOTE_EVERY_S:
                    last_note = now
                    reporter.note(f"{title}: {packages} packages, {now - began:.0f} s")
        except BaseException:
            process.terminate()
            raise
    if process.returncode != 0:
        raise BinaryError(
            f"`{' '.join(argv)}` in {folder} failed: " + "\n".join(tail),
            remedy="Where the Go module proxy is not reachable, give a folder by --binaries",
        )
