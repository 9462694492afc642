"""How many faults a rule, a quorum and a threshold can bear: arithmetic that three parts share.

Admission, planner and trainer ask the same functions, so nothing is admitted that the trainer
refuses. Each answer carries its arithmetic in words.

Here: limits on n, f and q, standard library only. Never here: a rule's computation. Next:
`cabildo_trainer.consensus.rule` turns a check that does not hold into `ImpossibleSetting`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

MAXIMUM_PARTICIPANTS: Final = 64
"""Rows that the kernels take: the participants', and the trusted ones that a rule adds."""
WHOLE_PERCENT: Final = 100
MAXIMUM_SUBSETS: Final = 1_000_000
"""Subsets of n - f that a rule may search: MDA and SMEA."""


@dataclass(frozen=True, slots=True)
class Check:
    """Whether a condition holds, with the arithmetic in words and what to do when it does not."""

    holds: bool
    arithmetic: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class RuleLimit:
    """n >= slope * f + offset, or f = 0 for rules that bound no fault.

    Attributes:
        slope: Participants needed for each fault.
        offset: Participants needed besides.
        bears_faults: Whether f may be above zero at all.
        searches_subsets: Whether all subsets of n - f are searched.
        trusted_rows: Trusted models (the round's first model, a root update) that a pass takes as
            rows of its own besides the participants'.
    """

    slope: int
    offset: int
    bears_faults: bool = True
    searches_subsets: bool = False
    trusted_rows: int = 0

    def needed(self, f: int) -> int:
        """Returns the least n for f faults."""
        return self.slope * f + self.offset

    def most_faults(self, n: int) -> int:
        """Returns the largest f for n participants, -1 when not even f = 0 is possible."""
        if n < self.offset or n + self.trusted_rows > MAXIMUM_PARTICIPANTS:
            return -1
        return (n - self.offset) // self.slope if self.bears_faults else 0

    def words(self) -> str:
        """Returns the condition as it is written in papers."""
        return f"n >= {self.slope}f + {self.offset}"


NO_FAULTS: Final = RuleLimit(slope=1, offset=1, bears_faults=False)
"""Merges and means: every input is trusted."""
MAJORITY: Final = RuleLimit(slope=2, offset=1)
KRUM: Final = RuleLimit(slope=2, offset=3)
SUBSETS: Final = RuleLimit(slope=2, offset=1, searches_subsets=True)
TRUSTED_DATA: Final = RuleLimit(slope=1, offset=1)
"""Rules that look at data the aggregator trusts: one honest participant is enough."""
MAJORITY_AND_TRUSTED_ROW: Final = RuleLimit(slope=2, offset=1, trusted_rows=1)
TRUSTED_ROW: Final = RuleLimit(slope=1, offset=1, trusted_rows=1)

RULE_LIMITS: Final[Mapping[str, RuleLimit]] = MappingProxyType(
    {
        "weightedMean": NO_FAULTS,
        "median": MAJORITY,
        "trimmedMean": MAJORITY,
        "meaMed": MAJORITY,
        "krum": KRUM,
        "multiKrum": KRUM,
        "bulyan": RuleLimit(slope=4, offset=3),
        "geometricMedian": MAJORITY,
        "centeredClipping": MAJORITY_AND_TRUSTED_ROW,
        "mda": SUBSETS,
        "smea": SUBSETS,
        "caf": MAJORITY,
        "nnm": MAJORITY,
        "bucketing": MAJORITY,
        "normClip": MAJORITY_AND_TRUSTED_ROW,
        "arc": MAJORITY_AND_TRUSTED_ROW,
        "monna": MAJORITY_AND_TRUSTED_ROW,
        "flTrust": TRUSTED_ROW,
        "zeno": TRUSTED_DATA,
        "auto": TRUSTED_DATA,
    }
)
"""Limits by rule name; a rule that is not here bounds no fault."""


def limit_of(rule: str) -> RuleLimit:
    """Returns the limit of a rule; merges that are not in the table bear no fault."""
    return RULE_LIMITS.get(rule, NO_FAULTS)


def rule_limit(rule: str, *, n: int, f: int, trusted_rows: int | None = None) -> Check:
    """Checks n and f against a rule's limit.

    Args:
        rule: Its name in the API.
        n: Participants.
        f: Participants that may be arbitrary.
        trusted_rows: Rows besides the participants', where the rule's parameters (the rule inside
            a wrapping one) say more than its name; None for what the name says.
    """
    limit = limit_of(rule)
    if (refusal := _refused_counts(rule, n=n, f=f)) is not None:
        return refusal
    rows = rows_limit(rule, n=n, trusted_rows=trusted_rows)
    if not rows.holds:
        return rows
    if not limit.bears_faults:
        return Check(
            holds=f == 0,
            arithmetic=f"{rule} bounds no fault, it needs f = 0: f = {f}",
            remedy="set maxFaulty to 0, or take a robust rule such as trimmedMean or auto",
        )
    needed = limit.needed(f)
    if n < needed:
        return Check(
            holds=False,
            arithmetic=f"{rule} needs {limit.words()}: n = {n}, f = {f}, {n} < {needed}",
            remedy=_more_or_fewer(limit, n=n, f=f),
        )
    if limit.searches_subsets and math.comb(n, f) > MAXIMUM_SUBSETS:
        return Check(
            holds=False,
            arithmetic=f"{rule} searches all subsets of n - f: C({n}, {f}) = {math.comb(n, f)}"
            f" > {MAXIMUM_SUBSETS}",
            remedy="take multiKrum or caf, which search none",
        )
    return Check(
        holds=True, arithmetic=f"{rule} needs {limit.words()}: n = {n}, f = {f}, {n} >= {needed}"
    )


def rows_limit(owner: str, *, n: int, trusted_rows: int | None = None) -> Check:
    """Checks that participants and trusted rows together fit the kernels.

    Args:
        owner: The rule's name in the API, or what else passes over the rows.
        n: Participants.
        trusted_rows: As for `rule_limit`.
    """
    more = limit_of(owner).trusted_rows if trusted_rows is None else trusted_rows
    most = MAXIMUM_PARTICIPANTS - more
    if n < 1:
        return Check(
            holds=False,
            arithmetic=f"{owner} needs n >= 1: n = {n}",
            remedy="give the model of one participant at least",
        )
    if not more:
        return Check(
            holds=n <= most,
            arithmetic=f"{owner} needs n <= {MAXIMUM_PARTICIPANTS}: n = {n}",
            remedy=f"take at most {most} participants",
        )
    return Check(
        holds=n <= most,
        arithmetic=f"{owner} adds {more} trusted row to the participants', and the kernels take"
        f" {MAXIMUM_PARTICIPANTS}: n + {more} <= {MAXIMUM_PARTICIPANTS}, n = {n},"
        f" {n + more} {'<=' if n <= most else '>'} {MAXIMUM_PARTICIPANTS}",
        remedy=f"take at most {most} participants, or a rule that adds no trusted row, such as"
        " trimmedMean",
    )


def _more_or_fewer(limit: RuleLimit, *, n: int, f: int) -> str:
    most = limit.most_faults(n)
    more = f"add {limit.needed(f) - n} participants"
    if most < 0:
        return more
    return f"{more}, lower maxFaulty to {most}, or take a rule with a lower limit"


def _refused_counts(owner: str, *, n: int, f: int) -> Check | None:
    """Returns the refusal of an n or f that counts nothing; None when both are counts.

    A negative f loosens every limit (with f = -1 two disjoint quorums of 4 would both be safe),
    and a comparison with NaN says whatever its writer did not think of.
    """
    if not _is_count(f):
        return Check(
            holds=False,
            arithmetic=f"{owner} needs f >= 0, a whole number: f = {f}",
            remedy="set maxFaulty to 0 or more",
        )
    if not _is_count(n):
        return Check(
            holds=False,
            arithmetic=f"{owner} needs n >= 0, a whole number: n = {n}",
            remedy="give the number of participants",
        )
    return None


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def bucketing_limit(*, n: int, f: int, size: int) -> Check:
    """Checks that buckets leave a majority without a fault: n > 2 f s in whole buckets."""
    if (refusal := _refused_counts("bucketing", n=n, f=f)) is not None:
        return refusal
    if not _is_count(size) or size < 1:
        return Check(
            holds=False,
            arithmetic=f"bucketing needs a size >= 1, a whole number: size = {size}",
            remedy="set size to 1 or more: 2 is the default, and 1 averages nothing",
        )
    buckets = -(-n // size)
    relation = f"ceil({n} / {size}) = {buckets}"
    return Check(
        holds=buckets > 2 * f,
        arithmetic=f"bucketing needs ceil(n / size) > 2f: {relation}"
        f" {'>' if buckets > 2 * f else '<='} {2 * f}",
        remedy="take smaller buckets, more participants or fewer faults",
    )


def after_exclusions(*, n: int, f: int, proven: int, absent: int) -> tuple[int, int]:
    """Returns n' and f'.

    Proven faulty participants (equivocation, bad signature, replay, non-finite, wrong shape) lower
    both; late or silent ones lower n only, since an honest one may be late.
    """
    return n - proven - absent, f - proven


def faults_of(maximum: int | str, *, n: int) -> int:
    """Returns f of `voting.maxFaulty`: a number, or a percentage of n rounded down.

    Raises:
        ValueError: It is neither a count nor a percentage.
    """
    if _is_count(maximum):
        return int(maximum)
    number, sign, rest = str(maximum).partition("%")
    # int() reads decimals of any script, and not all that str.isdigit() takes for digits.
    if not sign or rest or not number.isdecimal() or int(number) > WHOLE_PERCENT:
        raise ValueError(
            f"maxFaulty is {maximum!r}: write a number, 0 or more, or a percentage such as 25%"
        )
    return n * int(number) // WHOLE_PERCENT


@dataclass(frozen=True, slots=True)
class Quorum:
    """The quorums that are safe and can be reached.

    Attributes:
        n: Participants.
        f: Faults.
        least: Safety: any two quorums share an honest participant, 2q > n + f.
        most: Liveness: the honest ones alone reach it, q <= n - f.
    """

    n: int
    f: int
    least: int
    most: int


def quorums(*, n: int, f: int) -> Quorum:
    """Returns the range of quorums; empty (least > most) when n < 3f + 1, or when f < 0."""
    if f < 0:
        return Quorum(n=n, f=f, least=n + 1, most=n)
    return Quorum(n=n, f=f, least=(n + f) // 2 + 1, most=n - f)


def quorum_limit(*, n: int, f: int, quorum: int) -> Check:
    """Checks (n + f)/2 < q <= n - f."""
    if (refusal := _refused_counts("a quorum", n=n, f=f)) is not None:
        return refusal
    span = quorums(n=n, f=f)
    text = f"(n + f)/2 < q <= n - f: n = {n}, f = {f}"
    if span.least > span.most:
        return Check(
            holds=False,
            arithmetic=f"no quorum fits {text} needs n >= 3f + 1 = {3 * f + 1}",
            remedy=f"lower maxFaulty to {max(0, (n - 1) // 3)} or add participants",
        )
    holds = _is_count(quorum) and span.least <= quorum <= span.most
    return Check(
        holds=holds,
        arithmetic=f"a quorum needs {text}, so {span.least} <= q <= {span.most}: q = {quorum}",
        remedy="" if holds else f"set voting.quorum between {span.least} and {span.most}",
    )


def votes_of(threshold: float, *, n: int) -> int:
    """Returns how many votes a share of n means: the least whole number that reaches it."""
    return math.ceil(Fraction(str(threshold)) * n)


def effective_faults(*, n: int, declared: int, threshold: float) -> int:
    """Returns the f that a consensus threshold really bears, at most the declared one.

    A threshold of 0.75 asks for q = ceil(0.75 n) votes. Liveness allows f <= n - q (so f <= n/4),
    safety f <= 2q - n - 1. Below zero: the threshold fits no f at all.
    """
    votes = votes_of(threshold, n=n)
    return min(declared, n - votes, 2 * votes - n - 1)


def threshold_limit(*, n: int, f: int, threshold: float) -> Check:
    """Checks that a consensus threshold can be reached with f faults, and is safe."""
    if (refusal := _refused_counts("consensusThreshold", n=n, f=f)) is not None:
        return refusal
    if isinstance(threshold, bool) or not 0.0 < threshold <= 1.0:
        return Check(
            holds=False,
            arithmetic=f"consensusThreshold needs 0 < t <= 1: t = {threshold}",
            remedy="write a share such as 0.75",
        )
    votes = votes_of(threshold, n=n)
    bearable = effective_faults(n=n, declared=f, threshold=threshold)
    text = (
        f"consensusThreshold {threshold} of n = {n} is q = {votes} votes: q <= n - f allows"
        f" f <= {n - votes}, 2q > n + f allows f <= {2 * votes - n - 1}; f = {f}"
    )
    if bearable >= f:
        return Check(holds=True, arithmetic=text)
    span = quorums(n=n, f=f)
    hint = f"lower maxFaulty to {bearable}" if bearable >= 0 else "raise consensusThreshold"
    if span.least <= span.most:
        hint += f", or ask for {span.least} to {span.most} votes"
    return Check(holds=False, arithmetic=text, remedy=hint)


def verification_limit(*, n: int, f: int) -> Check:
    """Checks that n verifiers are enough: n >= 2f + 1, so that the honest ones alone prove it."""
    if (refusal := _refused_counts("verification", n=n, f=f)) is not None:
        return refusal
    holds = n >= 2 * f + 1
    return Check(
        holds=holds,
        arithmetic=f"verification needs n >= 2f + 1 verifiers: n = {n}, f = {f},"
        f" {n} {'>=' if holds else '<'} {2 * f + 1}",
        remedy="" if holds else "ask more verifiers, or lower f",
    )


def verifiers_needed(*, f: int) -> int:
    """Returns how many equal digests of verifiers prove a result: f + 1, so one is honest.

    Raises:
        ValueError: f is below zero: no digest at all would prove a result.
    """
    if f < 0:
        raise ValueError(f"f is {f}: a number of faults is 0 or more")
    return f + 1
