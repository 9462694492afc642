"""The image registry of one cluster: Debian's docker-registry on the control plane's address.

Images lie in the shared cache, so what was pushed survives `down` and serves every cluster
of this machine; each cluster has a server of its own in front of them. The name is the same
for the machine that pushes, the nodes and the pods: `<control plane address>:<port>`, plain
HTTP. Never here: building and pushing (images.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import yaml

from cabildo_local.configuration import write_configuration
from cabildo_local.processes import Program

if TYPE_CHECKING:
    from pathlib import Path

    from cabildo_local.state import State

# What manifests may also write instead of the address; nodes resolve it, nothing else does.
STABLE_NAME = "registry.cabildo.local:5000"


def registry_data(cache: Path) -> Path:
    """Return the folder in which the images of all clusters lie."""
    return cache / "registry"


def registry_program(
    state: State, *, cache: Path, address: str, port: int, namespace: str
) -> Program:
    """Return the registry's program, with its configuration written."""
    data = registry_data(cache)
    data.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(
        {
            "version": 0.1,
            "log": {"level": "warn", "accesslog": {"disabled": True}},
            # No cache of descriptors: another cluster's server may delete what it describes.
            "storage": {
                "filesystem": {"rootdirectory": str(data)},
                "delete": {"enabled": True},
            },
            "http": {"addr": f"{address}:{port}"},
        }
    )
    path = state.configuration / "registry.yaml"
    write_configuration(path, text=text)
    return Program(
        "registry",
        ("docker-registry", "serve", str(path)),
        namespace=namespace,
        depends_on=text,
    )
