"""How the ranks of an attempt find each other: environment in, a gang with a process group out.

Here: waiting for rank 0's address and for all ranks, then the process group. Waiting has no limit
of its own: a pod that cannot be scheduled is the operator's to explain, and SIGTERM ends a wait at
once (`engine/signals.py`). Never here: collectives of training; those are `engine/gang.py`. Next:
`engine/gang.py`.
"""

from __future__ import annotations

import json
import socket
import time
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from torch import distributed

# torch publishes these names and leaves them out of its own list.
from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]

from cabildo_trainer.engine.gang import Gang, peers_expected
from cabildo_trainer.errors import BadDataError, BadSpecError, PeerLostError

if TYPE_CHECKING:
    from cabildo_trainer.settings import TrainerSettings

CONNECT_TRY_S: Final = 5.0
POLL_S: Final = 0.1
BACKEND: Final = "gloo"


@dataclass(frozen=True, slots=True)
class Facts:
    """What all ranks must have in common before they train together."""

    attempt: int
    config_digest: str
    data_digest: str


def join(settings: TrainerSettings, *, facts: Facts, collective_timeout_s: float) -> Gang:
    """Waits for all ranks and returns the gang; with one rank there is nobody to wait for.

    Args:
        settings: Rank, world size and the address of rank 0.
        facts: What this rank is about to train.
        collective_timeout_s: After this time without a peer, the peer is lost.

    Raises:
        BadSpecError: Ranks were given different specs.
        BadDataError: Ranks read different data.
        PeerLostError: A rank was there and is gone.
    """
    gang = Gang(rank=settings.rank, world_size=settings.world_size)
    if gang.world_size == 1:
        return gang
    timeout = timedelta(seconds=collective_timeout_s)
    try:
        store = _connect(settings, timeout=timeout)
        _meet(store, gang=gang, facts=facts)
        with peers_expected():
            distributed.init_process_group(
                BACKEND,
                store=PrefixStore("gang", store),
                rank=gang.rank,
                world_size=gang.world_size,
                timeout=timeout,
            )
    except (distributed.DistError, RuntimeError) as error:
        raise PeerLostError(f"the gang did not come together: {error}") from error
    return gang


def _connect(settings: TrainerSettings, *, timeout: timedelta) -> Store:
    is_leader = settings.rank == 0
    if not is_leader:
        wait_for_listener(settings.master_address, settings.master_port)
    return TCPStore(
        settings.master_address,
        settings.master_port,
        settings.world_size,
        is_master=is_leader,
        timeout=timeout,
        wait_for_workers=False,
    )


def wait_for_listener(host: str, port: int) -> None:
    """Waits, as long as it takes, until a name resolves and somebody listens there.

    Torch waits as well, but with pauses of seconds and a page of C++ frames for each; rank 0's name
    does not resolve before its pod has an address.
    """
    while True:
        try:
            with socket.create_connection((host, port), timeout=CONNECT_TRY_S):
                return
        except OSError:
            time.sleep(POLL_S)


def _meet(store: Store, *, gang: Gang, facts: Facts) -> None:
    keys = [f"facts/{rank}" for rank in range(gang.world_size)]
    store.set(keys[gang.rank], json.dumps(asdict(facts)))
    while not store.check(keys):
        time.sleep(POLL_S)
    for rank, key in enumerate(keys):
        theirs = Facts(**json.loads(store.get(key)))
        if theirs.data_digest != facts.data_digest:
            raise BadDataError(
                f"rank {rank} read other data than rank {gang.rank}:"
                f" {theirs.data_digest} and {facts.data_digest}",
                remedy="Give all nodes the same file, then set a new spec.runID.",
            )
        if theirs != facts:
            raise BadSpecError(f"rank {rank} was given another spec than rank {gang.rank}")
