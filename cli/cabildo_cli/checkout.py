"""Where the repository is that some commands need; nothing else.

`cabildo cluster` and `cabildo demo` build things from the repository's sources. Installed
without it, they say so here instead of failing later.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cabildo_cli.errors import CliError

if TYPE_CHECKING:
    from pathlib import Path


def find_checkout() -> Path:
    """Return the root of the checkout that the commands run from.

    Raises:
        CliError: They were installed without one.
    """
    try:
        from cabildo_local.errors import NotACheckoutError  # noqa: PLC0415 - may be absent
        from cabildo_local.settings import find_checkout as find  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise CliError(
            "this command needs a checkout of the Cabildo repository",
            remedy="clone it and run `make venv`, then `.venv/bin/cabildo`",
        ) from error
    try:
        return find()
    except NotACheckoutError as error:
        raise CliError(error.message, remedy=error.remedy) from error
