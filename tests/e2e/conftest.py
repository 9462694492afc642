"""The cluster with real nodes, the operator installed on it, and the reference run.

Here: what every end-to-end test stands on, and making it whole after a fault. Never here:
faults themselves (`support.disruption`) or what must follow from them (the tests).
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from kubernetes import config

from cabildo_local import cluster as local
from cabildo_local.binaries import resolve
from cabildo_local.deploy import deploy_operator
from cabildo_local.reporter import LineReporter
from cabildo_local.settings import ClusterSettings
from support.audit_log import AuditLog
from support.clusters import CHECKOUT, local_cluster
from support.clusters import namespace as throw_away_namespace
from support.disruption import cordon, node_ready
from support.kube import NAMESPACES, NODES, Kube, Object
from support.outcome import Outcome, finish
from support.site import Site
from support.training_jobs import E2E_SPEC, TrainingRun, merged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

CLUSTER = os.environ.get("CLUSTER_NAME") or "cabildo"
FIRST_RUN_WITHIN_S = 600  # the nodes pull the trainer image


def _local_settings() -> ClusterSettings:
    return ClusterSettings(name=CLUSTER, nodes=2, checkout=CHECKOUT)


def _uninstall(kubeconfig: Path) -> None:
    """Remove the operator, so that this run's audit log holds a whole life of it."""
    helm = resolve(["helm"], reporter=LineReporter(sys.stderr))["helm"]
    command = [str(helm), "uninstall", "cabildo", "--namespace", "cabildo-system", "--wait"]
    command += ["--ignore-not-found"]
    environment = {**os.environ, "KUBECONFIG": str(kubeconfig)}
    subprocess.run(command, env=environment, check=True, capture_output=True)
    kube = Kube(kubeconfig)
    kube.delete(NAMESPACES, "cabildo-system")
    kube.wait(
        NAMESPACES, lambda seen: "cabildo-system" not in seen, within_s=60, what="namespace gone"
    )


def _developers_kubeconfig() -> Path:
    """Return the file (or the list of files) that kubectl would read."""
    return Path(os.environ.get("KUBECONFIG") or Path.home() / ".kube" / "config")


@contextmanager
def _developers_cluster() -> Iterator[Site]:
    registry = os.environ.get("REGISTRY")
    if not registry:
        pytest.exit("CLUSTER=kubeconfig needs REGISTRY=host:port, which the nodes pull from", 2)
    kubeconfig = _developers_kubeconfig()
    deployed = deploy_operator(
        kubeconfig=kubeconfig,
        registry=registry,
        checkout=CHECKOUT,
        reporter=LineReporter(sys.stderr),
    )
    yield Site(kube=Kube(kubeconfig), deployed=deployed, cluster=None, audit=None)


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    """The cluster with the operator of this checkout."""
    if os.environ.get("CLUSTER") == "kubeconfig":
        with _developers_cluster() as found:
            yield found
        return
    with local_cluster(CLUSTER, nodes=2) as cluster:
        _uninstall(cluster.kubeconfig)
        audit = AuditLog.from_now(cluster.audit_log)
        deployed = deploy_operator(
            kubeconfig=cluster.kubeconfig,
            registry=cluster.registry,
            checkout=CHECKOUT,
            reporter=LineReporter(sys.stderr),
        )
        kube = Kube(cluster.kubeconfig)
        for node in cluster.nodes:
            cordon(kube, node, value=False)
        yield Site(kube=kube, deployed=deployed, cluster=cluster, audit=audit)


@pytest.fixture
def disruptable(site: Site) -> Iterator[Site]:
    """The site, for tests that drain, cut or kill; made whole again afterwards."""
    if site.cluster is None:
        allowed = os.environ.get("ALLOW_DISRUPTION", "")
        _, current = config.list_kube_config_contexts(str(_developers_kubeconfig()))
        context = current["name"]
        if allowed != context:
            pytest.skip(f"breaks things in {context}: allow it with ALLOW_DISRUPTION={context}")
    # Of a developer's own cluster only what was open before is opened again.
    nodes = site.open_nodes() if site.cluster is None else site.worker_nodes()
    yield site
    _make_whole(site, nodes=nodes)


def _make_whole(site: Site, *, nodes: list[str]) -> None:
    """Links up, Node objects there, Ready and schedulable, an operator that leads."""
    if site.cluster is not None:
        for node in nodes:
            site.cluster.restore_link(node)
        if set(site.worker_nodes()) != set(nodes):
            local.up(_local_settings(), reporter=LineReporter(sys.stderr))

    def all_ready(seen: Mapping[str, Object]) -> bool:
        return all(node_ready(seen, node) for node in nodes)

    site.kube.wait(NODES, all_ready, within_s=120, what="all nodes are ready again")
    for node in nodes:
        cordon(site.kube, node, value=False)
    site.operator_pod(within_s=180)


@pytest.fixture
def namespace(site: Site, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace for one test, under the strictest Pod Security level."""
    with restricted_namespace(site.kube) as name:
        yield name


@contextmanager
def restricted_namespace(kube: Kube) -> Iterator[str]:
    """Make a namespace that enforces the `restricted` level; delete it afterwards."""
    with throw_away_namespace(kube, prefix="e2e") as name:
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        kube.patch(NAMESPACES, name, {"metadata": {"labels": labels}})
        yield name


@pytest.fixture
def train(site: Site, namespace: str) -> Callable[..., TrainingRun]:
    """A function that starts the tests' TrainingJob with changes to its spec."""

    def start(name: str = "net", **changes: Object) -> TrainingRun:
        spec = merged(E2E_SPEC, changes)
        return TrainingRun.start(site.kube, namespace=namespace, name=name, spec=spec)

    return start


@pytest.fixture(scope="session")
def reference(site: Site) -> Outcome:
    """The outcome of the tests' TrainingJob trained once without any fault."""
    site.local_cluster()
    with restricted_namespace(site.kube) as name:
        run = TrainingRun.start(site.kube, namespace=name, name="reference", spec=E2E_SPEC)
        status = finish(run, within_s=FIRST_RUN_WITHIN_S)
        assert status["restarts"] == 0
        assert status["attempt"] == 1
        outcome = Outcome.of(run)
        assert outcome.last_step == E2E_SPEC["limits"]["maxSteps"]
        run.delete()
    return outcome


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the comparison of used and granted verbs after everything else."""
    items.sort(key=lambda item: item.path.name == "test_rules_used.py")
