"""What can be read from outside: metrics, readiness, logs."""

import io
import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime

import aiohttp
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from cabildo_api.progress import ProgressReport
from cabildo_operator.kube.store import ObjectKey
from cabildo_operator.progress.board import Report
from cabildo_operator.reconcile.stores import Stores
from cabildo_operator.telemetry import logs
from cabildo_operator.telemetry.http import TelemetryServer
from cabildo_operator.telemetry.metrics import OperatorMetrics
from cabildo_operator.telemetry.objects import ObjectCollector
from cabildo_operator.work_queue import Key, WorkQueue
from support.fake_clock import FakeClock
from support.operator_objects import training_job
from support.operator_process import free_port

LABELS = {"namespace": "ns", "name": "job"}


def report(**detail: object) -> Report:
    body = {
        "trainerStatus": {
            "progressPercentage": 40,
            "estimatedRemainingSeconds": 95,
            "metrics": [{"name": "val_loss", "value": "0.25"}, {"name": "odd", "value": "?"}],
        },
        "cabildo": detail or None,
    }
    return Report(
        uid="uid-1",
        pod_uid="pod-1",
        run=1,
        attempt=2,
        received_at=datetime(2026, 1, 1, tzinfo=UTC),
        body=ProgressReport.model_validate(body),
    )


@pytest.fixture
def stores() -> Stores:
    return Stores()


@pytest.fixture
def registry(stores: Stores) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(ObjectCollector(stores))
    return registry


def test_every_phase_has_a_series_from_the_start(registry: CollectorRegistry) -> None:
    assert registry.get_sample_value("cabildo_trainingjobs", {"phase": "Failed"}) == 0.0


def test_values_come_from_the_status_and_then_from_the_newer_report(
    stores: Stores, registry: CollectorRegistry
) -> None:
    stores.training_jobs.upsert(
        training_job(phase="Running", restarts=1, progress={"percentage": 10, "loss": "0.5"})
    )
    assert registry.get_sample_value("cabildo_training_progress_ratio", LABELS) == 0.1
    assert registry.get_sample_value("cabildo_training_loss", LABELS) == 0.5
    assert registry.get_sample_value("cabildo_training_restarts", LABELS) == 1.0
    stores.reports.post(ObjectKey("ns", "job"), report=report(epoch=3, step=12, loss="nan"))
    assert registry.get_sample_value("cabildo_training_progress_ratio", LABELS) == 0.4
    assert registry.get_sample_value("cabildo_training_remaining_seconds", LABELS) == 95.0
    assert registry.get_sample_value("cabildo_training_step", LABELS) == 12.0
    assert registry.get_sample_value("cabildo_trainingjobs", {"phase": "Running"}) == 1.0


def test_what_the_trainer_measured_is_shown_and_in_the_end_the_result(
    stores: Stores, registry: CollectorRegistry
) -> None:
    name = "cabildo_training_metric"
    stores.training_jobs.upsert(training_job(phase="Running"))
    stores.reports.post(ObjectKey("ns", "job"), report=report())
    assert registry.get_sample_value(name, {**LABELS, "metric": "val_loss"}) == 0.25
    assert registry.get_sample_value(name, {**LABELS, "metric": "odd"}) is None
    result = {"metrics": [{"name": "test_r2", "value": "0.73"}]}
    stores.training_jobs.upsert(training_job(version=2, phase="Succeeded", result=result))
    assert registry.get_sample_value(name, {**LABELS, "metric": "test_r2"}) == 0.73
    assert registry.get_sample_value(name, {**LABELS, "metric": "val_loss"}) is None


def test_series_of_an_object_end_with_it(stores: Stores, registry: CollectorRegistry) -> None:
    stores.training_jobs.upsert(training_job(phase="Running", attempt=2))
    assert registry.get_sample_value("cabildo_training_attempt", LABELS) == 2.0
    stores.training_jobs.remove(("ns", "job"))
    assert registry.get_sample_value("cabildo_training_attempt", LABELS) is None


def test_a_report_without_our_own_part_still_counts(
    stores: Stores, registry: CollectorRegistry
) -> None:
    stores.training_jobs.upsert(training_job(progress={"loss": "not a number"}))
    assert registry.get_sample_value("cabildo_training_loss", LABELS) is None
    stores.reports.post(ObjectKey("ns", "job"), report=report())
    assert registry.get_sample_value("cabildo_training_progress_ratio", LABELS) == 0.4


async def test_queue_and_visits_are_told_in_controller_runtimes_shapes() -> None:
    registry, clock = CollectorRegistry(), FakeClock()
    metrics = OperatorMetrics(registry, controller="trainingjob", workers=8)
    queue = WorkQueue(clock=clock, observer=metrics)
    metrics.watch_queue(queue)
    key = Key("Kind", "ns", "a")
    queue.add(key)
    queue.add(Key("Kind", "ns", "b"))
    await queue.get()
    clock.advance(3.0)
    queue.retry(key)
    metrics.visited("Kind", "error", 0.1)
    metrics.requested("GET", 200, 0.01)
    name, controller = {"name": "trainingjob"}, {"controller": "trainingjob"}
    expected = [
        ("cabildo_workqueue_depth", name, 1.0),
        ("cabildo_workqueue_adds_total", name, 2.0),
        ("cabildo_workqueue_retries_total", name, 1.0),
        ("cabildo_workqueue_longest_running_processor_seconds", name, 3.0),
        ("cabildo_workqueue_queue_duration_seconds_count", name, 1.0),
        ("cabildo_active_workers", controller, 1.0),
        ("cabildo_max_concurrent_reconciles", controller, 8.0),
        ("cabildo_reconcile_total", {**controller, "result": "error"}, 1.0),
        ("cabildo_reconcile_total", {**controller, "result": "success"}, 0.0),
        ("cabildo_reconcile_errors_total", controller, 1.0),
        ("cabildo_rest_client_requests_total", {"method": "GET", "code": "200"}, 1.0),
        ("cabildo_rest_client_requests_total", {"method": "PATCH", "code": "409"}, 0.0),
        ("cabildo_rest_client_requests_total", {"method": "POST", "code": "0"}, 0.0),
        ("cabildo_rest_client_request_duration_seconds_count", {"method": "DELETE"}, 0.0),
    ]
    for metric, labels, value in expected:
        assert registry.get_sample_value(metric, labels) == value, metric
    queue.done(key)
    assert registry.get_sample_value("cabildo_workqueue_work_duration_seconds_sum", name) == 3.0
    assert b"# TYPE cabildo_workqueue_depth gauge" in generate_latest(registry)


async def test_readiness_says_why_not(registry: CollectorRegistry) -> None:
    why = ["not listed yet: Pod"]
    port = free_port()
    server = TelemetryServer(registry, unready=lambda: why[0])
    await server.start(host="127.0.0.1", port=port)
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
            async with session.get("/readyz") as answer:
                assert (answer.status, await answer.text()) == (503, "not listed yet: Pod\n")
            why[0] = ""
            async with session.get("/readyz") as answer:
                assert (answer.status, await answer.text()) == (200, "ok\n")
            async with session.get("/metrics") as answer:
                assert 'cabildo_trainingjobs{phase="Pending"} 0.0' in await answer.text()
    finally:
        await server.stop()
        await server.stop()


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield root
    root.handlers[:] = handlers
    root.setLevel(level)


def test_json_logs_are_one_object_a_line(root_logger: logging.Logger) -> None:
    stream = io.StringIO()
    logs.configure(log_format="json", level="INFO", stream=stream)
    log = logging.getLogger("cabildo_operator.test")
    log.debug("not shown")
    try:
        int("broken")
    except ValueError:
        log.exception("two\nlines of %s", "text")
    (line,) = stream.getvalue().splitlines()
    entry = json.loads(line)
    assert (entry["level"], entry["message"]) == ("error", "two\nlines of text")
    assert "ValueError: invalid literal" in entry["exception"]
    assert datetime.fromisoformat(entry["time"]).tzinfo is not None


def test_text_logs_are_for_people(root_logger: logging.Logger) -> None:
    stream = io.StringIO()
    logs.configure(log_format="text", level="WARNING", stream=stream)
    logging.getLogger("cabildo_operator.test").warning("careful")
    logging.getLogger("kopf.x").info("chatter")
    assert "WARNING cabildo_operator.test: careful" in stream.getvalue()
    assert "chatter" not in stream.getvalue()
