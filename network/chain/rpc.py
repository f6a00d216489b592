"""Several JSON-RPC endpoints as one that seldom fails.

    async with open_rpc(urls, chain_id, clock) as rpc:
        block = await rpc.latest_block()

The first endpoint that works answers; the next ones stand in for it. Reads are repeated with a
growing pause. An endpoint on another chain is never believed, one that is behind is passed over.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import aiohttp
import structlog

from network.chain.endpoint import (
    Endpoint,
    EndpointBehindError,
    EndpointDownError,
    quantity,
)
from network.chain.model import (
    ChainError,
    ChainUnavailableError,
    RefusedError,
    RevertedError,
    WrongChainError,
)
from network.runtime.clock import Clock
from network.units import Wei

T = TypeVar("T")

#: Between the rounds over all endpoints, in seconds.
_PAUSES: Final = (0.15, 0.6)
#: Chains go back by a reorganisation, or when a developer resets one. So long every endpoint must
#: have said so before we believe it rather than hold them for behind.
_REWIND_AFTER: Final = 60.0
_KNOWN: Final = ("already known", "already imported", "alreadyknown", "known transaction")

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Block:
    """A block of the chain itself, on Arbitrum an L2 block. `base_fee` in wei per gas."""

    number: int
    hash: bytes
    base_fee: Wei


class Rpc:
    """Made by `open_rpc`."""

    def __init__(self, endpoints: Sequence[Endpoint], clock: Clock) -> None:
        self._endpoints = tuple(endpoints)
        self._clock = clock
        self._newest = 0
        self._newest_at = clock.monotonic()

    @property
    def newest_block(self) -> int:
        """The highest number that `latest_block` gave."""
        return self._newest

    async def check(self) -> None:
        """Ask every endpoint for its chain.

        Raises WrongChainError if one serves another chain, ChainUnavailableError if none answers.
        """
        answers = await asyncio.gather(
            *(endpoint.request("eth_chainId", ()) for endpoint in self._endpoints),
            return_exceptions=True,
        )
        failures = [answer for answer in answers if isinstance(answer, BaseException)]
        for failure in failures:
            if not isinstance(failure, ChainUnavailableError):
                raise failure
            _log.warning("RPC endpoint does not answer", problem=str(failure))
        if len(failures) == len(self._endpoints):
            raise _summary(failures)

    async def request(self, method: str, params: Sequence[object] = ()) -> Any:
        """The `result` of a read, from the first endpoint that has one.

        Raises RevertedError, RefusedError, WrongChainError or ChainUnavailableError.
        """
        return await self._first(lambda endpoint: endpoint.request(method, params))

    async def latest_block(self) -> Block:
        """The newest block; never one before a block that this returned earlier.

        Raises as `request`; ChainUnavailableError also if every endpoint is behind.
        """

        async def ask(endpoint: Endpoint) -> Block:
            answer = await endpoint.request("eth_getBlockByNumber", ("latest", False))
            block = _block(endpoint, answer)
            if block.number < self._newest and not self._rewinds():
                raise EndpointBehindError(
                    f"{endpoint.host} is at block {block.number}, behind {self._newest}"
                )
            return block

        block = await self._first(ask)
        if block.number < self._newest:
            _log.warning("the chain went back", before=self._newest, now=block.number)
        self._newest = block.number
        self._newest_at = self._clock.monotonic()
        return block

    async def broadcast(self, raw: bytes) -> None:
        """Hand a signed transaction to the network; again and again does no harm.

        Raises RefusedError if every endpoint refused it, so that it is certain not to be in any
        pool; ChainUnavailableError if it may have got into one.
        """
        failures: list[BaseException] = []
        for endpoint in self._endpoints:
            try:
                await endpoint.request("eth_sendRawTransaction", ("0x" + raw.hex(),))
            except RevertedError as error:
                failures.append(RefusedError(str(error)))
            except ChainError as error:
                if isinstance(error, RefusedError) and _is_known(error):
                    return
                failures.append(error)
            else:
                return
        raise _summary(failures, is_certain=False)

    def _rewinds(self) -> bool:
        return self._clock.monotonic() - self._newest_at >= _REWIND_AFTER

    async def _first(self, ask: Callable[[Endpoint], Awaitable[T]]) -> T:
        failures: list[BaseException] = []
        for pause in (*_PAUSES, None):
            failures.clear()
            for endpoint in self._endpoints:
                try:
                    return await ask(endpoint)
                except RevertedError:
                    raise
                except ChainError as error:
                    failures.append(error)
            if pause is None or not all(_may_pass(failure) for failure in failures):
                break
            await asyncio.sleep(pause)
        raise _summary(failures)


@asynccontextmanager
async def open_rpc(
    urls: Sequence[str], chain_id: int, clock: Clock, *, timeout_seconds: float = 20.0
) -> AsyncIterator[Rpc]:
    """Endpoints that must serve `chain_id`; nothing is asked yet. Raises ConfigError."""
    connector = aiohttp.TCPConnector(limit_per_host=32, keepalive_timeout=30)
    async with aiohttp.ClientSession(connector=connector) as session:
        endpoints = [Endpoint(url, chain_id, session, clock, timeout_seconds) for url in urls]
        yield Rpc(endpoints, clock)


def _is_known(error: RefusedError) -> bool:
    return any(words in error.message.lower() for words in _KNOWN)


def _may_pass(failure: BaseException) -> bool:
    return isinstance(failure, ChainUnavailableError)


def _summary(failures: Sequence[BaseException], *, is_certain: bool = True) -> ChainError:
    """The failure that tells the operator most.

    `is_certain` False: a refusal counts only if no endpoint left it open what happened.
    """
    refusals = [failure for failure in failures if isinstance(failure, RefusedError)]
    if refusals and (is_certain or len(refusals) == len(failures)):
        return refusals[0]
    for failure in failures:
        if isinstance(failure, WrongChainError) and len(failures) == 1:
            return failure
    return ChainUnavailableError("no RPC endpoint helps: " + "; ".join(map(str, failures)))


def _block(endpoint: Endpoint, answer: object) -> Block:
    if not isinstance(answer, dict):
        raise EndpointDownError(f"{endpoint.host} tells no newest block")
    return Block(
        number=quantity(answer.get("number")),
        hash=bytes.fromhex(str(answer.get("hash")).removeprefix("0x")),
        base_fee=Wei(quantity(answer.get("baseFeePerGas") or "0x0")),
    )
