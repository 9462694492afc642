"""Ranks of the trainer as processes of this machine, over gloo, without Kubernetes.

Here: starting, watching, stopping and killing ranks, and reading what they leave behind. A fork
server imports torch once, so that a rank starts in a fraction of a second. Never here: assertions.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from cabildo_api.result import Result
from cabildo_api.run_spec import RunSpec
from cabildo_api.training_job import TrainingJobSpec

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess
    from pathlib import Path

UID = "11111111-2222-3333-4444-555555555555"
DEADLINE_S = 120.0
POLL_S = 0.005

Fault = Callable[[], None]
"""Runs in a rank before the trainer does, to break something in that process."""


def small_spec(**changes: Any) -> dict[str, Any]:
    """Returns a spec that trains in a second: 18 steps an epoch, 54 in all."""
    return {
        "nodes": 2,
        "seed": 7,
        "model": {
            "lstmAttention": {
                "hiddenSize": 8, "layers": 2, "dropout": 0.2, "attentionHeads": 2,
            }
        },
        "schedule": {"cosine": {"warmupFraction": 0.1}},
        "training": {"batchSize": 192},
        "data": {
            "sources": [{"name": "prices", "builtin": {"name": "sp500"}}],
            "target": {"logRange": {}},
            "features": [
                {"name": "range", "logRange": {}},
                {"name": "return", "logReturn": {"column": "Close"}},
            ],
            "window": {"length": 6},
        },
        "limits": {"maxEpochs": 3},
        "checkpoint": {"every": {"steps": 10}, "keep": {"last": 3}},
    } | changes  # fmt: skip


def run_spec(
    spec: dict[str, Any], *, root: Path, attempt: int = 1, collective_timeout_s: int = 60
) -> dict[str, Any]:
    """Returns what the operator would mount as run.json."""
    rendered = RunSpec.from_spec(
        TrainingJobSpec.model_validate(spec),
        namespace="default",
        name="job",
        uid=UID,
        run=1,
        attempt=attempt,
        uri_prefix="pvc://job-checkpoints",
        collective_timeout_s=collective_timeout_s,
    ).to_object()
    rendered["checkpoint"]["root"] = str(root)
    return rendered


@dataclass
class Attempt:
    """One attempt of a gang."""

    number: int
    folder: Path
    processes: list[BaseProcess] = field(default_factory=list)

    def wait(self) -> list[int | None]:
        """Returns the exit codes; a rank that does not end is killed and fails the test."""
        deadline = time.monotonic() + DEADLINE_S
        for process in self.processes:
            process.join(max(0.0, deadline - time.monotonic()))
        codes = [process.exitcode for process in self.processes]
        self.kill_all()
        assert None not in codes, f"ranks did not end: {codes}\n{self.output()}"
        return codes

    def kill(self, rank: int, number: int = signal.SIGKILL) -> None:
        """Sends a signal to a rank."""
        pid = self.processes[rank].pid
        assert pid is not None
        os.kill(pid, number)

    def kill_all(self) -> None:
        """Kills whatever still runs."""
        for process in self.processes:
            if process.pid is not None and process.is_alive():
                process.kill()
                process.join()

    def result(self, rank: int = 0) -> Result:
        """Returns the termination message of a rank."""
        text = self.message_file(rank).read_text()
        result = Result.parse(text)
        assert result is not None, text
        return result

    def message_file(self, rank: int) -> Path:
        """Returns the file of a rank's termination message."""
        return self.folder / f"message-{self.number}-{rank}.json"

    def output(self) -> str:
        """Returns what all ranks printed."""
        return "\n".join(
            f"--- attempt {self.number} rank {rank}\n{self.output_file(rank).read_text()}"
            for rank in range(len(self.processes))
        )

    def output_file(self, rank: int) -> Path:
        """Returns the file of a rank's standard output and error."""
        return self.folder / f"output-{self.number}-{rank}.log"


class Run:
    """A run on one checkpoint folder, attempt after attempt."""

    def __init__(
        self, folder: Path, *, spec: dict[str, Any], collective_timeout_s: int = 60
    ) -> None:
        self.folder = folder
        self.collective_timeout_s = collective_timeout_s
        self.spec = spec
        self.root = folder / "checkpoints"
        self.attempts: list[Attempt] = []
        folder.mkdir(parents=True, exist_ok=True)

    def copy(self, folder: Path) -> Run:
        """Returns a run that goes on from this one in a folder of its own."""
        shutil.copytree(self.root, folder / "checkpoints")
        copied = Run(folder, spec=self.spec)
        copied.attempts = list(self.attempts)
        return copied

    @property
    def path(self) -> Path:
        """The run's folder on the volume."""
        return self.root / UID / "run-1"

    @contextmanager
    def attempt(
        self,
        *,
        faults: dict[int, Fault] | None = None,
        number: int | None = None,
        environment: dict[str, str] | None = None,
    ) -> Iterator[Attempt]:
        """Starts the next attempt; leaving the block kills what still runs."""
        attempt = Attempt(number=number or len(self.attempts) + 1, folder=self.folder)
        self.attempts.append(attempt)
        document = run_spec(
            self.spec,
            root=self.root,
            attempt=attempt.number,
            collective_timeout_s=self.collective_timeout_s,
        )
        run_file = self.folder / f"run-{attempt.number}.json"
        run_file.write_text(json.dumps(document))
        port = free_port()
        for rank in range(self.spec["nodes"]):
            variables = {
                "CABILDO_RUN_FILE": str(run_file),
                "CABILDO_TERMINATION_MESSAGE": str(attempt.message_file(rank)),
                "CABILDO_DATA_ROOT": str(self.folder / "data"),
                "RANK": str(rank),
                "WORLD_SIZE": str(self.spec["nodes"]),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "OMP_NUM_THREADS": "1",
            } | (environment or {})
            process = context().Process(
                target=_rank,
                args=(variables, str(attempt.output_file(rank)), (faults or {}).get(rank)),
                daemon=True,
            )
            attempt.processes.append(process)
        try:
            for process in attempt.processes:
                process.start()
            yield attempt
        finally:
            attempt.kill_all()

    def train(self, **arguments: Any) -> Attempt:
        """Runs an attempt to its end, which must be a good one."""
        with self.attempt(**arguments) as attempt:
            codes = attempt.wait()
        assert set(codes) == {0}, f"{codes}\n{attempt.output()}"
        return attempt

    def losses(self) -> dict[tuple[int, int], set[str]]:
        """Returns every loss ever logged, by (rank, step): one each if all replays were equal."""
        found: dict[tuple[int, int], set[str]] = {}
        for path in sorted((self.path / "losses").glob("attempt-*-rank-*.jsonl")):
            rank = int(path.stem.rsplit("-", 1)[1])
            for line in path.read_text().splitlines():
                record = json.loads(line)
                found.setdefault((rank, record["step"]), set()).add(record["loss"])
        return found

    def steps_logged(self, *, attempt: int, rank: int = 0) -> int:
        """Returns the last step in a rank's loss file, 0 before the first."""
        path = self.path / "losses" / f"attempt-{attempt}-rank-{rank}.jsonl"
        lines = path.read_bytes().splitlines() if path.exists() else []
        return int(json.loads(lines[-1])["step"]) if lines else 0

    def wait_for_step(self, step: int, *, attempt: Attempt) -> None:
        """Waits until rank 0 has logged a step."""
        until(
            lambda: (
                self.steps_logged(attempt=attempt.number) >= step
                or not any(process.is_alive() for process in attempt.processes)
            )
        )

    def checkpoints(self) -> list[Path]:
        """Returns the committed checkpoints, oldest first."""
        return sorted(
            path for path in self.path.glob("step-*") if path.name.removeprefix("step-").isdigit()
        )

    def final_weights(self) -> str:
        """Returns the SHA-256 of the last checkpoint's weights."""
        newest = self.checkpoints()[-1]
        assert json.loads((newest / "manifest.json").read_text())["final"]
        return sha256((newest / "model.safetensors").read_bytes()).hexdigest()


def until(condition: Callable[[], bool], *, deadline_s: float = DEADLINE_S) -> None:
    """Waits for a fact about a real process."""
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, "the awaited fact did not come"
        time.sleep(POLL_S)


def free_port() -> int:
    """Returns a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def context() -> Any:
    """Returns the fork server, which has torch imported."""
    server = multiprocessing.get_context("forkserver")
    # Installed modules only: the server of Python 3.11 does not get pytest's path.
    server.set_forkserver_preload(["cabildo_trainer.session", "cabildo_trainer.baselines.tree"])
    return server


def _rank(variables: dict[str, str], output: str, fault: Fault | None) -> None:
    from cabildo_trainer.engine.signals import StopSignals  # noqa: PLC0415 - before all else

    stop_signals = StopSignals()
    os.environ.update(variables)
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    from cabildo_trainer.app import run_process  # noqa: PLC0415 - in the rank, not in the test

    if fault is not None:
        fault()
    run_process(stop_signals)
