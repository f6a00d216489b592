"""What commands ask the running gateway at its admin port."""

from collections.abc import Mapping
from typing import Any, Final

import orjson
from aiohttp import ClientError, ClientSession, ClientTimeout

from network.errors import LimnerError

_SECONDS: Final = 5.0
_OK: Final = 200


class NotToldError(LimnerError):
    """No gateway answers there, or it refuses, in its own words."""


async def ask(admin_url: str, path: str, query: Mapping[str, str]) -> dict[str, Any]:
    """The JSON object at `path`. Raises NotToldError."""
    try:
        async with (
            ClientSession(timeout=ClientTimeout(total=_SECONDS)) as session,
            session.get(f"{admin_url}{path}", params=query) as response,
        ):
            told: dict[str, Any] = orjson.loads(await response.read())
            if response.status == _OK:
                return told
            raise NotToldError(str(told["error"]["message"]))
    except (ClientError, TimeoutError, ValueError, KeyError, TypeError):
        raise NotToldError(
            f"no gateway answers at {admin_url}; start it, or name its port with --admin-url"
        ) from None
