"""The programs of a cluster that stay: started once, found again, ended.

A program is known by its control group (cgroups.py); a record in the state folder adds
which of the group's processes is the program itself (its children may outlive it) and
with which command line it was started, so that `up` restarts what would be started
differently now and leaves the rest alone. Never here: what the programs are
(control_plane.py, node.py, registry.py, addons.py).
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cabildo_local.cgroups import is_zombie
from cabildo_local.commands import in_namespace
from cabildo_local.errors import ProcessError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cabildo_local.cgroups import Slice

GROUP = "processes"

# $1: log file, $2: number of cgroup files, then those files, then the program. The shell
# joins the groups before it starts the program, and ends at once, so that the program belongs
# to init and never becomes a zombie of the caller.
_LAUNCHER = """
log=$1; count=$2; shift 2
while [ "$count" -gt 0 ]; do
  echo 0 >"$1" || exit 125
  shift; count=$((count - 1))
done
setsid "$@" </dev/null >"$log" 2>&1 &
echo $!
"""


@dataclass(frozen=True, slots=True)
class Program:
    """A program that stays.

    Attributes:
        name: Its name within the cluster, such as `etcd` or `node1-kubelet`.
        argv: Command line.
        namespace: Network namespace it runs in; the host's own if None.
        environment: What is added to a minimal environment.
        depends_on: Digest of files that it only reads when it starts.
    """

    name: str
    argv: tuple[str, ...]
    namespace: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    depends_on: str = ""

    def digest(self) -> str:
        """Return a digest of everything that makes it start differently."""
        parts = [self.argv, self.namespace, sorted(self.environment.items()), self.depends_on]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


class Processes:
    """The programs of one cluster.

    Args:
        slice_: The cluster's control groups.
        records: Folder for what is known of each program.
        logs: Folder for each program's output.
    """

    def __init__(self, slice_: Slice, *, records: Path, logs: Path) -> None:
        self._slice = slice_
        self._records = records
        self._logs = logs

    def ensure(self, program: Program) -> bool:
        """Start a program unless it runs as it would be started now.

        Returns:
            Whether it was started.
        """
        record = self._record(program.name)
        if self.is_running(program.name):
            if record.get("digest") == program.digest():
                return False
            self.stop(program.name)
        elif self._slice.pids(f"{GROUP}/{program.name}") and not record:
            # Started by an `up` that was killed before it could write the record.
            self._slice.kill(f"{GROUP}/{program.name}")
        self._start(program)
        return True

    def is_running(self, name: str) -> bool:
        """Whether the program itself is alive (its children do not count)."""
        return self.pid(name) is not None

    def pid(self, name: str) -> int | None:
        """Return the id of the program's own process, or None if it does not run."""
        record = self._record(name)
        pid = record.get("pid")
        if not isinstance(pid, int) or is_zombie(pid):
            return None
        ours = pid in self._slice.pids(f"{GROUP}/{name}")
        return pid if ours and record.get("started") == started_at(pid) else None

    def stop(self, name: str, *, timeout_s: float = 10.0) -> None:
        """End a program: SIGTERM, and SIGKILL when that takes too long."""
        pid = self.pid(name)
        if pid is not None:
            self._signal(name, pid=pid, number=signal.SIGTERM, timeout_s=timeout_s)
            self._signal(name, pid=pid, number=signal.SIGKILL, timeout_s=timeout_s)
        (self._records / f"{name}.json").unlink(missing_ok=True)

    def _signal(self, name: str, *, pid: int, number: int, timeout_s: float) -> None:
        if self.pid(name) == pid:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = time.monotonic() + timeout_s
        while self.pid(name) == pid and time.monotonic() < deadline:
            time.sleep(0.05)

    def names(self) -> list[str]:
        """Return the names of the programs that were started."""
        return sorted(path.stem for path in self._records.glob("*.json"))

    def log(self, name: str) -> Path:
        """Return the file with a program's output."""
        return self._logs / f"{name}.log"

    def require_running(self, name: str) -> None:
        """Fail with the end of its log if a program does not run.

        Raises:
            ProcessError: It does not.
        """
        if self.is_running(name):
            return
        log = self.log(name)
        lines = log.read_text(errors="replace").splitlines()[-8:] if log.exists() else []
        raise ProcessError(
            f"{name} has ended; the end of {log}:\n  " + "\n  ".join(lines),
            remedy="`cabildo cluster down` and `up` start it afresh",
        )

    def _start(self, program: Program) -> None:
        self._logs.mkdir(parents=True, exist_ok=True)
        self._records.mkdir(parents=True, exist_ok=True)
        self._slice.create(GROUP)
        files = self._slice.process_files(GROUP, leaf=program.name)
        argv = in_namespace(program.argv, namespace=program.namespace)
        launched = subprocess.run(
            ["sh", "-c", _LAUNCHER, "sh", str(self.log(program.name)), str(len(files))]
            + [str(file) for file in files]
            + argv,
            capture_output=True,
            text=True,
            env={**_minimal_environment(), **program.environment},
            cwd="/",
            check=True,
        )
        pid = int(launched.stdout)
        record = {"pid": pid, "started": started_at(pid), "digest": program.digest()}
        path = self._records / f"{program.name}.json"
        temporary = path.with_suffix(".new")
        temporary.write_text(json.dumps(record))
        temporary.rename(path)

    def _record(self, name: str) -> dict[str, object]:
        try:
            record = json.loads((self._records / f"{name}.json").read_text())
        except (OSError, ValueError):
            return {}
        return record if isinstance(record, dict) else {}


def started_at(pid: int) -> str:
    """Return when a process started, in clock ticks since boot; empty if it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[19]


def _minimal_environment() -> dict[str, str]:
    # The caller's proxies and settings are not the cluster's.
    return {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/nonexistent",
        "LANG": "C.UTF-8",
    }
