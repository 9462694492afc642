"""What n, f, q and thresholds are possible, and that every refusal carries its arithmetic."""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from cabildo_api.consensus_limits import (
    MAXIMUM_PARTICIPANTS,
    RULE_LIMITS,
    after_exclusions,
    bucketing_limit,
    effective_faults,
    faults_of,
    quorum_limit,
    quorums,
    rule_limit,
    threshold_limit,
    verification_limit,
    verifiers_needed,
    votes_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from cabildo_api.consensus_limits import Check

NAN = float("nan")


def test_the_module_needs_the_standard_library_only() -> None:
    code = (
        "import sys, cabildo_api.consensus_limits;"
        "print([m for m in ('pydantic', 'yaml', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("rule", "n", "f", "holds"),
    [
        ("krum", 13, 5, True),
        ("krum", 12, 5, False),
        ("krum", 4, 1, False),
        ("multiKrum", 7, 2, True),
        ("bulyan", 15, 3, True),
        ("bulyan", 16, 5, False),
        ("median", 11, 5, True),
        ("median", 10, 5, False),
        ("trimmedMean", 3, 1, True),
        ("weightedMean", 3, 0, True),
        ("weightedMean", 30, 1, False),
        ("uniformSoup", 3, 1, False),
        ("flTrust", 6, 5, True),
        ("flTrust", 5, 5, False),
        ("zeno", 2, 1, True),
        ("mda", 16, 5, True),
        ("mda", 30, 14, False),
        ("median", 0, 0, False),
        ("median", 65, 1, False),
        ("median", 5, -1, False),
    ],
)
def test_rules_have_their_published_limits(rule: str, n: int, f: int, holds: bool) -> None:
    check = rule_limit(rule, n=n, f=f)
    assert check.holds is holds
    assert holds or check.remedy


def test_a_refusal_carries_the_arithmetic_and_the_largest_f() -> None:
    check = rule_limit("krum", n=12, f=5)
    assert check.arithmetic == "krum needs n >= 2f + 3: n = 12, f = 5, 12 < 13"
    assert check.remedy == (
        "add 1 participants, lower maxFaulty to 4, or take a rule with a lower limit"
    )
    assert rule_limit("bulyan", n=2, f=1).remedy == "add 5 participants"


def test_too_many_subsets_are_counted() -> None:
    assert str(math.comb(30, 14)) in rule_limit("smea", n=30, f=14).arithmetic


def test_bulyan_never_holds_for_a_third_of_faults() -> None:
    """f = (n - 1) / 3 needs n >= 4f + 3 = (4n + 5) / 3 > n."""
    assert not any(rule_limit("bulyan", n=n, f=(n - 1) // 3).holds for n in range(4, 65))


def test_most_faults_is_the_largest_f_that_holds() -> None:
    for rule, n in itertools.product(RULE_LIMITS, range(1, 13)):
        most = RULE_LIMITS[rule].most_faults(n)
        holding = [f for f in range(n + 1) if rule_limit(rule, n=n, f=f).holds]
        assert most == (max(holding) if holding else -1), (rule, n)


@pytest.mark.parametrize(
    ("n", "f", "size", "holds"),
    [(16, 3, 2, True), (16, 4, 2, False), (15, 3, 2, True), (5, 0, 9, True), (5, 1, 0, False)],
)
def test_buckets_leave_a_majority_without_faults(n: int, f: int, size: int, holds: bool) -> None:
    assert bucketing_limit(n=n, f=f, size=size).holds is holds


def test_each_refused_number_has_a_remedy_of_its_own() -> None:
    remedies = [
        rule_limit("median", n=5, f=-1).remedy,
        rule_limit("median", n=0, f=0).remedy,
        rule_limit("median", n=65, f=1).remedy,
        rule_limit("flTrust", n=64, f=1).remedy,
        bucketing_limit(n=5, f=1, size=0).remedy,
        bucketing_limit(n=5, f=2, size=2).remedy,
    ]
    assert len(set(remedies)) == len(remedies)
    assert "maxFaulty" in remedies[0]
    assert "64 participants" in remedies[2]
    assert "63 participants" in remedies[3]
    assert "set size" in remedies[4]


def test_trusted_rows_count_as_rows() -> None:
    for rule, limit in RULE_LIMITS.items():
        room = MAXIMUM_PARTICIPANTS - limit.trusted_rows
        for n in (MAXIMUM_PARTICIPANTS - 1, MAXIMUM_PARTICIPANTS):
            assert rule_limit(rule, n=n, f=0).holds is (n <= room), (rule, n)
            assert (limit.most_faults(n) >= 0) is (n <= room), (rule, n)
    check = rule_limit("nnm", n=64, f=1, trusted_rows=1)
    assert not check.holds
    assert "n + 1 <= 64, n = 64, 65 > 64" in check.arithmetic


def test_proven_faults_lower_both_and_absence_lowers_n_only() -> None:
    assert after_exclusions(n=16, f=5, proven=2, absent=1) == (13, 3)


@pytest.mark.parametrize(
    ("maximum", "n", "f"), [(3, 16, 3), ("25%", 16, 4), ("33%", 16, 5), ("0%", 9, 0)]
)
def test_faults_are_a_number_or_a_percentage_rounded_down(
    maximum: int | str, n: int, f: int
) -> None:
    assert faults_of(maximum, n=n) == f


@pytest.mark.parametrize("text", ["a third", "25", "101%", "25%%", "-1%", "25% ", "²%"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="maxFaulty"):
        faults_of(text, n=16)


def test_the_quorum_of_sixteen_with_five_faults_is_exactly_eleven() -> None:
    span = quorums(n=16, f=5)
    assert (span.least, span.most) == (11, 11)
    assert quorum_limit(n=16, f=5, quorum=11).holds
    for wrong in (10, 12):
        check = quorum_limit(n=16, f=5, quorum=wrong)
        assert not check.holds
        assert f"11 <= q <= 11: q = {wrong}" in check.arithmetic


def test_quorums_are_exactly_the_safe_and_live_ones() -> None:
    for n, f, q in itertools.product(range(1, 14), range(5), range(15)):
        expected = 2 * q > n + f and q <= n - f
        assert quorum_limit(n=n, f=f, quorum=q).holds is expected, (n, f, q)


def test_without_three_f_plus_one_no_quorum_fits() -> None:
    check = quorum_limit(n=15, f=5, quorum=10)
    assert not check.holds
    assert "n >= 3f + 1 = 16" in check.arithmetic
    assert "lower maxFaulty to 4" in check.remedy


def test_two_quorums_share_an_honest_voter() -> None:
    """Safety by counting: q + q - n > f for every quorum that is allowed."""
    for n, f in itertools.product(range(1, 30), range(10)):
        for q in range(quorums(n=n, f=f).least, quorums(n=n, f=f).most + 1):
            assert 2 * q - n > f


def test_three_quarters_allow_a_quarter_of_faults_not_a_third() -> None:
    assert votes_of(0.75, n=16) == 12
    assert effective_faults(n=16, declared=5, threshold=0.75) == 4
    check = threshold_limit(n=16, f=5, threshold=0.75)
    assert not check.holds
    assert "f <= 4" in check.arithmetic
    assert check.remedy == "lower maxFaulty to 4, or ask for 11 to 11 votes"
    assert threshold_limit(n=16, f=4, threshold=0.75).holds


def test_a_low_threshold_is_unsafe() -> None:
    check = threshold_limit(n=16, f=1, threshold=0.5)
    assert not check.holds
    assert "2q > n + f allows f <= -1" in check.arithmetic
    assert check.remedy.startswith("raise consensusThreshold")


@pytest.mark.parametrize("threshold", [0.0, -0.1, 1.1])
def test_a_threshold_is_a_share(threshold: float) -> None:
    assert not threshold_limit(n=4, f=0, threshold=threshold).holds


def test_a_share_is_taken_as_written_and_not_as_its_float() -> None:
    """In floats 0.56 * 25 is 14.000000000000002, and would ask for a fifteenth vote."""
    assert votes_of(0.56, n=25) == 14
    assert votes_of(0.7, n=10) == 7


def test_f_plus_one_verifiers_hold_an_honest_one() -> None:
    assert verifiers_needed(f=2) == 3


@pytest.mark.parametrize("maximum", [-1, -2, True, 1.5, NAN])
def test_other_numbers_of_faults_are_refused(maximum: Any) -> None:
    with pytest.raises(ValueError, match="maxFaulty"):
        faults_of(maximum, n=4)


LIMITS: list[Callable[..., Check]] = [
    lambda *, n, f: rule_limit("median", n=n, f=f),
    lambda *, n, f: rule_limit("weightedMean", n=n, f=f),
    lambda *, n, f: bucketing_limit(n=n, f=f, size=1),
    lambda *, n, f: quorum_limit(n=n, f=f, quorum=3),
    lambda *, n, f: threshold_limit(n=n, f=f, threshold=0.75),
    lambda *, n, f: verification_limit(n=n, f=f),
]


@pytest.mark.parametrize("limit", LIMITS)
def test_no_limit_holds_for_what_counts_nothing(limit: Callable[..., Check]) -> None:
    """With f = -1 two disjoint quorums, or half of the votes, would be safe."""
    assert limit(n=4, f=0).holds
    for f in (-1, -4, True, False, 0.0, 0.5, NAN):
        check = limit(n=4, f=f)
        assert not check.holds, f
        assert f"f = {f}" in check.arithmetic
        assert "maxFaulty" in check.remedy
    for n in (-1, True, 4.0, 4.5, NAN):
        check = limit(n=n, f=0)
        assert not check.holds, n
        assert f"n = {n}" in check.arithmetic
        assert check.remedy


def test_quorums_sizes_and_thresholds_are_counts_and_shares() -> None:
    for quorum in (3.5, NAN, -3):
        assert not quorum_limit(n=4, f=0, quorum=quorum).holds  # type: ignore[arg-type]
    assert not quorum_limit(n=1, f=0, quorum=True).holds
    for size in (True, 1.5, NAN):
        assert not bucketing_limit(n=4, f=0, size=size).holds  # type: ignore[arg-type]
    for threshold in (NAN, True):
        assert not threshold_limit(n=4, f=0, threshold=threshold).holds


def test_fewer_faults_than_none_have_no_quorum_and_no_proof() -> None:
    span = quorums(n=4, f=-1)
    assert span.least > span.most
    with pytest.raises(ValueError, match="f is -1"):
        verifiers_needed(f=-1)


def test_verifiers_are_enough_from_two_f_plus_one_on() -> None:
    assert verification_limit(n=5, f=2).holds
    check = verification_limit(n=4, f=2)
    assert not check.holds
    assert "4 < 5" in check.arithmetic
    assert check.remedy
