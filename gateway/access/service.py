"""The operator's service that knows keys: one question over HTTP."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import aiohttp
import orjson

from gateway.access.verdict import (
    Allowed,
    Denied,
    UnreachableError,
    UnreadableError,
    read_verdict,
)

_LARGEST_ANSWER: Final = 64 * 1024
_AGENT: Final = "limner-gateway"


class AuthService:
    """`POST url` with `{"headers": {"Authorization": ["Bearer ..."]}, "state": {}}`, as the signer asks its webhook."""

    def __init__(
        self, session: aiohttp.ClientSession, url: str, *, secret: str, timeout: float
    ) -> None:
        """`secret` proves to the service that it is the gateway who asks; `timeout` in seconds."""
        self._session = session
        self._url = url
        self._timeout = timeout
        own = {"Authorization": f"Bearer {secret}"} if secret else {}
        self._headers = {
            "Content-Type": "application/json",
            # A compressed answer could be larger than it looks.
            "Accept-Encoding": "identity",
            "User-Agent": _AGENT,
            **own,
        }

    async def ask(self, bearer: str) -> Allowed | Denied:
        """Raises UnreachableError, UnreadableError."""
        question = orjson.dumps({"headers": {"Authorization": [f"Bearer {bearer}"]}, "state": {}})
        try:
            async with asyncio.timeout(self._timeout):
                try:
                    return await self._post(question)
                except (aiohttp.ServerDisconnectedError, ConnectionResetError):
                    # A connection that was kept may be closed at the other end just now. To ask
                    # twice changes nothing.
                    return await self._post(question)
        except TimeoutError:
            raise UnreachableError(f"it did not answer within {self._timeout:g} s") from None
        except aiohttp.ClientConnectorError:
            raise UnreachableError("it cannot be connected to") from None
        except (aiohttp.ClientError, OSError) as error:
            # Their words may quote the address, and a secret with it.
            raise UnreachableError(f"the connection failed ({type(error).__name__})") from None

    async def _post(self, question: bytes) -> Allowed | Denied:
        async with self._session.post(
            self._url,
            data=question,
            headers=self._headers,
            # Whoever answers with one would be handed the key.
            allow_redirects=False,
        ) as response:
            answer = bytearray()
            async for chunk in response.content.iter_any():
                answer += chunk
                if len(answer) > _LARGEST_ANSWER:
                    response.close()
                    raise UnreadableError("its answer is too long")
            return read_verdict(response.status, bytes(answer))


@asynccontextmanager
async def open_service(
    url: str, *, secret: str, patience: float, most_at_once: int
) -> AsyncIterator[AuthService]:
    """The service with connections of its own. Times in seconds."""
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=most_at_once),
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
    ) as session:
        yield AuthService(session, url, secret=secret, timeout=patience)
