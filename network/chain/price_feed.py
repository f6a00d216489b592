"""What an ETH costs, from a Chainlink price feed; read in the background, answered from memory.

A feed that is broken or tampered with must not sell work for nothing: an answer is believed only as far as
it is plausible, and what was good last goes on counting.
"""

import asyncio
from collections import deque
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final

import structlog

from network.chain.model import ChainError
from network.chain.rate_memory import HeldRate, load_rates, save_rates
from network.chain.rpc import Rpc
from network.chain.settings import PriceFeedSettings
from network.errors import ConfigError
from network.identity import checksum, parse_address
from network.prices import Rate, feed_rate
from network.runtime.clock import Clock
from network.units import Address

#: ETH / USD on Arbitrum One, as go-livepeer's default (wire, 4.5).
ARBITRUM_ETH_USD: Final = parse_address("0x639Fe6ab55C921f74e7fac1ee960C0B6293ba612")
#: First four bytes of the hash of `latestRoundData()`, `decimals()` and `description()`.
_LATEST_ROUND_DATA: Final = "0xfeaf968c"
_DECIMALS: Final = "0x313ce567"
_DESCRIPTION: Final = "0x7284e416"
_WORD: Final = 32
_ROUND_WORDS: Final = 5
_MOST_DECIMALS: Final = 36
_LONGEST_DESCRIPTION: Final = 64
#: A rate that changes by more than this factor from one look to the next is not believed.
_JUMP: Final = 2
#: Seconds that the chain's clock may be ahead of ours.
_AHEAD: Final = 900
#: Pauses, in seconds, before a look that failed is repeated; as often as go-livepeer's.
_PAUSES: Final = (30.0, 60.0, 120.0, 240.0, 480.0)
#: EthRates that quotes may still hold by; a refresh a minute makes no more within a quote's life.
_MOST_HELD: Final = 64

log = structlog.get_logger(__name__)


class FeedError(ChainError):
    """The feed's answer is not one to go by; the message says what it was."""


@dataclass(frozen=True, slots=True)
class FeedAnswer:
    """What the contract says: `answer` / 10**`decimals`, written at `updated_at` in unix seconds."""

    description: str
    decimals: int
    answer: int
    updated_at: int


def judge(
    found: FeedAnswer, last: Rate | None, settings: PriceFeedSettings, source: str, now: float
) -> Rate:
    """The rate that `found` tells. Raises FeedError where it must not be used.

    `last` is the rate that counted so far, `now` unix time.
    """
    value = Fraction(found.answer, 10**found.decimals)
    try:
        rate = feed_rate(found.description, value, source, float(found.updated_at))
    except ValueError as error:
        raise FeedError(str(error)) from None
    age = now - found.updated_at
    if age > settings.max_age_seconds:
        raise FeedError(
            f"the feed's answer is {age / 3600:.1f} hours old, and price_feed.max_age_seconds allows "
            f"{settings.max_age_seconds / 3600:.1f}"
        )
    if age < -_AHEAD:
        raise FeedError(f"the feed's answer is {-age:.0f} s ahead of this machine's clock")
    told = f"{float(rate.per_eth):.2f} {rate.currency}"
    if settings.lowest is not None and rate.per_eth < settings.lowest:
        raise FeedError(f"the feed tells {told} for an ETH, below price_feed.lowest")
    if settings.highest is not None and rate.per_eth > settings.highest:
        raise FeedError(f"the feed tells {told} for an ETH, above price_feed.highest")
    if last is not None and last.currency == rate.currency:
        low, high = sorted((last.per_eth, rate.per_eth))
        if high > _JUMP * low:
            raise FeedError(
                f"the feed jumped from {float(last.per_eth):.2f} to {told} for an ETH; if that is true, "
                "start again, and it is believed"
            )
    return rate


class PriceFeed:
    """Implements `network.prices.EthRates`; `run` keeps it fresh.

    `hold_seconds` is how long a quote may be good for: rates that were replaced within it are still told.
    """

    def __init__(
        self,
        rpc: Rpc,
        address: Address,
        clock: Clock,
        settings: PriceFeedSettings,
        *,
        hold_seconds: float,
        memory: Path | None = None,
    ) -> None:
        """`memory` is a file that keeps rates over a restart."""
        self._rpc = rpc
        self._address = checksum(address)
        self._source = f"price feed {self._address}"
        self._memory = memory
        #: What a rate is compared with; after a restart nothing, which lets an operator end a dispute.
        self._believed: Rate | None = None
        self._clock = clock
        self._settings = settings
        self._hold_seconds = hold_seconds
        self._current: Rate | None = None
        self._past: deque[HeldRate] = deque(maxlen=_MOST_HELD)
        self._problem = ""

    @property
    def current(self) -> Rate | None:
        return self._current

    @property
    def problem(self) -> str:
        return self._problem

    def lately(self) -> tuple[Rate, ...]:
        since = self._clock.now() - self._hold_seconds
        held = [one.rate for one in self._past if one.until >= since]
        return (*(() if self._current is None else (self._current,)), *reversed(held))

    async def refresh(self) -> None:
        """Look once. Raises ChainError, of which FeedError; what was known before stays."""
        try:
            found = await self._read()
            now = self._clock.now()
            rate = judge(found, self._believed, self._settings, self._source, now)
        except ChainError as error:
            self._problem = str(error)
            raise
        self._problem = ""
        if self._current is not None and self._current.per_eth != rate.per_eth:
            self._past.append(HeldRate(self._current, now))
        self._current = self._believed = rate
        await self._save(now)

    async def recall(self) -> None:
        """Go on from what an earlier process knew, as far as it is still of use."""
        if self._memory is None:
            return
        now = self._clock.now()
        held = await asyncio.to_thread(load_rates, self._memory, self._source)
        self._past.extend(held[:-1])
        # The newest was quoted by for as long as that process ran, which nobody wrote down.
        missed = self._settings.refresh_seconds + self._hold_seconds
        if held and now - held[-1].until <= missed:
            self._current = held[-1].rate

    async def _save(self, now: float) -> None:
        if self._memory is None or self._current is None:
            return
        rates = (*self._past, HeldRate(self._current, now))
        try:
            await asyncio.to_thread(save_rates, self._memory, self._source, rates)
        except OSError as error:
            log.warning("rates cannot be kept for the next start", problem=str(error))

    async def run(self) -> None:
        """Look at once unless that was done, then every `refresh_seconds`."""
        if self._believed is not None:
            await asyncio.sleep(self._settings.refresh_seconds)
        while True:
            await self._persist()
            await asyncio.sleep(self._settings.refresh_seconds)

    async def _persist(self) -> None:
        """Look until it works, or for as often as a look is worth."""
        for pause in (*_PAUSES, None):
            try:
                await self.refresh()
            except ChainError as error:
                self._warn(error)
            else:
                return
            if pause is not None:
                await asyncio.sleep(min(pause, self._settings.refresh_seconds))

    def _warn(self, error: ChainError) -> None:
        known = self._current
        log.warning(
            "the price feed cannot be used; the last good rate counts on"
            if known
            else "the price feed cannot be used, and no rate is known: what is priced by it is not traded",
            problem=str(error),
            rate=None if known is None else f"{float(known.per_eth):.2f} {known.currency}",
            rate_age_seconds=None
            if known is None or known.as_of is None
            else round(self._clock.now() - known.as_of),
        )

    async def _read(self) -> FeedAnswer:
        data, decimals, description = await asyncio.gather(
            *(self._call(data) for data in (_LATEST_ROUND_DATA, _DECIMALS, _DESCRIPTION))
        )
        if len(data) < _ROUND_WORDS * _WORD or len(decimals) < _WORD:
            raise FeedError(f"{self._address} is no price feed on this chain")
        words = [data[at : at + _WORD] for at in range(0, _ROUND_WORDS * _WORD, _WORD)]
        places = int.from_bytes(decimals[:_WORD])
        if places > _MOST_DECIMALS:
            raise FeedError(f"the feed tells {places} decimals")
        return FeedAnswer(
            description=_text(description),
            decimals=places,
            answer=int.from_bytes(words[1], signed=True),
            updated_at=int.from_bytes(words[3]),
        )

    async def _call(self, data: str) -> bytes:
        question = ({"to": self._address, "data": data}, "latest")
        answer = await self._rpc.request("eth_call", question)
        try:
            return bytes.fromhex(str(answer).removeprefix("0x"))
        except ValueError:
            raise FeedError("an endpoint answered with what is not hexadecimal") from None


def feed_address(settings: PriceFeedSettings, network: str) -> Address | None:
    """Where the feed is: as set, else Livepeer's own where `network` is its; None where there is none.

    Raises ConfigError.
    """
    if settings.address:
        try:
            return parse_address(settings.address)
        except ValueError as error:
            raise ConfigError("price_feed.address", str(error)) from None
    return ARBITRUM_ETH_USD if network == "arbitrum-one" else None


def _text(data: bytes) -> str:
    """One string of an ABI answer: its place, its length, its bytes."""
    length = int.from_bytes(data[_WORD : 2 * _WORD])
    if length > _LONGEST_DESCRIPTION or len(data) < 2 * _WORD + length:
        raise FeedError("the feed does not say what it is for")
    return data[2 * _WORD : 2 * _WORD + length].decode("ascii", "replace")
