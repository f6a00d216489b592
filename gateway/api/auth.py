"""Who is asking: the bearer key of a request, before anything else of it is read."""

from typing import Protocol

from aiohttp.web import BaseRequest

from gateway.api.exchange import Exchange
from gateway.keys import KeyGrant
from network.errors import ProblemError
from network.wire import problems


class Keys(Protocol):
    """What `gateway.keys.KeyRing` does."""

    async def check(self, bearer: str) -> KeyGrant | None: ...


async def authenticate(keys: Keys, request: BaseRequest, exchange: Exchange) -> KeyGrant:
    """The grant of the request's key. Raises ProblemError 401, the same for every reason."""
    # Two Authorization headers could mean one thing to a proxy and another to us.
    values = request.headers.getall("Authorization", ())
    if len(values) == 1:
        scheme, _, token = values[0].partition(" ")
        if scheme.lower() == "bearer":
            grant = await keys.check(token.strip(" "))
            if grant is not None:
                exchange.key_id = grant.key_id
                return grant
    raise ProblemError(problems.unauthenticated())
