"""What a gateway of go-livepeer pays, and how it counts (wire, 4.7 and 4.8)."""

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Final

from network.capabilities import TEXT_TO_IMAGE
from network.chain.model import Head, SenderInfo
from network.identity import KeySigner
from network.payments.signing import TicketSeries
from network.payments.tickets import TicketParams
from network.wire.session import OrchestratorInfo, Payment, TicketSenderParams
from network.wire.tickets import (
    decode_ticket_params,
    encode_creation_round,
    encode_ticket_params,
)

MAX_TICKET_VALUE: Final = 3 * 10**12
MAX_TOTAL_VALUE: Final = 2 * 10**13


class PayError(Exception):
    """No payment can be made for this session."""


@dataclass
class Session:
    """One orchestrator as it was last told; its tickets, and its balance by our own count."""

    uri: str
    info: OrchestratorInfo
    #: Seconds a pixel and step; new ones come first.
    latency: float = 0.0
    in_flight: int = 0
    nonce: int = 0
    balance: Fraction = Fraction(0)
    initial_price: Fraction | None = None

    @property
    def is_warm(self) -> bool:
        models = self.info.capabilities.models.get(TEXT_TO_IMAGE, {})
        return any(model.warm for model in models.values())

    def renew(self, info: OrchestratorInfo) -> None:
        """New ticket parameters begin with nonce 1; a new session id, with a balance of nothing."""
        if info.ticket_params != self.info.ticket_params:
            self.nonce = 0
        if info.auth_token != self.info.auth_token:
            self.balance = Fraction(0)
        self.info = info


def params_of(info: OrchestratorInfo) -> TicketParams:
    """Raises PayError where nothing is quoted."""
    if info.ticket_params is None:
        raise PayError("ticketParams is nil")
    return decode_ticket_params(info.ticket_params)


@dataclass(frozen=True)
class Purse:
    """Signs tickets by a view of the chain."""

    signer: KeySigner
    head: Head
    funds: SenderInfo

    def is_expiring(self, session: Session) -> bool:
        return params_of(session.info).expiration_block - self.head.l1_block <= 1

    def validate(self, params: TicketParams, count: int) -> None:
        """Raises PayError, in the order of `validateTicketParams`."""
        value = params.expected_value
        if not params.expiration_block:
            raise PayError("ticketParams expiration block is 0")
        if params.expiration_block - self.head.l1_block <= 1:
            raise PayError("TicketParams expired")
        if value <= 0:
            return
        if value >= params.face_value:
            raise PayError(f"ticket faceValue too low faceValue={params.face_value}")
        if value > MAX_TICKET_VALUE:
            raise PayError(f"ticket EV {value} > max ticket EV {MAX_TICKET_VALUE}")
        if not self.funds.deposit or not self.funds.reserve_remaining:
            raise PayError("no sender deposit or reserve")
        if count * value > MAX_TOTAL_VALUE:
            raise PayError(f"total ticket EV {count * value} > max total ticket EV")
        if params.face_value > self.funds.deposit:
            raise PayError(f"ticket faceValue {params.face_value} > max faceValue")

    def pay(self, session: Session, fee: Fraction) -> tuple[Payment, Fraction, Fraction]:
        """The payment, the credit that it uses and the credit that it brings. Raises PayError."""
        price = session.info.price
        if price is None:
            raise PayError("missing orchestrator price")
        if session.initial_price and price > 2 * session.initial_price:
            raise PayError("Orchestrator price has more than doubled")
        params = params_of(session.info)
        value = params.expected_value
        existing, session.balance = session.balance, Fraction(0)
        least = max(fee, value)
        count = 0
        if existing < least and value > 0:
            count = math.ceil((least - existing) / value)
        try:
            if count:
                self.validate(params, count)
        except PayError:
            session.balance = existing  # staged, and never sent
            raise
        payment = Payment(sender=self.signer.address, expected_price=price)
        if not count:
            return payment, existing, Fraction(0)
        series = TicketSeries(params, self.signer.address)
        nonces = range(session.nonce + 1, session.nonce + count + 1)
        session.nonce += count
        payment = replace(
            payment,
            ticket_params=encode_ticket_params(params, with_creation=False),
            expiration_params=encode_creation_round(params.creation),
            tickets=tuple(TicketSenderParams(n, series.sign(self.signer, n)) for n in nonces),
        )
        return payment, existing, count * value
