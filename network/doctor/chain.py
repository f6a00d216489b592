"""The chain as an operator's endpoints show it, and this machine's clock held against theirs."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
import orjson

from network.chain.contracts import LivepeerChain, open_chain
from network.chain.model import ChainError, Head
from network.chain.profiles import ARBITRUM_ONE, Profile
from network.findings import Finding, fail, ok, skip, warn
from network.runtime.clock import Clock

_ANSWER_SECONDS: Final = 5.0
_MOST_BYTES: Final = 2**20
#: A live chain has blocks by the second.
_OLD_SECONDS: Final = 60.0
_DEAD_SECONDS: Final = 300.0
#: Sequencers' clocks are good to less than this.
_AHEAD_SECONDS: Final = 15.0
_CLOCK: Final = "clock"
#: The Date header counts whole seconds, and answers are under way for a while.
_CLOCK_WARN: Final = 5.0
_CLOCK_FAIL: Final = 60.0
_DRIFT_ADVICE: Final = "have the time kept by NTP: timedatectl set-ntp true"


@dataclass(frozen=True, slots=True)
class EndpointFacts:
    """What one JSON-RPC endpoint showed; only its host is kept, for URLs hold keys.

    `problem` "" means that it answered. Times are unix seconds: the newest block's, the answer's by
    its Date header, and when we had it.
    """

    host: str
    problem: str = ""
    chain_id: int = 0
    block: int = 0
    block_time: float | None = None
    date: float | None = None
    seen_at: float = 0.0


async def look_at_chain(
    profile: Profile, urls: Sequence[str], clock: Clock
) -> tuple[Finding, ...]:
    """Look at the endpoints, the head, the contracts, and this machine's clock. Raises ConfigError."""
    facts = await ask_endpoints(urls, clock)
    head = judge_head(facts, profile.chain_id, is_live=is_public(profile))
    judged = (*judge_endpoints(facts, profile.chain_id), *((head,) if head else ()))
    # Nothing is asked of contracts where an endpoint serves another chain: that ends every start.
    works = [one.chain_id == profile.chain_id for one in facts if not one.problem]
    if not works or not all(works):
        return (*judged, judge_clock(facts))
    async with open_contracts(profile, urls, clock) as chain:
        contracts, _ = await look_at_contracts(chain)
    return (*judged, contracts, judge_clock(facts))


@asynccontextmanager
async def open_contracts(
    profile: Profile, urls: Sequence[str], clock: Clock
) -> AsyncIterator[LivepeerChain]:
    """Open the contracts for a short look. Raises WrongChainError."""
    opened = open_chain(profile, tuple(urls), clock, timeout_seconds=_ANSWER_SECONDS)
    async with opened as chain:
        yield chain


def is_public(profile: Profile) -> bool:
    """Tell whether this is Livepeer's network, and no development chain."""
    return profile.name == ARBITRUM_ONE.name


async def ask_endpoints(urls: Sequence[str], clock: Clock) -> tuple[EndpointFacts, ...]:
    """Ask each endpoint once, all at the same time. Raises nothing."""
    timeout = aiohttp.ClientTimeout(total=_ANSWER_SECONDS)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        return tuple(await asyncio.gather(*(_ask(session, url, clock) for url in urls)))


def judge_endpoints(facts: Sequence[EndpointFacts], chain_id: int) -> tuple[Finding, ...]:
    """Say of each endpoint whether it can be used; one that works is enough."""
    works = any(not one.problem and one.chain_id == chain_id for one in facts)
    return tuple(_judge_endpoint(one, chain_id, has_other=works) for one in facts)


def judge_head(facts: Sequence[EndpointFacts], chain_id: int, *, is_live: bool) -> Finding | None:
    """Say how old the newest block is; None where nobody told. Development chains may stand still."""
    told = [
        (one.seen_at - one.block_time, one)
        for one in facts
        if not one.problem and one.chain_id == chain_id and one.block_time is not None
    ]
    if not told:
        return None
    age, newest = min(told, key=lambda pair: pair[0])
    detail = f"block {newest.block}, {max(age, 0.0):.0f} s old"
    if is_live and age < -_AHEAD_SECONDS:
        return warn(
            "head",
            f"block {newest.block} is from {-age:.0f} s in this machine's future",
            _DRIFT_ADVICE,
        )
    if not is_live or age <= _OLD_SECONDS:
        return ok("head", detail)
    advice = "name an endpoint in chain.rpc that keeps up, and look at this machine's clock"
    judge = fail if age > _DEAD_SECONDS else warn
    return judge("head", detail, advice)


def judge_clock(facts: Sequence[EndpointFacts]) -> Finding:
    """Say how far this machine's clock is from the endpoints'; the median of them counts."""
    ahead = sorted(one.seen_at - one.date for one in facts if one.date is not None)
    if not ahead:
        return skip(_CLOCK, "no server told its time")
    # Of two servers the one that agrees more with us: most clocks are right.
    middle = ahead[(len(ahead) - 1) // 2] if len(ahead) % 2 else min(ahead, key=abs)
    off = abs(middle)
    side = "ahead of" if middle > 0 else "behind"
    detail = f"{off:.0f} s {side} {len(ahead)} server{'s' if len(ahead) > 1 else ''}"
    if off > _CLOCK_FAIL:
        return fail(_CLOCK, f"{detail}; sessions and certificates fail by that", _DRIFT_ADVICE)
    if off > _CLOCK_WARN:
        return warn(_CLOCK, f"{detail}; {_CLOCK_WARN:g} s are tolerable", _DRIFT_ADVICE)
    return ok(_CLOCK, f"within {_CLOCK_WARN:g} s of {len(ahead)} server(s)")


async def look_at_contracts(chain: LivepeerChain) -> tuple[Finding, Head | None]:
    """Find the contracts through the Controller and read the round."""
    what = "contracts"
    try:
        head = await chain.head()
    except ChainError as error:
        advice = "see that chain.network names the network that the endpoints serve"
        return fail(what, str(error), advice), None
    return judge_head_state(head), head


def judge_head_state(head: Head) -> Finding:
    """Say whether the network's contracts can be used now."""
    what = "contracts"
    if head.is_paused:
        return warn(what, "the network's contracts are paused", "wait: no ticket can be redeemed")
    if not head.is_round_initialized:
        return warn(
            what,
            f"round {head.current_round} is not initialised yet",
            "somebody does that within minutes; until then nothing can be redeemed",
        )
    return ok(what, f"found; round {head.current_round}, {head.pool_size} in the pool")


def _judge_endpoint(one: EndpointFacts, chain_id: int, *, has_other: bool) -> Finding:
    what = f"endpoint {one.host}"
    if one.problem:
        judge = warn if has_other else fail
        return judge(what, one.problem, "correct or replace it in chain.rpc")
    if one.chain_id != chain_id:
        # Ends every start, whatever the others say.
        return fail(
            what,
            f"serves chain {one.chain_id}, not {chain_id}",
            "correct chain.network or chain.rpc",
        )
    return ok(what, f"chain {one.chain_id}")


async def _ask(session: aiohttp.ClientSession, url: str, clock: Clock) -> EndpointFacts:
    host = urlsplit(url).hostname or "?"
    try:
        chain_id, date, seen_at = await _call(session, url, clock, "eth_chainId", [])
        block, _, _ = await _call(session, url, clock, "eth_getBlockByNumber", ["latest", False])
        return EndpointFacts(
            host=host,
            chain_id=int(str(chain_id), 16),
            block=int(str(block["number"]), 16),
            block_time=float(int(str(block["timestamp"]), 16)),
            date=date,
            seen_at=seen_at,
        )
    except TimeoutError:
        return EndpointFacts(host, problem=f"no answer within {_ANSWER_SECONDS:g} s")
    except aiohttp.ClientConnectionError as error:
        cause = getattr(error, "os_error", None)
        why = getattr(cause, "strerror", None) or type(error).__name__
        return EndpointFacts(host, problem=f"no connection: {why}")
    except (aiohttp.ClientError, OSError, ValueError, KeyError, TypeError):
        return EndpointFacts(host, problem="does not speak JSON-RPC, or wants a key")


async def _call(
    session: aiohttp.ClientSession, url: str, clock: Clock, method: str, params: list[object]
) -> tuple[Any, float | None, float]:
    """Return the result, the server's time and ours. Raises ValueError and KeyError for no result."""
    question = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    async with session.post(url, json=question, allow_redirects=False) as response:
        seen_at = clock.now()
        body = await response.content.read(_MOST_BYTES)
        while more := await response.content.readany():
            body += more
            if len(body) > _MOST_BYTES:
                raise ValueError("too long")
        return orjson.loads(body)["result"], _date(response.headers.get("Date")), seen_at


def _date(text: str | None) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp() if text else None
    except ValueError:
        return None
