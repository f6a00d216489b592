"""Conditional and partial requests (RFC 9110, 13 and 14), for files that never change. Pure."""

import re
from typing import Final

_RANGE: Final = re.compile(
    r"bytes=[ \t]*(?:([0-9]{1,19})-([0-9]{0,19})|-([0-9]{1,19}))[ \t]*", re.IGNORECASE
)


class UnsatisfiableRangeError(ValueError):
    """The range is understood, and the file has none of it: 416."""


def asked_range(text: str | None, size: int) -> tuple[int, int] | None:
    """First byte and the one after the last; None for the whole file.

    What is no range, or several at a time, is as good as none, which is what servers may do with
    them (RFC 9110, 14.2). Raises UnsatisfiableRangeError.
    """
    found = None if text is None else _RANGE.fullmatch(text)
    if found is None:
        return None
    if found[3] is not None:
        start, stop = max(size - int(found[3]), 0), size
    else:
        start = int(found[1])
        stop = min(int(found[2]) + 1, size) if found[2] else size
        if found[2] and int(found[2]) < start:
            return None
    if start >= stop:
        raise UnsatisfiableRangeError
    return start, stop


def knows(if_none_match: str | None, tag: str) -> bool:
    """Whether a client has the file of this entity tag, quotes included (RFC 9110, 13.1.2)."""
    if if_none_match is None:
        return False
    tags = (one.strip().removeprefix("W/") for one in if_none_match.split(","))
    return any(one in {"*", tag} for one in tags)


def goes_on(if_range: str | None, tag: str) -> bool:
    """Whether a range may be sent to a client that has a part of this file (RFC 9110, 13.1.5)."""
    return if_range is None or if_range.strip() == tag
