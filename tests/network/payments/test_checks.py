"""What a payer refuses to sign (Livepeer's `validateTicketParams` and more)."""

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from network.payments.checks import Funds, Now, PayerLimits, payers_objection, unlocks_soon
from network.payments.tickets import CERTAIN, CreationRound, TicketParams
from network.units import Address, Wei

ORCHESTRATOR = Address(b"o" * 20)
ROUND = CreationRound(5, b"h" * 32)
NOW = Now(l1_block=100, last_initialized_round=5, rounds=(ROUND,))
FUNDS = Funds(deposit=Wei(300), reserve=Wei(1000))
LIMITS = PayerLimits(
    max_ticket_value=Wei(100), max_total_value=Wei(500), deposit_multiplier=2, max_tickets=100
)
PARAMS = TicketParams(ORCHESTRATOR, Wei(149), CERTAIN // 2, b"r" * 32, b"", 140, ROUND)


def objection(
    params: TicketParams = PARAMS,
    count: int = 1,
    *,
    funds: Funds = FUNDS,
    limits: PayerLimits = LIMITS,
) -> str:
    found = payers_objection(
        params, count, orchestrator=ORCHESTRATOR, now=NOW, funds=funds, limits=limits
    )
    return found or ""


def test_a_good_quote_is_signed() -> None:
    assert not objection()


@pytest.mark.parametrize(
    ("block", "why"),
    [
        (0, "ticketParams expiration block is 0"),
        (1, "TicketParams expired"),
        (99, "TicketParams expired"),
        (101, "TicketParams expired"),
        (105, ""),
        (200, ""),
        (201, "lasts 101 L1 blocks"),
    ],
)
def test_case_7_a_quote_is_used_within_its_time_only(block: int, why: str) -> None:
    found = objection(replace(PARAMS, expiration_block=block))
    assert why in found
    assert bool(why) is bool(found)


@pytest.mark.parametrize(
    ("deposit", "face_value", "is_covered"),
    [(300, 149, True), (402, 200, True), (399, 199, True), (400, 200, True), (399, 200, False)],
)
def test_case_10_a_face_value_stays_below_its_part_of_the_deposit(
    deposit: int, face_value: int, *, is_covered: bool
) -> None:
    found = objection(
        replace(PARAMS, face_value=Wei(face_value)), funds=replace(FUNDS, deposit=Wei(deposit))
    )
    assert is_covered is not ("what our deposit covers" in found)


def test_case_24_what_a_greedy_orchestrator_may_try() -> None:
    sure = replace(PARAMS, face_value=Wei(1000), win_prob=CERTAIN)
    assert objection(sure) == "ticket faceValue too low faceValue=1000"
    costly = replace(PARAMS, face_value=Wei(202))
    assert objection(costly, limits=replace(LIMITS, max_ticket_value=Wei(1))) == (
        "ticket EV 101.00000 > max ticket EV 1.00000"
    )
    assert "would pay 0x7373" in objection(replace(PARAMS, recipient=Address(b"s" * 20)))
    other = replace(PARAMS, creation=CreationRound(5, b"x" * 32))
    assert "not what our chain says" in objection(other)
    assert "creation round 4" in objection(replace(PARAMS, creation=CreationRound(4, b"h" * 32)))
    assert "total ticket EV" in objection(count=7)
    assert "at most 100" in objection(replace(PARAMS, face_value=Wei(2)), count=101, limits=LIMITS)


@pytest.mark.parametrize(
    ("funds", "why"),
    [
        (replace(FUNDS, withdraw_round=6), "set to unlock soon"),
        (replace(FUNDS, withdraw_round=2), "set to unlock soon"),
        (replace(FUNDS, withdraw_round=7), ""),
        (replace(FUNDS, deposit=Wei(0)), "our deposit is 0"),
        (replace(FUNDS, reserve=Wei(0)), "our reserve is 0"),
    ],
)
def test_case_12_nothing_is_signed_that_could_not_be_redeemed(funds: Funds, why: str) -> None:
    assert why in objection(funds=funds)
    assert bool(why) is bool(objection(funds=funds))


def test_case_25_tickets_worth_nothing_need_no_funds() -> None:
    free = replace(PARAMS, face_value=Wei(0), win_prob=0)
    assert not objection(free, funds=Funds(Wei(0), Wei(0)))


@pytest.mark.parametrize(
    ("withdraw_round", "is_soon"), [(0, False), (100, False), (7, False), (6, True), (4, True)]
)
def test_case_12_who_may_be_gone_in_the_next_round(withdraw_round: int, *, is_soon: bool) -> None:
    assert unlocks_soon(withdraw_round, 5) is is_soon


@given(
    face_value=st.integers(0, 400) | st.integers(0, CERTAIN),
    win_prob=st.integers(0, CERTAIN) | st.sampled_from((CERTAIN // 2, CERTAIN)),
    block=st.integers(95, 210),
    count=st.integers(1, 120),
    deposit=st.integers(0, 1000),
)
@example(face_value=100, win_prob=CERTAIN // 2, block=140, count=10, deposit=1000)
def test_case_24_what_is_signed_stays_within_every_limit(
    face_value: int, win_prob: int, block: int, count: int, deposit: int
) -> None:
    params = replace(PARAMS, face_value=Wei(face_value), win_prob=win_prob, expiration_block=block)
    if objection(params, count, funds=replace(FUNDS, deposit=Wei(deposit))):
        return
    worth = Fraction(face_value * win_prob, CERTAIN)
    assert NOW.l1_block + 2 <= block <= NOW.l1_block + 100
    assert worth < face_value or worth == 0
    if worth > 0:
        assert worth <= LIMITS.max_ticket_value
        assert count * worth <= LIMITS.max_total_value
        assert count <= LIMITS.max_tickets
        assert face_value * LIMITS.deposit_multiplier <= deposit
