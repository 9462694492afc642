"""How much privacy a series of rounds costs, by Google's dp-accounting.

The protected unit is a participant: the guarantee compares a round with the same round in which one
participant's update is replaced by zero, under a fixed divisor. (Replacing an update by another one
moves the sum twice as far: halve the noise multiplier in such a comparison.)

Two accountants: RDP (Mironov 2017, 2019) holds also when later noise multipliers are chosen after
looking at earlier results; PLD (numerical composition, Doroshenko et al. 2022) is tighter and is
for multipliers that were fixed beforehand. Where nobody is sampled, rounds compose to one Gaussian,
and `pld` takes its exact curve (Balle, Wang 2018), which PLD approaches.

Sampling counts only if the operator really drew each participant by its own coin (Poisson). A round
that cannot be run then (nobody was drawn, or more than the kernels' 64 rows) differs from what the
formula describes; the probability of that is `Spend.failure` and is taken from delta.

Here: spends, epsilon, and the plans that fit a budget. Never here: noise, or files. Next:
`ledger.py` keeps spends between rounds.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from cabildo_api.consensus_limits import MAXIMUM_PARTICIPANTS
from cabildo_trainer.consensus.errors import ImpossibleSetting

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Accounting = Literal["rdp", "pld"]

LARGEST_MULTIPLIER: Final = 2.0**20
"""Beyond it nothing is learned; a search for more ends."""
SMALLEST_MULTIPLIER: Final = 2.0**-10
"""Below it there is no privacy to speak of, and the accountants' numbers overflow."""
LARGEST_PLD_EPSILON: Final = 100.0
"""PLD's arrays grow with epsilon until memory is full; above, RDP's bound counts: it holds too."""
MOST_ROUNDS: Final = 2**20
_PRECISION: Final = 1e-5  # relative, of the multiplier that is searched for
_STEPS_OF_FIXED_POINT: Final = 64
_LARGEST_EXPONENT: Final = 700.0  # of an fp64 exp


@dataclass(frozen=True, slots=True)
class Spend:
    """Equal rounds.

    Attributes:
        noise_multiplier: Standard deviation of the noise over the largest norm of one update.
        sampling_probability: Of each participant, in each round; 1 when all take part.
        rounds: How many.
        failure: Probability, for each round, that it could not be run as described.
    """

    noise_multiplier: float
    sampling_probability: float = 1.0
    rounds: int = 1
    failure: float = 0.0

    def __post_init__(self) -> None:
        if not (
            0.0 < self.noise_multiplier < math.inf
            and 0.0 < self.sampling_probability <= 1.0
            and self.rounds >= 1
            and 0.0 <= self.failure < 1.0
        ):
            raise ImpossibleSetting(f"no privacy can be accounted for {self}")


@dataclass(frozen=True, slots=True)
class Budget:
    """What may be spent in all.

    Attributes:
        epsilon: Above zero.
        delta: Between zero and one over the number of participants.
        accounting: Whose bound counts.
    """

    epsilon: float
    delta: float
    accounting: Accounting = "pld"


def epsilon_of(spends: Sequence[Spend], *, delta: float, accounting: Accounting) -> float:
    """Returns epsilon of all spends together at a delta; infinite where no bound is known."""
    if not spends:
        return 0.0
    failure = math.fsum(spend.failure * spend.rounds for spend in spends)
    bound = _bound(spends, delta=delta, accounting=accounting)
    epsilon = bound(delta)
    if failure == 0.0 or not math.isfinite(epsilon):
        return epsilon
    # A mechanism within total variation t of an (e, d)-private one is (e, d + (1 + exp(e)) t).
    for _ in range(_STEPS_OF_FIXED_POINT):
        left = delta - (1.0 + math.exp(min(epsilon, _LARGEST_EXPONENT))) * failure
        if left <= 0.0:
            return math.inf
        needed = bound(left)
        if needed <= epsilon:
            return epsilon
        epsilon = needed * (1.0 + 1e-6)
    return math.inf


def _bound(
    spends: Sequence[Spend], *, delta: float, accounting: Accounting
) -> Callable[[float], float]:
    """Returns epsilon as a function of delta, from the accountant that can do it."""
    # It brings scipy: seconds, which other rules need not wait for.
    import dp_accounting  # noqa: PLC0415
    from dp_accounting import gaussian_mechanism, pld, rdp  # noqa: PLC0415

    if accounting == "pld" and all(spend.sampling_probability == 1.0 for spend in spends):
        one = combined_multiplier(
            *(spend.noise_multiplier / math.sqrt(spend.rounds) for spend in spends)
        )
        return lambda delta: float(gaussian_mechanism.get_epsilon_gaussian(one, delta))

    def composed(accountant: Any) -> Callable[[float], float]:
        for spend in spends:
            event = dp_accounting.GaussianDpEvent(spend.noise_multiplier)
            if spend.sampling_probability < 1.0:
                event = dp_accounting.PoissonSampledDpEvent(spend.sampling_probability, event)
            accountant.compose(event, spend.rounds)
        return lambda delta: float(accountant.get_epsilon(delta))

    by_rdp = composed(rdp.RdpAccountant())
    if accounting == "rdp" or by_rdp(delta) > LARGEST_PLD_EPSILON:
        return by_rdp
    return composed(pld.PLDAccountant())


def added(spends: Sequence[Spend], spend: Spend) -> tuple[Spend, ...]:
    """Returns the spends with one more; equal ones at the end are counted together."""
    if spends and replace(spends[-1], rounds=spend.rounds) == spend:
        last = replace(spends[-1], rounds=spends[-1].rounds + spend.rounds)
        return (*spends[:-1], last)
    return (*spends, spend)


def combined_multiplier(*multipliers: float) -> float:
    """Returns the multiplier of one Gaussian release that costs as much as several together."""
    return 1.0 / math.sqrt(math.fsum(1.0 / multiplier**2 for multiplier in multipliers))


def fits(spends: Sequence[Spend], budget: Budget) -> bool:
    """Returns whether all spends together are within a budget."""
    spent = epsilon_of(spends, delta=budget.delta, accounting=budget.accounting)
    return spent <= budget.epsilon


def rounds_within(budget: Budget, spend: Spend, *, spends: Sequence[Spend] = ()) -> int:
    """Returns how many more rounds of a kind fit a budget.

    Args:
        budget: The budget.
        spend: A round; its `rounds` does not matter.
        spends: What was spent before.
    """

    def fit(rounds: int) -> bool:
        return rounds == 0 or fits(added(spends, replace(spend, rounds=rounds)), budget)

    low = 0
    if budget.accounting == "pld":  # RDP's answer is never more, and costs next to nothing
        low = rounds_within(replace(budget, accounting="rdp"), spend, spends=spends)
    step = max(1, low // 8)
    while low + step <= MOST_ROUNDS and fit(low + step):
        low, step = low + step, 2 * step
    high = low + step
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fit(middle) else (low, middle)
    return low


def noise_multiplier_for(budget: Budget, spend: Spend, *, spends: Sequence[Spend] = ()) -> float:
    """Returns the least noise multiplier with which rounds fit a budget, up to 1e-5 above it.

    Args:
        budget: The budget.
        spend: The rounds: their number, sampling and failure; the multiplier does not matter.
        spends: What was spent before.

    Raises:
        ImpossibleSetting: No noise is enough: the budget is spent, or a failure is too likely.
    """

    def fit(multiplier: float) -> bool:
        return fits(added(spends, replace(spend, noise_multiplier=multiplier)), budget)

    high = LARGEST_MULTIPLIER
    if budget.accounting == "pld":  # RDP's answer is never less, and costs next to nothing
        with suppress(ImpossibleSetting):
            rdp = replace(budget, accounting="rdp")
            high = noise_multiplier_for(rdp, spend, spends=spends)
    if not fit(high):
        raise ImpossibleSetting(
            f"no noise keeps {spend.rounds} more rounds within epsilon = {budget.epsilon} at"
            f" delta = {budget.delta}",
            remedy="raise the budget, or start from a model that was not trained on these data",
        )
    # From above: the accountants fail on tiny multipliers.
    factor = 0.5 if high == LARGEST_MULTIPLIER else 0.9
    while high > SMALLEST_MULTIPLIER and fit(high * factor):
        high *= factor
    low = high * factor
    while high / low > 1.0 + _PRECISION:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if fit(middle) else (middle, high)
    return high


def sampling_failure(probability: float, *, population: int) -> float:
    """Returns the probability that a sampled round cannot be run: no row, or more than 64.

    The larger one of two neighbouring populations (one without a participant) counts.
    """
    if probability >= 1.0:
        return 0.0
    nobody = (1.0 - probability) ** (population - 1)
    return nobody + at_least(MAXIMUM_PARTICIPANTS + 1, probability, population=population)


def at_least(count: int, probability: float, *, population: int) -> float:
    """Returns P(B >= count) for B binomial (population, probability), rounded up a little."""
    if count <= 0:
        return 1.0
    if count > population:
        return 0.0
    if probability >= 1.0:
        return 1.0
    odds = math.log(probability) - math.log1p(-probability)
    base = population * math.log1p(-probability)
    terms = []
    for k in range(count, population + 1):
        term = math.exp(_log_choose(population, k) + base + k * odds)
        terms.append(term)
        if k > population * probability and term < 1e-30:  # noqa: PLR2004 - the rest is below it
            break
    return min(1.0, math.fsum(terms) * (1.0 + 1e-9))


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
