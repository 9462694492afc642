"""What this CPU can run. Never here: choosing; that is `dispatch`."""

cdef extern from "cpu.h":
    int cpu_paths() nogil


def paths() -> int:
    """Return a bit mask: bit i is set when path i of `dispatch.PATHS` runs here."""
    return cpu_paths()
