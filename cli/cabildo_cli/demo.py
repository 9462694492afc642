"""`cabildo demo`: from nothing to a trained model in two real pods, in one command.

Here: the order of the steps and the result file. Each step is somebody else's: the cluster and
the images are `cabildo_local`'s, the progress bar is `follow`'s, the training is the operator's.
Needs a checkout, as the local cluster does.
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
from typing import TYPE_CHECKING, Any

import click
import yaml
from rich.console import Console

from cabildo_api.names import GROUP, LABEL_ATTEMPT, LABEL_RUN, LABEL_UID, PLURAL, VERSION
from cabildo_cli.checkout import find_checkout
from cabildo_cli.clients import DEFAULT_KUBECONFIG, ClusterClients
from cabildo_cli.errors import CliError
from cabildo_cli.follow import follow_training_job, is_true
from cabildo_cli.result_table import NET, comparison, print_result

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cabildo_local.reporter import Reporter

QUICKSTART = Path("examples") / "quickstart.yaml"
RESULT_FILE = Path("build") / "demo" / "result.json"
TRAINING_TIMEOUT_S = 1800.0


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


@click.command()
@click.option(
    "--cluster",
    type=click.Choice(["local", "kubeconfig"]),
    default="local",
    envvar="CLUSTER",
    show_default=True,
    help="The local cluster, brought up when it is not, or the one KUBECONFIG names.",
)
@click.option("--cluster-name", default="cabildo", envvar="CLUSTER_NAME", show_default=True)
@click.option("--registry", default="", envvar="REGISTRY", help="With --cluster kubeconfig.")
def demo(cluster: str, cluster_name: str, registry: str) -> None:
    """Train examples/quickstart.yaml in two pods on two nodes and print the result."""
    from cabildo_local.errors import LocalClusterError  # noqa: PLC0415  (absent outside a checkout)

    checkout = find_checkout()
    console = Console()
    times = StepTimes()
    try:
        place = _bring_up(
            cluster, name=cluster_name, registry=registry, checkout=checkout, times=times
        )
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
        f"written to {RESULT_FILE}; the cluster stays up: "
        f"export KUBECONFIG={place.kubeconfig}, or `make cluster-down`",
        soft_wrap=True,
        highlight=False,
    )


def _bring_up(cluster: str, *, name: str, registry: str, checkout: Path, times: StepTimes) -> Place:
    """Have a cluster with the operator of this checkout in it; images build beside it."""
    from cabildo_local.deploy import (  # noqa: PLC0415  (absent outside a checkout)
        build_images,
        install_chart,
        push_images,
    )
    from cabildo_local.packages import ensure_packages  # noqa: PLC0415
    from cabildo_local.reporter import LineReporter  # noqa: PLC0415

    reporter = LineReporter(sys.stderr)
    with times.measure("packages"):
        ensure_packages(reporter=reporter)
    with ThreadPoolExecutor(max_workers=1) as beside:

        def build_timed() -> Any:
            with times.measure("images"):
                return build_images(checkout=checkout, reporter=reporter)

        images = beside.submit(build_timed)
        with times.measure("cluster"):
            place = _place(
                cluster, name=name, registry=registry, checkout=checkout, reporter=reporter
            )
        built = images.result()
    with times.measure("push"):
        pushed = push_images(built, registry=place.registry, reporter=reporter)
    with times.measure("operator"):
        install_chart(pushed, kubeconfig=place.kubeconfig, checkout=checkout, reporter=reporter)
    return place


def _place(cluster: str, *, name: str, registry: str, checkout: Path, reporter: Reporter) -> Place:
    if cluster == "kubeconfig":
        if not registry:
            raise CliError(
                "--cluster kubeconfig needs a registry that the cluster's nodes can pull from",
                remedy="Give REGISTRY=host:port",
            )
        kubeconfig = Path(os.environ.get("KUBECONFIG") or Path(DEFAULT_KUBECONFIG).expanduser())
        context = ClusterClients.from_kubeconfig(kubeconfig).context
        reporter.note(f"the operator goes into the cluster of the context {context!r}")
        return Place(kubeconfig=kubeconfig, registry=registry)
    from cabildo_local.cluster import up  # noqa: PLC0415
    from cabildo_local.settings import ClusterSettings  # noqa: PLC0415

    running = up(ClusterSettings(name=name, checkout=checkout), reporter=reporter)
    return Place(kubeconfig=running.kubeconfig, registry=running.registry)


def _apply_quickstart(checkout: Path, *, place: Place, clients: ClusterClients) -> tuple[str, str]:
    """Apply the example; where it has been trained already, ask for another run of it.

    Returns:
        The object's name and the `runID` to wait for.
    """
    from kubernetes import client  # noqa: PLC0415

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
    from cabildo_local.binaries import resolve  # noqa: PLC0415
    from cabildo_local.reporter import SilentReporter  # noqa: PLC0415

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
        "checkpoint": status["checkpoint"]["last"]["uri"],
        "pods": len(pods),
        "nodes": len({pod.spec.node_name for pod in pods}),
        "seconds_by_step": times.seconds,
    }
    path = checkout / RESULT_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n")
