"""What one request carries with it from its arrival to its answer."""

import math
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final, Literal, NamedTuple, Protocol, TypeAlias

import orjson

from gateway.accounting.events import Event
from gateway.keys import Team, UseLimits
from gateway.orchestrators.answers import DeliveredWrongly, Expected, Picture, Refused
from gateway.orchestrators.client import NodeAnswer, Order
from gateway.orchestrators.offer import ModelOffer, Offer
from gateway.orchestrators.selection import Candidate, Need
from gateway.orchestrators.standing import Delivery
from gateway.payments.allowance import Allowance
from gateway.payments.exchange import usd_per_eth
from gateway.payments.purse import PreparedPayment
from network.errors import ProblemError
from network.prices import EthRates, FixedRate, Price, in_wei
from network.units import ModelId, Wei, pixels_of
from network.wire.messages import LARGEST_SEED, TextToImageRequest

#: How the memory of earlier answers was used (`gateway.repeats`); "" where there is none.
CacheUse = Literal["", "hit", "coalesced", "miss", "refreshed", "bypassed"]

#: Characters. Shorter prompts tell nothing, and taking them out would garble any text.
_SHORTEST_PRIVATE: Final = 4


class Buyer(Protocol):
    """What dispatch needs to know of an API key; `gateway.keys.KeyGrant` has this shape."""

    @property
    def key_id(self) -> str: ...
    @property
    def models(self) -> frozenset[ModelId] | None: ...
    @property
    def max_price(self) -> Price | None: ...
    @property
    def max_in_flight(self) -> int | None: ...
    @property
    def limits(self) -> UseLimits: ...
    @property
    def team(self) -> Team | None: ...


@dataclass(frozen=True, slots=True)
class Routing:
    """The settings of the journey. Times in seconds."""

    #: For a pixel; the gateway never exceeds it, whoever asks.
    max_price: Price | None = None
    #: The same by model; under None for those that are not named.
    max_prices: Mapping[str | None, Price] = field(default_factory=dict)
    #: What prices in a currency are converted by.
    rates: EthRates = field(default_factory=FixedRate)
    #: For so long after a feed wrote down a rate, budgets in dollars go by it.
    max_rate_age: float = math.inf
    #: A request is answered within this time.
    deadline: float = 300.0
    #: One orchestrator may take this long before the next is asked.
    attempt_timeout: float = 180.0
    #: How long a request may wait for a free place, all its waits together.
    max_wait: float = 10.0
    #: How many requests may wait at once.
    max_waiting: int = 1000
    #: How many orchestrators may fail one request.
    max_failures: int = 4
    #: Over all requests, this share of them may be sent to another orchestrator after a failure,
    retry_share: float = 0.2
    #: and so many more within a minute.
    retry_spare: int = 50

    def max_price_of(self, model_id: ModelId) -> Price | None:
        """The model's own cap, or that of all models that have none."""
        return self.max_prices.get(model_id, self.max_prices.get(None))

    def cap(self, buyer: Buyer, model_id: ModelId) -> Fraction | None:
        """The most wei per pixel that `buyer` pays now for a model; None for any. Raises NoRateError."""
        stated = (buyer.max_price, self.max_price, self.max_price_of(model_id))
        caps = [in_wei(cap, self.rates.current) for cap in stated if cap is not None]
        return min(caps, default=None)

    def usd_per_eth(self, now: float) -> Fraction | None:
        """By what budgets in dollars go; None while that is not known. `now` in unix seconds."""
        return usd_per_eth(self.rates, self.max_rate_age, now)


@dataclass(frozen=True, slots=True)
class DispatchResult:
    """A delivered request."""

    images: tuple[Picture, ...]
    fee: Wei
    #: URI of the orchestrator that delivered.
    orchestrator: str
    #: How many orchestrators were asked.
    attempts: int
    #: Seconds spent on orchestrators' answers, all attempts together.
    orchestrator_seconds: float
    #: Done when the settlement is durable. Await it before the answer leaves; storing the
    #: images may go on meanwhile. It does not raise.
    settled: Awaitable[None]
    #: What of the request had no effect, in the orchestrator's words; "" for nothing.
    warnings: str = ""
    cache: CacheUse = ""


@dataclass(frozen=True, slots=True)
class Delivered:
    """What came for a request whose answer is kept: not settled yet. As in DispatchResult."""

    images: tuple[Picture, ...]
    fee: Wei
    orchestrator: str
    attempts: int
    orchestrator_seconds: float
    warnings: str = ""
    cache: CacheUse = ""


class Keep(Protocol):
    """Makes the answer to a delivered request, with its images on disk.

    The event is written in one record with the request's settlement: no client is charged for an
    answer that a crash takes away. It does not raise.
    """

    async def __call__(self, delivered: Delivered, /) -> Event: ...


@dataclass(frozen=True, slots=True)
class RequestProgress:
    """Where a request in flight stands."""

    state: Literal["waiting", "sent", "running"]
    #: Over all images of the request.
    done_steps: int
    total_steps: int
    #: Place in the gateway's or the orchestrator's queue, the first being 1; 0 when not waiting.
    position: int


#: Told of each delivery: the request's id, the request, and what came of it. Returns at once.
Witness: TypeAlias = Callable[[str, TextToImageRequest, DispatchResult], None]


class Place(NamedTuple):
    """A claimed place at an orchestrator."""

    candidate: Candidate
    model_id: ModelId
    offer: Offer

    @property
    def uri(self) -> str:
        return self.candidate.uri

    @property
    def model(self) -> ModelOffer:
        return self.offer.models[self.model_id]


@dataclass(slots=True)
class Running:
    """An attempt that has been written down and has not ended."""

    attempt_id: str
    place: Place
    #: Monotonic seconds.
    started: float


@dataclass(slots=True)
class Journey:
    """One request under way."""

    request_id: str
    buyer: Buyer
    need: Need
    expected: Expected
    #: The JSON body that orchestrators get (Livepeer wire, TextToImageParams).
    body: bytes
    #: The prompts. Orchestrators may repeat them in refusals, which are logged and kept.
    private: tuple[str, ...]
    #: Counts up by request: who came first is served first.
    arrival: int
    #: Monotonic seconds.
    started: float
    #: Whose money it spends.
    allowances: tuple[Allowance, ...] = ()
    #: Attempts written down.
    attempts: int = 0
    #: Seconds spent waiting for a place.
    waited: float = 0.0
    #: Seconds spent on orchestrators' answers.
    asked: float = 0.0
    #: Attempts that have not ended, the one begun first in front.
    under_way: list[Running] = field(default_factory=list)
    #: A second orchestrator may be asked beside one that is late; once.
    may_be_hedged: bool = True
    keep: Keep | None = None
    #: What orchestrators did wrong, one sentence each.
    failures: list[str] = field(default_factory=list)
    #: Caps that forbade a payment for it.
    capped: list[ProblemError] = field(default_factory=list)
    #: URIs that must not be asked again for this request.
    tried: set[str] = field(default_factory=set)
    #: How often an orchestrator refused for a reason that may pass, by URI and reason.
    refusals: dict[tuple[str, Refused], int] = field(default_factory=dict)

    @property
    def running(self) -> Running | None:
        """Of the attempts under way the one begun first."""
        return self.under_way[0] if self.under_way else None

    def leave(self, attempt_id: str) -> Running | None:
        """An attempt ends; None where it was not under way."""
        for running in self.under_way:
            if running.attempt_id == attempt_id:
                self.under_way.remove(running)
                return running
        return None

    def scrubbed(self, text: str) -> str:
        """`text` of an orchestrator without what only the client and the images may tell."""
        for private in self.private:
            text = text.replace(private, "[prompt]")
        return text


def seed_for(request: TextToImageRequest, randomness: random.Random) -> int:
    """The first image's seed.

    Drawn here rather than by the orchestrator: a second attempt makes the same images.
    """
    # None, when the client left it to us; the last image's seed has to stay in range as well.
    seed: int | None = request.seed
    if seed is not None:
        return seed
    return randomness.randrange(LARGEST_SEED - request.num_images_per_prompt + 2)


def set_out(
    request_id: str,
    buyer: Buyer,
    request: TextToImageRequest,
    *,
    seed: int,
    max_price: Fraction | None,
    arrival: int,
    now: float,
) -> Journey:
    """A journey at its start. `max_price` in wei per pixel; `seed` counts up over the images; `now` is monotonic seconds."""
    images = request.num_images_per_prompt
    return Journey(
        request_id=request_id,
        buyer=buyer,
        need=need_of(request, max_price),
        expected=Expected(images, request.width, request.height, seed),
        body=_body(request, seed),
        # As they would stand in one line of text.
        private=tuple(
            words
            for prompt in (request.prompt, request.negative_prompt)
            if len(words := " ".join(prompt.split())) >= _SHORTEST_PRIVATE
        ),
        arrival=arrival,
        started=now,
    )


def need_of(request: TextToImageRequest, max_price: Fraction | None) -> Need:
    """What routing looks at; `max_price` in wei per pixel."""
    images = request.num_images_per_prompt
    pixels = pixels_of(request.width, request.height, images)
    return Need(ModelId(request.model_id), pixels, request.num_inference_steps, max_price, images)


def order_for(
    journey: Journey, place: Place, running: Running, payment: PreparedPayment | None
) -> Order:
    """What is asked of the orchestrator."""
    return Order(
        attempt_id=running.attempt_id,
        model_id=place.model_id,
        price=place.model.price,
        expected=journey.expected,
        body=journey.body,
        payment="" if payment is None else payment.header,
        credentials="" if payment is None else payment.credentials,
    )


def owed(place: Place, answer: NodeAnswer) -> Wei:
    """What is paid: what the orchestrator charged, and never more than was agreed.

    Less is charged where its price fell since we asked, or is known only from above.
    Raises DeliveredWrongly for a receipt over more.
    """
    quoted, charged = place.candidate.fee, answer.fee
    if charged is None:
        return quoted
    if charged > quoted:
        failure = DeliveredWrongly(f"it charged {charged} wei where {quoted} were agreed")
        failure.was_answered = True
        raise failure
    return charged


async def kept_of(journey: Journey, place: Place, answer: NodeAnswer) -> tuple[Event, ...]:
    """The answer as it is kept, where it is. Raises OrchestratorFailed, as `owed`."""
    if journey.keep is None:
        return ()
    delivered = Delivered(
        answer.images,
        owed(place, answer),
        place.uri,
        journey.attempts,
        journey.asked,
        answer.warnings,
    )
    return (await journey.keep(delivered),)


def _body(request: TextToImageRequest, seed: int) -> bytes:
    fields = {**vars(request), "seed": seed}
    if not request.deterministic:
        del fields["deterministic"]  # other makes of orchestrators do not know it
    return orjson.dumps(fields)


def delivery_of(journey: Journey, place: Place, seconds: float) -> Delivery:
    """What the time of a delivered job tells of the orchestrator."""
    need = journey.need
    return Delivery(
        need.model_id,
        need.pixels,
        need.steps,
        seconds,
        images=need.images,
        was_cold=place.candidate.prospect.is_cold,
    )
