"""`cabildo demo`: from nothing to a trained model in two real pods, in one command.

Here: options. Next: `quickstart.py`, which has the steps and needs what a checkout brings.
"""

from __future__ import annotations

import click
from rich.console import Console

from cabildo_cli.checkout import find_checkout
from cabildo_cli.errors import CliError


@click.command()
@click.option(
    "--cluster",
    type=click.Choice(["local", "kubeconfig"]),
    default="local",
    envvar="CLUSTER",
    show_default=True,
    help="The local cluster, brought up when it is not, or the one KUBECONFIG names.",
)
@click.option(
    "--cluster-name",
    default="cabildo",
    envvar="CLUSTER_NAME",
    show_default=True,
    help="The local cluster's name.",
)
@click.option(
    "--registry",
    default="",
    envvar="REGISTRY",
    help="With --cluster kubeconfig: HOST:PORT that the nodes pull from.",
)
def demo(cluster: str, cluster_name: str, registry: str) -> None:
    """Train examples/quickstart.yaml in two pods on two nodes and print the result."""
    checkout = find_checkout()
    if cluster == "kubeconfig" and not registry:
        raise CliError(
            "--cluster kubeconfig needs a registry that the cluster's nodes can pull from",
            remedy="Give REGISTRY=host:port",
        )
    from cabildo_cli.quickstart import Target, run_demo  # noqa: PLC0415 - only in a checkout

    run_demo(
        Target(is_local=cluster == "local", name=cluster_name, registry=registry),
        checkout=checkout,
        console=Console(),
    )
