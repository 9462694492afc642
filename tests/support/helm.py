"""Helm as the tests use it: the chart rendered for values, and the program itself.

Here: finding the binary and running it. Never here: what the chart should contain.
"""

from __future__ import annotations

import functools
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from cabildo_local.binaries import resolve
from cabildo_local.reporter import SilentReporter

if TYPE_CHECKING:
    from collections.abc import Sequence

Object = dict[str, Any]

CHART = Path(__file__).resolve().parents[2] / "helm" / "cabildo"
KUBE_VERSION = "1.34.4"


@functools.cache
def program() -> Path:
    """Return the path of the helm binary."""
    return resolve(["helm"], reporter=SilentReporter())["helm"]


def helm(*arguments: str, kubeconfig: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run helm; the caller judges the exit status."""
    environment = {**os.environ, "KUBECONFIG": str(kubeconfig or os.devnull)}
    return subprocess.run(
        [str(program()), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def template(
    *settings: str, release: str = "cabildo", kube_version: str = KUBE_VERSION
) -> subprocess.CompletedProcess[str]:
    """Run `helm template` with `--set` settings."""
    return helm(
        *("template", release, str(CHART), "--namespace", "cabildo-system"),
        *("--kube-version", kube_version),
        *(part for setting in settings for part in ("--set", setting)),
    )


def rendered(*settings: str, release: str = "cabildo") -> list[Object]:
    """Return the objects of `helm template`."""
    done = template(*settings, release=release)
    assert done.returncode == 0, done.stderr
    return [one for one in yaml.safe_load_all(done.stdout) if one]


def only(objects: Sequence[Object], kind: str, name: str = "") -> Object:
    """Return the one object of a kind, and of a name where one is given."""
    (found,) = [
        one for one in objects if one["kind"] == kind and name in ("", one["metadata"]["name"])
    ]
    return found
