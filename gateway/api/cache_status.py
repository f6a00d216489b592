"""How answers tell whether they were remembered (RFC 9211), and how requests say what they want of it."""

from collections.abc import Mapping
from typing import Any, Final

CACHE_CONTROL: Final = "Cache-Control"
CACHE_STATUS: Final = "Cache-Status"
#: By `gateway.dispatch.journey.CacheUse`.
STATUSES: Final[Mapping[str, str]] = {
    "hit": "Limner; hit",
    "coalesced": "Limner; fwd=miss; collapsed",
    "miss": "Limner; fwd=miss",
    "refreshed": "Limner; fwd=request",
    "bypassed": "Limner; fwd=bypass",
}

#: In the published contract.
PARAMETER: Final[dict[str, Any]] = {
    "name": CACHE_CONTROL,
    "in": "header",
    "description": "Where the gateway gives answers again: `no-cache` has the images made anew, "
    "`no-store` has the answer neither remembered nor shared either, `only-if-cached` makes nothing "
    "(504). Anything else has no effect.",
    "schema": {"type": "string", "examples": ["no-cache"]},
}
HEADER: Final[dict[str, Any]] = {
    CACHE_STATUS: {
        "description": "Whether the images were made for this request. Absent where the gateway gives "
        "no answer again.",
        "schema": {"enum": [*STATUSES.values()]},
    }
}
