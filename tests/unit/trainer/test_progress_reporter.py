"""Progress goes out in Kubeflow Trainer's wire format, and never holds up training."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from cabildo_api.progress import Directive, ProgressReport, TrainerPhase
from cabildo_api.result import Outcome, Result
from cabildo_trainer.report.progress import ProgressReporter
from cabildo_trainer.report.record import RunRecord
from cabildo_trainer.report.termination import write_termination_message
from cabildo_trainer.settings import ProgressEndpoint
from support.trainer_ranks import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Server(ThreadingHTTPServer):
    """Keeps what was posted; `gate` holds answers back, `status` and `body` are the answer."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.posts: list[tuple[str, str | None, dict[str, Any]]] = []
        self.arrived = threading.Semaphore(0)
        self.gate = threading.Event()
        self.gate.set()
        self.status, self.body = 200, b'{"directive": "none"}'


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.posts.append((self.path, self.headers["Authorization"], body))
        self.server.arrived.release()
        self.server.gate.wait()
        self.send_response(self.server.status)
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, *_args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield made
        made.gate.set()
        made.shutdown()
        thread.join()


def endpoint(server: Server, *, token_file: str = "") -> ProgressEndpoint:
    return ProgressEndpoint(
        url=f"http://127.0.0.1:{server.server_port}/status", ca_file="", token_file=token_file
    )


def record(**values: Any) -> RunRecord:
    return RunRecord(run=1, attempt=2, **values)


def test_a_report_has_the_wire_format_and_the_renewed_token(server: Server, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    reporter = ProgressReporter(endpoint(server, token_file=str(token)), interval_s=0.0)
    now = record(
        step=10, total_steps=40, epoch=1, loss=0.25, step_s=0.5, phase=TrainerPhase.TRAINING
    )
    now.metrics = {"val_loss": 0.5}
    reporter.publish(now)
    assert server.arrived.acquire(timeout=10)
    token.write_text("second\n")
    reporter.publish(now)
    assert server.arrived.acquire(timeout=10)
    (path, first, body), (_, second, _) = server.posts
    assert (path, first, second) == ("/status", "Bearer first", "Bearer second")
    status = body["trainerStatus"]
    assert status["progressPercentage"] == 25
    assert status["estimatedRemainingSeconds"] == 15
    assert status["metrics"] == [{"name": "val_loss", "value": "0.5"}]
    assert body["cabildo"]["loss"] == "0.25"
    ProgressReport.model_validate(body)


def test_mere_steps_are_reported_every_few_seconds_only(server: Server) -> None:
    reporter = ProgressReporter(endpoint(server), interval_s=0.0)
    now = record(step=1)
    reporter.publish(now)
    assert server.arrived.acquire(timeout=10)
    for step in range(2, 50):
        now.step = step
        reporter.publish(now, urgent=False)
    reporter.publish(now)
    reporter.close(timeout_s=10)
    assert [body["cabildo"]["step"] for _, _, body in server.posts] == [1, 49]


def test_the_operators_directive_is_taken_once(server: Server) -> None:
    server.body = b'{"directive": "checkpoint"}'
    reporter = ProgressReporter(endpoint(server), interval_s=0.0)
    reporter.publish(record())
    reporter.close(timeout_s=10)
    assert reporter.take_directive() is Directive.CHECKPOINT
    assert reporter.take_directive() is Directive.NONE


def test_a_slow_server_holds_up_nothing_and_gets_the_newest_report(server: Server) -> None:
    server.gate.clear()
    reporter = ProgressReporter(endpoint(server), interval_s=0.0)
    now = record(step=1)
    reporter.publish(now)
    assert server.arrived.acquire(timeout=10)
    for step in range(2, 1000):
        now.step = step
        reporter.publish(now)
    server.gate.set()
    reporter.close(timeout_s=10)
    assert [body["cabildo"]["step"] for _, _, body in server.posts] == [1, 999]


def test_closing_gives_up_on_a_server_that_does_not_answer(server: Server) -> None:
    server.gate.clear()
    reporter = ProgressReporter(endpoint(server), interval_s=0.0)
    reporter.publish(record())
    assert server.arrived.acquire(timeout=10)
    began = time.monotonic()
    reporter.close(timeout_s=0.2)
    assert time.monotonic() - began < 4


def test_refusals_are_told_once_and_end_nothing(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    server.status = 403
    reporter = ProgressReporter(endpoint(server), interval_s=0.0)
    for _ in range(3):
        reporter.publish(record())
        assert server.arrived.acquire(timeout=10)
    reporter.close(timeout_s=10)
    assert capsys.readouterr().err.count("progress could not be reported: HTTPError") == 1


def test_a_server_that_is_not_there_ends_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    nowhere = ProgressEndpoint(url="https://127.0.0.1:1/status", ca_file="/none.pem", token_file="")
    reporter = ProgressReporter(nowhere, interval_s=0.0)
    reporter.publish(record())
    reporter.close(timeout_s=10)
    assert "FileNotFoundError" in capsys.readouterr().err


def test_no_fault_ends_the_thread(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    reporter = ProgressReporter(endpoint(server), interval_s=0.0)
    broken = record(total_steps="many", step=1)
    reporter.publish(broken)
    until(lambda: reporter._complained != "")
    assert "TypeError" in capsys.readouterr().err
    reporter.publish(record())
    assert server.arrived.acquire(timeout=10)


def test_many_damaged_checkpoints_and_long_reasons_fit_into_a_report() -> None:
    now = record(corrupt=[(f"step-{number}.corrupt", "r" * 5000) for number in range(50)])
    assert len(now.progress().to_object()["cabildo"]["corruptCheckpoints"]) == 8
    result = now.result(Outcome.FAILED, exit_code=65, reason="NoValidCheckpoint")
    assert len(result.to_bytes()) <= 4096


def test_without_an_address_nothing_is_sent() -> None:
    reporter = ProgressReporter(None)
    reporter.publish(record())
    reporter.close()
    assert reporter.take_directive() is Directive.NONE


def test_progress_is_100_only_at_the_end() -> None:
    now = record(step=40, total_steps=40)
    assert (now.percentage, now.eta_s) == (99, None)
    now.finished = True
    assert (now.percentage, now.eta_s) == (100, 0)
    assert record().percentage is None


def test_the_termination_message_is_the_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = record(corrupt=[("step-1.corrupt", "bytes")], metrics={"val_loss": float("nan")})
    result = said.result(Outcome.FAILED, exit_code=76, reason="NonFiniteLoss", message="m" * 9000)
    write_termination_message(tmp_path / "message", result=result)
    assert (tmp_path / "message").stat().st_size <= 4096
    read = Result.parse((tmp_path / "message").read_text())
    assert read is not None
    assert (read.exit_code, read.metrics[0].value) == (76, "nan")
    assert read.corrupt_checkpoints[0].reason == "bytes"
    write_termination_message(None, result=result)
    write_termination_message(tmp_path / "no" / "folder", result=result)
    assert "cannot write" in capsys.readouterr().err
