"""What each rule promises: one line makes a rule run the whole contract.

A line names the rule with its parameters, an n and f that it can work with, the equivariances that
it has, and its float64 version. `tolerance` is relative to the rows' spread.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cabildo_trainer.consensus.merges.gradient_soups import LearnedSoup, SimplexWeights
from cabildo_trainer.consensus.merges.model_stock import ModelStock
from cabildo_trainer.consensus.merges.sce import Sce
from cabildo_trainer.consensus.merges.soups import (
    GreedySoup,
    IncrementalSoup,
    UniformSoup,
    WeightedSoup,
)
from cabildo_trainer.consensus.merges.spherical import MultiSlerp, Slerp
from cabildo_trainer.consensus.merges.statistics import Fisher, RegMean
from cabildo_trainer.consensus.merges.task_vectors import (
    Breadcrumbs,
    Dare,
    Della,
    TaskArithmetic,
    Ties,
)
from cabildo_trainer.consensus.privacy.dp_fed_avg import DpFedAvg
from cabildo_trainer.consensus.robust.bulyan import Bulyan
from cabildo_trainer.consensus.robust.centered_clipping import CenteredClipping
from cabildo_trainer.consensus.robust.choice import Auto
from cabildo_trainer.consensus.robust.columns import MeanAroundMedian, Median, TrimmedMean
from cabildo_trainer.consensus.robust.filtering import CovarianceFilter
from cabildo_trainer.consensus.robust.geometric_median import GeometricMedian
from cabildo_trainer.consensus.robust.krum import Krum, MultiKrum
from cabildo_trainer.consensus.robust.means import WeightedMean
from cabildo_trainer.consensus.robust.mixing import (
    AdaptiveClip,
    Bucketing,
    NearestNeighbourMixing,
    NormClip,
)
from cabildo_trainer.consensus.robust.subsets import MinimumDiameter, SmallestEigenvalue
from cabildo_trainer.consensus.robust.trusted import FlTrust, Monna, Zeno
from contract import merge_references as merges
from contract import references
from contract.models import key_of

if TYPE_CHECKING:
    from cabildo_trainer.consensus.rule import Rule
    from contract.references import Reference


@dataclass(frozen=True)
class Setting:
    """One rule under contract.

    Attributes:
        rule: With its parameters.
        n: Models.
        f: Of which so many are arbitrary.
        reference: In float64; None where the rule's own tests compare with one.
        translation: Whether moving all models (trusted ones too) moves the result.
        scale: Whether doubling all models doubles the result, to the bit.
        rotation: Whether turning all models turns the result.
        tolerance: Between the result and its reference, relative to the rows' spread.
        centred: Whether a start is given although the rule does not ask for one.
        label: Tells settings of one rule apart.
    """

    rule: Rule
    n: int
    f: int
    reference: Reference | None
    translation: bool = True
    scale: bool = True
    rotation: bool = False
    tolerance: float = 1e-5
    centred: bool = False
    label: str = ""

    @property
    def name(self) -> str:
        return self.label or self.rule.label


WEIGHTS = {key_of(row): weight for row, weight in enumerate((0.5, 0.25, -0.125, 0.75))}

SETTINGS: tuple[Setting, ...] = (
    Setting(WeightedMean(), 9, 0, references.mean, rotation=True),
    Setting(Median(), 9, 3, references.median),
    Setting(Median(), 10, 3, references.median, label="median of an even n"),
    Setting(TrimmedMean(), 9, 3, references.trimmed_mean),
    Setting(MeanAroundMedian(), 9, 3, references.meamed),
    Setting(Krum(), 10, 3, references.krum, rotation=True),
    Setting(MultiKrum(), 10, 3, references.multi_krum, rotation=True),
    Setting(MultiKrum(), 10, 3, references.multi_krum, centred=True, label="multiKrum, centred"),
    Setting(Bulyan(), 15, 3, references.bulyan),
    Setting(GeometricMedian(), 9, 3, references.geometric_median, rotation=True),
    Setting(CenteredClipping(), 10, 2, references.centered_clipping, rotation=True),
    Setting(MinimumDiameter(), 9, 3, references.mda, rotation=True),
    Setting(SmallestEigenvalue(), 9, 3, references.smea, rotation=True),
    Setting(CovarianceFilter(), 10, 3, references.caf, rotation=True),
    Setting(Monna(), 9, 3, references.monna, rotation=True),
    Setting(NearestNeighbourMixing(), 10, 3, references.nnm_of(references.trimmed_mean)),
    Setting(
        NearestNeighbourMixing(rule=CovarianceFilter()),
        10,
        3,
        references.nnm_of(references.caf),
        rotation=True,
    ),
    Setting(
        NearestNeighbourMixing(rule=GeometricMedian()),
        10,
        3,
        references.nnm_of(references.geometric_median),
        rotation=True,
    ),
    Setting(Bucketing(), 15, 3, references.bucketed(2, references.trimmed_mean)),
    Setting(
        Bucketing(size=3, rule=MultiKrum()),
        16,
        1,
        references.bucketed(3, references.multi_krum),
        rotation=True,
    ),
    Setting(
        NormClip(),
        10,
        3,
        references.norm_clip_of(references.trimmed_mean, centred=False),
        translation=False,
    ),
    Setting(
        NormClip(),
        10,
        3,
        references.norm_clip_of(references.trimmed_mean, centred=True),
        centred=True,
        label="normClip, centred",
    ),
    Setting(
        AdaptiveClip(rule=NearestNeighbourMixing()),
        10,
        3,
        references.arc_of(references.nnm_of(references.trimmed_mean), centred=True),
        centred=True,
    ),
    Setting(
        AdaptiveClip(),
        10,
        3,
        references.arc_of(references.trimmed_mean, centred=False),
        translation=False,
    ),
    Setting(FlTrust(), 10, 6, references.fltrust, rotation=True),
    Setting(Zeno(), 10, 6, references.zeno_of(0.0), rotation=True),
    Setting(Zeno(rho=3.0), 10, 6, references.zeno_of(3.0), scale=False, label="zeno with rho"),
    Setting(Auto(), 10, 3, references.auto),
    Setting(UniformSoup(), 9, 0, references.mean, rotation=True),
    Setting(
        WeightedSoup(weights=WEIGHTS),
        4,
        0,
        merges.weighted([0.5, 0.25, -0.125, 0.75]),
        translation=False,
    ),
    Setting(
        WeightedSoup(weights=WEIGHTS, normalize=True),
        4,
        0,
        merges.weighted([0.5, 0.25, -0.125, 0.75], 1.375),
        label="weightedSoup, normalised",
    ),
    Setting(GreedySoup(), 8, 0, merges.greedy),
    Setting(
        IncrementalSoup(order=tuple(key_of(row) for row in (3, 0, 4, 1, 2))),
        5,
        0,
        merges.incremental([3, 0, 4, 1, 2]),
    ),
    Setting(SimplexWeights(iterations=5), 5, 0, None, translation=False, scale=False),
    Setting(
        SimplexWeights(method="mirror-descent", penalty=0.1, iterations=5),
        5,
        0,
        None,
        translation=False,
        scale=False,
        label="simplexWeights, mirror descent",
    ),
    Setting(
        SimplexWeights(method="frank-wolfe", iterations=5),
        5,
        0,
        None,
        translation=False,
        scale=False,
        label="simplexWeights, Frank-Wolfe",
    ),
    Setting(LearnedSoup(iterations=5), 5, 0, None, translation=False, scale=False),
    Setting(
        LearnedSoup(layers="prefix", iterations=5),
        5,
        0,
        None,
        translation=False,
        scale=False,
        label="learnedSoup by layer",
    ),
    Setting(
        TaskArithmetic(weights=WEIGHTS, scale=0.5),
        4,
        0,
        merges.task_arithmetic([0.5, 0.25, -0.125, 0.75], 0.5),
        rotation=True,
    ),
    Setting(Ties(), 6, 0, merges.ties(0.2)),
    Setting(
        Ties(density=0.5, elect="count", normalize=False),
        5,
        0,
        merges.ties(0.5, elect="count", normalize=False),
        label="ties by count, a sum",
    ),
    Setting(Dare(density=0.3), 5, 0, merges.dare(0.3, "none")),
    Setting(Dare(density=0.75, elect="sum"), 5, 0, merges.dare(0.75, "sum"), label="dare, voted"),
    Setting(Della(density=0.5, window=0.25), 5, 0, merges.della(0.5, 0.25)),
    Setting(Breadcrumbs(density=0.7, gamma=0.05), 5, 0, merges.breadcrumbs(0.7, 0.05)),
    Setting(Sce(), 5, 0, merges.sce(1.0)),
    Setting(Sce(density=0.3), 5, 0, merges.sce(0.3), label="sce with a selection"),
    Setting(Slerp(t=0.3), 2, 0, merges.slerp(0.3), translation=False),
    Setting(MultiSlerp(iterations=1), 5, 0, merges.spherical(1, relative=False), translation=False),
    Setting(
        MultiSlerp(relative=True, iterations=50),
        5,
        0,
        merges.spherical(200, relative=True),
        label="multiSlerp of differences, converged",
    ),
    Setting(ModelStock(), 5, 0, merges.model_stock),
    Setting(Fisher(), 5, 0, merges.fisher),
    Setting(RegMean(), 4, 0, merges.reg_mean(0.9)),
    Setting(
        DpFedAvg(
            clip_norm=0.5,
            noise_multiplier=2.0,
            expected_participants=5.0,
            epsilon=8.0,
            delta=1e-5,
            accounting="rdp",
        ),
        5,
        0,
        None,
        translation=False,
        scale=False,
    ),
    Setting(
        DpFedAvg(
            clip_norm=0.5,
            noise_multiplier=2.0,
            expected_participants=5.0,
            epsilon=8.0,
            delta=1e-5,
            adaptive_quantile=0.5,
            accounting="rdp",
        ),
        5,
        0,
        None,
        translation=False,
        scale=False,
        label="dpFedAvg, adaptive",
    ),
)
"""Every rule of `rules.RULES` at least once."""
