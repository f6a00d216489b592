"""Who asks for work and what they offer: Livepeer's two headers, checked in its order."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from aiohttp import web

from network.capabilities import Mismatch, compatible
from network.errors import SignatureError, WireError
from network.runtime.clock import Clock
from network.units import Address
from network.wire.codec import (
    Payment,
    SegmentCredentials,
    decode_payment,
    decode_segment_credentials,
)
from network.wire.headers import PAYMENT, SEGMENT, decode_header, verify_segment
from node.accounting.model import NOBODY
from node.api.refusals import Refusal
from node.discovery.advertiser import Access, Advertiser
from node.discovery.sessions import Sessions

_LONGEST_SEGMENT_MS: Final = 5 * 60 * 1000


@dataclass(frozen=True, slots=True)
class Grant:
    """A gateway that may have work done. `sender` None: it did not say, and need not."""

    sender: Address | None
    payment: Payment
    #: What the credentials were signed for, and the session whose token they show.
    manifest_id: bytes = b""
    session_id: str = ""

    @property
    def expected_price(self) -> Fraction | None:
        """Return the price that it expects, in wei per pixel."""
        return self.payment.expected_price

    @property
    def payer(self) -> Address:
        """Whose account the fee is booked on."""
        return self.sender if self.sender is not None else NOBODY


class Doorkeeper:
    """Checks the headers of a job."""

    def __init__(
        self,
        access: Access,
        sessions: Sessions,
        advertiser: Advertiser,
        clock: Clock,
        *,
        must_pay: bool = False,
    ) -> None:
        """`must_pay`: whoever asks has to say who it is, because its account is charged."""
        self._must_pay = must_pay
        self._access = access
        self._sessions = sessions
        self._advertiser = advertiser
        self._clock = clock

    def check(self, request: web.Request) -> Grant:
        """Return who asks. Raises Refusal with the statuses and words of Livepeer's wire, 3.3."""
        payment = self._payment(request)
        credentials = self._credentials(request)
        if not 0 <= credentials.duration <= _LONGEST_SEGMENT_MS:
            raise _forbidden("invalid duration", "bad_credentials")
        sender = self._sender(credentials, payment)
        if credentials.capabilities is not None:
            verdict = compatible(credentials.capabilities, self._advertiser.capabilities())
            if isinstance(verdict, Mismatch):
                text = f"incompatible capabilities: {verdict.reason}"
                raise _forbidden(text, "incompatible_capabilities")
        fault = self._sessions.check(credentials.auth_token, sender, self._clock.now())
        if fault is not None:
            raise _forbidden(fault, fault.name.lower() + "_auth_token")
        token = credentials.auth_token
        session_id = "" if token is None else token.session_id
        return Grant(sender, payment, credentials.manifest_id, session_id)

    def _payment(self, request: web.Request) -> Payment:
        try:
            return decode_payment(decode_header(request.headers.get(PAYMENT, "")))
        except WireError as error:
            raise Refusal(402, str(error), "bad_payment") from None

    def _credentials(self, request: web.Request) -> SegmentCredentials:
        try:
            data = decode_header(request.headers.get(SEGMENT, ""))
        except WireError:
            raise _forbidden("ErrorSegEncoding", "bad_credentials") from None
        try:
            return decode_segment_credentials(data)
        except WireError as error:
            raise _forbidden(str(error), "bad_credentials") from None

    def _sender(self, credentials: SegmentCredentials, payment: Payment) -> Address | None:
        is_nobody = not payment.sender and not credentials.signature
        if is_nobody and self._access.is_open and not self._must_pay:
            return None
        # A named sender has to prove it even where anybody is served: else one could run up
        # the debts of another.
        sender = Address(payment.sender or NOBODY)
        try:
            verify_segment(credentials, sender)
        except SignatureError:
            raise _forbidden("ErrSegSig", "bad_signature") from None
        if not self._access.is_open and sender not in self._access.allowed:
            raise _forbidden("ErrSegSig", "unknown_gateway")
        return sender


def _forbidden(text: str, reason: str) -> Refusal:
    return Refusal(403, text, reason)
