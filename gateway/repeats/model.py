"""Which requests are the same, who shares answers, and what a repeat is charged. Pure."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Literal

import orjson

from network.errors import Problem
from network.units import Wei
from network.wire.messages import TextToImageRequest

#: Who gets whose answers: those of one key (or of one client, where many share a key), of one team
#: (a key without one: its own), or everybody.
Scope = Literal["key", "team", "all"]

#: Anything else in a request's Cache-Control has no effect here (RFC 9111, 5.2.1).
_DIRECTIVE: Final = re.compile(r"\s*(no-cache|no-store|only-if-cached|max-age\s*=\s*\"?0+\"?)\s*")
#: What only the request's own fields, or all orchestrators together, are the reason of.
_SHARED_STATUS: Final = frozenset({400, 404, 413, 422})
_SHARED_CODES: Final = frozenset({"no_capacity", "orchestrators_failed"})
#: Each request has a time of its own.
_OUT_OF_TIME: Final = "deadline_exceeded"


@dataclass(frozen=True, slots=True)
class Wish:
    """What a request's `Cache-Control` says."""

    #: Made anew, and remembered in place of what was.
    no_cache: bool = False
    #: Made anew, and neither remembered nor shared.
    no_store: bool = False
    #: Answered from memory or not at all.
    only_if_cached: bool = False


NO_WISH: Final = Wish()


def read_wish(values: Iterable[str]) -> Wish:
    """From the values of all `Cache-Control` headers."""
    said = {
        found[1].lower()
        for one in ",".join(values).lower().split(",")
        if (found := _DIRECTIVE.fullmatch(one)) is not None
    }
    return Wish(
        no_cache="no-cache" in said or any(one.startswith("max-age") for one in said),
        no_store="no-store" in said,
        only_if_cached="only-if-cached" in said,
    )


def parameters_of(request: TextToImageRequest) -> bytes | None:
    """What determines the images: equal for equal requests; None where a seed will be drawn.

    `request` is within its limits, its model named. How the answer shows the images (URL or base64,
    file format) is not among it: they are kept as they came.
    """
    if request.seed is None:
        return None
    loras: dict[str, float | str] = orjson.loads(request.loras) if request.loras.strip() else {}
    weights = sorted((name, float(weight)) for name, weight in loras.items())
    fields = {
        **vars(request),
        "guidance_scale": float(request.guidance_scale),
        "loras": weights,
    }
    return orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)


def circle_of(owner: str, team: str | None, scope: Scope) -> bytes:
    """Those who share answers with this owner of requests, of this team; no two circles have one name."""
    match scope:
        case "all":
            return b"all"
        case "team" if team is not None:
            return b"team\0" + team.encode()
        case _:
            return b"key\0" + owner.encode()


def charge_of(fee: Wei, share: Fraction) -> Wei:
    """What a repeat is charged of the fee that was paid for its images; rounded down to a whole wei."""
    return Wei(int(fee * share))


def concerns(problem: Problem, *, same_key: bool) -> bool:
    """Whether the failure of a run is one of those who waited for it, too.

    A run fails for its buyer's own reasons as well: a budget, a price cap, the models it may use.
    Another key would not meet them, and begins a run of its own. The same key would.
    """
    if problem.code == _OUT_OF_TIME:
        return False
    return same_key or problem.status in _SHARED_STATUS or problem.code in _SHARED_CODES
