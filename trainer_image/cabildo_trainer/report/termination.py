"""The last word of a process: the result record in the termination message.

Here: one write, small enough for the kubelet to keep. It survives a dead network, and the operator
takes the final result from it. Never here: what it says. Next: the operator's `explain`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cabildo_trainer.report.console import complain

if TYPE_CHECKING:
    from pathlib import Path

    from cabildo_api.result import Result


def write_termination_message(path: Path | None, *, result: Result) -> None:
    """Writes the record; without a file (outside of a pod) nothing is written."""
    if path is None:
        return
    try:
        path.write_bytes(result.to_bytes())
    except OSError as error:
        # The exit code still speaks; a trainer must not fail over its obituary.
        complain(f"cannot write {path}: {error}")
