"""The operator as a process of this machine, against a real API server.

Here: starting `python -m cabildo_operator`, waiting until it leads, stopping and killing
it. Never here: the operator's inside; the tests see it through the API server, its probes
and its metrics. Under `coverage run` the child is measured too (root pyproject, `patch`).
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from support.kube import LEASES, Kube

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from support.clusters import OperatorIdentity

LEASE = "cabildo-leader"
STOP_WITHIN_S = 30


def free_port() -> int:
    """Return a TCP port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(slots=True)
class OperatorProcess:
    """One operator on this machine.

    Attributes:
        identity: Whose rights it has.
        pod_name: Its identity in the Lease.
        log: Where it writes.
        environment: Settings beyond the defaults, such as `CABILDO_EXIT_AFTER_WRITES`.
    """

    identity: OperatorIdentity
    pod_name: str
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    metrics_port: int = field(default_factory=free_port)
    probe_port: int = field(default_factory=free_port)
    progress_port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    def start(self, **extra: str) -> None:
        """Start it; further settings hold for this start only."""
        settings = {
            "KUBECONFIG": str(self.identity.kubeconfig),
            "CABILDO_NAMESPACE": self.identity.namespace,
            "CABILDO_POD_NAME": self.pod_name,
            "CABILDO_TRAINER_IMAGE": "registry.invalid/cabildo/trainer:tests",
            "CABILDO_PROGRESS_SERVICE": "cabildo-progress",
            "CABILDO_LEASE_NAME": LEASE,
            "CABILDO_CERTIFICATE_SECRET": "cabildo-certificates",
            "CABILDO_METRICS_PORT": str(self.metrics_port),
            "CABILDO_PROBE_PORT": str(self.probe_port),
            "CABILDO_PROGRESS_PORT": str(self.progress_port),
            "CABILDO_LOG_LEVEL": "INFO",
            **self.environment,
            **extra,
        }
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "cabildo_operator"],
                env={**os.environ, **settings},
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def wait_leading(self, kube: Kube, *, within_s: float = 45) -> None:
        """Wait until it holds the Lease."""

        def holds(seen: Mapping[str, dict[str, object]]) -> bool:
            self.check_alive()
            spec = seen.get(LEASE, {}).get("spec", {})
            return isinstance(spec, dict) and spec.get("holderIdentity") == self.pod_name

        kube.wait(
            LEASES,
            holds,
            namespace=self.identity.namespace,
            within_s=within_s,
            what=f"{self.pod_name} leads; its log: {self.log}",
        )

    def check_alive(self) -> None:
        """Fail with the log's end when the process has ended."""
        assert self.process is not None, "the operator was not started"
        code = self.process.poll()
        assert code is None, f"the operator ended with {code}:\n{self.log.read_text()[-4000:]}"

    def wait_ended(self, *, within_s: float) -> int:
        """Wait until the process ends by itself, and return its exit status."""
        assert self.process is not None
        return self.process.wait(timeout=within_s)

    def kill(self) -> None:
        """Kill -9."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def stop(self) -> int:
        """Send SIGTERM as a kubelet does, wait, and return the exit status."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout=STOP_WITHIN_S)
            except subprocess.TimeoutExpired:
                self.kill()
        return int(self.process.returncode)

    def metrics(self) -> str:
        """Return what Prometheus would read."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics") as answer:
            return str(answer.read().decode())

    def cpu_seconds(self) -> float:
        """Return the CPU time used so far, user and system."""
        assert self.process is not None
        with open(f"/proc/{self.process.pid}/stat") as file:  # noqa: PTH123 - a kernel file
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def running_operator(
    kube: Kube,
    *,
    identity: OperatorIdentity,
    folder: Path,
    name: str = "operator-0",
    environment: Mapping[str, str] | None = None,
) -> Iterator[OperatorProcess]:
    """Run an operator until the context ends; it leads when the body starts."""
    operator = OperatorProcess(
        identity=identity,
        pod_name=name,
        log=folder / f"{name}.log",
        environment=dict(environment or {}),
    )
    operator.start()
    try:
        operator.wait_leading(kube)
        yield operator
    finally:
        operator.stop()
