"""Tickets with a key on this machine."""

from dataclasses import replace
from fractions import Fraction

import pytest

from gateway.payments.payer import Quote, StaleQuoteError, UnpayableError
from gateway.payments.sender import MOST_NONCES, TicketSender
from network.identity import KeySigner, verify
from network.payments.tickets import CreationRound, TicketParams, rand_hash, ticket_of
from network.units import Address, ModelId, Wei
from network.wire.session import OrchestratorInfo
from network.wire.tickets import encode_ticket_params

SIGNER = KeySigner(b"\x31" * 32)
PARAMS = TicketParams(
    recipient=Address(b"\x02" * 20),
    face_value=Wei(1000),
    win_prob=2**200,
    recipient_rand_hash=rand_hash(5),
    seed=b"\x01" * 32,
    expiration_block=100,
    creation=CreationRound(7, b"\x09" * 32),
)


def quote_of(params: TicketParams) -> Quote:
    info = OrchestratorInfo(
        transcoder="http://x",
        address=params.recipient,
        price=Fraction(1),
        prices=(),
        capabilities=None,  # type: ignore[arg-type]
        auth_token=None,
        ticket_params=encode_ticket_params(params),
    )
    return Quote.of(ModelId("m"), info)


async def test_tickets_are_signed_with_nonces_from_one_on() -> None:
    sender = TicketSender(SIGNER)
    first = await sender.make(quote_of(PARAMS), 3)
    second = await sender.make(quote_of(PARAMS), 40)
    made = (*first.tickets, *second.tickets)
    assert [ticket.nonce for ticket in made] == list(range(1, 44))
    for ticket in made:
        verify(
            SIGNER.address, ticket_of(PARAMS, SIGNER.address, ticket.nonce).hash, ticket.signature
        )
    assert (await sender.make(quote_of(PARAMS), 0)).tickets == ()


async def test_a_quote_that_repeats_a_hash_gets_no_nonce_twice() -> None:
    """Another price under the same hash would be another ticket with a nonce that was used."""
    sender = TicketSender(SIGNER)
    await sender.make(quote_of(PARAMS), 2)
    dearer = replace(PARAMS, face_value=Wei(2000))
    made = await sender.make(quote_of(dearer), 1)
    assert made.tickets[0].nonce == 3
    hash_ = ticket_of(dearer, SIGNER.address, 3).hash
    verify(SIGNER.address, hash_, made.tickets[0].signature)
    fresh = await sender.make(quote_of(replace(PARAMS, recipient_rand_hash=rand_hash(6))), 1)
    assert fresh.tickets[0].nonce == 1


async def test_a_used_up_quote_is_stale() -> None:
    sender = TicketSender(SIGNER)
    await sender.make(quote_of(PARAMS), MOST_NONCES - 1)
    with pytest.raises(StaleQuoteError, match="599 tickets"):
        await sender.make(quote_of(PARAMS), 2)
    assert (await sender.make(quote_of(PARAMS), 1)).tickets[0].nonce == MOST_NONCES


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"price": None}, "names no price"),
        ({"ticket_params": None}, "quotes no ticket parameters"),
        ({"ticket_params": b"\x0a\x03abc"}, "recipient of 3 bytes"),
    ],
)
def test_an_answer_that_is_no_quote_says_why(change: dict[str, object], said: str) -> None:
    info = replace(quote_of(PARAMS).info, **change)  # type: ignore[arg-type]
    with pytest.raises(UnpayableError, match=said):
        Quote.of(ModelId("m"), info)
