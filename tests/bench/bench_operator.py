"""How fast and how cheaply the operator turns TrainingJobs into Jobs.

    python tests/bench/bench_operator.py [--jobs 500] [--rate 50]

One control plane with KWOK nodes, two phases on the same server:

1. `bare-client`: a plain client creates the Jobs and Services (and claims) themselves.
2. The operator, a process of this machine with the chart's own rules: another client
   creates as many TrainingJobs at the same rate, and the operator makes the rest.

Latency is from the moment a client sends its first request for an item to the moment a
watch shows the item's Job. Writes are read from the API server's audit log. Figures go to
`build/bench/operator.json`; nothing is asserted.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from report import Row, table, write

from support.audit_log import AuditLog
from support.clusters import CHECKOUT, apply_crds, local_cluster, namespace, operator_identity
from support.kube import CLAIMS, JOBS, SERVICES, TRAINING_JOBS, Kube, NotInTimeError, Object
from support.operator_process import OperatorProcess, running_operator
from support.training_jobs import E2E_SPEC, condition, merged, training_job

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

CLIENT = Path(__file__).with_name("paced_client.py")
CLUSTER = "cabildo-bench"
STEADY_S = 60.0
SETTLE_WITHIN_S = 300.0
POOLS = {"pools": [{"name": "bench", "count": 40, "resources": {"cpu": "64", "memory": "256Gi"}}]}


@dataclass(slots=True)
class JobWatch:
    """Notes when the Job of each item was first seen, from a thread of its own.

    Attributes:
        kube: The client.
        namespace: Whose Jobs.
        seen_at: Seconds since the epoch by the Job's name.
    """

    kube: Kube
    namespace: str
    seen_at: dict[str, float] = field(default_factory=dict)

    def start(self, *, until: int, within_s: float) -> threading.Thread:
        """Watch until so many Jobs were seen."""

        def note(state: Mapping[str, Object]) -> bool:
            now = time.time()
            for name in state.keys() - self.seen_at.keys():
                self.seen_at[name] = now
            return len(self.seen_at) >= until

        thread = threading.Thread(
            target=self.kube.wait,
            args=(JOBS, note),
            kwargs={"namespace": self.namespace, "within_s": within_s, "what": f"{until} Jobs"},
        )
        thread.start()
        return thread


@dataclass(frozen=True, slots=True)
class Phase:
    """What one phase measured.

    Attributes:
        latencies_s: Sorted, one an item.
        cpu_s: CPU time of the process that made the Jobs.
        writes: Mutating requests it made, without Lease and Events.
        events: Requests about Events.
    """

    latencies_s: list[float]
    cpu_s: float
    writes: int
    events: int
    steady_writes_per_minute: float = 0.0

    def percentile(self, share: float) -> float:
        """Return the latency that this share of the items stayed within."""
        return self.latencies_s[min(len(self.latencies_s) - 1, int(share * len(self.latencies_s)))]


def count_writes(log: AuditLog, *, user: str) -> tuple[int, int]:
    """Return the user's successful writes since the last reading, and those of Events apart."""
    writes = events = 0
    for entry in log.read(user=user):
        if entry.is_write and entry.code < 400 and entry.resource != "leases":
            if entry.resource == "events":
                events += 1
            elif entry.group != "authentication.k8s.io":
                writes += 1
    return writes, events


def run_client(kubeconfig: Path, *, items: list[Object], rate_per_s: float) -> Object:
    """Create the items at a steady rate from a process of its own; return its report."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump({"rate_per_s": rate_per_s, "items": items}, file)
        file.flush()
        done = subprocess.run(
            [
                sys.executable,
                str(Path(__file__).with_name("paced_client.py")),
                kubeconfig,
                file.name,
            ],
            env={**os.environ, "PYTHONPATH": str(CHECKOUT / "tests")},
            stdout=subprocess.PIPE,
            check=True,
        )
    return dict(json.loads(done.stdout))


def latencies(sent_at: Mapping[str, float], *, seen_at: Mapping[str, float]) -> list[float]:
    """Return the time from sending an item to seeing its Job, sorted."""
    return sorted(seen_at[f"{name}-r1-a1"] - sent for name, sent in sent_at.items())


def settle(kube: Kube, *, namespace: str, count: int) -> None:
    """Wait until every TrainingJob runs."""

    def all_run(seen: Mapping[str, Object]) -> bool:
        running = sum(
            condition(one.get("status", {}), "Running").get("status") == "True"
            for one in seen.values()
        )
        return running >= count

    # Asked once a second: judging 500 objects after each of thousands of events would
    # itself load the machine that is measured.
    deadline = time.monotonic() + SETTLE_WITHIN_S
    while not all_run(
        {one["metadata"]["name"]: one for one in kube.list(TRAINING_JOBS, namespace=namespace)}
    ):
        if time.monotonic() > deadline:
            msg = f"not all of {count} TrainingJobs run within {SETTLE_WITHIN_S:.0f} s"
            raise NotInTimeError(msg)
        time.sleep(1.0)


def operator_phase(
    kube: Kube,
    *,
    operator: OperatorProcess,
    audit: AuditLog,
    namespace: str,
    jobs: int,
    rate_per_s: float,
) -> Phase:
    """Create TrainingJobs and measure the operator until all run, then at rest."""
    path = TRAINING_JOBS.path(namespace=namespace)
    items = [
        {"name": name, "objects": [{"path": path, "body": training_job(name, spec=spec())}]}
        for name in (f"job-{number}" for number in range(jobs))
    ]
    user = operator.identity.user
    count_writes(audit, user=user)
    cpu_before_s = operator.cpu_seconds()
    watch = JobWatch(kube=kube, namespace=namespace)
    thread = watch.start(until=jobs, within_s=SETTLE_WITHIN_S)
    sent = run_client(kube.kubeconfig, items=items, rate_per_s=rate_per_s)
    thread.join()
    settle(kube, namespace=namespace, count=jobs)
    cpu_s = operator.cpu_seconds() - cpu_before_s
    writes, events = count_writes(audit, user=user)
    time.sleep(STEADY_S)
    steady, _ = count_writes(audit, user=user)
    return Phase(
        latencies_s=latencies(sent["sent_at"], seen_at=watch.seen_at),
        cpu_s=cpu_s,
        writes=writes,
        events=events,
        steady_writes_per_minute=steady * 60.0 / STEADY_S,
    )


def bare_phase(
    kube: Kube, *, children: list[tuple[str, Object]], namespace: str, jobs: int, rate_per_s: float
) -> Phase:
    """Create the same children by a plain client, without any operator."""
    items = []
    for number in range(jobs):
        name = f"job-{number}"
        objects = [
            {"path": path, "body": renamed(body, old="sample", new=name)} for path, body in children
        ]
        items.append({"name": name, "objects": objects})
    watch = JobWatch(kube=kube, namespace=namespace)
    thread = watch.start(until=jobs, within_s=SETTLE_WITHIN_S)
    sent = run_client(kube.kubeconfig, items=items, rate_per_s=rate_per_s)
    thread.join()
    return Phase(
        latencies_s=latencies(sent["sent_at"], seen_at=watch.seen_at),
        cpu_s=sent["cpu_s"],
        writes=jobs * len(children),
        events=0,
    )


def spec() -> Object:
    """Return the spec of the benchmark's TrainingJobs: two pods that KWOK plays."""
    return merged(E2E_SPEC, {"nodes": 2})


def sample_children(kube: Kube, *, namespace: str, into: str) -> list[tuple[str, Object]]:
    """Let the operator render one TrainingJob, and return its children, to be copied.

    The copies carry no label of ours, so that the operator does not see them.

    Args:
        kube: The client.
        namespace: Where the sample is made.
        into: The namespace the copies are meant for.
    """
    body = training_job("sample", spec=spec())
    kube.create(TRAINING_JOBS, body, namespace=namespace)
    settle(kube, namespace=namespace, count=1)
    names = ((CLAIMS, "sample-checkpoints"), (SERVICES, "sample"), (JOBS, "sample-r1-a1"))
    out = []
    for resource, name in names:
        found = kube.get(resource, name, namespace=namespace)
        assert found is not None, f"the sample has no {resource.plural} {name}"
        out.append((resource.path(namespace=into), bare(found)))
    kube.delete(TRAINING_JOBS, "sample", namespace=namespace)
    return out


def bare(found: Object) -> Object:
    """Return an object as a client would send it: no owner, no status, nothing defaulted in."""
    copy = {key: value for key, value in found.items() if key != "status"}
    copy["metadata"] = {"name": found["metadata"]["name"]}
    copy["spec"] = dict(found["spec"])
    for field_name in ("clusterIP", "clusterIPs", "volumeName"):
        copy["spec"].pop(field_name, None)
    if found["kind"] == "Service":
        copy["spec"]["clusterIP"] = "None"
    if found["kind"] == "Job":
        copy["spec"].pop("selector", None)
        template = copy["spec"]["template"]
        template["metadata"] = {"annotations": template["metadata"].get("annotations", {})}
    return copy


def renamed(body: Object, *, old: str, new: str) -> Object:
    """Return a copy under another name, references included."""
    return dict(json.loads(json.dumps(body).replace(f'"{old}', f'"{new}')))


def rows(ours: Phase, *, bare_client: Phase, jobs: int) -> list[Row]:
    """Return the figures by name."""
    name = "bare-client"

    def row(case: str, unit: str, get: object) -> Row:
        assert callable(get)
        return Row(case, round(get(ours), 4), unit, round(get(bare_client), 4), name)

    return [
        row("create_to_job_p50_s", "s", lambda phase: phase.percentile(0.5)),
        row("create_to_job_p99_s", "s", lambda phase: phase.percentile(0.99)),
        row("cpu_ms_per_job", "ms", lambda phase: phase.cpu_s * 1000 / jobs),
        row("writes_per_job", "requests", lambda phase: phase.writes / jobs),
        Row("events_per_job", ours.events / jobs, "requests"),
        Row("steady_writes_per_minute", ours.steady_writes_per_minute, "requests/min"),
    ]


def measure(*, jobs: int, rate_per_s: float) -> list[Row]:
    """Bring everything up, run both phases, take everything down."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        pools = folder / "pools.yaml"
        pools.write_text(yaml.safe_dump(POOLS))
        cluster = stack.enter_context(local_cluster(CLUSTER, nodes=0, fake_nodes=pools))
        kube = Kube(cluster.kubeconfig)
        apply_crds(kube)
        system = stack.enter_context(namespace(kube, prefix="system"))
        identity = operator_identity(kube, namespace=system, folder=folder)
        ours_in = stack.enter_context(namespace(kube, prefix="ours"))
        bare_in = stack.enter_context(namespace(kube, prefix="bare"))
        sample_in = stack.enter_context(namespace(kube, prefix="sample"))
        with running_operator(kube, identity=identity, folder=folder):
            children = sample_children(kube, namespace=sample_in, into=bare_in)
        bare_client = bare_phase(
            kube, children=children, namespace=bare_in, jobs=jobs, rate_per_s=rate_per_s
        )
        audit = AuditLog.from_now(cluster.audit_log)
        with running_operator(kube, identity=identity, folder=folder, name="op-1") as operator:
            ours = operator_phase(
                kube,
                operator=operator,
                audit=audit,
                namespace=ours_in,
                jobs=jobs,
                rate_per_s=rate_per_s,
            )
    return rows(ours, bare_client=bare_client, jobs=jobs)


def main(arguments: Iterable[str] | None = None) -> None:
    """Measure, print the table, write the file."""
    parser = argparse.ArgumentParser(description="Measure the operator against a bare client.")
    parser.add_argument("--jobs", type=int, default=500)
    parser.add_argument("--rate", type=float, default=50.0, help="TrainingJobs a second")
    parser.add_argument("--out", type=Path, default=CHECKOUT / "build" / "bench" / "operator.json")
    given = parser.parse_args(None if arguments is None else list(arguments))
    figures = measure(jobs=given.jobs, rate_per_s=given.rate)
    print(f"{given.jobs} TrainingJobs at {given.rate:g} a second")
    print(table(figures))
    write("operator", command="make bench-operator", rows=figures, file=given.out)


if __name__ == "__main__":
    main()
