"""Gas: what is offered first, and what replaces it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from network.chain.fees import Fees, GasPriceError, first_fees, replacement_fees
from network.units import Wei

wei = st.integers(0, 10**13).map(Wei)


@given(base=wei, tip=wei, most=wei)
def test_the_first_offer_pays_for_the_next_block_and_stays_within_the_cap(
    base: Wei, tip: Wei, most: Wei
) -> None:
    if base + tip > most:
        with pytest.raises(GasPriceError):
            first_fees(base, tip, most)
        return
    fees = first_fees(base, tip, most)
    assert base + tip <= fees.max_fee <= most
    assert fees.tip == tip


@given(max_fee=wei, tip=wei, base=wei, wanted=wei, most=wei)
def test_a_replacement_is_an_eighth_higher_in_both_or_not_made_case_17(
    max_fee: Wei, tip: Wei, base: Wei, wanted: Wei, most: Wei
) -> None:
    before = Fees(max_fee=Wei(max(max_fee, tip)), tip=tip)
    after = replacement_fees(before, base, wanted, most)
    if after is None:
        least_tip = max(wanted, tip + 1, -(-tip * 9 // 8))
        assert most < max(before.max_fee + 1, -(-before.max_fee * 9 // 8), least_tip)
        return
    for old, new in ((before.max_fee, after.max_fee), (before.tip, after.tip)):
        assert new * 8 >= old * 9
        assert new > old
    assert after.tip <= after.max_fee <= most


def test_a_replacement_follows_a_spike() -> None:
    before = Fees(max_fee=Wei(20), tip=Wei(0))
    assert replacement_fees(before, Wei(500), Wei(0), Wei(2000)) == Fees(Wei(1001), Wei(1))
    assert replacement_fees(before, Wei(500), Wei(0), Wei(700)) == Fees(Wei(700), Wei(1))
    assert replacement_fees(before, Wei(5), Wei(0), Wei(22)) is None
