"""Someone who pays by ticket, and quotes to pay for."""

from dataclasses import dataclass, replace
from fractions import Fraction

from network.chain.model import Head, SenderInfo
from network.identity import KeySigner
from network.payments.signing import TicketSeries
from network.payments.tickets import CreationRound, TicketParams
from network.units import Address, Pixels, Wei
from network.wire.session import TicketSenderParams
from node.payments.quoting import NoQuote, Payer, QuotePolicy, quote, quote_call
from node.payments.receiver import Circumstances, Offered, Receiver

SECRET = b"s" * 32
RECIPIENT = Address(b"r" * 20)
SIGNER = KeySigner(b"\x33" * 32)
PRICE = Fraction(101, 100)
HEAD = Head(
    l1_block=1000,
    current_round=7,
    last_initialized_round=7,
    creation=CreationRound(7, b"h" * 32),
    ticket_validity_period=2,
    pool_size=1,
    gas_price=Wei(1),
    is_paused=False,
    read_at=0.0,
)
FUNDS = SenderInfo(Wei(10**18), 0, Wei(10**18), Wei(0))
POLICY = QuotePolicy(max_face_value=Wei(4 * 10**6), usual_pixels=Pixels(10**6))


def quoted(
    head: Head = HEAD,
    *,
    seed: bytes = b"seed",
    price: Fraction = PRICE,
    policy: QuotePolicy = POLICY,
    info: SenderInfo = FUNDS,
    pending: int = 0,
    signer: KeySigner = SIGNER,
) -> TicketParams | NoQuote:
    """What a node would quote."""
    payer = Payer(signer.address, info, Wei(0), Wei(pending))
    return quote(payer, price, head, policy, recipient=RECIPIENT, secret=SECRET, seed=seed)


def quoted_for_call(
    cost: int,
    head: Head = HEAD,
    *,
    policy: QuotePolicy = POLICY,
    info: SenderInfo = FUNDS,
    pending: int = 0,
) -> TicketParams | NoQuote:
    """What a node would quote for one call of `cost` wei."""
    payer = Payer(SIGNER.address, info, Wei(0), Wei(pending))
    return quote_call(
        payer, Wei(cost), head, policy, recipient=RECIPIENT, secret=SECRET, seed=b"seed"
    )


def good_quote(head: Head = HEAD, *, seed: bytes = b"seed") -> TicketParams:
    found = quoted(head, seed=seed)
    assert isinstance(found, TicketParams), found
    return found


@dataclass(frozen=True)
class Purse:
    """Signs tickets for one quote."""

    params: TicketParams
    price: Fraction = PRICE
    signer: KeySigner = SIGNER

    def ticket(self, nonce: int) -> TicketSenderParams:
        series = TicketSeries(self.params, self.signer.address)
        return TicketSenderParams(nonce, series.sign(self.signer, nonce))

    def offer(self, *nonces: int) -> Offered:
        tickets = tuple(self.ticket(nonce) for nonce in nonces)
        return Offered(self.signer.address, self.params, self.price, tickets)


def receiver(max_tickets: int = 100) -> Receiver:
    return Receiver(SECRET, RECIPIENT, max_tickets=max_tickets)


def at(block: int = HEAD.l1_block, *, withdraw_round: int = 0) -> Circumstances:
    return Circumstances(block, HEAD.last_initialized_round, withdraw_round)


def spoiled(offered: Offered, index: int) -> Offered:
    """The same payment with one signature that nobody made."""
    tickets = list(offered.tickets)
    bad = bytes(32) + tickets[index].signature[32:]
    tickets[index] = replace(tickets[index], signature=bad)
    return replace(offered, tickets=tuple(tickets))
