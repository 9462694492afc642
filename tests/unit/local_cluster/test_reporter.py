"""`up` says what it does, how long it took and what comes next."""

from __future__ import annotations

import io
import re

import pytest

from cabildo_local.reporter import LineReporter, SilentReporter


def test_a_step_says_its_place_the_next_one_and_its_duration() -> None:
    said = io.StringIO()
    reporter = LineReporter(said)
    reporter.plan(["network", "nodes"])
    with reporter.step("network"):
        pass
    with reporter.step("nodes"):
        reporter.note("no download: refused")
    lines = said.getvalue().splitlines()
    assert lines[0].endswith("(1/2) network ... (next: nodes)")
    assert re.search(r"network: done in \d+\.\d s$", lines[1])
    assert lines[2].endswith("(2/2) nodes ...")
    assert lines[3].endswith("no download: refused")
    assert all(re.match(r"\[ *\d+\.\d s\] ", line) for line in lines)


def test_an_unplanned_step_is_shown_without_a_place() -> None:
    said = io.StringIO()
    with LineReporter(said).step("clear"):
        pass
    assert "] clear ..." in said.getvalue()


def test_a_failed_step_says_so_and_the_error_goes_on() -> None:
    said = io.StringIO()
    with pytest.raises(ValueError, match="x"), LineReporter(said).step("nodes"):
        raise ValueError("x")
    assert "nodes: failed after" in said.getvalue()
    assert "done" not in said.getvalue()


def test_the_silent_one_takes_everything() -> None:
    reporter = SilentReporter()
    reporter.plan(["a"])
    reporter.note("b")
    with reporter.step("a"):
        pass
