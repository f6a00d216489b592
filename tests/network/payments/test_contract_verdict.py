"""Case 6: what we say of a ticket is what the contract will say of it, whatever was changed.

A payer whose ticket is good here and refused there would be served for nothing.
"""

from dataclasses import dataclass, replace
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from web3 import Web3
from web3.exceptions import ContractLogicError

from network.devnet.deployment import Rules
from network.errors import SignatureError
from network.identity import KeySigner, keccak, verify
from network.payments.tickets import (
    CERTAIN,
    LARGEST_NONCE,
    CreationRound,
    Ticket,
    rand_hash,
    wins,
)
from network.units import Address, Wei
from tests.devnet import Devnet

ORDER: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
PRIME: Final = 2**256 - 2**32 - 977
RAND: Final = 4711
STRANGER: Final = KeySigner(b"\x55" * 32)
REDEEMED: Final = ""
LOST: Final = "ticket did not win"
#: What the contract says where `network.identity` says this.
SIGNATURE_REASONS: Final = {
    "invalid signature length": "INVALID_SIGNATURE_LENGTH",
    "signature s value too high": "ECDSA: invalid signature 's' value",
    "signature v value must be 27 or 28": "ECDSA: invalid signature 'v' value",
    "invalid signature": "ECDSA: invalid signature",
    "signature is by another account": "invalid signature over ticket hash",
}
#: Numbers at whose edges libraries differ.
EDGES: Final = (0, 1, ORDER // 2, ORDER // 2 + 1, ORDER - 1, ORDER, ORDER + 1, PRIME, CERTAIN)


@dataclass(frozen=True, slots=True)
class Shown:
    """All that redeeming takes."""

    ticket: Ticket
    signature: bytes
    rand: int = RAND


@dataclass(frozen=True, slots=True)
class Counter:
    """Where tickets are redeemed: a funded sender, an active orchestrator, the rounds that hold."""

    broker: Any
    sender: KeySigner
    recipient: Address
    #: The current round and the one before it.
    rounds: tuple[CreationRound, ...]

    def made(self, *, face_value: int = 1000, win_prob: int = CERTAIN, nonce: int = 1) -> Shown:
        """A ticket as an honest sender makes it."""
        ticket = Ticket(
            recipient=self.recipient,
            sender=self.sender.address,
            face_value=Wei(face_value),
            win_prob=win_prob,
            sender_nonce=nonce,
            recipient_rand_hash=rand_hash(RAND),
            creation=self.rounds[0],
        )
        return Shown(ticket, self.sender.sign(ticket.hash))

    async def contracts_verdict(self, shown: Shown) -> str:
        """Its revert reason; `REDEEMED` for none."""
        ticket = shown.ticket
        fields = (
            Web3.to_checksum_address(ticket.recipient),
            Web3.to_checksum_address(ticket.sender),
            ticket.face_value,
            ticket.win_prob,
            ticket.sender_nonce,
            ticket.recipient_rand_hash,
            ticket.creation.aux_data,
        )
        call = self.broker.functions.redeemWinningTicket(fields, shown.signature, shown.rand)
        try:
            await call.call()
        except ContractLogicError as error:
            return str(error.message).removeprefix("execution reverted: ")
        return REDEEMED

    def our_verdict(self, shown: Shown) -> str:
        """The contract's reason as we foresee it, out of the parts that node and gateway judge with."""
        ticket = shown.ticket
        return (
            _nobody(ticket)
            or self._wrong_round(ticket.creation)
            or _wrong_rand(shown)
            or _bad_signature(shown)
            or ("" if wins(shown.signature, shown.rand, ticket.win_prob) else LOST)
        )

    def _wrong_round(self, creation: CreationRound) -> str:
        if creation in self.rounds:
            return ""
        if not creation.aux_data:
            return "invalid length for ticket auxData: must be 64 bytes"
        if creation.number in {known.number for known in self.rounds}:
            return "ticket creationRoundBlockHash invalid for creationRound"
        return "ticket creationRound does not have a block hash"


def _nobody(ticket: Ticket) -> str:
    for name, address in (("recipient", ticket.recipient), ("sender", ticket.sender)):
        if address == bytes(20):
            return f"ticket {name} is null address"
    return ""


def _wrong_rand(shown: Shown) -> str:
    if rand_hash(shown.rand) == shown.ticket.recipient_rand_hash:
        return ""
    return "recipientRand does not match recipientRandHash"


def _bad_signature(shown: Shown) -> str:
    try:
        verify(shown.ticket.sender, shown.ticket.hash, shown.signature)
    except SignatureError as error:
        return SIGNATURE_REASONS[str(error)]
    return ""


@pytest.fixture
async def counter(devnet: Devnet) -> Counter:
    recipient = await devnet.orchestrator()
    sender = await devnet.sender()
    await devnet.next_round(2)
    manager = devnet.contracts.contract("RoundsManager").functions
    last = await manager.lastInitializedRound().call()
    period = Rules().ticket_validity_period
    rounds = [
        CreationRound(number, bytes(await manager.blockHashForRound(number).call()))
        for number in range(last, last - period, -1)
    ]
    return Counter(
        broker=devnet.contracts.contract("TicketBroker"),
        sender=KeySigner(bytes(sender.key)),
        recipient=Address(bytes.fromhex(recipient.address[2:])),
        rounds=tuple(rounds),
    )


def with_numbers(signature: bytes, r: int | None = None, s: int | None = None) -> bytes:
    """`signature` with its parts replaced."""
    first = signature[:32] if r is None else r.to_bytes(32, "big")
    second = signature[32:64] if s is None else s.to_bytes(32, "big")
    return first + second + signature[64:]


def twin(signature: bytes) -> bytes:
    """The other signature over the same hash, which needs no key."""
    s = ORDER - int.from_bytes(signature[32:64], "big")
    return with_numbers(signature, s=s)[:64] + bytes([55 - signature[64]])


def compact(signature: bytes) -> bytes:
    """EIP-2098: 64 bytes, v in the highest bit of s."""
    s = int.from_bytes(signature[32:64], "big") | (signature[64] - 27) << 255
    return signature[:32] + s.to_bytes(32, "big")


def signature_changes(good: Shown) -> dict[str, Shown]:
    """Ways to sign a ticket wrongly, each with a name."""
    signature, digest = good.signature, good.ticket.hash
    changed = {
        "twin": twin(signature),
        "compact": compact(signature),
        "short": signature[:64],
        "long": signature + b"\0",
        "none": b"",
        "zeros": bytes(65),
        "other key": STRANGER.sign(digest),
        "other ticket": KeySigner(b"\x56" * 32).sign(keccak(digest)),
        "other parity": signature[:64] + bytes([55 - signature[64]]),
    }
    changed |= {f"v {v}": signature[:64] + bytes([v]) for v in (0, 1, 26, 29, 35, 255)}
    changed |= {f"r {r:#x}": with_numbers(signature, r=r) for r in EDGES}
    changed |= {f"s {s:#x}": with_numbers(signature, s=s) for s in EDGES}
    return {name: replace(good, signature=other) for name, other in changed.items()}


def ticket_changes(good: Shown) -> dict[str, Shown]:
    """Ways to change a ticket after it was signed."""
    ticket = good.ticket
    number, block_hash = ticket.creation.number, ticket.creation.block_hash
    changed = {
        "face value": replace(ticket, face_value=Wei(ticket.face_value ^ 1)),
        "win probability": replace(ticket, win_prob=ticket.win_prob ^ 1),
        "nonce": replace(ticket, sender_nonce=ticket.sender_nonce ^ 1),
        "recipient": replace(ticket, recipient=STRANGER.address),
        "sender": replace(ticket, sender=STRANGER.address),
        "no recipient": replace(ticket, recipient=Address(bytes(20))),
        "no sender": replace(ticket, sender=Address(bytes(20))),
        "rand hash": replace(ticket, recipient_rand_hash=rand_hash(RAND + 1)),
        "round": replace(ticket, creation=CreationRound(number - 1, block_hash)),
        "round to come": replace(ticket, creation=CreationRound(number + 1, block_hash)),
        "block hash": replace(ticket, creation=CreationRound(number, bytes(31) + b"\1")),
        "no round": replace(ticket, creation=CreationRound()),
    }
    shown = {name: replace(good, ticket=other) for name, other in changed.items()}
    return shown | {"rand": replace(good, rand=RAND + 1)}


async def test_case_6_every_known_trick_is_judged_as_the_contract_judges_it(
    counter: Counter,
) -> None:
    good = counter.made()
    assert await counter.contracts_verdict(good) == counter.our_verdict(good) == REDEEMED
    tricks = signature_changes(good) | ticket_changes(good)
    tricks["previous round"] = replace(
        good, ticket=replace(good.ticket, creation=counter.rounds[1])
    )
    ours = {name: counter.our_verdict(trick) for name, trick in tricks.items()}
    theirs = {name: await counter.contracts_verdict(trick) for name, trick in tricks.items()}
    assert ours == theirs
    assert REDEEMED not in ours.values()
    assert set(ours.values()) > set(SIGNATURE_REASONS.values())


async def test_tickets_of_the_round_before_are_still_good(counter: Counter) -> None:
    old = replace(counter.made().ticket, creation=counter.rounds[1])
    shown = Shown(old, counter.sender.sign(old.hash))
    assert await counter.contracts_verdict(shown) == counter.our_verdict(shown) == REDEEMED


@st.composite
def spoiled_signatures(draw: st.DrawFn, good: Shown) -> bytes:
    signature = bytearray(good.signature)
    position = draw(st.integers(0, 64))
    match draw(st.sampled_from(("trick", "bit", "byte", "cut", "noise", "numbers"))):
        case "trick":
            tricks = signature_changes(good)
            return tricks[draw(st.sampled_from(sorted(tricks)))].signature
        case "bit":
            signature[position] ^= 1 << draw(st.integers(0, 7))
        case "byte":
            signature[position] = draw(st.integers(0, 255))
        case "cut":
            return good.signature[:position]
        case "noise":
            signature[:64] = draw(st.binary(min_size=64, max_size=64))
        case _:
            numbers = st.none() | st.sampled_from(EDGES) | st.integers(0, CERTAIN)
            return with_numbers(good.signature, draw(numbers), draw(numbers))
    return bytes(signature)


@st.composite
def shown_tickets(draw: st.DrawFn, counter: Counter) -> Shown:
    """Good ones, and such as were changed, signed wrongly, or both."""
    good = counter.made(
        face_value=draw(st.integers(0, CERTAIN)),
        win_prob=draw(st.sampled_from((1, CERTAIN // 2, CERTAIN)) | st.integers(1, CERTAIN)),
        nonce=draw(st.integers(0, LARGEST_NONCE)),
    )
    signature = good.signature
    if draw(st.booleans()):
        signature = draw(spoiled_signatures(good))
    if draw(st.booleans()):
        tricks = ticket_changes(good)
        good = tricks[draw(st.sampled_from(sorted(tricks)))]
    return replace(good, signature=signature)


@settings(
    max_examples=300,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
async def test_case_6_any_ticket_is_judged_as_the_contract_judges_it(
    counter: Counter, data: st.DataObject
) -> None:
    shown = data.draw(shown_tickets(counter))
    assert await counter.contracts_verdict(shown) == counter.our_verdict(shown)
