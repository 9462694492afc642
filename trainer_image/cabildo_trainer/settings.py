"""Where a trainer process finds its files and its peers: the environment, read once.

Here: paths, addresses and thread counts. Never here: what to train; that is the run spec, a file
named here. Next: `app.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cabildo_api.names import MOUNT_DATA, RUN_FILE, TERMINATION_MESSAGE_PATH
from cabildo_trainer.errors import BadSpecError

if TYPE_CHECKING:
    from collections.abc import Mapping

GRACE_DEFAULT_S: Final = 60.0
GRACE_USED: Final = 0.75
"""Share of the grace period that a gang gets for its last checkpoint before a rank gives up."""


@dataclass(frozen=True, slots=True)
class ProgressEndpoint:
    """Where progress is reported.

    Attributes:
        url: Full URL of the POST.
        ca_file: PEM file of the server's CA, empty for the system's.
        token_file: File with the bearer token, empty for none; re-read for each request.
    """

    url: str
    ca_file: str
    token_file: str


@dataclass(frozen=True, slots=True)
class TrainerSettings:
    """Everything that a process reads from its environment.

    Attributes:
        run_file: The run spec (`CABILDO_RUN_FILE`).
        data_root: Folder with one folder a data source (`CABILDO_DATA_ROOT`).
        termination_message: File for the result record (`CABILDO_TERMINATION_MESSAGE`), or None
            outside of a pod.
        rank: Number of this process in the gang (`RANK`).
        world_size: Processes in the gang (`WORLD_SIZE`).
        master_address: Host of rank 0 (`MASTER_ADDR`).
        master_port: Port of the rendezvous on that host (`MASTER_PORT`).
        threads: Threads of each computation (`OMP_NUM_THREADS`); part of what decides the numbers.
        grace_s: From SIGTERM until a rank that could not commit gives up; three quarters of the
            pod's grace period (`CABILDO_TERMINATION_GRACE_SECONDS`).
        progress: Where to report (`KUBEFLOW_TRAINER_SERVER_URL`, `_CA_CERT`, `_TOKEN`), or None.
    """

    run_file: Path
    data_root: Path
    termination_message: Path | None
    rank: int
    world_size: int
    master_address: str
    master_port: int
    threads: int
    grace_s: float
    progress: ProgressEndpoint | None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> TrainerSettings:
        """Returns the settings of a process.

        Raises:
            BadSpecError: A number is not a number.
        """
        message = environment.get("CABILDO_TERMINATION_MESSAGE", "")
        url = environment.get("KUBEFLOW_TRAINER_SERVER_URL", "")
        grace_s = _number(
            environment, "CABILDO_TERMINATION_GRACE_SECONDS", default=int(GRACE_DEFAULT_S)
        )
        return cls(
            run_file=Path(environment.get("CABILDO_RUN_FILE", RUN_FILE)),
            data_root=Path(environment.get("CABILDO_DATA_ROOT", MOUNT_DATA)),
            termination_message=Path(message) if message else _message_file_of_a_pod(),
            rank=_number(environment, "RANK", default=0),
            world_size=_number(environment, "WORLD_SIZE", default=1),
            master_address=environment.get("MASTER_ADDR", "127.0.0.1"),
            master_port=_number(environment, "MASTER_PORT", default=29500),
            threads=max(1, _number(environment, "OMP_NUM_THREADS", default=1)),
            grace_s=grace_s * GRACE_USED,
            progress=ProgressEndpoint(
                url=url,
                ca_file=environment.get("KUBEFLOW_TRAINER_SERVER_CA_CERT", ""),
                token_file=environment.get("KUBEFLOW_TRAINER_SERVER_TOKEN", ""),
            )
            if url
            else None,
        )


def _message_file_of_a_pod() -> Path | None:
    # The kubelet mounts the file; elsewhere nobody reads it and nothing should be left in /dev.
    path = Path(TERMINATION_MESSAGE_PATH)
    return path if path.exists() else None


def _number(environment: Mapping[str, str], name: str, *, default: int) -> int:
    text = environment.get(name, "")
    if not text:
        return default
    try:
        return int(text)
    except ValueError:
        raise BadSpecError(
            f"environment variable {name} is {text!r}, not a whole number",
            remedy=f"Unset {name} or give it a whole number.",
        ) from None
