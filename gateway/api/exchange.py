"""One request and what is learnt about it on the way to its one log line."""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import Final

from aiohttp.web import BaseRequest, StreamResponse

from gateway.orchestrators.trail import Trail
from gateway.payments.rate import Left
from network.runtime.randomness import RandomBytes
from network.runtime.trace import TRACEPARENT, begin_trace
from network.units import Wei

#: What of an answer's time was the gateway's, and what that of its client and of orchestrators.
SERVER_TIMING: Final = "Server-Timing"
#: What a client may choose as its request id; UUIDs and hex strings fit.
REQUEST_ID_PATTERN: Final = "[A-Za-z0-9_-]{16,64}"
#: Of `Exchange.cache`: another request's images were delivered, and nobody was paid for them.
REPEATED: Final = frozenset({"hit", "coalesced"})
_random: Final = RandomBytes()
_REQUEST_ID: Final = re.compile(REQUEST_ID_PATTERN)


@dataclass(slots=True)
class Exchange:
    """Mutable on purpose: handlers note here what the log line and the metrics will say."""

    #: Seconds of the performance counter when the request's head had been read.
    started: float
    #: The client's own id, or one of ours when it gave none.
    request_id: str
    #: What the client sent when that cannot be used as an id.
    bad_request_id: bool = False
    #: Its trace, and its attempts at orchestrators.
    trail: Trail = field(default_factory=lambda: Trail(begin_trace(())))
    route: str = "unknown"
    key_id: str | None = None
    #: Seconds spent waiting for others: the client's body, the orchestrators' answers.
    foreign_seconds: float = 0.0
    #: Why the request was refused (`Problem.code`); empty on success.
    code: str = ""
    #: Our own id of a request for images, as the journal has it.
    job_id: str = ""
    model_id: str = ""
    pixels: int = 0
    orchestrator: str = ""
    #: Orchestrators asked.
    attempts: int = 0
    fee: Wei | None = None
    #: How the memory of earlier answers was used, a word of a closed set; "" where there is none.
    cache: str = ""
    #: Of the key's limit of requests a minute; None without one.
    rate: Left | None = None

    def rate_headers(self) -> dict[str, str]:
        return {} if self.rate is None else self.rate.headers()

    @property
    def paid(self) -> Wei | None:
        """What orchestrators get for it; None where nothing was delivered."""
        if self.cache and self.cache in REPEATED and self.fee is not None:
            return Wei(0)
        return self.fee

    def own_seconds(self) -> float:
        """Time since the start that was not spent waiting for others."""
        return max(0.0, perf_counter() - self.started - self.foreign_seconds)

    def timing(self) -> str:
        """`Server-Timing` (https://www.w3.org/TR/server-timing/) until now, in milliseconds."""
        own = f"gateway;dur={self.own_seconds() * 1000:.3f}"
        if not self.foreign_seconds:
            return own
        return f"{own}, others;dur={self.foreign_seconds * 1000:.3f}"


Handler = Callable[[BaseRequest, Exchange], Awaitable[StreamResponse]]


def is_request_id(text: str) -> bool:
    return _REQUEST_ID.fullmatch(text) is not None


def new_request_id() -> str:
    """128 random bits: knowing the id of a job is part of the permission to see it."""
    return _random.hex(16)


def open_exchange(request: BaseRequest, started: float) -> Exchange:
    """Take the client's `X-Request-Id` when it can be one."""
    trail = Trail(begin_trace(request.headers.getall(TRACEPARENT, ())))
    offered = request.headers.get("X-Request-Id")
    if offered is None:
        return Exchange(started, new_request_id(), trail=trail)
    if is_request_id(offered):
        return Exchange(started, offered, trail=trail)
    return Exchange(started, new_request_id(), bad_request_id=True, trail=trail)
