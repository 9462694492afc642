"""Build of the compiled kernels: one line an extension, all of them optional.

Here: which C files make up which extension, and the compiler's arguments. Without a compiler (or
without Cython) the distribution still installs, and the NumPy fallback does the work. Never here:
`-march` or `-ffast-math`; a C file that needs an instruction set asks for it itself, with
`#pragma GCC target`, and the dispatcher calls it only where the CPU has it.
"""

from __future__ import annotations

from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

try:
    from Cython.Build import cythonize
except ImportError:  # the fallback alone
    cythonize = None

NATIVE = "cabildo_kernels/native"

# -fno-fast-math stands last against what CFLAGS of the environment may say: merely linking with
# -ffast-math would switch denormals off for the whole process.
ARITHMETIC = ("-fno-fast-math", "-fno-math-errno", "-ffp-contract=off")
COMPILE = ("-O3", "-g1", "-std=gnu11", "-fvisibility=hidden", "-pthread", *ARITHMETIC)
LINK = ("-pthread", "-fno-fast-math")


class OptionalBuild(build_ext):
    """Take a compiler that is not there as one that failed: an optional extension is left out."""

    def build_extension(self, ext: Extension) -> None:
        """Compile one extension."""
        try:
            super().build_extension(ext)
        except OSError as missing:
            raise CompileError(str(missing)) from missing


# A file for each instruction set; on another architecture it compiles to an empty path.
PATHS = ("baseline", "avx2", "avx512", "neon")


def extension(name: str, *sources: str) -> Extension:
    """Return the extension `cabildo_kernels.native.<name>`: `<name>.pyx` and C files beside it."""
    return Extension(
        f"cabildo_kernels.native.{name}",
        [f"{NATIVE}/{name}.pyx", *(f"{NATIVE}/{source}" for source in sources)],
        depends=[str(header) for header in sorted(Path(NATIVE).glob("*.h"))],
        include_dirs=[NATIVE],
        extra_compile_args=list(COMPILE),
        extra_link_args=list(LINK),
        optional=True,
    )


def by_path(stem: str) -> tuple[str, ...]:
    """Return `<stem>_<path>.c` for every instruction-set path."""
    return tuple(f"{stem}_{path}.c" for path in PATHS)


EXTENSIONS = (
    extension("cpu"),
    extension("columns", *by_path("columns")),
    extension("gram", *by_path("gram"), "gram_avx512_halves.c"),
    extension("linear_algebra", *by_path("linear_algebra")),
    extension("softmax", *by_path("softmax"), "softmax_runs.c"),
    extension("sha256", "sha256_streams.c"),
    extension("measure", "measure_memory.c"),
    extension("task_vectors", "task_vectors_runs.c", *by_path("task_vectors")),
)

if cythonize is None:
    setup()
else:
    modules = cythonize(
        list(EXTENSIONS),
        build_dir="build/cython",
        language_level=3,
        compiler_directives={"boundscheck": False, "wraparound": False, "cdivision": True},
    )
    for module in modules:  # cythonize makes new extensions and forgets this
        module.optional = True
    setup(cmdclass={"build_ext": OptionalBuild}, ext_modules=modules)
