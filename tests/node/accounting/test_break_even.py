from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from node.accounting.break_even import Costs, asking_price, break_even_price

AMOUNT = st.fractions(Fraction(1, 1000), 10_000)
SHARE = st.fractions(Fraction(1, 100), 1)
COSTS = st.builds(Costs, AMOUNT, AMOUNT, SHARE)
PIXELS = st.integers(1, 2**40)


def test_a_gpu_of_forty_cents_an_hour_that_makes_an_image_a_second() -> None:
    costs = Costs(Fraction("0.4"), Fraction(3000))
    price = break_even_price(costs, 1024 * 1024, Fraction(1))
    assert price == Fraction(10**18 * 4, 10 * 3000 * 3600 * 1024 * 1024)
    half = Costs(Fraction("0.4"), Fraction(3000), Fraction(1, 2))
    assert break_even_price(half, 1024 * 1024, Fraction(1)) == 2 * price


@given(COSTS, PIXELS, AMOUNT)
def test_what_comes_in_at_that_price_is_what_the_hour_costs(
    costs: Costs, pixels: int, seconds: Fraction
) -> None:
    price = break_even_price(costs, pixels, seconds)
    pixels_in_an_hour = 3600 * costs.busy / seconds * pixels
    assert price * pixels_in_an_hour / 10**18 * costs.usd_per_eth == costs.per_hour
    asked = asking_price(price)
    assert asked.denominator == 1
    assert price <= asked < price + 1
