"""`cabildo follow NAME`: watch one TrainingJob to its end, then print its result.

Here: the watch, the progress bar, the exit status. The table of results is in
`result_table.py`. Everything is read from the object's status: what this command knows, any
client of the API server can know.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskProgressColumn, TextColumn
from rich.text import Text

from cabildo_api.names import GROUP, PLURAL, VERSION
from cabildo_cli.clients import ClusterClients, api_error_text
from cabildo_cli.errors import CliError
from cabildo_cli.result_table import print_result

if TYPE_CHECKING:
    from collections.abc import Iterator

GONE = 410
"""HTTP status of a watch whose resource version is too old: list again."""


class RunTimeColumn(ProgressColumn):
    """How long the run takes or took, by its own times: it may have begun long before we looked."""

    def render(self, task: Task) -> Text:
        """Return the time, or dashes before the run has started."""
        status = task.fields["status"]
        began, ended = status.get("startTime"), status.get("completionTime")
        if not began:
            return Text("-:--:--", style="progress.elapsed")
        started = datetime.fromisoformat(began)
        until = datetime.fromisoformat(ended) if ended else datetime.now(UTC)
        seconds = max(0, int((until - started).total_seconds()))
        return Text(str(timedelta(seconds=seconds)), style="progress.elapsed")


@click.command()
@click.argument("name")
@click.option("-n", "--namespace", default=None, help="Default: the context's namespace.")
@click.option("--timeout", "timeout_s", type=float, default=None, help="Give up after SECONDS.")
def follow(name: str, namespace: str | None, timeout_s: float | None) -> None:
    """Follow the TrainingJob NAME until it has finished and print its result.

    The exit status is 0 when it succeeded and 1 when it failed.
    """
    clients = ClusterClients.from_environment()
    console = Console()
    training_job = follow_training_job(
        clients,
        name=name,
        namespace=namespace or clients.namespace,
        console=console,
        timeout_s=timeout_s,
    )
    print_result(training_job, console=console)
    sys.exit(0 if is_true(training_job, "Succeeded") else 1)


def follow_training_job(
    clients: ClusterClients,
    *,
    name: str,
    namespace: str,
    console: Console,
    run_id: str | None = None,
    timeout_s: float | None = None,
) -> dict[str, Any]:
    """Show a progress bar until the TrainingJob's condition Finished is true.

    Args:
        clients: How to reach the cluster.
        name: The TrainingJob.
        namespace: Its namespace.
        console: Where the bar is drawn.
        run_id: Wait for this run's end; by default for that of the run the object names.
        timeout_s: Give up after so many seconds; by default never.

    Returns:
        The object as it was when it had finished.

    Raises:
        CliError: There is no such object, it was deleted, or time ran out.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=32),
        TaskProgressColumn(),
        TextColumn("{task.fields[detail]}"),
        RunTimeColumn(),
    )
    last_line = ""
    with Progress(*columns, console=console, transient=False) as bar:
        task = bar.add_task(f"{name} ...", total=100, detail="", status={})
        for training_job in _versions(clients, name=name, namespace=namespace, timeout_s=timeout_s):
            percentage = _progress(training_job).get("percentage", 0)
            phase = training_job.get("status", {}).get("phase", "Pending")
            bar.update(
                task,
                completed=percentage,
                description=f"{name} {phase}",
                detail=_detail(training_job),
                status=training_job.get("status", {}),
            )
            line = _reason_line(training_job)
            if line and line != last_line:
                bar.console.print(f"  {line}", highlight=False)
                last_line = line
            wanted = run_id or training_job["spec"].get("runID", "1")
            if is_finished(training_job) and training_job["status"].get("runID") == wanted:
                return training_job
    raise CliError(
        f"TrainingJob {namespace}/{name} had not finished after {timeout_s} s",
        remedy=f"Look at it with: kubectl describe trainingjob -n {namespace} {name}",
    )


def is_true(training_job: dict[str, Any], condition_type: str) -> bool:
    """Tell whether a condition of the object is true."""
    return any(
        condition["type"] == condition_type and condition["status"] == "True"
        for condition in training_job.get("status", {}).get("conditions", [])
    )


def is_finished(training_job: dict[str, Any]) -> bool:
    """Tell whether the status is about today's spec and says that the run has ended."""
    status = training_job.get("status", {})
    up_to_date = status.get("observedGeneration", 0) >= training_job["metadata"]["generation"]
    return up_to_date and is_true(training_job, "Finished")


def _versions(
    clients: ClusterClients, *, name: str, namespace: str, timeout_s: float | None
) -> Iterator[dict[str, Any]]:
    """Yield the object now and after every change, until `timeout_s` is over."""
    from kubernetes import client, watch  # noqa: PLC0415  (0.3 s that `--help` need not pay)

    deadline = clients.deadline(timeout_s)
    arguments = {"group": GROUP, "version": VERSION, "namespace": namespace, "plural": PLURAL}
    while not deadline.is_over():
        try:
            current = clients.custom_objects.get_namespaced_custom_object(**arguments, name=name)
        except client.ApiException as error:
            raise CliError(
                f"TrainingJob {namespace}/{name} cannot be read: {api_error_text(error)}",
                remedy=f"List what there is with: kubectl get trainingjobs -n {namespace}",
            ) from error
        yield current
        try:
            for event in watch.Watch().stream(
                clients.custom_objects.list_namespaced_custom_object,
                **arguments,
                field_selector=f"metadata.name={name}",
                resource_version=current["metadata"]["resourceVersion"],
                timeout_seconds=deadline.remaining_s(at_most=60),
            ):
                if event["type"] == "DELETED":
                    raise CliError(f"TrainingJob {namespace}/{name} was deleted")
                yield event["object"]
        except client.ApiException as error:
            if error.status != GONE:
                raise CliError(f"the watch ended: {api_error_text(error)}") from error


def _progress(training_job: dict[str, Any]) -> dict[str, Any]:
    progress: dict[str, Any] = training_job.get("status", {}).get("progress", {})
    return progress


def _detail(training_job: dict[str, Any]) -> str:
    """Return the words right of the bar: epoch, step, loss, time left."""
    progress = _progress(training_job)
    parts = []
    if "epoch" in progress:
        parts.append(f"epoch {progress['epoch']}")
    if "step" in progress:
        parts.append(f"step {progress['step']}/{progress.get('totalSteps', '?')}")
    if progress.get("loss"):
        parts.append(f"loss {float(progress['loss']):.4g}")
    if progress.get("etaSeconds") is not None and not is_true(training_job, "Finished"):
        parts.append(f"{progress['etaSeconds']} s left")
    return ", ".join(parts)


def _reason_line(training_job: dict[str, Any]) -> str:
    """Return reason and message of the condition that tells why the phase is what it is."""
    conditions = {
        condition["type"]: condition
        for condition in training_job.get("status", {}).get("conditions", [])
    }
    for kind in ("Failed", "Stalled", "Suspended", "Succeeded"):
        if conditions.get(kind, {}).get("status") == "True":
            return f"{conditions[kind]['reason']}: {conditions[kind]['message']}"
    running = conditions.get("Running")
    return f"{running['reason']}: {running['message']}" if running else ""
