"""The operator of this checkout, put into a cluster: images, then `helm upgrade --install`.

Here: what `make demo` and the end-to-end tests do after a cluster is up. Never here: how an image
is built (`images`), where Helm comes from (`binaries`), or anything of the chart's own
(`helm/cabildo`).
"""

from __future__ import annotations

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cabildo_local.binaries import resolve
from cabildo_local.errors import CommandError
from cabildo_local.images import build, push

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from cabildo_local.images import BuiltImage, ImageRef
    from cabildo_local.reporter import Reporter

TARGETS = ("operator", "trainer")
"""The targets of the Dockerfile that a cluster needs."""

ROLLOUT_TIMEOUT = "180s"
"""How long Helm waits for the Deployment: the first pull of the operator's image included."""


@dataclass(frozen=True, slots=True)
class Deployed:
    """What runs in the cluster now.

    Args:
        operator_image: Reference of the operator's image.
        trainer_image: Reference of the image that TrainingJobs get by default.
        namespace: The operator's namespace.
        release: The Helm release.
    """

    operator_image: str
    trainer_image: str
    namespace: str
    release: str


def build_images(*, checkout: Path, reporter: Reporter) -> dict[str, BuiltImage]:
    """Build every image a cluster needs; needs no cluster and no registry.

    Args:
        checkout: The folder of the Dockerfile.
        reporter: Receives the steps.

    Returns:
        The images by target.

    Raises:
        LocalClusterError: A build failed, or the disk is too full for it.
    """
    return {target: build(target, checkout=checkout, reporter=reporter) for target in TARGETS}


def deploy_operator(
    *,
    kubeconfig: Path,
    registry: str,
    checkout: Path,
    reporter: Reporter,
    values: Mapping[str, str] | None = None,
    namespace: str = "cabildo-system",
    release: str = "cabildo",
) -> Deployed:
    """Push the images of this checkout and install the chart, or bring both up to date.

    Args:
        kubeconfig: The cluster's kubeconfig; its current context is used.
        registry: `host:port` that this machine pushes to and the nodes pull from.
        checkout: The folder of the Dockerfile and of `helm/`.
        reporter: Receives the steps.
        values: Further chart values, as `--set-string` takes them.
        namespace: Made when it is not there.
        release: The Helm release.

    Returns:
        What is installed. The Deployment is rolled out and ready.

    Raises:
        LocalClusterError: A build, a push or Helm failed; Helm's own text is in the message.
    """
    images = push_images(
        build_images(checkout=checkout, reporter=reporter), registry=registry, reporter=reporter
    )
    return install_chart(
        images,
        kubeconfig=kubeconfig,
        checkout=checkout,
        reporter=reporter,
        values=values,
        namespace=namespace,
        release=release,
    )


def push_images(
    built: Mapping[str, BuiltImage], *, registry: str, reporter: Reporter
) -> dict[str, ImageRef]:
    """Push images side by side; a registry that has one already is not sent it again.

    Raises:
        LocalClusterError: The registry refused one.
    """
    with ThreadPoolExecutor(max_workers=len(built)) as pool:
        references = pool.map(
            lambda image: push(image, registry=registry, reporter=reporter), built.values()
        )
        return dict(zip(built, references, strict=True))


def install_chart(
    images: Mapping[str, ImageRef],
    *,
    kubeconfig: Path,
    checkout: Path,
    reporter: Reporter,
    values: Mapping[str, str] | None = None,
    namespace: str = "cabildo-system",
    release: str = "cabildo",
) -> Deployed:
    """Install or upgrade `helm/cabildo` with these images and wait until it is rolled out.

    Raises:
        CommandError: Helm failed; its own text is in the message.
    """
    helm = resolve(["helm"], reporter=reporter)["helm"]
    operator, trainer = images["operator"], images["trainer"]
    settings = {
        "image.repository": operator.repository,
        "image.tag": operator.tag,
        "trainerImage.repository": trainer.repository,
        "trainerImage.tag": trainer.tag,
        **(values or {}),
    }
    command = [
        str(helm),
        "upgrade",
        "--install",
        release,
        str(checkout / "helm" / "cabildo"),
        "--namespace",
        namespace,
        "--create-namespace",
        "--wait",
        "--timeout",
        ROLLOUT_TIMEOUT,
    ]
    for name, value in settings.items():
        command += ["--set-string", f"{name}={value}"]
    with reporter.step("install the operator"):
        done = subprocess.run(
            command,
            env={**os.environ, "KUBECONFIG": str(kubeconfig)},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode != 0:
        raise CommandError(
            f"helm upgrade --install {release} failed: {done.stderr.strip()}",
            remedy=f"Look at the operator's pod: kubectl -n {namespace} describe pods",
        )
    return Deployed(
        operator_image=str(operator),
        trainer_image=str(trainer),
        namespace=namespace,
        release=release,
    )
