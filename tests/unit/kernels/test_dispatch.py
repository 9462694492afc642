"""One choice of path: the best there is, or the one asked for; refused where it cannot run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cabildo_kernels import dispatch, info, native

# Runs in a process of its own, since the choice is made once in each.
REPORT = """
import hashlib, json, sys
import numpy as np
import cabildo_kernels
from support.column_cases import random_case
random, digest = np.random.default_rng(11), hashlib.sha256()
for index in range(150):
    digest.update(random_case(random, large=index % 50 == 0).run().tobytes())
about = cabildo_kernels.info()
print(json.dumps({"isa": about.isa, "compiled": about.compiled, "digest": digest.hexdigest(),
                  "available": about.available, "missing": about.missing}))
"""


def report(code: str = REPORT, **environment: str) -> Any:
    path = os.pathsep.join(sys.path)
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return json.loads(done.stdout) if done.returncode == 0 else done.stderr


def test_every_path_that_this_cpu_has_gives_the_bits_of_numpy_and_the_others_are_named() -> None:
    reports = {isa: report(CABILDO_KERNELS_ISA=isa) for isa in dispatch.available()}
    print(f"compared: {', '.join(reports)}; lacking here: {', '.join(info().lacking)}")
    assert {isa: found["isa"] for isa, found in reports.items()} == {isa: isa for isa in reports}
    assert len({found["digest"] for found in reports.values()}) == 1, reports
    assert {isa for isa, found in reports.items() if not found["compiled"]} == {"numpy"}
    assert set(dispatch.PATHS) == {*info().lacking, *reports} - {"numpy"}


def test_the_best_path_is_taken_when_none_is_asked_for() -> None:
    assert report(CABILDO_KERNELS_ISA="")["isa"] == dispatch.available()[-1]


@pytest.mark.parametrize("isa", ["sse9", *info().lacking])
def test_a_path_that_cannot_run_is_refused_with_those_that_can(isa: str) -> None:
    error = report(CABILDO_KERNELS_ISA=isa)
    assert f"UnavailablePath: CABILDO_KERNELS_ISA={isa}: this machine runs numpy" in error
    assert ", ".join(dispatch.available()) in error


def test_without_compiled_modules_numpy_does_the_work() -> None:
    hidden = "import sys; sys.modules['cabildo_kernels.native.cpu'] = None" + REPORT
    found = report(hidden, CABILDO_KERNELS_ISA="")
    assert (found["isa"], found["compiled"], found["available"]) == ("numpy", False, ["numpy"])
    assert found["missing"] == ["cpu"]


def test_one_missing_module_leaves_the_others_compiled() -> None:
    hidden = "import sys; sys.modules['cabildo_kernels.native.columns'] = None" + REPORT
    best = dispatch.available()[-1]
    found, whole = (report(code, CABILDO_KERNELS_ISA=best) for code in (hidden, REPORT))
    assert found["digest"] == whole["digest"]
    assert (found["isa"], found["compiled"], found["missing"]) == (best, False, ["columns"])
    assert (whole["isa"], whole["compiled"], whole["missing"]) == (best, True, [])


def test_where_no_module_compiled_but_the_cpus_nothing_is_said_to_be_compiled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in dispatch.MODULES:
        if name != "cpu":
            monkeypatch.setitem(sys.modules, f"cabildo_kernels.native.{name}", None)
    about = info()
    assert not about.compiled
    assert set(about.missing) == {*dispatch.MODULES} - {"cpu"}


def test_every_module_that_is_built_is_asked_for_but_the_one_that_measures() -> None:
    built = {file.stem for file in Path(native.__path__[0]).glob("*.pyi")}
    assert built - {"measure"} == set(dispatch.MODULES)


def test_info_says_what_runs_here() -> None:
    about = info()
    assert about.isa in about.available
    assert about.available[0] == "numpy"
    assert about.threads >= 1
    assert about.grid_version == "v1"
