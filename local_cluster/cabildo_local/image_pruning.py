"""Freeing the store of images that nobody builds on any more.

Here: which tags go, and the collection of what they alone named. Never here: when
(images.py after a new dependency layer, `cabildo cluster prune` on demand).

A lock file's change leaves a layer of up to 3 GB behind. The newest layers by use stay,
since checkouts with different lock files may share the cache.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import TYPE_CHECKING

from cabildo_local.errors import ImageError
from cabildo_local.file_lock import file_lock
from cabildo_local.image_store import blob_file, store_folder, tags_folder, write_configuration

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from cabildo_local.reporter import Reporter

DEPENDENCIES = "dependencies-"
CODE = "code-"


def prune_store(
    cache: Path, *, names: Iterable[str], dependencies: int, images: int, reporter: Reporter
) -> int:
    """Remove old tags and everything that only they named.

    Args:
        cache: The shared folder.
        names: Repositories, such as `cabildo/trainer`.
        dependencies: How many dependency layers of each stay, the last used ones.
        images: How many images and code layers of each stay, the newest ones.
        reporter: Hears when a build is waited for.

    Returns:
        How many bytes were freed.

    Raises:
        ImageError: The registry's collection failed.
    """
    with file_lock(cache / "registry.lock", waiting_for="it writes images", reporter=reporter):
        stale = [
            tag
            for name in names
            for tag in _stale_tags(cache, name=name, dependencies=dependencies, images=images)
        ]
        if not stale:
            return 0
        before_bytes = _size(store_folder(cache))
        for tag in stale:
            shutil.rmtree(tag)
        _collect(cache)
        return before_bytes - _size(store_folder(cache))


def mark_used(cache: Path, *, name: str, tag: str) -> None:
    """Remember that a layer is in use, so that others are pruned first."""
    (tags_folder(cache, name=name) / tag / "current/link").touch()


def _stale_tags(cache: Path, *, name: str, dependencies: int, images: int) -> list[Path]:
    """Return the folders of the tags that go."""
    folder = tags_folder(cache, name=name)
    tags = [link.parent.parent for link in folder.glob("*/current/link")]
    tags.sort(key=lambda tag: (tag / "current/link").stat().st_mtime_ns, reverse=True)
    layers = [tag for tag in tags if tag.name.startswith(DEPENDENCIES)]
    code = [tag for tag in tags if tag.name.startswith(CODE)]
    whole = [tag for tag in tags if tag not in layers and tag not in code]
    stale = [*layers[dependencies:], *code[images:], *whole[images:]]
    # An image goes with the dependencies below it, else it would keep them.
    kept_below = {tuple(_layers(cache, tag=tag)) for tag in layers[:dependencies]}
    stale += [
        tag for tag in whole[:images] if tuple(_layers(cache, tag=tag)[:-1]) not in kept_below
    ]
    return stale


def _layers(cache: Path, *, tag: Path) -> list[str]:
    digest = (tag / "current/link").read_text().strip()
    manifest = json.loads(blob_file(cache, digest=digest).read_bytes())
    return [layer["digest"] for layer in manifest["layers"]]


def _collect(cache: Path) -> None:
    configuration = str(write_configuration(cache))
    done = subprocess.run(
        ["docker-registry", "garbage-collect", "--delete-untagged", configuration],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        raise ImageError(f"docker-registry garbage-collect failed: {done.stderr.strip()[-500:]}")


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("data") if path.is_file())
