"""`python -m cabildo_trainer.consensus`. Here: the entry. Next: `command_line.py`."""

from __future__ import annotations

import sys

from cabildo_trainer.consensus.commands.command_line import main

if __name__ == "__main__":
    sys.exit(main())
