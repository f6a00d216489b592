"""What is quoted to whom; that payers sign it is checked by their own rules."""

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from network.chain.model import SenderInfo
from network.payments.checks import Funds, Now, PayerLimits, payers_objection
from network.payments.pricing import PAYERS_MAX_TICKET_VALUE, tickets_needed
from network.payments.tickets import TicketParams
from network.units import Pixels, Wei, fee
from node.payments.quoting import NoQuote, QuotePolicy, unpayable
from tests.node.payments.payers import FUNDS, HEAD, RECIPIENT, quoted, quoted_for_call

ETHER = 10**18


def objection(params: TicketParams, count: int = 1, info: SenderInfo = FUNDS) -> str | None:
    return payers_objection(
        params,
        count,
        orchestrator=RECIPIENT,
        now=Now(HEAD.l1_block, HEAD.last_initialized_round, (HEAD.creation,)),
        funds=Funds(info.deposit, info.reserve_remaining, info.withdraw_round),
        limits=PayerLimits(),
    )


@given(
    price=st.fractions(Fraction(1, 1000), 10**9),
    gas_price=st.integers(0, 10**11).map(Wei),
    deposit=st.integers(ETHER // 100, 10 * ETHER).map(Wei),
)
def test_case_24_payers_sign_what_is_quoted_and_one_to_three_tickets_do(
    price: Fraction, gas_price: Wei, deposit: Wei
) -> None:
    """A megapixel is the usual job; beyond 3e12 wei it takes more tickets, each at the payers' limit."""
    info = replace(FUNDS, deposit=deposit, reserve_remaining=deposit)
    policy = QuotePolicy(usual_pixels=Pixels(2**20))
    found = quoted(replace(HEAD, gas_price=gas_price), price=price, policy=policy, info=info)
    if isinstance(found, NoQuote):
        assert found.reason == "insufficient sender reserve"
        assert deposit < 1_200_000 * max(gas_price, 1) * 100
        return
    cost = fee(Pixels(2**20), price)
    count = tickets_needed(Fraction(0), cost, found.expected_value)
    if cost < PAYERS_MAX_TICKET_VALUE:
        assert count <= 3
    if cost < 2 * 10**13 - PAYERS_MAX_TICKET_VALUE:
        assert objection(found, count, info) is None


def test_the_quote_says_until_when_and_for_which_round() -> None:
    found = quoted()
    assert isinstance(found, TicketParams)
    assert found.expiration_block == HEAD.l1_block + 40
    assert found.creation == HEAD.creation
    assert found.recipient == RECIPIENT


def test_case_12_nothing_is_quoted_to_who_leaves_soon() -> None:
    leaving = replace(FUNDS, withdraw_round=HEAD.last_initialized_round + 1)
    assert quoted(info=leaving) == NoQuote(
        "the sender's deposit and reserve are set to unlock soon"
    )


def test_case_9_nothing_is_quoted_to_who_has_nothing() -> None:
    assert quoted(info=SenderInfo(Wei(0), 0, Wei(0), Wei(0))) == NoQuote(
        "insufficient sender reserve"
    )


def test_case_10_what_won_and_is_not_redeemed_counts_against_the_reserve() -> None:
    poor = SenderInfo(Wei(0), 0, Wei(5 * 10**6), Wei(0))
    free = quoted(info=poor)
    tied = quoted(info=poor, pending=2 * 10**6)
    assert isinstance(free, TicketParams)
    assert isinstance(tied, TicketParams)
    assert (free.face_value, tied.face_value) == (4 * 10**6, 3 * 10**6)
    assert isinstance(quoted(info=poor, pending=4 * 10**6), NoQuote)


@pytest.mark.parametrize("withdraw_round", [0, HEAD.last_initialized_round])
def test_case_25_free_work_is_quoted_to_anybody(withdraw_round: int) -> None:
    penniless = SenderInfo(Wei(0), withdraw_round, Wei(0), Wei(0))
    found = quoted(price=Fraction(0), info=penniless)
    assert isinstance(found, TicketParams)
    assert (found.face_value, found.win_prob) == (0, 0)


def test_no_two_quotes_have_the_same_number() -> None:
    hashes = set()
    for number in range(50):
        found = quoted(seed=bytes([number]))
        assert isinstance(found, TicketParams)
        hashes.add(found.recipient_rand_hash)
    assert len(hashes) == 50


def test_a_small_bound_of_what_tickets_pay_makes_more_of_them_and_no_refusal() -> None:
    policy = QuotePolicy(usual_pixels=Pixels(2**20), max_face_value=Wei(4 * 10**6))
    found = quoted(price=Fraction(10), policy=policy)
    assert isinstance(found, TicketParams)
    assert found.face_value == 4 * 10**6
    assert found.expected_value <= 2 * 10**6
    assert objection(found) is None


@given(
    cost=st.integers(1, 3 * 10**13),
    gas_price=st.integers(0, 10**11).map(Wei),
    deposit=st.integers(10**9, 10 * ETHER).map(Wei),
    max_face_value=st.none() | st.integers(21_000, ETHER).map(Wei),
    max_tickets=st.integers(1, 100),
)
def test_payers_sign_what_a_call_is_quoted_at_and_pay_next_to_nothing_beyond_it(
    cost: int, gas_price: Wei, deposit: Wei, max_face_value: Wei | None, max_tickets: int
) -> None:
    info = replace(FUNDS, deposit=Wei(10 * ETHER), reserve_remaining=deposit)
    policy = QuotePolicy(max_face_value=max_face_value, max_tickets=max_tickets)
    found = quoted_for_call(cost, replace(HEAD, gas_price=gas_price), policy=policy, info=info)
    if isinstance(found, NoQuote):
        if found.reason == "insufficient sender reserve":
            assert not unpayable(Wei(cost), policy)
        else:
            assert found.reason == unpayable(Wei(cost), policy)
            assert cost > 19 * 10**12 or max_face_value is not None or max_tickets < 7
        return
    count = tickets_needed(Fraction(0), cost, found.expected_value)
    assert count <= max_tickets + 1, "one more where rounding takes a part of a wei"
    assert cost <= count * found.expected_value <= cost + found.expected_value
    assert found.expected_value * 2 < found.face_value + 2
    # What a hundred payers' tickets cannot lift, `unpayable` has refused.
    if count <= 100:
        assert objection(found, count, info) is None


@pytest.mark.parametrize(
    ("cost", "count"),
    [(1, 1), (10**12, 1), (3 * 10**12 - 1, 1), (3 * 10**12, 2), (8 * 10**12, 3), (19 * 10**12, 7)],
)
def test_as_few_tickets_as_payers_allow_come_to_the_cost_of_a_call(cost: int, count: int) -> None:
    found = quoted_for_call(cost, policy=QuotePolicy())
    assert isinstance(found, TicketParams)
    assert tickets_needed(Fraction(0), cost, found.expected_value) == count
    assert count * found.expected_value - cost < 2 * count


def test_a_call_that_nobody_can_pay_is_refused_with_the_reason() -> None:
    found = quoted_for_call(2 * 10**13)
    assert isinstance(found, NoQuote)
    assert found.reason.endswith("payers sign tickets worth 19999999999800 wei at most")
    tight = QuotePolicy(max_face_value=Wei(1000), max_tickets=3)
    found = quoted_for_call(5000, policy=tight)
    assert isinstance(found, NoQuote)
    assert found.reason.endswith(
        "it takes 11 tickets of what one may be worth here, and 3 are taken in a payment"
    )


def test_a_free_call_is_quoted_to_anybody_and_a_paid_one_not_to_who_leaves() -> None:
    leaving = SenderInfo(Wei(0), HEAD.last_initialized_round, Wei(0), Wei(0))
    found = quoted_for_call(0, info=leaving)
    assert isinstance(found, TicketParams)
    assert (found.face_value, found.win_prob) == (0, 0)
    assert quoted_for_call(1, info=leaving) == NoQuote(
        "the sender's deposit and reserve are set to unlock soon"
    )


def test_no_ticket_of_a_call_is_nearly_sure_to_win() -> None:
    """Where gas costs next to nothing, winners pay little: then it takes more tickets."""
    cheap = replace(HEAD, gas_price=Wei(1))
    found = quoted_for_call(10**8, cheap, policy=QuotePolicy())
    assert isinstance(found, TicketParams)
    assert found.face_value == 100 * 1_200_000
    assert tickets_needed(Fraction(0), 10**8, found.expected_value) == 2
