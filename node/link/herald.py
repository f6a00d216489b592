"""Tells gateways at once how the node is: many changes of one moment make one push."""

import asyncio
import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from fractions import Fraction
from typing import Final

import structlog

from network.errors import WireError
from network.link.connection import Link
from network.link.news import ModelNews, News, write_news
from network.prices import NoRateError
from network.units import Address, ModelId
from node.discovery.advertiser import ModelOffer

#: Seconds between two pushes.
PAUSE: Final = 0.05
#: Seconds after which is looked for what nobody announces: prices follow the rate of a currency.
_LOOK: Final = 2.0

_log = structlog.get_logger(__name__)


class Herald:
    """Knows who is linked; `changed` may be called as often as you like. Run `run`."""

    def __init__(
        self,
        *,
        offers: Callable[[], Mapping[ModelId, ModelOffer]],
        jobs_of: Callable[[Address, ModelId], int],
        price: Callable[[ModelId, Address], Fraction],
        is_closed: Callable[[], bool],
        pause: float = PAUSE,
        look: float = _LOOK,
    ) -> None:
        """All of these tell what holds now, from memory. `jobs_of` counts those that hold places.

        `price` may raise NoRateError.
        """
        self._offers = offers
        self._jobs_of = jobs_of
        self._price = price
        self._is_closed = is_closed
        self._pause, self._look = pause, look
        #: What each link was told last.
        self._told: dict[Link, bytes] = {}
        self._listeners: Callable[[], Sequence[tuple[Address, Link]]] = list
        self._is_changed = asyncio.Event()

    def tell(self, linked: Callable[[], Sequence[tuple[Address, Link]]]) -> None:
        """Name those who are told: their accounts and their links."""
        self._listeners = linked

    def changed(self) -> None:
        """Something is other than before, or somebody new listens."""
        self._is_changed.set()

    async def run(self) -> None:
        """Push until cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._look):
                    await self._is_changed.wait()
            self._is_changed.clear()
            try:
                self._push_what_is_new()
            except WireError as error:
                _log.warning("nothing_pushed", reason=str(error))
            await asyncio.sleep(self._pause)

    def _push_what_is_new(self) -> None:
        before, self._told = self._told, {}
        for account, link in self._listeners():
            body = self._told[link] = write_news(self.news(account))
            if before.get(link) != body:
                link.push(body)

    def news(self, account: Address) -> News:
        """What a gateway of this account is told."""
        offers = self._offers()
        return News(
            {
                model_id: ModelNews(offer.warm, offer.free, self._jobs_of(account, model_id))
                for model_id, offer in offers.items()
            },
            self._terms(account, offers),
        )

    def _terms(self, account: Address, models: Mapping[ModelId, ModelOffer]) -> str:
        """Another text whenever a gateway has to ask anew."""
        prices = [f"{model_id} {self._written(model_id, account)}" for model_id in sorted(models)]
        text = "\n".join([str(self._is_closed()), *prices])
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def _written(self, model_id: ModelId, account: Address) -> str:
        try:
            return str(self._price(model_id, account))
        except NoRateError:
            return "has no price just now"
