"""mergekit as a program of its own, in an environment of its own: it is compared with, never used.

Here: where its programs are. Never here: its code.
"""

from __future__ import annotations

import os
import subprocess
import venv
from pathlib import Path

VERSION = "0.1.5"
REQUIREMENTS = (f"mergekit=={VERSION}", "torch", "numpy")
PROGRAM = "mergekit-pytorch"


def mergekit_program() -> Path:
    """Return mergekit's program for models in files.

    `CABILDO_MERGEKIT` names it; otherwise it is installed under the cache folder, once.
    """
    given = os.environ.get("CABILDO_MERGEKIT")
    if given:
        return Path(given)
    cache_home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    cache = Path(os.environ.get("CABILDO_CACHE") or f"{cache_home}/cabildo")
    folder = cache / f"mergekit-{VERSION}"
    program = folder / "bin" / PROGRAM
    if not program.exists():
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([folder / "bin" / "pip", "install", "-q", *REQUIREMENTS], check=True)
    return program
