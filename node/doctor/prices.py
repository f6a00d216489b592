"""Where the node's prices stand among those of the network's other orchestrators."""

import asyncio
import random
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from network.capabilities import TEXT_TO_IMAGE
from network.chain.contracts import OnChainOrchestrator
from network.chain.model import ChainError
from network.chain.price_feed import PriceFeed
from network.chain.rpc import Rpc
from network.findings import Finding, ok, skip, warn
from network.identity import Signer
from network.prices import EthRates, fixed_usd
from network.reachability.calls import CallError, printable, terms
from network.runtime.clock import Clock
from network.units import ModelId, format_price
from node.config.catalogue import Catalogue
from node.config.settings import NodeSettings
from node.payments.rates import HOLD_SECONDS, check_rates

SAMPLE: Final = 16
_CALL_SECONDS: Final = 3.0
_DEAR: Final = 2
_CHEAP: Final = 4
_WHAT: Final = "price"

Prices = Mapping[ModelId, Fraction]


@dataclass(frozen=True, slots=True)
class Market:
    """What a sample of orchestrators told: `prices` of each that told any, in wei per pixel."""

    asked: int
    prices: tuple[Prices, ...]
    #: Why the others told none, each reason once.
    silence: tuple[str, ...] = ()


def sample(
    pool: Sequence[OnChainOrchestrator], own: bytes, randomness: random.Random
) -> tuple[str, ...]:
    """Return service URIs of some others in the pool."""
    uris = {one.service_uri for one in pool if one.address != own}
    good = sorted(uri for uri in uris if uri.startswith(("https://", "http://")))
    return tuple(randomness.sample(good, min(SAMPLE, len(good))))


async def rate_now(settings: NodeSettings, models: Catalogue, rpc: Rpc, clock: Clock) -> EthRates:
    """Return what an ETH costs, asked for once where a price depends on it. Raises ConfigError.

    A feed that does not answer is no error: its `problem` says so.
    """
    address = check_rates(settings, models)
    if address is None:
        return fixed_usd(settings.usd_per_eth)
    feed = PriceFeed(rpc, address, clock, settings.price_feed, hold_seconds=HOLD_SECONDS)
    with suppress(ChainError):
        await feed.refresh()
    return feed


async def ask_market(uris: Sequence[str], asker: Signer, version: str, clock: Clock) -> Market:
    """Ask each for all its prices, as anybody may. Raises nothing."""
    answers = await asyncio.gather(*(_ask(uri, asker, version, clock) for uri in uris))
    prices = tuple(answer for answer in answers if not isinstance(answer, str))
    silence = tuple(sorted({answer for answer in answers if isinstance(answer, str)}))
    return Market(len(uris), prices, silence)


def judge_prices(own: Prices, market: Market) -> tuple[Finding, ...]:
    """Say for each of our models whether it is dear or cheap; prices are nobody's mistake."""
    if not market.asked:
        return (skip(_WHAT, "nobody else in the pool says where to be found"),)
    if not market.prices:
        why = "; ".join(market.silence[:3])
        return (skip(_WHAT, f"none of {market.asked} asked told its prices: {why}"),)
    return tuple(_judge(model_id, price, market) for model_id, price in sorted(own.items()))


def _judge(model_id: ModelId, own: Fraction, market: Market) -> Finding:
    what = f"{_WHAT} of {model_id}"
    others = sorted(prices[model_id] for prices in market.prices if model_id in prices)
    among = f"{len(market.prices)} that told, of {market.asked} asked"
    if not others:
        return skip(what, f"{format_price(own)} wei per pixel; nobody else offers it ({among})")
    middle = _median(others)
    cheaper = sum(price < own for price in others)
    detail = (
        f"{format_price(own)} wei per pixel; {cheaper} of {len(others)} others are cheaper, the "
        f"median is {format_price(middle)} ({among})"
    )
    if own > middle * _DEAR:
        return warn(what, detail, "gateways that choose by price go elsewhere: lower it, perhaps")
    if own * _CHEAP < middle:
        return warn(what, detail, "you may be selling for less than you could get")
    return ok(what, detail)


def _median(ordered: Sequence[Fraction]) -> Fraction:
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[middle]
    return (ordered[middle - 1] + ordered[middle]) / 2


async def _ask(uri: str, asker: Signer, version: str, clock: Clock) -> Prices | str:
    """Return its prices, or why there are none."""
    # Livepeer's orchestrators refuse whoever has no reserve, but want to know who asks; ours answer
    # nobody in particular, too.
    refusal = ""
    for who in (asker, None):
        try:
            answer = await terms(uri, who, None, version, seconds=_CALL_SECONDS, clock=clock)
        except (CallError, ValueError) as error:
            return printable(str(error))
        if answer.info is not None:
            found = {
                ModelId(entry.constraint): entry.price
                for entry in answer.info.prices
                if entry.capability == TEXT_TO_IMAGE and entry.constraint
            }
            return found or "no prices of models"
        refusal = refusal or answer.refusal
    return refusal
