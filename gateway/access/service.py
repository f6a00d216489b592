"""The operator's service that knows keys: one question over HTTP."""

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
        question = {"headers": {"Authorization": [f"Bearer {bearer}"]}, "state": {}}
        try:
            async with self._session.post(
                self._url,
                data=orjson.dumps(question),
                headers=self._headers,
                # Whoever answers with one would be handed the key.
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=self._timeout),
            ) as response:
                answer = bytearray()
                async for chunk in response.content.iter_any():
                    answer += chunk
                    if len(answer) > _LARGEST_ANSWER:
                        response.close()
                        raise UnreadableError("its answer is too long")
                return read_verdict(response.status, bytes(answer))
        except TimeoutError:
            raise UnreachableError(f"it did not answer within {self._timeout:g} s") from None
        except aiohttp.ClientConnectorError:
            raise UnreachableError("it cannot be connected to") from None
        except (aiohttp.ClientError, OSError) as error:
            # Their words may quote the address, and a secret with it.
            raise UnreachableError(f"the connection failed ({type(error).__name__})") from None


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
