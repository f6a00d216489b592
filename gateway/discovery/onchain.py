"""Livepeer's own list: the orchestrators of the pool, and where the registries say that they are.

Anybody may write anything into a registry. What stands there is a stranger's claim: it must not lead into our
own network, neither by its words nor by what its name resolves to.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Final, Protocol
from urllib.parse import urlsplit

from gateway.discovery.addresses import orchestrator_uri
from gateway.discovery.listing import Claim
from gateway.discovery.sources import SourceError
from gateway.orchestrators.offer import is_internal
from network.chain.model import ChainError, ChainUnavailableError, WrongChainError
from network.units import Address

#: At a time, of one endpoint.
_PARALLEL: Final = 16
_RESOLVE_SECONDS: Final = 2.0
_READ_SECONDS: Final = 120.0

Resolve = Callable[[str], Awaitable[Collection[str]]]


class Registries(Protocol):
    """`network.chain.contracts.LivepeerChain`."""

    async def pool(self, known: Sequence[Address] = ()) -> tuple[Address, ...]: ...

    async def service_uri(self, orchestrator: Address, *, ai: bool = True) -> str: ...


async def resolve(host: str) -> Collection[str]:
    """The IP addresses of a name; none where it has none. Asks the system, on a thread."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(_RESOLVE_SECONDS):
            found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError, UnicodeError):
        return ()
    return {str(entry[4][0]) for entry in found}


class OnChain:
    """Reads pool and registries; what the AIServiceRegistry does not have, the older one may."""

    def __init__(
        self, chain: Registries, *, allow_private: bool, resolve: Resolve = resolve
    ) -> None:
        self._chain = chain
        self._allow_private = allow_private
        self._resolve = resolve
        self._pool: tuple[Address, ...] = ()
        self._slots = asyncio.Semaphore(_PARALLEL)

    async def read(self) -> Sequence[Claim]:
        try:
            async with asyncio.timeout(_READ_SECONDS):
                before, self._pool = self._pool, await self._chain.pool(self._pool)
                if before and not self._pool:
                    # A whole network does not leave at once, but an endpoint may be astray: see twice.
                    raise SourceError("the pool is empty all of a sudden")
                found = await asyncio.gather(
                    *(self._claim(account) for account in self._pool), return_exceptions=True
                )
        except TimeoutError:
            raise SourceError(f"it was not read within {_READ_SECONDS:g} s") from None
        except ChainError as error:
            raise SourceError(str(error)) from None
        claims: list[Claim] = []
        for one in found:
            if isinstance(one, ChainError):
                raise SourceError(str(one))
            if isinstance(one, BaseException):
                raise one
            claims.append(one)
        return claims

    async def _claim(self, account: Address) -> Claim:
        async with self._slots:
            newer = await self._registered(account, ai=True)
            if newer is not None and not newer.problem:
                return newer
            older = await self._registered(account, ai=False)
            if older is not None and not older.problem:
                return older
        nothing = Claim(f"0x{account.hex()}", account, "it registered no address")
        return newer or older or nothing

    async def _registered(self, account: Address, *, ai: bool) -> Claim | None:
        try:
            text = (await self._chain.service_uri(account, ai=ai)).strip()
        except (ChainUnavailableError, WrongChainError):
            raise
        except (ChainError, ValueError):
            # One orchestrator's bytes that are no text must not hide all the others.
            return Claim(f"0x{account.hex()}", account, "what it registered cannot be read")
        return Claim(text, account, await self._objection(text)) if text else None

    async def _objection(self, text: str) -> str:
        """Why what was registered is not to be used; the rest of the reasons are `listing`'s."""
        try:
            host = urlsplit(orchestrator_uri(text)).hostname or ""
        except ValueError as error:
            return str(error)
        if self._allow_private:
            return ""
        if any(is_internal(address) for address in await self._resolve(host)):
            return "it leads to a private address"
        return ""
