"""The steps of `cabildo demo`: cluster and images side by side, operator, training, result file.

Here: their order, their times and the result file. Each step is somebody else's: the cluster and
the images are `cabildo_local`'s, the progress bar is `follow`'s, the training is the operator's.
Imported by `demo.py` once it knows that there is a checkout.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml
from kubernetes import client

from cabildo_api.names import GROUP, LABEL_ATTEMPT, LABEL_RUN, LABEL_UID, PLURAL, VERSION
from cabildo_cli.clients import DEFAULT_KUBECONFIG, ClusterClients
from cabildo_cli.errors import CliError
from cabildo_cli.follow import follow_training_job, is_true
from cabildo_cli.result_table import NET, comparison, print_result
from cabildo_local.binaries import resolve
from cabildo_local.cluster import up
from cabildo_local.deploy import build_images, install_chart, push_images
from cabildo_local.errors import LocalClusterError
from cabildo_local.node_space import check_node_space
from cabildo_local.packages import ensure_packages
from cabildo_local.reporter import LineReporter, SilentReporter
from cabildo_local.settings import ClusterSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console

    from cabildo_local.images import BuiltImage
    from cabildo_local.reporter import Reporter

QUICKSTART: Final = Path("examples") / "quickstart.yaml"
RESULT_FILE: Final = Path("build") / "demo" / "result.json"
STRICT_R2: Final = "r2_against_test_mean"
"""The textbook value, which forgives nothing for a test period that differs from the past."""
TRAINING_TIMEOUT_S: Final = 1800.0
TOOLS: Final = ("helm", "kubectl")
"""Programs that the demo itself runs, beside those of the cluster."""


@dataclass(frozen=True, slots=True)
class Target:
    """Which cluster to use.

    Args:
        is_local: The local cluster, brought up when it is not; else the one KUBECONFIG names.
        name: The local cluster's name.
        registry: `host:port` to push to and pull from; the local cluster has its own.
    """

    is_local: bool
    name: str
    registry: str


@dataclass
class StepTimes:
    """How long each step took, by name: what `seconds_by_step` of the result file holds."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Add the wall time of the block under `name`."""
        began_s = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = round(time.monotonic() - began_s, 1)


@dataclass(frozen=True)
class Place:
    """The cluster the demo trains in.

    Args:
        kubeconfig: Its kubeconfig file.
        registry: `host:port` that images are pushed to and pulled from.
    """

    kubeconfig: Path
    registry: str


def run_demo(target: Target, *, checkout: Path, console: Console) -> None:
    """Train the quickstart and write build/demo/result.json.

    Args:
        target: Where to.
        checkout: The repository's root.
        console: Where bar and table are drawn; the steps before go to standard error.

    Raises:
        CliError: A step failed, or the training did.
    """
    times = StepTimes()
    try:
        place = _bring_up(target, checkout=checkout, times=times)
    except LocalClusterError as error:
        raise CliError(error.message, remedy=error.remedy) from error
    clients = ClusterClients.from_kubeconfig(place.kubeconfig)
    with times.measure("train"):
        name, run_id = _apply_quickstart(checkout, place=place, clients=clients)
        training_job = follow_training_job(
            clients,
            name=name,
            namespace=clients.namespace,
            console=console,
            run_id=run_id,
            timeout_s=TRAINING_TIMEOUT_S,
        )
    print_result(training_job, console=console)
    if not is_true(training_job, "Succeeded"):
        raise CliError(
            f"TrainingJob {name} failed",
            remedy=f"KUBECONFIG={place.kubeconfig} kubectl describe trainingjob {name}",
        )
    _write_result(training_job, clients=clients, times=times, checkout=checkout)
    console.print(
        f"written to {RESULT_FILE}; the cluster stays up: export KUBECONFIG={place.kubeconfig}",
        soft_wrap=True,
        highlight=False,
    )


def _bring_up(target: Target, *, checkout: Path, times: StepTimes) -> Place:
    """Have a cluster with the operator of this checkout in it; images build beside it."""
    reporter = LineReporter(sys.stderr)
    with times.measure("packages"):
        ensure_packages(reporter=reporter)

    def images() -> dict[str, BuiltImage]:
        with times.measure("images"):
            return build_images(checkout=checkout, reporter=reporter)

    with ThreadPoolExecutor(max_workers=2) as beside:
        building = beside.submit(images)
        finding = beside.submit(resolve, TOOLS, reporter=reporter)
        try:
            with times.measure("cluster"):
                place = _place(target, checkout=checkout, reporter=reporter)
        except (LocalClusterError, CliError) as error:
            reporter.note(f"failed: {error.message}; waiting for what goes on beside it")
            raise
        finding.result()
        built = building.result()
    with times.measure("push"):
        pushed = push_images(built, registry=place.registry, reporter=reporter)
    with times.measure("operator"):
        install_chart(pushed, kubeconfig=place.kubeconfig, checkout=checkout, reporter=reporter)
    return place


def _place(target: Target, *, checkout: Path, reporter: Reporter) -> Place:
    if target.is_local:
        settings = ClusterSettings(name=target.name, checkout=checkout)
        check_node_space(settings)
        running = up(settings, reporter=reporter)
        return Place(kubeconfig=running.kubeconfig, registry=running.registry)
    kubeconfig = Path(os.environ.get("KUBECONFIG") or Path(DEFAULT_KUBECONFIG).expanduser())
    context = ClusterClients.from_kubeconfig(kubeconfig).context
    reporter.note(f"the operator goes into the cluster of the context {context!r}")
    return Place(kubeconfig=kubeconfig, registry=target.registry)


def _apply_quickstart(checkout: Path, *, place: Place, clients: ClusterClients) -> tuple[str, str]:
    """Apply the example; where it has been trained already, ask for another run of it.

    Returns:
        The object's name and the `runID` to wait for.
    """
    manifest = yaml.safe_load((checkout / QUICKSTART).read_text())
    name = manifest["metadata"]["name"]
    try:
        there = clients.custom_objects.get_namespaced_custom_object(
            GROUP, VERSION, clients.namespace, PLURAL, name
        )
    except client.ApiException:
        there = None
    if there is not None:
        manifest["spec"]["runID"] = f"demo-{int(time.time())}"
    kubectl = resolve(["kubectl"], reporter=SilentReporter())["kubectl"]
    done = subprocess.run(
        [str(kubectl), "apply", "-f", "-"],
        input=yaml.safe_dump(manifest),
        env={**os.environ, "KUBECONFIG": str(place.kubeconfig)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise CliError(f"kubectl apply -f {QUICKSTART}: {done.stderr.strip()}")
    return name, manifest["spec"].get("runID", "1")


def _write_result(
    training_job: dict[str, Any], *, clients: ClusterClients, times: StepTimes, checkout: Path
) -> None:
    """Write build/demo/result.json: the figures of this very run."""
    status = training_job["status"]
    pods = clients.core.list_namespaced_pod(
        training_job["metadata"]["namespace"],
        label_selector=(
            f"{LABEL_UID}={training_job['metadata']['uid']},"
            f"{LABEL_RUN}={status['run']},{LABEL_ATTEMPT}={status['attempt']}"
        ),
    ).items
    rows = comparison(training_job)
    result = {
        "r2": rows[NET]["r2"],
        "r2_har": rows["har"]["r2"],
        "r2_persistence": rows["persistence"]["r2"],
        "r2_against_test_mean": rows[NET][STRICT_R2],
        "r2_har_against_test_mean": rows["har"][STRICT_R2],
        "r2_persistence_against_test_mean": rows["persistence"][STRICT_R2],
        "checkpoint": status["checkpoint"]["last"]["uri"],
        "pods": len(pods),
        "nodes": len({pod.spec.node_name for pod in pods}),
        "seconds_by_step": times.seconds,
    }
    path = checkout / RESULT_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n")
