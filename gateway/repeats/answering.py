"""Gives a request the images of another, and writes down what it is charged for them."""

from dataclasses import dataclass
from typing import Protocol

from gateway.accounting.events import Accepted, Event, Repeat, RepeatKind, Settlement
from gateway.accounting.journal import Journal
from gateway.dispatch.allowing import allowances_of
from gateway.dispatch.holding import hold_within_budgets
from gateway.dispatch.journey import Buyer, Delivered, DispatchResult, Keep, Routing
from gateway.orchestrators.answers import Picture
from gateway.payments.allowance import Allowances
from network.dollars import NO_DOLLARS
from network.prices import NoRateError
from network.runtime.clock import Clock
from network.units import ModelId, Wei, pixels_of
from network.wire.messages import TextToImageRequest


class Asker(Buyer, Protocol):
    """`gateway.keys.KeyGrant` has this shape."""

    @property
    def owner(self) -> str:
        """Whose the request is: several who share a key may be strangers to each other."""


@dataclass(frozen=True, slots=True)
class Order:
    """One request, as a dispatcher gets it."""

    request_id: str
    buyer: Asker
    request: TextToImageRequest
    keep: Keep | None
    #: What it is run with where it names none.
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """Images that were made for another request."""

    #: That request's.
    request_id: str
    images: tuple[Picture, ...]
    #: What was paid for them.
    fee: Wei
    orchestrator: str
    warnings: str


class Answering:
    """A repeat is a request of its own in the books: accepted, charged by the rule, and settled."""

    def __init__(
        self, journal: Journal, allowances: Allowances, routing: Routing, clock: Clock
    ) -> None:
        self._journal = journal
        self._allowances = allowances
        self._routing = routing
        self._clock = clock

    def may_use(self, order: Order) -> bool:
        """Whether the buyer may have images of this model."""
        allowed = order.buyer.models
        return allowed is None or order.request.model_id in allowed

    def may_charge(self, order: Order, charge: Wei) -> bool:
        """Whether so much is within the buyer's price cap."""
        if not charge:
            return True
        try:
            cap = self._routing.cap(order.buyer, ModelId(order.request.model_id))
        except NoRateError:
            return False
        return cap is None or charge <= cap * _pixels(order.request)

    async def answer(
        self, order: Order, found: Answer, kind: RepeatKind, charge: Wei, waited: float
    ) -> DispatchResult:
        """As a dispatcher, after it `waited` seconds. Raises ProblemError where a budget forbids it."""
        request_id = order.request_id
        self._hold(order, charge)
        try:
            kept: tuple[Event, ...] = ()
            if order.keep is not None:
                delivered = Delivered(
                    found.images, charge, found.orchestrator, 0, waited, found.warnings, kind
                )
                kept = (await order.keep(delivered),)
            # Nothing is awaited from here on: who cancels the request from now on is too late.
            now = self._clock.now()
            usd = self._allowances.settle(request_id, charge, now) if charge else NO_DOLLARS
            settled = self._journal.record(
                _accepted(order, now),
                Repeat(request_id, kind, found.request_id, found.fee),
                Settlement(request_id, "settled", charge, now, usd=usd),
                *kept,
            )
        finally:
            self._allowances.release(request_id)
        return DispatchResult(
            found.images, charge, found.orchestrator, 0, waited, settled, found.warnings, kind
        )

    def _hold(self, order: Order, charge: Wei) -> None:
        if charge:
            holders, now = allowances_of(order.buyer), self._clock.now()
            book, routing = self._allowances, self._routing
            hold_within_budgets(book, routing, order.request_id, holders, amount=charge, now=now)


def _accepted(order: Order, now: float) -> Accepted:
    request = order.request
    return Accepted(
        request_id=order.request_id,
        key_id=order.buyer.key_id,
        model_id=ModelId(request.model_id),
        width=request.width,
        height=request.height,
        images=request.num_images_per_prompt,
        steps=request.num_inference_steps,
        accepted_at=now,
    )


def _pixels(request: TextToImageRequest) -> int:
    return pixels_of(request.width, request.height, request.num_images_per_prompt)
