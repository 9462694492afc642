"""Where the cluster's programs come from; `resolve` is the one question asked here.

The order: the folder that the user gave, the cache, the official release with its
checksum, a build from the pinned module below `local_cluster/tools/`. Versions and
addresses are rows of upstreams.py, fetching is downloads.py, building is go_build.py.
Never here: running the programs (control_plane.py, node.py).
"""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from cabildo_local.downloads import ReleaseSite
from cabildo_local.errors import BinaryError, DownloadError
from cabildo_local.file_lock import file_lock
from cabildo_local.go_build import build, build_key
from cabildo_local.settings import default_cache, find_checkout
from cabildo_local.upstreams import ARCHITECTURES, upstream_of, upstreams

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cabildo_local.reporter import Reporter
    from cabildo_local.upstreams import Upstream

MIRROR_VARIABLE = "CABILDO_DOWNLOAD_MIRROR"


def resolve(
    names: Iterable[str],
    *,
    folder: Path | None = None,
    cache: Path | None = None,
    checkout: Path | None = None,
    reporter: Reporter,
    site: ReleaseSite | None = None,
) -> dict[str, Path]:
    """Return the path of each program, fetching or building what is missing.

    Safe to call from several threads and processes at once: what one of them is making, the
    others wait for.

    Args:
        names: Such as `kubelet` or `etcd`.
        folder: Looked at first; a program that is not there comes from the next place.
        cache: Shared folder; the environment's if None.
        checkout: The repository's root; the one this package lies in if None.
        reporter: Hears what is fetched and built.
        site: Where releases are fetched; CABILDO_DOWNLOAD_MIRROR or the official sites if
            None.

    Raises:
        BinaryError: A name is unknown, or its build failed.
        PrerequisiteError: Go is needed and missing or too old.
    """
    wanted = list(dict.fromkeys(names))
    found = {name: path for name in wanted if (path := _in_folder(name, folder=folder))}
    missing = [name for name in wanted if name not in found]
    groups: dict[str, tuple[Upstream, list[str]]] = {}
    for name in missing:
        upstream = upstream_of(name)
        groups.setdefault(upstream.name, (upstream, []))[1].append(name)
    shelf = _Shelf(
        root=(cache or default_cache()) / "bin",
        tools=(checkout or find_checkout()) / "local_cluster" / "tools",
        reporter=reporter,
        site=site or ReleaseSite(mirror=os.environ.get(MIRROR_VARIABLE)),
    )
    for upstream, members in groups.values():
        found |= shelf.get(upstream, names=members)
    return {name: found[name] for name in wanted}


def prune_binaries(*, cache: Path, checkout: Path) -> int:
    """Remove programs that this checkout would not take from the cache.

    A program that runs is not disturbed: its file lives on until it ends.

    Args:
        cache: Shared folder.
        checkout: The repository's root.

    Returns:
        How many bytes were freed.
    """
    freed_bytes = 0
    for upstream in upstreams():
        module = checkout / "local_cluster" / "tools" / upstream.name
        key = build_key(upstream, folder=module, architecture=_architecture())
        for name in upstream.packages:
            for path in (cache / "bin" / name).glob(f"*/{name}"):
                if path.parent.name != key:
                    freed_bytes += path.stat().st_size
                    shutil.rmtree(path.parent)
    return freed_bytes


def _architecture() -> str:
    return ARCHITECTURES.get(platform.machine(), platform.machine())


def _in_folder(name: str, *, folder: Path | None) -> Path | None:
    """Return a program of the user's folder, None if it is not there.

    Raises:
        BinaryError: The folder is none, or the file cannot be run.
    """
    if folder is None:
        return None
    if not folder.is_dir():
        raise BinaryError(f"--binaries {folder}: no such folder")
    path = folder / name
    if not path.exists():
        return None
    if not os.access(path, os.X_OK):
        raise BinaryError(f"{path} cannot be run", remedy=f"Run: chmod +x {path}")
    return path.absolute()


class _Shelf:
    """The cache's `bin` folder: `<name>/<key>/<name>`, complete or not there at all."""

    def __init__(self, *, root: Path, tools: Path, reporter: Reporter, site: ReleaseSite) -> None:
        self._root = root
        self._tools = tools
        self._reporter = reporter
        self._site = site
        self._architecture = _architecture()

    def get(self, upstream: Upstream, *, names: list[str]) -> dict[str, Path]:
        """Return an upstream's programs, made under its lock when they are missing."""
        module = self._tools / upstream.name
        key = build_key(upstream, folder=module, architecture=self._architecture)
        paths = {name: self._root / name / key / name for name in names}
        if all(path.is_file() for path in paths.values()):
            return paths
        with file_lock(
            self._root / ".locks" / f"{upstream.name}-{key}",
            waiting_for=f"it makes {upstream.name} {upstream.version}",
            reporter=self._reporter,
        ):
            missing = {name: path for name, path in paths.items() if not path.is_file()}
            if missing:
                self._make(upstream, missing=missing, module=module, key=key)
        return paths

    def _make(
        self, upstream: Upstream, *, missing: dict[str, Path], module: Path, key: str
    ) -> None:
        scratch_root = self._root / ".making"
        scratch_root.mkdir(parents=True, exist_ok=True)
        prefix = f"{upstream.name}-{key}-"
        # Only the lock's holder writes there: what lies there is from a killed one.
        for leftover in scratch_root.glob(f"{prefix}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=scratch_root, prefix=prefix) as made:
            scratch = Path(made)
            fetched = self._fetch(upstream, names=missing, scratch=scratch)
            left = [name for name in missing if name not in fetched]
            if left:
                build(
                    upstream,
                    names=left,
                    folder=module,
                    output=scratch,
                    reporter=self._reporter,
                )
            for name, path in missing.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                (scratch / name).replace(path)

    def _fetch(self, upstream: Upstream, *, names: Iterable[str], scratch: Path) -> set[str]:
        """Return the names that were fetched; the first one that cannot be ends the tries."""
        fetched: set[str] = set()
        if upstream.release is None:
            return fetched
        for name in names:
            fill = {"version": upstream.version, "arch": self._architecture, "name": name}
            try:
                self._site.fetch(
                    upstream.release, fill=fill, target=scratch / name, reporter=self._reporter
                )
            except DownloadError as error:
                (scratch / name).unlink(missing_ok=True)
                if error.asked:
                    self._reporter.note(f"no download: {error.message}; building instead")
                break
            fetched.add(name)
        return fetched
