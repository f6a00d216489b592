"""Which trace a piece of work belongs to: W3C Trace Context, https://www.w3.org/TR/trace-context-1/.

`tracestate` is not passed on: between two strangers it could only tell what is none of their business.
"""

import re
import secrets
from collections.abc import Sequence
from typing import Final, NamedTuple

TRACEPARENT: Final = "traceparent"

#: Later versions may append fields, behind another hyphen.
_TRACEPARENT: Final = re.compile(
    "(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})"
    "(?P<more>-.{0,256})?"
)
_SAMPLED: Final = 0x01
_NO_TRACE: Final = "0" * 32
_NO_SPAN: Final = "0" * 16


class Trace(NamedTuple):
    """One span of a trace; ids are lower-case hexadecimal."""

    #: 16 bytes.
    trace_id: str
    #: 8 bytes.
    span_id: str
    #: The caller's span; "" where the trace begins here.
    parent_id: str
    #: Whether the spans of this trace are wanted.
    is_sampled: bool

    @property
    def header(self) -> str:
        """What tells the next one of this span."""
        return f"00-{self.trace_id}-{self.span_id}-0{int(self.is_sampled)}"

    def child(self) -> "Trace":
        """A span below this one."""
        return Trace(self.trace_id, secrets.token_hex(8), self.span_id, self.is_sampled)


def begin_trace(headers: Sequence[str]) -> Trace:
    """The span of a request that came with these `traceparent` headers.

    Anything but exactly one valid header begins a trace of its own, as the standard demands.
    """
    found = _TRACEPARENT.fullmatch(headers[0]) if len(headers) == 1 else None
    if found is None or not _is_valid(found):
        drawn = secrets.token_hex(24)
        return Trace(drawn[:32], drawn[32:], "", is_sampled=True)
    is_sampled = bool(int(found["flags"], 16) & _SAMPLED)
    return Trace(found["trace"], secrets.token_hex(8), found["span"], is_sampled)


def _is_valid(found: re.Match[str]) -> bool:
    if found["version"] == "ff" or (found["version"] == "00" and found["more"]):
        return False
    return found["trace"] != _NO_TRACE and found["span"] != _NO_SPAN
