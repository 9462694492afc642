"""Votes on a result: the same digest from enough verifiers, a good grade from enough participants.

Two kinds, both one vote a key:
- digest votes: voters recompute the merge and name its digest. Two quorums share an honest voter,
  so no two digests can both win.
- quality votes: participants try the result on data of their own and say yes or no. f liars can
  vote as they like: a poll, not a proof. A vote that is neither is void, as two votes of one voter
  are: the rest go on without it.

Here: counting. Never here: signatures and deadlines; the operator has checked them. Next: the
ConsensusRound's Gate and Publish.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cabildo_api.consensus_limits import (
    quorum_limit,
    quorums,
    threshold_limit,
    verification_limit,
    verifiers_needed,
    votes_of,
)
from cabildo_trainer.consensus.errors import QuorumNotReached
from cabildo_trainer.consensus.rule import require

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping


@dataclass(frozen=True, slots=True)
class Vote:
    """One vote.

    Attributes:
        voter: Key of the participant or verifier.
        choice: A digest, or for quality votes `ACCEPT` or `REJECT`.
    """

    voter: str
    choice: str


ACCEPT = "accept"
REJECT = "reject"
LONGEST_SHOWN = 40
"""Characters of a void vote that are shown: a voter writes what it likes, as long as it likes."""


@dataclass(frozen=True, slots=True)
class Tally:
    """Votes as counted.

    Attributes:
        counts: Valid votes by choice.
        equivocators: Voters with two different choices; none of theirs counts, and they are proven
            faulty.
        strangers: Voters that are not entitled; nothing of theirs counts.
        silent: Entitled voters without a vote.
        invalid: Voters whose vote is none of the choices, with what is wrong with it; it counts for
            no side, and as it is signed, it proves them faulty.
    """

    counts: Mapping[str, int]
    equivocators: tuple[str, ...]
    strangers: tuple[str, ...]
    silent: tuple[str, ...]
    invalid: Mapping[str, str] = field(default_factory=dict)

    def words(self) -> str:
        """Returns the count in words."""
        ranked = sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))
        parts = [f"{count} for {choice}" for choice, count in ranked] or ["no valid vote"]
        for name, keys in (("equivocating", self.equivocators), ("silent", self.silent)):
            if keys:
                parts.append(f"{len(keys)} {name} ({', '.join(keys)})")
        if self.invalid:
            said = ", ".join(f"{voter}: {why}" for voter, why in self.invalid.items())
            parts.append(f"{len(self.invalid)} invalid ({said})")
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A vote that came to an end.

    Attributes:
        choice: What won.
        votes: Votes for it.
        quorum: How many were needed.
        tally: All votes.
    """

    choice: str
    votes: int
    quorum: int
    tally: Tally


def count(
    votes: Iterable[Vote], *, electorate: Iterable[str], choices: Collection[str] | None = None
) -> Tally:
    """Counts one vote a voter; the same vote twice counts once, two different ones not at all.

    Args:
        votes: The votes.
        electorate: Keys of those who are entitled.
        choices: What there is to choose from: another vote is invalid; None where any may win.
    """
    entitled = frozenset(electorate)
    chosen: dict[str, set[str]] = {}
    strangers = set()
    for vote in votes:
        if vote.voter in entitled:
            chosen.setdefault(vote.voter, set()).add(vote.choice)
        else:
            strangers.add(vote.voter)
    single = {voter: next(iter(own)) for voter, own in sorted(chosen.items()) if len(own) == 1}
    invalid = {
        voter: f"voted {_shown(choice)}, not {' or '.join(choices)}"
        for voter, choice in single.items()
        if choices is not None and choice not in choices
    }
    return Tally(
        counts=dict(Counter(choice for voter, choice in single.items() if voter not in invalid)),
        equivocators=tuple(sorted(chosen.keys() - single.keys())),
        strangers=tuple(sorted(strangers)),
        silent=tuple(sorted(entitled - chosen.keys())),
        invalid=invalid,
    )


def _shown(choice: str) -> str:
    """Returns a void vote as one line of ASCII."""
    return f"{choice[:LONGEST_SHOWN]!a}{'...' if len(choice) > LONGEST_SHOWN else ''}"


def agreed_digest(
    votes: Iterable[Vote], *, electorate: Iterable[str], f: int, quorum: int | None = None
) -> Outcome:
    """Returns the digest that a quorum of participants voted for.

    Args:
        votes: Digest votes.
        electorate: Keys of the n participants.
        f: How many of them may be arbitrary.
        quorum: Votes needed, (n + f)/2 < q <= n - f; None for the least.

    Raises:
        ImpossibleSetting: No such quorum is safe and can be reached.
        QuorumNotReached: No digest has enough votes; carries the count.
    """
    voters = frozenset(electorate)
    needed = quorums(n=len(voters), f=f).least if quorum is None else quorum
    require(quorum_limit(n=len(voters), f=f, quorum=needed))
    return _winner(count(votes, electorate=voters), quorum=needed, what="digest")


def verified_digest(votes: Iterable[Vote], *, verifiers: Iterable[str], f: int) -> Outcome:
    """Returns the digest that f + 1 verifiers computed alike: one of them is honest.

    Args:
        votes: Digest votes.
        verifiers: Keys of the verifiers, at least 2f + 1, so that the honest ones are enough.
        f: How many of them may be arbitrary.

    Raises:
        ImpossibleSetting: There are too few verifiers.
        QuorumNotReached: No digest has f + 1 votes; carries the count.
    """
    voters = frozenset(verifiers)
    require(verification_limit(n=len(voters), f=f))
    return _winner(
        count(votes, electorate=voters), quorum=verifiers_needed(f=f), what="verified digest"
    )


def quality_verdict(
    votes: Iterable[Vote], *, electorate: Iterable[str], f: int, threshold: float
) -> Outcome:
    """Returns whether enough participants accept a result (`ACCEPT`), or can no more (`REJECT`).

    Args:
        votes: Votes whose choice is `ACCEPT` or `REJECT`; another one is no yes, and the tally
            names its voter.
        electorate: Keys of the n participants.
        f: How many of them may be arbitrary.
        threshold: Share of n whose yes is needed, such as 0.75.

    Raises:
        ImpossibleSetting: The threshold does not fit n and f.
        QuorumNotReached: Neither way is decided yet; carries the count.
    """
    voters = frozenset(electorate)
    n = len(voters)
    require(threshold_limit(n=n, f=f, threshold=threshold))
    needed = votes_of(threshold, n=n)
    tally = count(votes, electorate=voters, choices=(ACCEPT, REJECT))
    lost = n - tally.counts.get(ACCEPT, 0) - len(tally.silent)
    if lost > n - needed:
        return Outcome(choice=REJECT, votes=lost, quorum=n - needed + 1, tally=tally)
    return _winner(tally, quorum=needed, what="quality vote", only=ACCEPT)


def _winner(tally: Tally, *, quorum: int, what: str, only: str | None = None) -> Outcome:
    eligible = {key: votes for key, votes in tally.counts.items() if only in {None, key}}
    most = max(eligible.values(), default=0)
    winners = sorted(key for key, votes in eligible.items() if votes == most)
    if most < quorum or len(winners) != 1:
        raise QuorumNotReached(
            f"{what}: {quorum} equal votes are needed, and there are {tally.words()}",
            votes=most,
            quorum=quorum,
        )
    return Outcome(choice=winners[0], votes=most, quorum=quorum, tally=tally)
