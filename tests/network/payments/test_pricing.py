"""Quotes against Livepeer's vectors, and what no quote may ever be."""

from fractions import Fraction

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from network.payments import pricing
from network.payments.tickets import CERTAIN, expected_value
from network.units import Wei

WEI = st.integers(0, 10**24).map(Wei)


@pytest.mark.parametrize(
    ("gas_price", "most", "face_value", "win_prob"),
    [
        (100, 10000000000, 100000000, 5789604461865809771178549250434395392663499233282028201972879200395660),
        (777, 10000000000, 777000000, 745122839364969082519761808292714979750772102095499125093034646125570),
        (1, 10001, 10001, 57890255593098787833002192285115442382396752657554526567072084795477017120),
        (0, CERTAIN, 500, 1157920892373161954235709850086879078532699846656405640394575840079131296400),
    ],
)  # fmt: skip
def test_quotes_are_those_of_livepeer(
    gas_price: int, most: int, face_value: int, win_prob: int
) -> None:
    value = Wei(5)
    found = pricing.face_value(
        value, redeem_gas=10_000, gas_price=Wei(gas_price), max_float=Wei(most)
    )
    assert found == face_value
    assert pricing.win_probability(Wei(face_value), value) == win_prob


@pytest.mark.parametrize("value", [0, -1])
def test_case_25_free_work_has_tickets_worth_nothing(value: int) -> None:
    assert pricing.face_value(Wei(value), redeem_gas=1, gas_price=Wei(1), max_float=Wei(9)) == 0
    assert pricing.win_probability(Wei(0), Wei(value)) == 0
    assert pricing.ticket_value(Wei(value), Wei(100)) == 0
    assert pricing.tickets_needed(Fraction(0), 10, Fraction(0)) == 0


GWEI3 = 3 * 10**9


@pytest.mark.parametrize(
    ("gas_price", "most", "is_enough"),
    [
        (1, 4, False),
        (GWEI3 + 1, 10_000 * (GWEI3 + 1) - 1, True),
        (GWEI3 + 1, 10_000 * GWEI3, True),
        (GWEI3 + 1, 10_000 * GWEI3 - 1, False),
        (GWEI3 - 1, 10_000 * (GWEI3 - 1), True),
        (GWEI3 - 1, 10_000 * (GWEI3 - 1) + 1, True),
    ],
)
def test_case_9_a_reserve_that_redeeming_would_eat_up_is_refused(
    gas_price: int, most: int, *, is_enough: bool
) -> None:
    found = pricing.face_value(
        Wei(5), redeem_gas=10_000, gas_price=Wei(gas_price), max_float=Wei(most)
    )
    assert (found is not None) is is_enough


@pytest.mark.parametrize(
    ("gas_price", "most", "ratio"),
    [
        (100, 10**12, Fraction(100)),
        (100, 10_000 * 100 + 1, Fraction(10_000 * 100 + 1, 10_000 * 100)),
    ],
)
def test_a_winner_pays_a_hundred_times_its_redemption_where_the_reserve_allows(
    gas_price: int, most: int, ratio: Fraction
) -> None:
    found = pricing.face_value(
        Wei(5), redeem_gas=10_000, gas_price=Wei(gas_price), max_float=Wei(most)
    )
    assert found is not None
    assert Fraction(found, 10_000 * gas_price) == ratio


@pytest.mark.parametrize(
    ("face_value", "win_prob"),
    [
        # Remainder 0, and one whose low 64 bits alone are 0: not rounded up.
        (3, 2 * (CERTAIN // 3)),
        (CERTAIN - 2**64, 2),
        (CERTAIN - 2**64 - 1, 4),
        (2, CERTAIN),
    ],
)
def test_probabilities_are_rounded_as_livepeer_rounds_them(face_value: int, win_prob: int) -> None:
    assert pricing.win_probability(Wei(face_value), Wei(2)) == win_prob


@given(face_value=st.integers(1, CERTAIN), gap=st.integers(1, 10) | st.integers(1, CERTAIN))
@example(face_value=CERTAIN - 1, gap=1)
@example(face_value=2**255 + 1, gap=1)
def test_case_24_no_probability_is_certainty_below_the_face_value(
    face_value: int, gap: int
) -> None:
    """Case 23 too: whatever the amounts are, the probability is a uint256."""
    found = pricing.win_probability(Wei(face_value), Wei(face_value - gap))
    assert expected_value(Wei(face_value), found) < face_value
    assert 0 <= found < CERTAIN


@given(
    value=st.integers(1, 3 * 10**12).map(Wei),
    gas_price=st.integers(0, 10**12).map(Wei),
    most=WEI,
    cap=st.none() | WEI,
)
def test_case_24_a_quote_is_above_its_value_and_worth_it(
    value: Wei, gas_price: Wei, most: Wei, cap: Wei | None
) -> None:
    found = pricing.face_value(
        value, redeem_gas=1_200_000, gas_price=gas_price, max_float=most, max_face_value=cap
    )
    if found is None:
        return
    worth = expected_value(found, pricing.win_probability(found, value))
    # Payers refuse what is sure to win, and the rounding never costs the recipient anything.
    assert value <= worth + 1
    assert worth < found
    assert found <= most
    assert not cap or found <= cap


@pytest.mark.parametrize(
    ("deposit", "pending", "most"),
    [(400, 100, 500), (300, 100, 500), (200, 100, 400), (0, 100, 400), (0, 0, 500)],
)
def test_the_share_of_a_reserve_is_livepeers(deposit: int, pending: int, most: int) -> None:
    found = pricing.max_float(
        reserve=Wei(500),
        claimed_by_recipient=Wei(0),
        pool_size=1,
        deposit=Wei(deposit),
        pending=Wei(pending),
    )
    assert found == most


@given(reserve=WEI, claimed=WEI, pool=st.integers(0, 100), deposit=WEI, pending=WEI)
def test_case_9_the_share_of_a_reserve_is_never_negative(
    reserve: Wei, claimed: Wei, pool: int, deposit: Wei, pending: Wei
) -> None:
    found = pricing.max_float(
        reserve=reserve,
        claimed_by_recipient=claimed,
        pool_size=pool,
        deposit=deposit,
        pending=pending,
    )
    assert 0 <= found <= reserve


@pytest.mark.parametrize(
    ("balance", "fee", "value", "count"),
    [
        (Fraction(2), 1, 1, 0),
        (Fraction(2), 2, 1, 0),
        (Fraction(1), 5, 1, 4),
        (Fraction(1, 4), 2, 1, 2),
        (Fraction(-5), 2, 1, 7),
        (Fraction(0), 2, 1, 2),
        # One ticket's value is kept as credit even where the job costs less.
        (Fraction(4), 4, 5, 1),
        (Fraction(5), 4, 5, 0),
    ],
)
def test_as_many_tickets_are_sent_as_livepeer_sends(
    balance: Fraction, fee: int, value: int, count: int
) -> None:
    assert pricing.tickets_needed(balance, fee, Fraction(value)) == count


@given(
    balance=st.fractions(-(10**15), 10**15),
    fee=st.integers(0, 10**15),
    value=st.fractions(Fraction(1, 1000), 10**12),
)
def test_tickets_cover_the_job_and_no_more_than_needed(
    balance: Fraction, fee: int, value: Fraction
) -> None:
    count = pricing.tickets_needed(balance, fee, value)
    wanted = max(Fraction(fee), value)
    assert balance + count * value >= wanted
    assert count == 0 or balance + (count - 1) * value < wanted


@given(fee=st.integers(1, 10**15).map(Wei))
def test_a_usual_job_takes_one_ticket_where_payers_allow_it(fee: Wei) -> None:
    value = pricing.ticket_value(fee, pricing.PAYERS_MAX_TICKET_VALUE)
    found = pricing.face_value(value, redeem_gas=1, gas_price=Wei(1), max_float=Wei(10**30))
    assume(found is not None)
    worth = expected_value(Wei(found or 0), pricing.win_probability(Wei(found or 0), value))
    assert worth <= pricing.PAYERS_MAX_TICKET_VALUE
    if fee < pricing.PAYERS_MAX_TICKET_VALUE:
        assert pricing.tickets_needed(Fraction(0), fee, worth) <= 2
