"""Orchestrators that cannot be called, because they call us: what stands for their address."""

import asyncio
from collections.abc import Callable
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import urlsplit

import aiohttp
from aiohttp.client_proto import ResponseHandler
from typing_extensions import override

from network.identity import parse_address
from network.units import Address

SCHEME: Final = "link"

P = TypeVar("P", bound=asyncio.Protocol)


class Connector(Protocol):
    """Opens a connection to the node of an account, over the link that it dialled."""

    def __call__(self, account: Address, factory: Callable[[], P]) -> tuple[asyncio.Transport, P]:
        """As `loop.create_connection`. Raises OSError where there is no such link."""


def no_links(account: Address, factory: Callable[[], P]) -> tuple[asyncio.Transport, P]:
    """The connector of a gateway that takes no links."""
    del account, factory
    raise ConnectionRefusedError("this gateway takes no links")


class LinkingConnector(aiohttp.TCPConnector):
    """Makes the connections of a session, those over links among them."""

    allowed_protocol_schema_set = aiohttp.TCPConnector.allowed_protocol_schema_set | {SCHEME}

    def __init__(self, connect: Connector, **options: Any) -> None:
        super().__init__(**options)
        self._over_link = connect

    @override
    async def _create_connection(
        self, req: aiohttp.ClientRequest, traces: list[Any], timeout: aiohttp.ClientTimeout
    ) -> ResponseHandler:
        account = linked_account(str(req.url))
        if account is None:
            return await super()._create_connection(req, traces, timeout)
        try:
            return self._over_link(account, self._factory)[1]
        except OSError as error:
            raise aiohttp.ClientConnectionError(str(error)) from error


def link_uri(account: Address) -> str:
    """What names the node of an account everywhere in the gateway."""
    return f"{SCHEME}://0x{account.hex()}"


def linked_account(uri: str) -> Address | None:
    """Whose link a URI means; None for one that is called by its address."""
    parts = urlsplit(uri)
    if parts.scheme != SCHEME:
        return None
    try:
        return parse_address(parts.hostname or "")
    except ValueError:
        return None
