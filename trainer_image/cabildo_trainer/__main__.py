"""The entry point of a pod: `python -m cabildo_trainer`.

Here: the stop signals, heard before anything heavy is imported, and the command line. Never here:
training. Next: `app.py`.
"""

from __future__ import annotations

import os
import sys

HELP = """\
usage: python -m cabildo_trainer [--help | --version]

Trains what the run spec says and ends with a code that says how it went:
  0 finished, 65 bad data, 69 peer lost, 75 told to stop, 76 not finite, 78 bad spec.

Environment (a pod has all of it; on your own machine the first line is enough):
  CABILDO_RUN_FILE              run spec, JSON (default /etc/cabildo/run.json)
  CABILDO_DATA_ROOT             folder with one folder a data source (default /data)
  CABILDO_TERMINATION_MESSAGE   file for the result record (default /dev/termination-log, in pods)
  CABILDO_TERMINATION_GRACE_SECONDS   time from SIGTERM to SIGKILL (default 60)
  RANK WORLD_SIZE MASTER_ADDR MASTER_PORT   the gang (default: one rank)
  OMP_NUM_THREADS               threads of each computation (default 1); part of the result
  KUBEFLOW_TRAINER_SERVER_URL _CA_CERT _TOKEN   where progress is reported (default: nowhere)
"""


def main() -> None:
    """Runs the trainer; does not return when it trains."""
    arguments = sys.argv[1:]
    if arguments in (["--help"], ["-h"]):
        sys.stdout.write(HELP)
        return
    if arguments == ["--version"]:
        from importlib.metadata import version  # noqa: PLC0415 - not on the way to training

        sys.stdout.write(version("cabildo-trainer") + "\n")
        return
    if arguments:
        sys.exit(f"cabildo_trainer: unknown argument {arguments[0]!r}; see --help")

    from cabildo_trainer.engine.signals import StopSignals  # noqa: PLC0415 - before anything heavy

    stop_signals = StopSignals()

    # NumPy and torch read the number of threads when they are imported.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from cabildo_trainer.app import run_process  # noqa: PLC0415 - after the handler is there

    run_process(stop_signals)


if __name__ == "__main__":
    main()
