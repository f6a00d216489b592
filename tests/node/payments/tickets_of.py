"""Winning tickets and views of a chain, for tests of what becomes of them."""

from hypothesis import strategies as st

from network.chain.model import Head, SenderInfo, SignedTicket
from network.payments.tickets import CERTAIN, CreationRound, Ticket, rand_hash
from network.units import Address, Wei
from node.payments.receiver import Winner
from node.payments.redemption import Candidate, Standing, View

ETHER = 10**18
ROUND_LENGTH = 100
RECIPIENT = Address(b"\xee" * 20)
ALICE = Address(b"\xaa" * 20)
BOB = Address(b"\xbb" * 20)
SENDERS = (ALICE, BOB, Address(b"\xcc" * 20))


def winner(
    sender: Address = ALICE,
    face: int = ETHER,
    *,
    number: int = 1,
    creation: int = 7,
    expiration: int = 700,
) -> Winner:
    """A ticket that won; nobody checks its signature."""
    ticket = Ticket(
        recipient=RECIPIENT,
        sender=sender,
        face_value=Wei(face),
        win_prob=CERTAIN - 1,
        sender_nonce=number,
        recipient_rand_hash=rand_hash(number),
        creation=CreationRound(creation, b"\x11" * 32),
    )
    signed = SignedTicket(ticket, bytes([number % 256]) * 65, number)
    return Winner(signed, ticket.hash, expiration)


def candidate(
    sender: Address = ALICE,
    face: int = ETHER,
    *,
    number: int = 1,
    creation: int = 7,
    expiration: int = 700,
) -> Candidate:
    return Candidate(winner(sender, face, number=number, creation=creation, expiration=expiration))


def head(
    block: int = 750,
    *,
    gas_price: int = 10**9,
    initialized: bool = True,
    paused: bool = False,
    pool: int = 2,
    validity: int = 2,
) -> Head:
    """Rounds are 100 blocks long, and round 7 begins at block 700."""
    current = block // ROUND_LENGTH
    last = current if initialized else current - 1
    return Head(
        l1_block=block,
        current_round=current,
        last_initialized_round=last,
        creation=CreationRound(last, b"\x11" * 32),
        ticket_validity_period=validity,
        pool_size=pool,
        gas_price=Wei(gas_price),
        is_paused=paused,
        read_at=0.0,
    )


def funds(deposit: int = 10 * ETHER, reserve: int = 0, *, withdraw: int = 0) -> SenderInfo:
    return SenderInfo(Wei(deposit), withdraw, Wei(reserve), Wei(0))


def view(
    at: Head | None = None,
    *,
    senders: dict[Address, SenderInfo] | None = None,
    registered: bool = True,
    active: bool = True,
    now: float = 0.0,
) -> View:
    at = at or head()
    return View(
        head=at,
        round_start=at.current_round * ROUND_LENGTH,
        round_length=ROUND_LENGTH,
        now=now,
        senders={sender: funds() for sender in SENDERS} if senders is None else senders,
        standings={RECIPIENT: Standing(registered, active)},
    )


@st.composite
def winners(draw: st.DrawFn) -> list[Candidate]:
    """Up to a dozen tickets of three senders, made around round 7."""
    count = draw(st.integers(1, 12))
    return [
        candidate(
            draw(st.sampled_from(SENDERS)),
            draw(st.integers(0, 3 * ETHER)),
            number=number,
            creation=draw(st.integers(5, 8)),
            expiration=draw(st.integers(600, 860)),
        )
        for number in range(1, count + 1)
    ]


@st.composite
def views(draw: st.DrawFn) -> View:
    """Any state of the chain around round 7."""
    at = head(
        draw(st.integers(680, 999)),
        gas_price=draw(st.integers(1, 10**12)),
        initialized=draw(st.booleans()),
        paused=draw(st.booleans()),
        pool=draw(st.integers(0, 3)),
    )
    known = draw(st.sets(st.sampled_from(SENDERS)))
    return view(
        at,
        senders={
            sender: funds(
                draw(st.integers(0, 4 * ETHER)),
                draw(st.integers(0, 4 * ETHER)),
                withdraw=draw(st.sampled_from([0, 6, 8, 9])),
            )
            for sender in known
        },
        registered=draw(st.booleans()),
        active=draw(st.booleans()),
    )
