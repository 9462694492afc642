"""Every row of bench-kernels says GB/s, GHz and the share of the FMA peak, or null for the last."""

from __future__ import annotations

import importlib
import itertools
import sys
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

pytest.importorskip("torch")
pytest.importorskip("cabildo_kernels.native.measure", exc_type=ImportError)
BENCH = Path(__file__).parents[2] / "bench"
IN_DOUBLE = {"trimmed_mean", "weighted_sum", "gram", "multi_krum"}


@pytest.fixture
def cases(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return bench modules by name; byzfl takes seconds to import and is not called here."""
    monkeypatch.syspath_prepend(str(BENCH))
    monkeypatch.setitem(sys.modules, "byzfl", MagicMock())
    names = ("report", "contest", "layer_cases", "merging_cases", "page")
    yield {name: importlib.import_module(name) for name in names}
    for name in names:
        monkeypatch.delitem(sys.modules, name)


def test_every_case_says_what_it_reads_and_whether_it_computes_in_double(cases: Any) -> None:
    merging = itertools.takewhile(
        lambda contest: "d1024/" in contest.case, cases["merging_cases"].contests(columns=4096)
    )
    contests = [*cases["layer_cases"].contests(), *merging]
    assert len(contests) > 20
    for contest in contests:
        assert contest.size_bytes > 0, contest.case
        assert bool(contest.operations) == (contest.case.split("/")[0] in IN_DOUBLE), contest.case


def test_operations_and_bytes_of_a_rule_with_a_gram_matrix_and_a_mean(cases: Any) -> None:
    rows = cases["merging_cases"].rows_of(16, 1024, dtype="f32")
    contest = cases["merging_cases"].contest("multi_krum", rows, dtype="f32")
    # 136 pairs and 11 chosen rows, a product and a sum each, and the mean's division.
    assert contest.operations == (2 * (136 + 11) + 1) * 1024
    assert contest.size_bytes == (16 + 11) * 4 * 1024


@pytest.mark.parametrize(("operations", "share"), [(0, None), (6e6, 0.5)])
def test_a_row_has_all_three_figures(cases: Any, operations: float, share: float | None) -> None:
    contest = cases["contest"].Contest(
        case="some", contenders={}, size_bytes=4e6, operations=operations, threads=2
    )
    contest.best_s = {"cabildo": 1e-3, "numpy": 2e-3}
    contest.clock_hz, contest.fma_peak = 3e9, 6e9 if operations else 0.0
    (row,) = contest._rows()
    assert row.details == {"ghz": 3.0, "gb_per_s": 4.0, "fma_peak_share": share}
    assert row.as_json()["fma_peak_share"] == share
    assert ("fma_peak_share -" in cases["report"].table([row])) == (share is None)
    bench = {"name": "b", "command": "c", "date": "d", "machine": "m", "rows": [row.as_json()]}
    assert "| fma_peak_share |" in cases["page"].table(bench)
