"""What a run left on its checkpoint volume, read on the host.

Here: finding the host folder behind a claim of the local cluster, the losses, the
commits, the staging folder. Never here: writing a checkpoint, or spoiling one in a way
that the trainer's own code decides (spoiling is flipping and cutting bytes of files).
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from support.kube import CLAIMS, PERSISTENT_VOLUMES, Kube, NotInTimeError

if TYPE_CHECKING:
    from support.training_jobs import TrainingRun

_STEP = re.compile(r"^step-(\d{12})$")


def claim_folder(kube: Kube, *, namespace: str, claim: str, within_s: float = 30) -> Path:
    """Return the host folder of a bound claim."""

    volume = kube.wait(
        CLAIMS,
        lambda seen: seen.get(claim, {}).get("spec", {}).get("volumeName"),
        namespace=namespace,
        within_s=within_s,
        what=f"claim {claim} is bound",
    )
    found = kube.get(PERSISTENT_VOLUMES, volume)
    assert found is not None
    spec = found["spec"]
    source = spec.get("hostPath") or spec.get("local")
    assert source, f"volume {volume} is no host folder"
    return Path(source["path"])


@dataclass(frozen=True, slots=True)
class RunFolder:
    """`<volume>/<uid>/run-<r>`."""

    path: Path

    @classmethod
    def of(cls, run: TrainingRun, *, number: int = 1) -> RunFolder:
        """Return the folder of a TrainingJob's run; it may not exist yet."""
        claim = f"{run.name}-checkpoints"
        root = claim_folder(run.kube, namespace=run.namespace, claim=claim)
        return cls(path=root / run.uid / f"run-{number}")

    def steps(self) -> list[int]:
        """Return the committed steps, lowest first."""
        if not self.path.is_dir():
            return []
        found = (_STEP.match(one.name) for one in self.path.iterdir())
        return sorted(int(one.group(1)) for one in found if one)

    def step(self, step: int) -> Path:
        """Return the folder of a committed step."""
        return self.path / f"step-{step:012d}"

    def corrupt(self) -> list[str]:
        """Return the names of what was set aside as corrupt."""
        return sorted(one.name for one in self.path.glob("*.corrupt"))

    def weights_sha256(self, step: int) -> str:
        """Return the digest of a committed step's weights."""
        return hashlib.sha256((self.step(step) / "model.safetensors").read_bytes()).hexdigest()

    def losses(self) -> dict[tuple[int, int], set[str]]:
        """Return every logged loss (hex) by rank and step, replays included."""
        out: dict[tuple[int, int], set[str]] = {}
        for file in sorted((self.path / "losses").glob("attempt-*-rank-*.jsonl")):
            rank = int(file.stem.rsplit("-", 1)[1])
            for line in file.read_text().splitlines(keepends=True):
                if not line.endswith("\n"):
                    continue  # a kill cut this line off
                entry = json.loads(line)
                out.setdefault((rank, entry["step"]), set()).add(entry["loss"])
        return out

    def logged_steps(self, *, attempt: int, rank: int = 0) -> list[int]:
        """Return the steps one attempt logged, in order."""
        file = self.path / "losses" / f"attempt-{attempt}-rank-{rank}.jsonl"
        if not file.exists():
            return []
        lines = file.read_text().splitlines(keepends=True)
        return [json.loads(line)["step"] for line in lines if line.endswith("\n")]

    def wait_logged(self, *, step: int, within_s: float, attempt: int = 1) -> None:
        """Wait until an attempt has logged a step."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            if step in self.logged_steps(attempt=attempt):
                return
            time.sleep(0.005)
        msg = f"step {step} of attempt {attempt} not logged within {within_s:.0f} s"
        raise NotInTimeError(msg)

    def fence(self) -> list[dict[str, int]]:
        """Return the attempts that started, and from which step."""
        lines = (self.path / "fence").read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def wait_fence(self, *, attempt: int, within_s: float) -> None:
        """Wait until an attempt has recorded its start, which fences all earlier ones."""
        deadline = time.monotonic() + within_s
        while not any(entry["attempt"] == attempt for entry in self.fence()):
            if time.monotonic() > deadline:
                msg = f"attempt {attempt} did not start within {within_s:.0f} s"
                raise NotInTimeError(msg)
            time.sleep(0.005)

    def attempt_of(self, step: int) -> int | None:
        """Return the attempt that committed a step; None once the step has been pruned."""
        try:
            manifest = json.loads((self.step(step) / "manifest.json").read_text())
        except FileNotFoundError:
            return None
        return int(manifest["attempt"])

    def staging(self, *, attempt: int) -> Path:
        """Return the folder in which an attempt prepares a checkpoint."""
        return self.path / "staging" / f"attempt-{attempt}"

    def unfinished_writes(self, *, attempt: int) -> list[str]:
        """Return the files of a checkpoint that an attempt began and never committed."""
        return sorted(one.name for one in self.staging(attempt=attempt).rglob("*") if one.is_file())

    def wait_staging(self, *, attempt: int, after_steps: int, within_s: float) -> list[str]:
        """Return as soon as a file of a checkpoint is being written.

        Polls without a pause: a write of this size takes some milliseconds.

        Args:
            attempt: Whose checkpoint.
            after_steps: How many committed steps must be there before.
            within_s: The deadline, seconds from now.
        """
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            if len(self.steps()) >= after_steps:
                break
            time.sleep(0.01)
        staging = self.staging(attempt=attempt)
        while time.monotonic() < deadline:
            files = [one.name for one in staging.rglob("*") if one.is_file()]
            if files:
                return files
        msg = f"no checkpoint write of attempt {attempt} seen within {within_s:.0f} s"
        raise NotInTimeError(msg)

    def wait_steps(self, count: int, *, within_s: float) -> list[int]:
        """Wait until so many steps are committed (a step may be pruned meanwhile)."""
        deadline = time.monotonic() + within_s
        highest: set[int] = set()
        while time.monotonic() < deadline:
            highest |= set(self.steps())
            if len(highest) >= count:
                return sorted(highest)
            time.sleep(0.02)
        msg = f"{len(highest)} committed steps, not {count}, within {within_s:.0f} s"
        raise NotInTimeError(msg)
