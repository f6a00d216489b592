"""What an orchestrator is asked: all its models at times, and the exact prices that matter every time."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Protocol

from gateway.orchestrators.answers import CallRefused, OrchestratorFailed
from gateway.orchestrators.offer import Offer, floored_prices, read_offer
from network.capabilities import TEXT_TO_IMAGE
from network.units import ModelId
from network.wire.codec import OrchestratorInfo


class Informant(Protocol):
    """Who asks: `gateway.orchestrators.client.OrchestratorClient`."""

    async def info(self, uri: str, model_id: ModelId | None = None) -> OrchestratorInfo: ...


@dataclass(slots=True)
class Inquiry:
    """One orchestrator's answers as far as later ones build on them. Times are monotonic seconds."""

    uri: str
    #: How often it is asked for all its models, in seconds.
    discovery_interval: float
    #: Exact prices are asked for at most this many models.
    priced_models: int
    #: Why models have no exact price, of the last replies.
    refusals: Mapping[ModelId, str] = field(default_factory=dict)
    _offered: Collection[ModelId] = ()
    _discovered_at: float = float("-inf")
    #: By model, the last replies that were about one model: exact prices and ticket parameters.
    _replies: Mapping[ModelId, OrchestratorInfo] = field(default_factory=dict)
    #: Floored prices by model, of the last reply that was about all models.
    _floors: Mapping[str, Fraction] = field(default_factory=dict)

    def start_over(self) -> None:
        """Ask for all models next time, whenever that was done last."""
        self._discovered_at = float("-inf")

    async def ask(
        self, informant: Informant, wanted: Collection[ModelId], now: float
    ) -> OrchestratorInfo:
        """The last reply, which holds everything but prices of models it is not about.

        `wanted` are models whose prices come first. Raises OrchestratorFailed, WireError.
        """
        info: OrchestratorInfo | None = None
        priced = self._priced(self._offered, wanted)
        if not priced or now - self._discovered_at >= self.discovery_interval:
            info = await informant.info(self.uri)
            self._discovered_at = now
            self._floors = floored_prices(info)
            offered = info.capabilities.models.get(TEXT_TO_IMAGE, {})
            priced = self._priced([ModelId(name) for name in offered], wanted)
        replies: dict[ModelId, OrchestratorInfo] = {}
        refusals: dict[ModelId, str] = {}
        refused: CallRefused | None = None
        for model_id in priced:
            try:
                reply = await informant.info(self.uri, model_id)
            except CallRefused as error:
                # It may refuse to price one model and sell the others.
                refused = error
                refusals[model_id] = str(error)
                continue
            replies[model_id] = info = reply
        if info is None:
            raise refused or OrchestratorFailed("it answered nothing")
        self._replies = replies
        self.refusals = refusals
        return info

    def read(self, info: OrchestratorInfo, *, refreshed_at: float, round_trip: float) -> Offer:
        """The offer that the reply of `ask` makes, with the prices known."""
        offer = read_offer(
            self.uri,
            info,
            replies=self._replies,
            floors=self._floors,
            refreshed_at=refreshed_at,
            round_trip=round_trip,
        )
        self._offered = tuple(offer.models)
        return offer

    def _priced(
        self, offered: Collection[ModelId], wanted: Collection[ModelId]
    ) -> Sequence[ModelId]:
        first = [model_id for model_id in wanted if model_id in offered]
        others = sorted(model_id for model_id in offered if model_id not in wanted)
        return (first + others)[: self.priced_models]
