"""The command `cabildo` (and `kubectl-cabildo`): a group whose commands load when called.

Here: the table of commands. Never here: a command's own work (the module of its name), so
that `cabildo follow` does not import what a local cluster needs.
"""

from __future__ import annotations

from importlib import import_module

import click

# Command -> where it is, and the line that `--help` shows without importing it.
COMMANDS = {
    "cluster": ("cabildo_cli.cluster:cluster", "Bring a local Kubernetes up or down."),
    "demo": ("cabildo_cli.demo:demo", "Train the quickstart on a local cluster."),
    "follow": ("cabildo_cli.follow:follow", "Follow a TrainingJob to its end."),
}


class LazyGroup(click.Group):
    """A group that imports a command's module when the command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the commands' names."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import one command."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the table of commands without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in sorted(COMMANDS.items())])


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="cabildo")
def main() -> None:
    """Train models on Kubernetes, and let several of them agree on one."""


if __name__ == "__main__":
    main()
