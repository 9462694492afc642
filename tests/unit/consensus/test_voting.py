"""Votes: one a key, no two winners, and a count in every refusal."""

from __future__ import annotations

import itertools

import pytest

from cabildo_trainer.consensus.errors import ImpossibleSetting, QuorumNotReached
from cabildo_trainer.consensus.voting import (
    ACCEPT,
    REJECT,
    Vote,
    agreed_digest,
    count,
    quality_verdict,
    verified_digest,
)

VOTERS = [f"p{index:02d}" for index in range(16)]


def votes(**choices: int) -> list[Vote]:
    """So many votes for each choice, by the voters in turn."""
    wanted = [choice for choice, number in choices.items() for _ in range(number)]
    return [Vote(voter, choice) for voter, choice in zip(VOTERS, wanted, strict=False)]


def test_a_quorum_of_equal_digests_wins() -> None:
    outcome = agreed_digest(votes(aa=11, bb=5), electorate=VOTERS, f=5)
    assert (outcome.choice, outcome.votes, outcome.quorum) == ("aa", 11, 11)


def test_one_vote_too_few_is_told_with_the_count() -> None:
    with pytest.raises(QuorumNotReached) as caught:
        agreed_digest(votes(aa=10, bb=4), electorate=VOTERS, f=5)
    assert (caught.value.votes, caught.value.quorum, caught.value.exit_code) == (10, 11, 69)
    assert "10 for aa, 4 for bb, 2 silent (p14, p15)" in str(caught.value)


def test_the_same_vote_twice_counts_once() -> None:
    given = votes(aa=10)
    with pytest.raises(QuorumNotReached):
        agreed_digest([*given, *given], electorate=VOTERS, f=5)


def test_two_different_votes_of_one_voter_count_for_neither() -> None:
    tally = count([Vote("p00", "aa"), Vote("p00", "bb"), Vote("p01", "aa")], electorate=VOTERS)
    assert tally.counts == {"aa": 1}
    assert tally.equivocators == ("p00",)


def test_strangers_do_not_count() -> None:
    tally = count([Vote("nobody", "aa"), Vote("p01", "bb")], electorate=VOTERS)
    assert (tally.counts, tally.strangers) == ({"bb": 1}, ("nobody",))


def test_no_f_liars_can_make_two_digests_win() -> None:
    """All ways in which 2 of 7 vote twice: never are two digests agreed on."""
    voters = VOTERS[:7]
    honest = list(itertools.product(("aa", "bb"), repeat=5))
    for choices in honest:
        given = [Vote(voter, choice) for voter, choice in zip(voters, choices, strict=False)]
        winners = set()
        for lie in ("aa", "bb"):
            lies = [Vote(voter, lie) for voter in voters[5:]]
            try:
                winners.add(agreed_digest([*given, *lies], electorate=voters, f=2).choice)
            except QuorumNotReached:
                continue
        assert len(winners) <= 1, choices


def test_an_unsafe_quorum_is_refused_with_the_arithmetic() -> None:
    with pytest.raises(ImpossibleSetting, match="11 <= q <= 11: q = 9"):
        agreed_digest(votes(aa=16), electorate=VOTERS, f=5, quorum=9)


def test_f_plus_one_verifiers_are_enough() -> None:
    outcome = verified_digest(votes(aa=3, bb=2), verifiers=VOTERS[:5], f=2)
    assert (outcome.choice, outcome.quorum) == ("aa", 3)
    with pytest.raises(QuorumNotReached):
        verified_digest(votes(aa=2, bb=2), verifiers=VOTERS[:5], f=2)
    with pytest.raises(ImpossibleSetting, match="4 < 5"):
        verified_digest(votes(aa=4), verifiers=VOTERS[:4], f=2)


def test_quality_is_accepted_by_the_share_asked_for() -> None:
    outcome = quality_verdict(votes(accept=12, reject=4), electorate=VOTERS, f=4, threshold=0.75)
    assert (outcome.choice, outcome.votes, outcome.quorum) == (ACCEPT, 12, 12)


def test_quality_is_rejected_as_soon_as_it_cannot_be_accepted() -> None:
    outcome = quality_verdict(votes(reject=5), electorate=VOTERS, f=4, threshold=0.75)
    assert (outcome.choice, outcome.votes, outcome.quorum) == (REJECT, 5, 5)


def test_undecided_quality_is_told_with_the_count() -> None:
    with pytest.raises(QuorumNotReached, match="11 for accept, 4 for reject, 1 silent") as caught:
        quality_verdict(votes(accept=11, reject=4), electorate=VOTERS, f=4, threshold=0.75)
    assert (caught.value.votes, caught.value.quorum) == (11, 12)


def test_an_equivocator_is_no_yes() -> None:
    given = [*votes(accept=12), Vote("p00", REJECT), *[Vote(key, REJECT) for key in VOTERS[12:]]]
    outcome = quality_verdict(given, electorate=VOTERS, f=4, threshold=0.75)
    assert outcome.choice == REJECT
    assert outcome.tally.equivocators == ("p00",)


def test_a_threshold_that_f_makes_impossible_is_refused() -> None:
    with pytest.raises(ImpossibleSetting, match="f <= 4"):
        quality_verdict([], electorate=VOTERS, f=5, threshold=0.75)


def test_an_odd_vote_ends_nothing_and_is_named() -> None:
    given = [*votes(accept=15), Vote("p15", "banana")]
    outcome = quality_verdict(given, electorate=VOTERS, f=4, threshold=0.75)
    assert (outcome.choice, outcome.votes) == (ACCEPT, 15)
    assert outcome.tally.counts == {ACCEPT: 15}
    assert outcome.tally.invalid == {"p15": "voted 'banana', not accept or reject"}
    assert outcome.tally.words().endswith("1 invalid (p15: voted 'banana', not accept or reject)")


def test_odd_votes_are_no_yes_and_not_silent() -> None:
    """f odd voters neither force a rejection nor keep a result open that f others have rejected."""
    odd = [Vote(voter, f"odd {voter}") for voter in VOTERS[12:]]
    outcome = quality_verdict([*votes(accept=12), *odd], electorate=VOTERS, f=4, threshold=0.75)
    assert outcome.choice == ACCEPT
    outcome = quality_verdict(
        [*votes(accept=11, reject=1), *odd], electorate=VOTERS, f=4, threshold=0.75
    )
    assert (outcome.choice, outcome.votes) == (REJECT, 5)
    assert sorted(outcome.tally.invalid) == VOTERS[12:]
    assert outcome.tally.silent == ()


def test_an_odd_vote_beside_another_is_equivocation() -> None:
    given = [*votes(accept=12), Vote("p00", "banana")]
    tally = count(given, electorate=VOTERS, choices=(ACCEPT, REJECT))
    assert (tally.equivocators, tally.invalid) == (("p00",), {})
    assert tally.counts == {ACCEPT: 11}


def test_what_an_odd_voter_wrote_is_shown_on_one_short_line() -> None:
    given = [Vote("p00", "\nerror: \udcff" + "x" * 10**6)]
    with pytest.raises(QuorumNotReached) as caught:
        quality_verdict(given, electorate=VOTERS, f=4, threshold=0.75)
    assert "p00: voted '\\nerror: \\udcffxxx" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_fewer_faults_than_none_are_refused() -> None:
    with pytest.raises(ImpossibleSetting, match="f = -3"):
        agreed_digest(votes(aa=1, bb=1), electorate=VOTERS[:4], f=-3)
    with pytest.raises(ImpossibleSetting, match="f = -1"):
        verified_digest(votes(aa=1), verifiers=VOTERS[:4], f=-1)
    with pytest.raises(ImpossibleSetting, match="f = -1"):
        quality_verdict(votes(accept=2), electorate=VOTERS[:4], f=-1, threshold=0.5)
