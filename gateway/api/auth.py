"""Who is asking: the bearer key of a request, before anything else of it is read."""

from collections.abc import Sequence
from typing import Final, Protocol

from aiohttp.web import BaseRequest

from gateway.api.exchange import Exchange
from gateway.keys import ANONYMOUS, KeyGrant
from network.errors import ProblemError
from network.wire import problems

#: Bearers by which a client says that it has no key: many clients cannot do without the header.
NO_KEY: Final = frozenset({"", ANONYMOUS})
_FORWARDED: Final = "X-Forwarded-For"


class Keys(Protocol):
    """What `gateway.access.Access` does."""

    async def check(self, bearer: str, /) -> KeyGrant | None:
        """Raises ProblemError where somebody else knows better why not."""

    def unnamed(self, peer: str | None, forwarded: Sequence[str]) -> KeyGrant | None:
        """What those may do who show no key; None for nothing.

        `peer` is the address that the connection comes from, `forwarded` what `X-Forwarded-For` says.
        """


async def authenticate(keys: Keys, request: BaseRequest, exchange: Exchange) -> KeyGrant:
    """The grant of whoever asks. Raises ProblemError 401 for a key that is not good, whatever it lacks.

    Only those who show no key at all are anonymous: a mistyped key must not quietly count as none.
    """
    grant: KeyGrant | None = None
    # Two Authorization headers could mean one thing to a proxy and another to us.
    values = request.headers.getall("Authorization", ())
    if len(values) == 1:
        scheme, _, token = values[0].partition(" ")
        if scheme.lower() == "bearer":
            bearer = token.strip(" ")
            grant = await keys.check(bearer)
            if grant is None and bearer in NO_KEY:
                grant = _unnamed(keys, request)
    elif not values:
        grant = _unnamed(keys, request)
    if grant is None:
        raise ProblemError(problems.unauthenticated())
    exchange.key_id = grant.key_id
    return grant


def _unnamed(keys: Keys, request: BaseRequest) -> KeyGrant | None:
    return keys.unnamed(request.remote, request.headers.getall(_FORWARDED, ()))
