"""Fixtures that more than one folder of tests needs.

Here: the control-plane-only cluster of `tests/cluster` and the operator on this machine.
Never here: imports of what unit tests do not need; every fixture imports when it is used.
The clusters with real nodes are made in `tests/e2e/conftest.py`.
"""

# ruff: noqa: PLC0415 - unit tests must not pay for imports of the cluster tests
from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.skips import pytest_runtest_makereport  # noqa: F401 - a hook, taken over by its name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cabildo_local.cluster import Cluster
    from support.clusters import OperatorIdentity
    from support.kube import Kube
    from support.operator_process import OperatorProcess

CONTROL_PLANE = "cabildo-test-cp"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by the folder they lie in."""
    here = Path(__file__).parent
    for item in items:
        folder = item.path.relative_to(here).parts[0]
        if folder in ("cluster", "e2e", "long"):
            item.add_marker(getattr(pytest.mark, folder))


@pytest.fixture(scope="session")
def control_plane() -> Iterator[Cluster]:
    """A real API server with its controllers and no node; the CRDs are applied."""
    from support.clusters import apply_crds, local_cluster
    from support.kube import Kube

    name = os.environ.get("CABILDO_TEST_CLUSTER", CONTROL_PLANE)
    with local_cluster(name, nodes=0) as cluster:
        apply_crds(Kube(cluster.kubeconfig))
        yield cluster


@pytest.fixture(scope="session")
def kubeconfig(control_plane: Cluster) -> Path:
    """The admin kubeconfig of the control-plane-only cluster."""
    return control_plane.kubeconfig


@pytest.fixture(scope="session")
def kube(kubeconfig: Path) -> Kube:
    """A JSON client for the control-plane-only cluster."""
    from support.kube import Kube

    return Kube(kubeconfig)


@pytest.fixture
def namespace(kube: Kube) -> Iterator[str]:
    """A namespace of the control-plane-only cluster for one test."""
    from support.clusters import namespace

    with namespace(kube, prefix="test") as name:
        yield name


@pytest.fixture
def operator_identity(kube: Kube, tmp_path: Path) -> Iterator[OperatorIdentity]:
    """The operator's ServiceAccount in a namespace of its own, with the chart's rules."""
    from support.clusters import namespace, operator_identity

    with namespace(kube, prefix="system") as name:
        yield operator_identity(kube, namespace=name, folder=tmp_path)


@pytest.fixture
def start_operator(
    kube: Kube, operator_identity: OperatorIdentity, tmp_path: Path
) -> Iterator[Callable[..., OperatorProcess]]:
    """A function that starts an operator process; all are stopped after the test.

    `start_operator(name, **settings)` returns at once; `wait_leading(kube)` waits.
    """
    from support.operator_process import OperatorProcess

    started: list[OperatorProcess] = []

    def start(name: str = "operator-0", **settings: str) -> OperatorProcess:
        one = OperatorProcess(
            identity=operator_identity, pod_name=name, log=tmp_path / f"{name}.log"
        )
        started.append(one)
        one.start(**settings)
        return one

    yield start
    for one in started:
        one.stop()


@pytest.fixture
def operator(kube: Kube, start_operator: Callable[..., OperatorProcess]) -> OperatorProcess:
    """One operator process that leads."""
    one = start_operator()
    one.wait_leading(kube)
    return one
