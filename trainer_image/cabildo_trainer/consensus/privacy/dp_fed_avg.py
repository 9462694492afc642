"""DP-FedAvg: clipped updates, summed, noised, divided by a fixed expected count.

What is promised: whoever sees the merged models and `published(result)` of all rounds, but not the
noise key, the participants' own models or their digests, learns little about any one participant:
(epsilon, delta)-differential privacy for one participant's update against none. The aggregator and
the verifiers who hold the models are trusted with them.

What is not: it is a mean. f participants of n still move it by f C / n, in any direction they like,
every round; clipping and noise are no robust rule. Use a robust rule after the noise (that is free)
if faults must be borne.

McMahan, Ramage, Talwar, Zhang, "Learning differentially private recurrent language models", ICLR
2018, arXiv 1710.06963. Here: the rule. Never here: the accountants or the noise. Next:
`noisy_sum.py` makes the model, `verification.py` checks it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final, NamedTuple

from cabildo_api.consensus_limits import Check
from cabildo_trainer.consensus.context import Need
from cabildo_trainer.consensus.decision import Decision, PrivacySpent
from cabildo_trainer.consensus.errors import BudgetExceeded, ImpossibleSetting, MissingInput
from cabildo_trainer.consensus.privacy.accounting import (
    SMALLEST_MULTIPLIER,
    Accounting,
    Budget,
    Spend,
    added,
    at_least,
    combined_multiplier,
    epsilon_of,
    noise_multiplier_for,
    sampling_failure,
)
from cabildo_trainer.consensus.privacy.adaptive_clipping import Quantile
from cabildo_trainer.consensus.privacy.clipped_sum import Grid, commit, norms_of, scales
from cabildo_trainer.consensus.privacy.discrete_gaussian import NoiseStream
from cabildo_trainer.consensus.privacy.ledger import DIAGNOSTIC, Ledger, Privacy
from cabildo_trainer.consensus.privacy.noisy_sum import NoisySum
from cabildo_trainer.consensus.privacy.publication import ROUND, opening_of
from cabildo_trainer.consensus.rule import Rule, require

if TYPE_CHECKING:
    from cabildo_trainer.consensus.passes import Session

SMALLEST_NORM: Final = 1e-20
LARGEST_NORM: Final = 1e20
COUNT_NOISE_SHARE: Final = 0.05
"""The default of Andrew et al.: the count's noise is a twentieth of the expected count ..."""
COUNT_NOISE_LEAST: Final = 2.5
"""... but at least this times sigma: then a round costs what 2 % less noise would. With few
participants a twentieth of them would cost more than the sum itself."""
TOO_UNLIKELY: Final = 1e-9
"""So few Poisson samples are as large as the one that was given."""
_SUM_TO_EXPECTED: Final = 1e-9


class _Costs(NamedTuple):
    """Epsilon before a round and after it."""

    before: float
    after: float


@dataclass(frozen=True, slots=True)
class DpFedAvg(Rule):
    """start + (1 / m) (sum_i clip(x_i - start, C) + noise of standard deviation sigma C).

    The five numbers without a meaningful default must be given.

    Attributes:
        clip_norm: C; with adaptive clipping that of the first round.
        noise_multiplier: sigma.
        expected_participants: m, fixed before anybody is drawn, never the count that came.
        epsilon: The budget of all rounds together.
        delta: Below one over the number of participants that there are.
        accounting: `pld`, or `rdp` (needed when sigma is changed after looking at results).
        sampling_probability: Below 1 only if the operator draws every participant of each round by
            its own coin (Poisson sampling), and keeps secret who was drawn. Then n may be any.
        population: How many there are to draw from; m must be sampling_probability * population.
        adaptive_quantile: Share of updates that shall not be clipped; None keeps C.
        adaptive_rate: Step of adaptive clipping.
        count_noise: Standard deviation of the noise on adaptive clipping's count, in participants;
            None for the larger of m / 20 and 2.5 sigma. The smaller, the more a round costs.
    """

    name: ClassVar[str] = "dpFedAvg"
    clip_norm: float = 0.0
    noise_multiplier: float = 0.0
    expected_participants: float = 0.0
    epsilon: float = 0.0
    delta: float = 0.0
    accounting: Accounting = "pld"
    sampling_probability: float = 1.0
    population: int | None = None
    adaptive_quantile: float | None = None
    adaptive_rate: float = 0.2
    count_noise: float | None = None

    @property
    def needs(self) -> frozenset[Need]:
        """The model that updates are taken from, the noise key and the ledger."""
        return frozenset({Need.PREVIOUS, Need.PRIVACY})

    @property
    def passes(self) -> int:
        """Norms, the clipped sum's commitment, the sum with noise."""
        return 3

    @property
    def budget(self) -> Budget:
        """What all rounds together may cost."""
        return Budget(epsilon=self.epsilon, delta=self.delta, accounting=self.accounting)

    @property
    def quantile(self) -> Quantile | None:
        """Adaptive clipping, where it is on."""
        if self.adaptive_quantile is None:
            return None
        noise = self.count_noise
        if noise is None:
            noise = COUNT_NOISE_SHARE * self.expected_participants
            noise = max(noise, COUNT_NOISE_LEAST * self.noise_multiplier)
        return Quantile(quantile=self.adaptive_quantile, rate=self.adaptive_rate, count_noise=noise)

    @property
    def spend(self) -> Spend:
        """What one round releases."""
        quantile, multiplier = self.quantile, self.noise_multiplier
        if quantile is not None:
            multiplier = combined_multiplier(multiplier, quantile.multiplier)
        failure = 0.0
        if self.population is not None:
            failure = sampling_failure(self.sampling_probability, population=self.population)
        return Spend(
            noise_multiplier=multiplier,
            sampling_probability=self.sampling_probability,
            failure=failure,
        )

    def requirement(self, n: int, f: int) -> None:
        """Also checks the parameters."""
        Rule.requirement(self, n, f)
        for check in self._checks(n):
            require(check)

    def _checks(self, n: int) -> tuple[Check, ...]:
        people = self.population if self.population is not None else self.expected_participants
        quantile = self.adaptive_quantile
        return (
            Check(
                holds=SMALLEST_NORM <= self.clip_norm <= LARGEST_NORM,
                arithmetic=f"dpFedAvg: clipNorm = {self.clip_norm} must be above zero",
                remedy="set it to the usual norm of an update, or let it adapt: adaptiveQuantile",
            ),
            Check(
                holds=SMALLEST_MULTIPLIER <= self.noise_multiplier < math.inf,
                arithmetic=f"dpFedAvg: noiseMultiplier = {self.noise_multiplier} must be at least"
                f" {SMALLEST_MULTIPLIER}",
                remedy="take the one that fits the budget for your number of rounds",
            ),
            Check(
                holds=0.0 < self.expected_participants < math.inf,
                arithmetic=f"dpFedAvg: expectedParticipants = {self.expected_participants} must be"
                " above zero: the divisor is fixed beforehand",
                remedy="set it to the number of participants (times samplingProbability)",
            ),
            Check(
                holds=0.0 < self.epsilon < math.inf and 0.0 < self.delta * people < 1.0,
                arithmetic=f"dpFedAvg: epsilon = {self.epsilon} must be above zero, delta ="
                f" {self.delta} above zero and below 1 / {people:g}: else one participant's model"
                " could be given away whole",
                remedy="set for instance epsilon: 8 and delta: 1.0e-5",
            ),
            Check(
                holds=quantile is None
                or (
                    0.0 < quantile < 1.0
                    and 0.0 < self.adaptive_rate <= 1.0
                    and (self.count_noise is None or 0.0 < self.count_noise < math.inf)
                ),
                arithmetic="dpFedAvg: adaptive clipping needs 0 < adaptiveQuantile < 1,"
                f" 0 < adaptiveRate <= 1, countNoise > 0: {quantile}, {self.adaptive_rate},"
                f" {self.count_noise}",
            ),
            self._sampling_check(n),
        )

    def _sampling_check(self, n: int) -> Check:
        probability, population = self.sampling_probability, self.population
        if probability == 1.0 and population is None:
            return Check(
                holds=n <= self.expected_participants,
                arithmetic=f"dpFedAvg: {n} participants, and expectedParticipants ="
                f" {self.expected_participants:g}: without sampling there are never more",
                remedy="set expectedParticipants to the number of those who may take part",
            )
        if population is None or not 0.0 < probability <= 1.0:
            return Check(
                holds=False,
                arithmetic=f"dpFedAvg: samplingProbability = {probability} needs to be above 0, at"
                f" most 1, with the population that is drawn from: population = {population}",
                remedy="set both, or leave both out when all participants take part",
            )
        expected = probability * population
        if abs(expected - self.expected_participants) > _SUM_TO_EXPECTED * expected:
            return Check(
                holds=False,
                arithmetic=f"dpFedAvg: samplingProbability * population = {probability} *"
                f" {population} = {expected:g} is not expectedParticipants ="
                f" {self.expected_participants:g}",
                remedy=f"set expectedParticipants: {expected:g}",
            )
        chance = at_least(n, probability, population=population)
        return Check(
            holds=chance >= TOO_UNLIKELY,
            arithmetic=f"dpFedAvg: {n} of {population} participants take part, which Poisson"
            f" sampling with probability {probability} does with probability {chance:.1e}: they"
            " were not drawn so",
            remedy="leave samplingProbability out unless the operator draws the participants",
        )

    def decide(self, session: Session) -> Decision:
        """Checks the budget before anything is read, then clips, commits and sets up the noise."""
        privacy = self._privacy(session)
        costs = self._costs(privacy.ledger)
        grid = Grid(
            clip_norm=self._clip_norm(privacy.ledger), noise_multiplier=self.noise_multiplier
        )
        norms = norms_of(session)
        weights = scales(norms, grid=grid)
        opening = opening_of(privacy.key, start=session.context.start, rounds=privacy.ledger.rounds)
        commitment = commit(session, weights, grid=grid, opening=opening)
        diagnostics: dict[str, float | str] = {
            "clipNorm": grid.clip_norm,
            "gridStep": grid.step,
            "clippedSum": commitment,
            ROUND: privacy.ledger.rounds + 1,
            "epsilonBefore": costs.before,
            "epsilonBudget": self.epsilon,
        }
        next_clip_norm = None
        if self.quantile is not None:
            stream = NoiseStream(privacy.key.derive(b"count", commitment.encode()))
            share = self.quantile.noised_share(
                norms, bound=grid.bound, expected=self.expected_participants, noise=stream
            )
            next_clip_norm = self.quantile.next_clip_norm(grid.clip_norm, share=share)
            diagnostics |= {"noisedShareUnclipped": share, "nextClipNorm": next_clip_norm}
        ledger = privacy.ledger.after(self.spend, clip_norm=next_clip_norm)
        diagnostics[DIAGNOSTIC] = ledger.to_json()
        ratio = self.signal_to_noise(_elements(session))
        if ratio < 1.0:
            diagnostics["warning"] = (
                f"signal to noise is {ratio:.2g}: the noise is {1.0 / ratio:.3g} times as long as"
                " the largest possible sum of updates; train fewer parameters (LoRA), with more"
                " participants, or use record-level privacy in the participants' own training"
            )
        return Decision(
            recipe=NoisySum.of(
                weights,
                key=privacy.key,
                commitment=commitment,
                step=grid.step,
                divisor=self.expected_participants,
            ),
            accepted=(True,) * session.n,
            diagnostics=diagnostics,
            privacy=PrivacySpent(epsilon=costs.after, delta=self.delta, signal_to_noise=ratio),
        )

    def signal_to_noise(self, elements: int) -> float:
        """Returns C m / (sigma C sqrt(d)): the longest sum over the noise's length."""
        return self.expected_participants / (self.noise_multiplier * math.sqrt(max(elements, 1)))

    def _privacy(self, session: Session) -> Privacy:
        context = session.context
        if context.privacy is None:
            raise MissingInput("dpFedAvg needs a noise key and the ledger of earlier rounds")
        context.privacy.key.refuse_public(context.seed)
        if session.root is not session:
            raise ImpossibleSetting(
                "dpFedAvg inside another rule: mixtures of models have no clip norm of one"
                " participant",
                remedy="use dpFedAvg by itself; a robust rule may follow the noise",
            )
        integers = [spec.name for spec in session.specs.values() if not spec.is_floating]
        if integers and context.integers != "equal":
            raise ImpossibleSetting(
                f"dpFedAvg with integers: {context.integers}: tensor {integers[0]} would be"
                " published as a participant sent it",
                remedy="use integers: equal, or train without such tensors",
            )
        return context.privacy

    def _clip_norm(self, ledger: Ledger) -> float:
        if self.quantile is None or ledger.clip_norm is None:
            return self.clip_norm
        return min(max(ledger.clip_norm, SMALLEST_NORM), LARGEST_NORM)

    def _costs(self, ledger: Ledger) -> _Costs:
        """Refuses a round that would pass the budget; nothing has been read by then."""
        after = added(ledger.spends, self.spend)
        costs = _Costs(
            before=epsilon_of(ledger.spends, delta=self.delta, accounting=self.accounting),
            after=epsilon_of(after, delta=self.delta, accounting=self.accounting),
        )
        if costs.after <= self.epsilon:
            return costs
        raise BudgetExceeded(
            f"round {ledger.rounds + 1} would bring epsilon from {costs.before:.4f} to"
            f" {costs.after:.4f} (+{costs.after - costs.before:.4f}), above the budget of"
            f" {self.epsilon:g} at delta = {self.delta:g} by {self.accounting.upper()}; nothing of"
            " it was spent",
            remedy=self._what_fits(ledger),
        )

    def _what_fits(self, ledger: Ledger) -> str:
        try:
            least = noise_multiplier_for(self.budget, self.spend, spends=ledger.spends)
        except ImpossibleSetting as error:
            return f"no further round fits: {error.remedy}"
        quantile = "" if self.quantile is None else " (count and sum together)"
        return (
            f"no round fits with a noise multiplier of {self.spend.noise_multiplier:.4g}; one more"
            f" fits with {least:.4g} or more{quantile}, or stop here"
        )


def _elements(session: Session) -> int:
    return sum(spec.size for spec in session.specs.values() if spec.is_floating)
