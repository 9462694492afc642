"""Builds of the kernels: sanitised ones that run the kernel tests, and none at all.

Here: building a copy of the source root into a scratch folder and running tests on it. The
sanitisers (address, undefined behaviour) end the process at the first fault.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SANITISE = "-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -g"
TESTS = (
    *("columns", "gram", "linear_algebra", "sparse_softmax", "attention", "moe", "matmul"),
    *("digests", "task_vectors", "alignment", "rounding_modes"),
)
# Every path runs in one process there: starting a sanitised interpreter for each takes minutes.

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """Return a copy of the source root without anything built."""
    copy = tmp_path / "kernels"
    shutil.copytree(
        ROOT / "kernels", copy, ignore=shutil.ignore_patterns("build", "*.so", "*.egg-info")
    )
    return copy


def build(sources: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"],
        cwd=sources,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def library(name: str) -> str:
    found = subprocess.run(
        ["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True
    )
    return found.stdout.strip()


def test_sanitised_kernels_pass_their_tests(sources: Path) -> None:
    # Sanitised code takes ten times as long to optimise, and finds no more for it.
    script = sources / "setup.py"
    assert '"-O3"' in script.read_text()
    script.write_text(script.read_text().replace('"-O3"', '"-O1"'))
    done = build(sources, CFLAGS=SANITISE, LDFLAGS="-fsanitize=address,undefined")
    assert done.returncode == 0, done.stderr
    built = list((sources / "cabildo_kernels" / "native").glob("*.so"))
    assert len(built) == len(list((sources / "cabildo_kernels" / "native").glob("*.pyx")))
    files = [ROOT / "tests" / "unit" / "kernels" / f"test_{name}.py" for name in TESTS]
    assert [file for file in files if not file.is_file()] == []
    run = subprocess.run(
        [
            # -s: a sanitiser's report is lost in what pytest holds back when the process ends.
            *(sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider"),
            *("-o", f"pythonpath={sources} {ROOT / 'tests'}", f"--rootdir={ROOT}"),
            *files,
        ],
        cwd=ROOT,
        env={
            **os.environ,
            "LD_PRELOAD": f"{library('libasan.so')}:{library('libubsan.so')}",
            # Python itself never frees everything; the kernels allocate nothing.
            "ASAN_OPTIONS": "detect_leaks=0",
            "UBSAN_OPTIONS": "print_stacktrace=1",
            "PYTHONPATH": str(sources),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[:6000]
    assert "passed" in run.stdout


def test_without_a_compiler_the_fallback_installs_and_works(sources: Path) -> None:
    done = build(sources, CC="/nonexistent/compiler")
    assert done.returncode == 0, done.stderr
    assert not list(sources.rglob("*.so"))
    code = (
        "import numpy, cabildo_kernels as k;"
        f"assert k.__file__.startswith({str(sources)!r});"
        "assert k.info().isa == 'numpy' and not k.info().compiled;"
        "print(k.median([numpy.full(3, i, numpy.float32) for i in (1, 5, 2)]))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=sources,
        env={**os.environ, "PYTHONPATH": str(sources), "CABILDO_KERNELS_ISA": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, run.stdout) == (0, "[2. 2. 2.]\n"), run.stderr
