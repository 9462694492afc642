"""`cabildo cluster up | down | status | prune`: a real Kubernetes on this machine.

Here: options, what is printed, exit statuses. Never here: how a cluster is made
(`cabildo_local.cluster`), which is found in a checkout only.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cabildo_cli.checkout import find_checkout
from cabildo_cli.errors import CliError

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = click.option("--name", default="cabildo", show_default=True, help="Tells clusters apart.")
FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)


@click.group()
def cluster() -> None:
    """Bring a local Kubernetes up or down."""
    find_checkout()


@cluster.command()
@NAME
@click.option("--nodes", default=2, show_default=True, help="Real nodes; 0: control plane only.")
@click.option("--cidr", help="Address range, a /16 or larger.  [default: a free one]")
@click.option("--api-port", default=6443, show_default=True, help="The API server's port.")
@click.option("--registry-port", default=5000, show_default=True, help="The registry's port.")
@click.option("--binaries", type=FOLDER, help="Folder with programs to use before all others.")
@click.option("--fake-nodes", type=FILE, help="YAML file with pools of nodes played by KWOK.")
def up(
    *,
    name: str,
    nodes: int,
    cidr: str | None,
    api_port: int,
    registry_port: int,
    binaries: Path | None,
    fake_nodes: Path | None,
) -> None:
    """Bring the cluster up; repeat it to complete or repair one."""
    from cabildo_local import cluster as local  # noqa: PLC0415 - slow to import
    from cabildo_local.reporter import LineReporter  # noqa: PLC0415
    from cabildo_local.settings import ClusterSettings  # noqa: PLC0415

    with _errors():
        settings = ClusterSettings(
            name=name,
            nodes=nodes,
            cidr=cidr,
            api_port=api_port,
            registry_port=registry_port,
            binaries=binaries.absolute() if binaries else None,
            fake_nodes=fake_nodes.absolute() if fake_nodes else None,
        )
        made = local.up(settings, reporter=LineReporter(sys.stderr))
    click.echo(f"registry {made.registry}", err=True)
    click.echo(f"export KUBECONFIG={made.kubeconfig}")


@cluster.command()
@NAME
@click.option("--purge", is_flag=True, help="Also remove images and retained volumes.")
def down(*, name: str, purge: bool) -> None:
    """Take the cluster down; nothing stays running, mounted or routed."""
    from cabildo_local import cluster as local  # noqa: PLC0415 - slow to import
    from cabildo_local.reporter import LineReporter  # noqa: PLC0415

    with _errors():
        retained = local.down(name, purge=purge, reporter=LineReporter(sys.stderr))
    for folder in retained:
        click.echo(f"retained {folder}", err=True)


@cluster.command()
@NAME
def status(*, name: str) -> None:
    """Say how the cluster is; the exit status is 0 when all of it runs."""
    from cabildo_local import cluster as local  # noqa: PLC0415 - slow to import

    with _errors():
        found = local.status(name)
    if found.allotment is None or not (found.running or found.ended):
        click.echo(f"{name}: down")
        sys.exit(1)
    click.echo(f"{name}: {'ready' if found.ready and not found.ended else 'not ready'}")
    click.echo(f"  nodes       {found.allotment.nodes}")
    click.echo(f"  range       {found.allotment.cidr}")
    click.echo(f"  registry    {found.registry}")
    click.echo(f"  kubeconfig  {found.kubeconfig}")
    click.echo(f"  running     {' '.join(found.running)}")
    if found.ended:
        click.echo(f"  ended       {' '.join(found.ended)}  (`cabildo cluster up` restarts them)")
    sys.exit(0 if found.ready and not found.ended else 1)


@cluster.command()
def prepare() -> None:
    """Install the Debian packages a cluster and its images need; `up` does it too."""
    from cabildo_local.packages import ensure_packages  # noqa: PLC0415 - only in a checkout
    from cabildo_local.reporter import LineReporter  # noqa: PLC0415

    with _errors():
        ensure_packages(reporter=LineReporter(sys.stderr))


@cluster.command()
def prune() -> None:
    """Remove images and programs from the cache that this checkout does not use."""
    from cabildo_local.binaries import prune_binaries  # noqa: PLC0415 - only in a checkout
    from cabildo_local.image_pruning import prune_store  # noqa: PLC0415
    from cabildo_local.image_sources import SOURCES  # noqa: PLC0415
    from cabildo_local.images import prune_bases  # noqa: PLC0415
    from cabildo_local.reporter import LineReporter  # noqa: PLC0415
    from cabildo_local.settings import default_cache  # noqa: PLC0415

    reporter = LineReporter(sys.stderr)
    with _errors():
        freed_bytes = prune_binaries(cache=default_cache(), checkout=find_checkout())
        freed_bytes += prune_store(
            default_cache(),
            names=[f"cabildo/{target}" for target in SOURCES],
            dependencies=1,
            images=1,
            reporter=reporter,
        )
        freed_bytes += prune_bases(checkout=find_checkout(), reporter=reporter)
    click.echo(f"freed {freed_bytes / 1e9:.1f} GB")


@contextmanager
def _errors() -> Iterator[None]:
    from cabildo_local.errors import LocalClusterError  # noqa: PLC0415 - only in a checkout

    try:
        yield
    except LocalClusterError as error:
        raise CliError(error.message, remedy=error.remedy) from error
