"""A go-livepeer orchestrator's side of payments (wire, 4.2 to 4.7), with the credit rules that surprise.

Its view of the chain is a `Head` and what it knows of senders, which tests set as they like.
"""

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Final

from network.chain.model import Chain, Head, SenderInfo, SignedTicket
from network.errors import SignatureError
from network.identity import KeySigner, checksum
from network.payments.signing import TicketSeries
from network.payments.tickets import (
    CERTAIN,
    CreationRound,
    TicketParams,
    expected_value,
    rand_hash,
    ticket_of,
)
from network.units import Address, Wei
from network.wire.session import Payment
from network.wire.tickets import decode_ticket_params, encode_ticket_params

#: Of `-ticketEV`, in wei.
TICKET_VALUE: Final = 8_000_000_000
REDEEM_GAS: Final = 1_200_000
COST_MULTIPLIER: Final = 100
AVERAGE_GAS_PRICE: Final = 3 * 10**9
LIFETIME_BLOCKS: Final = 40
MOST_NONCES: Final = 600
#: Seconds after which a balance that nobody touched is forgotten.
IDLE_SECONDS: Final = 600.0
_SAFE_DEPOSIT: Final = 3
_LOW_WORD: Final = 2**64 - 1


class PaymentError(Exception):
    """What `ProcessPayment` or `TicketParams` returns as an error."""


@dataclass
class _Balance:
    amount: Fraction
    touched: float


@dataclass
class GoTill:
    """Balances are by sender and manifest ("27_" and the model of the body), in wei."""

    head: Head
    senders: dict[Address, SenderInfo] = field(default_factory=dict)
    key: KeySigner = field(default_factory=lambda: KeySigner(b"\x79" * 32))
    is_active: bool = True
    ticket_value: int = TICKET_VALUE
    #: Of `-maxFaceValue`; 0 is none.
    max_face_value: int = 0
    #: New at every start: quotes of an earlier one are refused.
    secret: bytes = b"\x01" * 32
    now: Callable[[], float] = lambda: 0.0
    #: Face values of tickets that won and are not redeemed, by sender.
    pending: dict[Address, int] = field(default_factory=dict)
    quotes: int = 0
    #: Tickets that were credited, and what they were worth.
    tickets: int = 0
    #: What work cost, all together.
    debited: Fraction = Fraction(0)
    winners: list[SignedTicket] = field(default_factory=list)
    _balances: dict[tuple[Address, str], _Balance] = field(default_factory=dict)
    _nonces: dict[bytes, set[int]] = field(default_factory=dict)
    _expiries: dict[bytes, int] = field(default_factory=dict)

    @property
    def address(self) -> Address:
        return self.key.address

    async def look(self, chain: Chain, *senders: Address) -> None:
        """Take over what a chain says now."""
        self.head = await chain.head()
        self.is_active = await chain.is_active(self.address)
        for sender in senders:
            self.senders[sender] = await chain.sender_info(sender)

    # Quoting

    def face_value(self, sender: Address) -> int:
        """Raises PaymentError."""
        cost = REDEEM_GAS * self.head.gas_price
        face = cost * COST_MULTIPLIER
        if face < self.ticket_value:
            face = self.ticket_value * COST_MULTIPLIER
        face = min(face, self._max_float(sender))
        if self.max_face_value > 0:
            face = min(face, self.max_face_value)
        if face < self.ticket_value or (face < cost and face < REDEEM_GAS * AVERAGE_GAS_PRICE):
            raise PaymentError("insufficient sender reserve")
        return face

    def cost_multiplier(self, sender: Address) -> Fraction:
        """How many redemptions a winning ticket pays; 0 where gas costs nothing."""
        cost = REDEEM_GAS * self.head.gas_price
        return Fraction(self.face_value(sender), cost) if cost else Fraction(0)

    def quote(self, sender: Address, price: Fraction) -> bytes:
        """Encoded TicketParams. Raises PaymentError."""
        face = self.face_value(sender) if price > 0 else 0
        self.quotes += 1
        params = TicketParams(
            recipient=self.address,
            face_value=Wei(face),
            win_prob=self._win_probability(face),
            recipient_rand_hash=bytes(32),
            seed=hashlib.sha256(self.secret + self.quotes.to_bytes(8, "big")).digest(),
            expiration_block=self.head.l1_block + LIFETIME_BLOCKS,
            creation=self.head.creation,
        )
        hash_ = rand_hash(self._rand(params, sender, price, params.creation))
        return encode_ticket_params(replace(params, recipient_rand_hash=hash_))

    # Taking

    def process(self, payment: Payment, manifest: str) -> None:
        """Credit what a payment brings. Raises PaymentError, and credits what came before all the same."""
        if payment.ticket_params is None:
            return
        sender = Address(payment.sender)
        if not self.is_active:
            raise PaymentError(
                f"orchestrator {checksum(self.address)} is inactive in round "
                f"{self.head.current_round}, cannot process payments"
            )
        if payment.expected_price is None:
            raise PaymentError("invalid expected price sent with payment err=pixels per unit is 0")
        if payment.expiration_params is None:
            raise ConnectionResetError  # nil is dereferenced, and the connection drops
        # Field 3 is believed, and field 7 is not looked at.
        params = decode_ticket_params(payment.ticket_params, payment.expiration_params)
        self._drop_old_nonces()
        series = TicketSeries(params, sender)
        rand = self._rand(params, sender, payment.expected_price, params.creation)
        sticky = ""
        for ticket in payment.tickets:
            self._check_fatal(params, sender, rand)
            fault = self._fault(series, ticket.nonce, ticket.signature)
            if not fault and series.is_winner(ticket.signature, rand):
                made = ticket_of(params, sender, ticket.nonce)
                self.winners.append(SignedTicket(made, ticket.signature, rand))
            fault = fault or self._nonce_fault(params, sender, ticket.nonce)
            if not fault and params.expiration_block <= self.head.l1_block:
                fault = "TicketParams expired"
            sticky = sticky or fault
            if not sticky:
                self.tickets += 1
                self._add(sender, manifest, expected_value(params.face_value, params.win_prob))
        if sticky:
            raise PaymentError(sticky)

    def suffices(self, sender: Address, manifest: str) -> bool:
        """One ticket's value is asked for, whatever the job costs."""
        return self.balance(sender, manifest) >= self.ticket_value

    def debit(self, sender: Address, manifest: str, fee: Fraction) -> None:
        """May leave less than nothing."""
        self.debited += fee
        self._add(sender, manifest, -fee)

    def balance(self, sender: Address, manifest: str) -> Fraction:
        self._forget_idle()
        kept = self._balances.get((sender, manifest))
        return Fraction(0) if kept is None else kept.amount

    # Rules

    def _add(self, sender: Address, manifest: str, amount: Fraction) -> None:
        kept = self.balance(sender, manifest)
        self._balances[sender, manifest] = _Balance(kept + amount, self.now())

    def _forget_idle(self) -> None:
        now = self.now()
        for key in [k for k, kept in self._balances.items() if now - kept.touched > IDLE_SECONDS]:
            del self._balances[key]

    def _check_fatal(self, params: TicketParams, sender: Address, rand: int) -> None:
        info = self.senders.get(sender)
        withdraw = 0 if info is None else info.withdraw_round
        if withdraw and withdraw <= self.head.last_initialized_round + 1:
            raise PaymentError(
                f"deposit and reserve for sender {checksum(sender)} is set to unlock soon"
            )
        if params.recipient != self.address:
            raise PaymentError("invalid ticket recipient")
        if not any(sender):
            raise PaymentError("invalid ticket sender")
        if rand_hash(rand) != params.recipient_rand_hash:
            raise PaymentError("invalid recipientRand for ticket recipientRandHash")

    def _fault(self, series: TicketSeries, nonce: int, signature: bytes) -> str:
        try:
            series.check(nonce, signature)
        except SignatureError:
            return "invalid ticket signature"
        return ""

    def _nonce_fault(self, params: TicketParams, sender: Address, nonce: int) -> str:
        seen = self._nonces.setdefault(params.recipient_rand_hash, set())
        self._expiries[params.recipient_rand_hash] = params.expiration_block
        who = checksum(sender)
        if nonce in seen:
            return f"invalid ticket senderNonce: already seen sender={who} nonce={nonce}"
        if len(seen) >= MOST_NONCES:
            return f"invalid ticket senderNonce: too many values sender={who} nonce={nonce}"
        seen.add(nonce)
        return ""

    def _drop_old_nonces(self) -> None:
        for hash_ in [h for h, block in self._expiries.items() if block <= self.head.l1_block]:
            del self._expiries[hash_]
            self._nonces.pop(hash_, None)

    def _max_float(self, sender: Address) -> int:
        info = self.senders.get(sender)
        if info is None or not self.head.pool_size:
            return 0
        share = (info.reserve_remaining + info.reserve_claimed_in_round) // self.head.pool_size
        pending = self.pending.get(sender, 0)
        if pending and info.deposit < _SAFE_DEPOSIT * pending:
            share -= pending
        return share

    def _win_probability(self, face: int) -> int:
        if not face:
            return 0
        if face == self.ticket_value:
            return CERTAIN
        quotient, remainder = divmod(CERTAIN, face)
        return self.ticket_value * (quotient + 1 if remainder & _LOW_WORD else quotient)

    def _rand(
        self, params: TicketParams, sender: Address, price: Fraction, creation: CreationRound
    ) -> int:
        """Every number in as few bytes as it needs, joined bare."""
        message = b"".join(
            (
                params.seed,
                sender,
                *(
                    number.to_bytes((number.bit_length() + 7) // 8, "big")
                    for number in (
                        params.face_value,
                        params.win_prob,
                        params.expiration_block,
                        price.numerator,
                        price.denominator,
                    )
                ),
                creation.aux_data,
            )
        )
        return int.from_bytes(hmac.digest(self.secret, message, hashlib.sha256), "big")
