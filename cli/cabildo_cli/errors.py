"""The exceptions of the command line; nothing else.

CliError        anything that ends a command; its message and remedy are printed
"""

from __future__ import annotations

import click


class CliError(click.ClickException):
    """What stops a command: printed without a traceback, exit status 1.

    Args:
        message: What is wrong, with the name and value at fault.
        remedy: What the reader can do about it; empty when nothing is known.
    """

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message if not remedy else f"{message}\n  {remedy}")
        self.remedy = remedy
