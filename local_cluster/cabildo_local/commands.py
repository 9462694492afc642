"""Running a command to its end, on the host or inside a network namespace.

Here: one function around `subprocess.run` that turns a failure into a CommandError with
the command's own words. Never here: programs that stay (processes.py).
"""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from cabildo_local.errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NAMESPACES = "/run/netns"


def in_namespace(argv: Sequence[str], *, namespace: str | None) -> list[str]:
    """Return the command line that enters a network namespace first.

    `ip netns exec` is not used: it also remounts /sys, which hides the cgroup hierarchies.
    """
    if namespace is None:
        return list(argv)
    return ["nsenter", f"--net={NAMESPACES}/{namespace}", "--", *argv]


def run_command(
    argv: Sequence[str],
    *,
    namespace: str | None = None,
    stdin: str | None = None,
    environment: Mapping[str, str] | None = None,
    timeout_s: float = 60.0,
    check: bool = True,
) -> str:
    """Run a command to its end and return its standard output.

    Args:
        argv: Program and arguments; no shell is involved.
        namespace: Name of the network namespace to run in; the host's own if None.
        stdin: Text for its standard input.
        environment: Its whole environment; inherited if None.
        timeout_s: It is killed after this many seconds.
        check: Whether another exit status than 0 is an error.

    Raises:
        CommandError: It could not be run, ended with an error or took too long.
    """
    line = in_namespace(argv, namespace=namespace)
    try:
        done = subprocess.run(
            line,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            env=None if environment is None else dict(environment),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except FileNotFoundError as error:
        raise CommandError(f"`{line[0]}` is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise CommandError(f"`{' '.join(argv)}` took longer than {timeout_s:.0f} s") from error
    if check and done.returncode != 0:
        reason = done.stderr.strip() or done.stdout.strip() or f"exit status {done.returncode}"
        raise CommandError(f"`{' '.join(argv)}` failed: {reason}")
    return done.stdout
