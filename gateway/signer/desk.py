"""Where tickets are made for others: what a call costs, whether it may be paid, and the payment itself."""

import secrets
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Final, Protocol

import structlog

from gateway.signer.authorization import Grant
from gateway.signer.charging import JobType, price_limit, units_due
from gateway.signer.refusal import (
    BAD_REQUEST,
    FORBIDDEN,
    NO_TICKETS_NEEDED,
    PRICE_EXCEEDED,
    UNAVAILABLE,
    SigningRefusedError,
    refresh_session,
)
from gateway.signer.requests import PaymentRequest
from gateway.signer.state import PaymentState, StateError, seal, unseal
from network.chain.model import Head, SenderInfo
from network.errors import WireError
from network.identity import Signer, checksum, sign_hashed
from network.payments.checks import PARAMS_EXPIRED, Funds, Now, PayerLimits, payers_objection
from network.payments.pricing import tickets_needed
from network.payments.signing import TicketSeries
from network.payments.tickets import CreationRound, TicketParams
from network.prices import (
    EthRates,
    FixedRate,
    NoRateError,
    Price,
    has_more_than_doubled,
    in_wei,
)
from network.runtime.clock import Clock
from network.units import Address
from network.wire.codec import (
    Payment,
    SegmentCredentials,
    TicketSenderParams,
    encode_payment,
    encode_segment_credentials,
)
from network.wire.headers import NO_PROFILES, NO_SEGMENT_HASH, encode_header, flatten
from network.wire.tickets import (
    decode_ticket_params,
    encode_creation_round,
    encode_ticket_params,
)

_log = structlog.get_logger(__name__)

_STATE_ID_BYTES: Final = 16
#: Orchestrators count so many nonces for one recipientRand, and no more.
_MOST_NONCES: Final = 600
#: Bits. Honest prices stay below 400: those of a win probability, and of one price.
_LONGEST_DENOMINATOR: Final = 2048


@dataclass(frozen=True, slots=True)
class PriceCaps:
    """What this signer pays at most, whatever its clients allow, for each unit of a type."""

    per_pixel: Price | None = None
    per_second: Price | None = None
    per_call: Price | None = None
    rates: EthRates = field(default_factory=FixedRate)

    def of(self, job: JobType) -> Fraction | None:
        """Wei for a unit. Raises SigningRefusedError 503 while no rate tells it."""
        cap = self._written(job)
        if cap is None:
            return None
        try:
            return in_wei(cap, self.rates.current)
        except NoRateError as error:
            _log.warning("no_price_cap", problem=str(error))
            raise SigningRefusedError(
                UNAVAILABLE, "this signer cannot tell its maximum price just now"
            ) from None

    def _written(self, job: JobType) -> Price | None:
        match job:
            case JobType.LIVE:
                return self.per_second
            case JobType.FIXED:
                return self.per_call
            case JobType.PIXELS | JobType.VIDEO:
                return self.per_pixel


class Outlook(Protocol):
    """What the chain says, recent enough to act on (`network.chain.watch`)."""

    @property
    def head(self) -> Head:
        """Raises ChainUnavailableError."""

    async def sender_info(self, sender: Address) -> SenderInfo:
        """Raises ChainError."""
        ...

    async def is_active(self, orchestrator: Address) -> bool:
        """Raises ChainError."""
        ...


@dataclass(frozen=True, slots=True)
class PaymentReply:
    """Ready-made header values, and the state for the next call."""

    payment: str
    credentials: str
    state: dict[str, str]


class PaymentDesk:
    """Makes payments. Holds no state of its clients: two desks with one key are as good as one."""

    def __init__(
        self,
        signer: Signer,
        outlook: Outlook,
        clock: Clock,
        *,
        limits: PayerLimits,
        caps: PriceCaps,
    ) -> None:
        self._signer = signer
        self._outlook = outlook
        self._clock = clock
        self._limits = limits
        self._caps = caps
        #: Rounds that a quote may have been made in: the chain's newest, and the one before it.
        self._rounds: tuple[CreationRound, ...] = ()

    def read_state(self, request: PaymentRequest) -> PaymentState | None:
        """The state that came with a request. Raises SigningRefusedError unless this signer sealed it."""
        if request.state is None:
            return None
        try:
            return unseal(self._signer.address, request.state.state, request.state.signature)
        except StateError as error:
            raise SigningRefusedError(BAD_REQUEST, str(error)) from None

    async def pay(
        self, request: PaymentRequest, state: PaymentState | None, grant: Grant
    ) -> PaymentReply:
        """The tickets for one call. Raises SigningRefusedError with the status that says what to do.

        Raises ChainError where the chain does not tell what the payment depends on.
        """
        price = _price(request)
        params = _params(request)
        if state is None:
            state = _first_state(request, price)
        _check_owner(request, state, grant)
        self._check_price(request, state, price, grant)
        self._check_session(request)
        now_ms = int(self._clock.now() * 1000)
        elapsed = now_ms - state.updated_ms if state.sequence else None
        due = _units(request, elapsed) * price
        count = tickets_needed(state.balance, due, params.expected_value)
        if count == 0:
            raise SigningRefusedError(NO_TICKETS_NEEDED, "what was paid before covers this call")
        most = self._limits.max_tickets
        if count > most:
            raise SigningRefusedError(BAD_REQUEST, f"numTickets {count} exceeds maximum of {most}")
        await self._check_terms(request, params, count)
        state = _continued(state, params)
        if state.nonce + count > _MOST_NONCES:
            raise refresh_session(request.info.transcoder, "the quote has no nonces left")
        state = replace(
            state,
            nonce=state.nonce + count,
            balance=_bounded(state.balance + count * params.expected_value - due),
            updated_ms=now_ms,
            sequence=state.sequence + 1,
            auth_id=grant.auth_id,
            auth_expiry=grant.expiry,
        )
        _log.info(
            "tickets_signed",
            recipient=checksum(params.recipient),
            count=count,
            due=str(due),
            auth_id=grant.auth_id,
            state_id=state.state_id,
        )
        return self._reply(request, params, price, state, count)

    def _check_price(
        self, request: PaymentRequest, state: PaymentState, price: Fraction, grant: Grant
    ) -> None:
        if has_more_than_doubled(price, state.initial_price):
            raise SigningRefusedError(
                PRICE_EXCEEDED,
                f"Orchestrator price has more than doubled: {price} wei, from {state.initial_price}",
            )
        caps = [self._caps.of(request.job)]
        for most in (request.max_price, grant.max_price):
            if most is not None:
                try:
                    caps.append(price_limit(request.job, most.price, most.unit))
                except ValueError as error:
                    raise SigningRefusedError(BAD_REQUEST, str(error)) from None
        least = min((cap for cap in caps if cap is not None), default=price)
        if price > least:
            raise SigningRefusedError(
                PRICE_EXCEEDED, f"the price of {price} wei exceeds the maximum of {least} wei"
            )

    def _check_session(self, request: PaymentRequest) -> None:
        token = request.info.auth_token
        if token is None:
            raise SigningRefusedError(BAD_REQUEST, "missing auth token")
        if token.expiration <= self._clock.now():
            raise refresh_session(request.info.transcoder, "the auth token has expired")

    async def _check_terms(
        self, request: PaymentRequest, params: TicketParams, count: int
    ) -> None:
        head = self._outlook.head
        if head.is_paused:
            raise SigningRefusedError(
                UNAVAILABLE, "system is paused: the TicketBroker redeems no tickets at the moment"
            )
        funds = await self._outlook.sender_info(self._signer.address)
        if head.creation not in self._rounds:
            self._rounds = (head.creation, *self._rounds[:1])
        url = request.info.transcoder
        if params.creation not in self._rounds:
            raise refresh_session(url, "the quote is of another round than the chain's")
        objection = payers_objection(
            params,
            count,
            # Not who the client says it is: what matters is below, and go-livepeer's orchestrators may
            # be paid at another account than they sign with.
            orchestrator=params.recipient,
            now=Now(head.l1_block, head.last_initialized_round, self._rounds),
            funds=Funds(funds.deposit, funds.reserve_remaining, funds.withdraw_round),
            limits=self._limits,
        )
        if objection == PARAMS_EXPIRED:
            raise refresh_session(url, objection)
        if objection is not None:
            raise SigningRefusedError(BAD_REQUEST, objection)
        if not await self._outlook.is_active(params.recipient):
            # Its tickets could not be redeemed by an honest one, and a client may have made it up.
            raise SigningRefusedError(
                BAD_REQUEST,
                f"recipient {checksum(params.recipient)} is not an active orchestrator",
            )

    def _reply(
        self,
        request: PaymentRequest,
        params: TicketParams,
        price: Fraction,
        state: PaymentState,
        count: int,
    ) -> PaymentReply:
        series = TicketSeries(params, self._signer.address)
        payment = Payment(
            sender=series.sender,
            expected_price=price,
            ticket_params=encode_ticket_params(params, with_creation=False),
            expiration_params=encode_creation_round(params.creation),
            tickets=tuple(
                TicketSenderParams(nonce, series.sign(self._signer, nonce))
                for nonce in range(state.nonce - count + 1, state.nonce + 1)
            ),
        )
        return PaymentReply(
            payment=encode_header(encode_payment(payment)),
            credentials=encode_header(self._credentials(request, state.sequence - 1)),
            state=seal(self._signer, state),
        )

    def _credentials(self, request: PaymentRequest, sequence: int) -> bytes:
        token = request.info.auth_token
        name = request.manifest_id or ("" if token is None else token.session_id)
        manifest = name.encode()
        return encode_segment_credentials(
            SegmentCredentials(
                manifest_id=manifest,
                seq=sequence,
                hash=NO_SEGMENT_HASH,
                profiles=NO_PROFILES,
                signature=sign_hashed(self._signer, flatten(manifest, sequence, NO_SEGMENT_HASH)),
                capabilities=request.capabilities,
                auth_token=token,
            )
        )


def _price(request: PaymentRequest) -> Fraction:
    if not request.info.price:
        raise SigningRefusedError(BAD_REQUEST, "missing or zero priceInfo")
    return request.info.price


def _params(request: PaymentRequest) -> TicketParams:
    info = request.info
    if info.ticket_params is None:
        raise SigningRefusedError(BAD_REQUEST, "missing ticket params")
    if not any(info.address):
        raise SigningRefusedError(BAD_REQUEST, "missing orchestrator address")
    try:
        params = decode_ticket_params(info.ticket_params)
    except WireError as error:
        raise SigningRefusedError(BAD_REQUEST, f"ticket params: {error}") from None
    if params.expected_value <= 0:
        # Nothing to promise: dividing a fee into tickets worth nothing has no end.
        raise SigningRefusedError(BAD_REQUEST, "ticket params have no expected value")
    return params


def _first_state(request: PaymentRequest, price: Fraction) -> PaymentState:
    return PaymentState(
        state_id=secrets.token_hex(_STATE_ID_BYTES),
        orchestrator=Address(request.info.address),
        initial_price=price,
        job=request.job,
        app=request.app,
    )


def _check_owner(request: PaymentRequest, state: PaymentState, grant: Grant) -> None:
    if state.orchestrator != request.info.address:
        raise SigningRefusedError(BAD_REQUEST, "the state is of a session at another orchestrator")
    if state.job != request.job:
        raise SigningRefusedError(
            BAD_REQUEST, f"the state is of a session of type {state.job.value!r}"
        )
    if state.sequence and state.auth_id != grant.auth_id:
        raise SigningRefusedError(FORBIDDEN, "the state belongs to another client")


def _units(request: PaymentRequest, elapsed_ms: int | None) -> int:
    try:
        return units_due(request.job, request.pixels, elapsed_ms)
    except ValueError as error:
        raise SigningRefusedError(BAD_REQUEST, str(error)) from None


def _bounded(balance: Fraction) -> Fraction:
    """Prices whose denominators a client makes up must not let the state grow for ever.

    What is cut off is less than a wei, and the client's.
    """
    if balance.denominator.bit_length() <= _LONGEST_DENOMINATOR:
        return balance
    return Fraction(balance.numerator // balance.denominator)


def _continued(state: PaymentState, params: TicketParams) -> PaymentState:
    """Nonces count on under one recipientRand and begin anew under the next."""
    if state.rand_hash == params.recipient_rand_hash:
        return state
    return replace(state, rand_hash=params.recipient_rand_hash, nonce=0)
