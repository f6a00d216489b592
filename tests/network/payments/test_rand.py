"""Case 4: a payer that changes anything of a quote comes to another number."""

from dataclasses import dataclass, replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from network.payments.rand import recipient_rand
from network.payments.tickets import CERTAIN, CreationRound
from network.units import Address, Wei

SECRET = b"s" * 32


@dataclass(frozen=True)
class Quote:
    seed: bytes
    sender: Address
    face_value: Wei
    win_prob: int
    expiration_block: int
    price: Fraction
    creation: CreationRound

    def rand(self, secret: bytes = SECRET) -> int:
        return recipient_rand(secret, **vars(self))


QUOTES = st.builds(
    Quote,
    seed=st.binary(max_size=32),
    sender=st.binary(min_size=20, max_size=20).map(Address),
    face_value=st.integers(0, CERTAIN).map(Wei),
    win_prob=st.integers(0, CERTAIN),
    expiration_block=st.integers(0, 2**63 - 1),
    price=st.fractions(0, 10**12),
    creation=st.builds(CreationRound, st.integers(0, 2**40), st.binary(min_size=32, max_size=32)),
)
QUOTE = Quote(
    b"seed",
    Address(b"a" * 20),
    Wei(1000),
    77,
    141,
    Fraction(101, 100),
    CreationRound(5, b"h" * 32),
)


@pytest.mark.parametrize(
    "changed",
    [
        replace(QUOTE, seed=b"seee"),
        replace(QUOTE, sender=Address(b"b" * 20)),
        replace(QUOTE, face_value=Wei(1001)),
        replace(QUOTE, win_prob=78),
        replace(QUOTE, expiration_block=142),
        replace(QUOTE, price=Fraction(1)),
        replace(QUOTE, creation=CreationRound(6, b"h" * 32)),
        replace(QUOTE, creation=CreationRound(5, b"i" * 32)),
    ],
)
def test_case_4_every_part_of_a_quote_counts(changed: Quote) -> None:
    assert changed.rand() != QUOTE.rand()


def test_another_secret_is_another_number() -> None:
    assert QUOTE.rand(b"t" * 32) != QUOTE.rand()
    assert 0 <= QUOTE.rand() <= CERTAIN


@given(one=QUOTES, other=QUOTES)
def test_case_4_no_two_quotes_have_the_same_bytes(one: Quote, other: Quote) -> None:
    assert (one.rand() == other.rand()) is (one == other)


def test_case_4_bytes_do_not_move_between_fields() -> None:
    """Joined bare, these two would be the same message."""
    one = replace(QUOTE, face_value=Wei(0x0102), win_prob=0x03)
    other = replace(QUOTE, face_value=Wei(0x01), win_prob=0x0203)
    assert one.rand() != other.rand()
