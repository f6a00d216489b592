"""Where connections may lead: a stranger's name must not resolve to an address of our own network.

Names are looked at when they are listed, too. What counts is the address that a connection was made to: whoever
owns a name may change what it stands for between the look and the connection.
"""

import asyncio
from collections.abc import Callable
from socket import AF_INET, SOCK_STREAM, AddressFamily

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from typing_extensions import override

from gateway.orchestrators.answers import OrchestratorUnreachable
from gateway.orchestrators.offer import is_internal

#: Whether the operator knows that a host may be in a private network.
MayBePrivate = Callable[[str], bool]


def anything(_host: str) -> bool:
    """Where the operator named every orchestrator."""
    return True


def check_reached(
    host: str, transport: asyncio.BaseTransport | None, may_be_private: MayBePrivate
) -> None:
    """Look at what a connection to `host` was made to. Raises OrchestratorUnreachable."""
    peer = None if transport is None else transport.get_extra_info("peername")
    if not peer or may_be_private(host) or not is_internal(str(peer[0])):
        return
    raise OrchestratorUnreachable(f"{host} leads to {peer[0]}, a private address")


async def public_addresses(host: str, port: int) -> list[str]:
    """Where a stranger's host may be connected to. Raises OrchestratorUnreachable, OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=SOCK_STREAM)
    public = [str(address[0]) for *_, address in found if not is_internal(str(address[0]))]
    if not public:
        raise OrchestratorUnreachable(f"{host} leads to a private address")
    return public


class GuardedResolver(AbstractResolver):
    """The system's, without private addresses where there must be none."""

    def __init__(self, may_be_private: MayBePrivate) -> None:
        self._system = ThreadedResolver()
        self._may_be_private = may_be_private

    @override
    async def resolve(
        self, host: str, port: int = 0, family: AddressFamily = AF_INET
    ) -> list[ResolveResult]:
        found = await self._system.resolve(host, port, family)
        if not self._may_be_private(host):
            found = [one for one in found if not is_internal(one["host"])]
        if not found:
            raise OSError(None, f"{host} leads to private addresses only")
        return found

    @override
    async def close(self) -> None:
        await self._system.close()


class Beyond:
    """A host that an orchestrator names for its jobs, and that is not its own, is a stranger's.

    Unless the orchestrator is in a private network itself: then the operator put it there.
    """

    def __init__(self, may_be_private: MayBePrivate) -> None:
        self._may_be_private = may_be_private
        self._listed: set[str] = set()
        self._named: set[str] = set()

    def note_listed(self, host: str) -> None:
        """`host` is where a listed orchestrator is asked."""
        self._listed.add(host)

    def note_named(self, host: str, own: str) -> None:
        """`host` is where the orchestrator at `own` wants its jobs."""
        self._listed.add(own)
        if host != own and not is_internal(own):
            self._named.add(host)

    def may_be_private(self, host: str) -> bool:
        if host in self._named and host not in self._listed:
            return False
        return self._may_be_private(host)
