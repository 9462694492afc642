"""What rounds cost: dp-accounting's numbers, plans that fit, and what sampling leaves out."""

from __future__ import annotations

import math

import dp_accounting
import pytest
from dp_accounting import pld, rdp
from scipy import stats

from cabildo_trainer.consensus.errors import ImpossibleSetting
from cabildo_trainer.consensus.privacy import accounting as account
from cabildo_trainer.consensus.privacy.accounting import Budget, Spend

DELTA = 1e-5


@pytest.mark.parametrize(
    ("probability", "multiplier", "rounds", "by_rdp", "by_pld"),
    [
        (1.0, 1.0, 1, 4.7285, 4.3772),
        (1.0, 5.0, 20, 4.1616, 3.8486),
        (0.01, 1.0, 1000, 2.1014, 1.8282),
        (0.1, 1.0, 100, 7.9039, 7.0466),
        (256 / 60_000, 1.1, 14_062, 2.5966, 2.3817),
    ],
)
def test_epsilon_is_that_of_the_published_table(
    probability: float, multiplier: float, rounds: int, by_rdp: float, by_pld: float
) -> None:
    spends = (Spend(multiplier, probability, rounds),)
    found = account.epsilon_of(spends, delta=DELTA, accounting="rdp")
    assert found == pytest.approx(by_rdp, abs=1e-3)
    found = account.epsilon_of(spends, delta=DELTA, accounting="pld")
    assert found == pytest.approx(by_pld, abs=1e-3)


@pytest.mark.parametrize("kind", ["rdp", "pld"])
def test_mixed_rounds_cost_what_dp_accounting_says(kind: account.Accounting) -> None:
    spends = (Spend(1.5, 0.3, 2), Spend(2.5), Spend(1.1, 0.1, 3))
    direct = rdp.RdpAccountant() if kind == "rdp" else pld.PLDAccountant()
    for probability, multiplier, rounds in ((0.3, 1.5, 2), (0.1, 1.1, 3)):
        gaussian = dp_accounting.GaussianDpEvent(multiplier)
        for _ in range(rounds):
            direct.compose(dp_accounting.PoissonSampledDpEvent(probability, gaussian))
    direct.compose(dp_accounting.GaussianDpEvent(2.5))
    found = account.epsilon_of(spends, delta=DELTA, accounting=kind)
    assert found == pytest.approx(direct.get_epsilon(DELTA), rel=1e-6 if kind == "rdp" else 1e-3)


def test_unsampled_rounds_cost_what_pld_says_of_them_one_by_one() -> None:
    direct = pld.PLDAccountant(value_discretization_interval=1e-3)
    for multiplier in (2.0, 2.0, 3.0):
        direct.compose(dp_accounting.GaussianDpEvent(multiplier))
    found = account.epsilon_of((Spend(2.0, rounds=2), Spend(3.0)), delta=DELTA, accounting="pld")
    assert found == pytest.approx(direct.get_epsilon(DELTA), abs=5e-3)
    assert found <= direct.get_epsilon(DELTA)


def test_nothing_spent_costs_nothing() -> None:
    assert account.epsilon_of((), delta=DELTA, accounting="pld") == 0.0


def test_two_releases_about_the_same_participants_cost_what_their_combination_costs() -> None:
    together = rdp.RdpAccountant()
    together.compose(dp_accounting.GaussianDpEvent(2.0))
    together.compose(dp_accounting.GaussianDpEvent(3.0))
    one = (Spend(account.combined_multiplier(2.0, 3.0)),)
    found = account.epsilon_of(one, delta=DELTA, accounting="rdp")
    assert found == pytest.approx(together.get_epsilon(DELTA), rel=1e-9)


def test_a_huge_epsilon_is_bounded_without_filling_the_memory() -> None:
    spends = (Spend(account.SMALLEST_MULTIPLIER, 0.5, rounds=10),)
    found = account.epsilon_of(spends, delta=DELTA, accounting="pld")
    assert found == account.epsilon_of(spends, delta=DELTA, accounting="rdp")
    assert found > 1e6


@pytest.mark.parametrize(("kind", "known"), [("pld", 1.898), ("rdp", 2.0165)])
def test_the_multiplier_for_a_budget_fits_and_hardly_less_does(
    kind: account.Accounting, known: float
) -> None:
    budget = Budget(epsilon=8.0, delta=DELTA, accounting=kind)
    multiplier = account.noise_multiplier_for(budget, Spend(1.0, rounds=10))
    assert multiplier == pytest.approx(known, abs=1e-3)
    assert account.fits((Spend(multiplier, rounds=10),), budget)
    assert not account.fits((Spend(multiplier * 0.999, rounds=10),), budget)


def test_the_multiplier_knows_what_was_spent_before() -> None:
    budget = Budget(epsilon=8.0, delta=DELTA, accounting="rdp")
    before = (Spend(2.0, rounds=5),)
    multiplier = account.noise_multiplier_for(budget, Spend(1.0, rounds=5), spends=before)
    assert account.fits((*before, Spend(multiplier, rounds=5)), budget)
    assert not account.fits((*before, Spend(multiplier * 0.999, rounds=5)), budget)


@pytest.mark.parametrize("kind", ["rdp", "pld"])
def test_no_noise_fits_a_budget_that_is_spent(kind: account.Accounting) -> None:
    budget = Budget(epsilon=2.0, delta=DELTA, accounting=kind)
    with pytest.raises(ImpossibleSetting, match="no noise keeps 3 more rounds"):
        account.noise_multiplier_for(budget, Spend(1.0, rounds=3), spends=(Spend(1.0),))


@pytest.mark.parametrize(
    ("kind", "spend"),
    [
        ("rdp", Spend(1.9)),
        ("rdp", Spend(4.0, 0.5)),
        ("rdp", Spend(0.4)),
        ("pld", Spend(1.9)),
        ("pld", Spend(1.5, 0.5)),
        ("pld", Spend(0.4)),
    ],
)
def test_rounds_within_a_budget_are_the_most_that_fit(
    kind: account.Accounting, spend: Spend
) -> None:
    budget = Budget(epsilon=4.0, delta=DELTA, accounting=kind)
    rounds = account.rounds_within(budget, spend)
    one_more = Spend(spend.noise_multiplier, spend.sampling_probability, rounds + 1)
    assert not account.fits((one_more,), budget)
    if rounds:
        last = Spend(spend.noise_multiplier, spend.sampling_probability, rounds)
        assert account.fits((last,), budget)
    assert (rounds > 0) == (spend.noise_multiplier > 1.0)


def test_a_round_that_may_not_run_as_described_is_taken_from_delta() -> None:
    plain, failing = Spend(3.0, rounds=10), Spend(3.0, rounds=10, failure=1e-12)
    epsilon = account.epsilon_of((failing,), delta=DELTA, accounting="rdp")
    left = DELTA - (1.0 + math.exp(epsilon)) * 1e-11
    assert account.epsilon_of((plain,), delta=left, accounting="rdp") <= epsilon
    assert account.epsilon_of((plain,), delta=DELTA, accounting="rdp") < epsilon
    tight = DELTA - (1.0 + math.exp(epsilon)) * 1.001e-11
    assert account.epsilon_of((plain,), delta=tight, accounting="rdp") > epsilon * (1 - 1e-4)


def test_a_failure_that_is_likelier_than_delta_leaves_no_bound() -> None:
    spends = (Spend(3.0, failure=1e-4),)
    assert account.epsilon_of(spends, delta=DELTA, accounting="rdp") == math.inf


@pytest.mark.parametrize(("count", "probability", "population"), [(0, 0.1, 5), (3, 0.1, 20)])
@pytest.mark.parametrize("more", [0, 9, 40])
def test_binomial_tails_are_scipys(
    count: int, probability: float, population: int, more: int
) -> None:
    wanted = stats.binom.sf(count + more - 1, population, probability)
    found = account.at_least(count + more, probability, population=population)
    assert found == pytest.approx(wanted, rel=1e-6, abs=1e-300)


def test_sampling_fails_when_nobody_or_too_many_are_drawn() -> None:
    wanted = 0.9**19
    assert account.sampling_failure(0.1, population=20) == pytest.approx(wanted)
    wanted = 0.9**599 + stats.binom.sf(64, 600, 0.1)
    assert account.sampling_failure(0.1, population=600) == pytest.approx(wanted, rel=1e-6)
    assert account.sampling_failure(1.0, population=20) == 0.0


@pytest.mark.parametrize(
    "values",
    [
        {"noise_multiplier": 0.0},
        {"noise_multiplier": math.nan},
        {"noise_multiplier": 1.0, "sampling_probability": 0.0},
        {"noise_multiplier": 1.0, "sampling_probability": 1.1},
        {"noise_multiplier": 1.0, "rounds": 0},
        {"noise_multiplier": 1.0, "failure": -1.0},
    ],
)
def test_a_spend_that_means_nothing_is_refused(values: dict[str, float]) -> None:
    with pytest.raises(ImpossibleSetting):
        Spend(**values)  # type: ignore[arg-type] - wrong on purpose


def test_equal_rounds_are_counted_together() -> None:
    spends = account.added(account.added((), Spend(2.0)), Spend(2.0, rounds=3))
    assert spends == (Spend(2.0, rounds=4),)
    assert account.added(spends, Spend(3.0)) == (Spend(2.0, rounds=4), Spend(3.0))
