"""What a request's head asks of its answer: to be kept, to be given later, to be told. Pure."""

from dataclasses import dataclass
from typing import Final

from multidict import CIMultiDictProxy

from gateway.promises.model import IDEMPOTENCY_KEY_PATTERN, is_idempotency_key
from gateway.promises.targets import webhook_fault
from network.errors import ProblemError
from network.wire import problems

IDEMPOTENCY_KEY: Final = "Idempotency-Key"
PREFER: Final = "Prefer"
WEBHOOK: Final = "Limner-Webhook"
#: RFC 7240, 4.1.
RESPOND_ASYNC: Final = "respond-async"

Headers = CIMultiDictProxy[str]


@dataclass(frozen=True, slots=True)
class Wish:
    """How one request wants its answer."""

    idempotency_key: str | None
    is_async: bool
    webhook: str | None


def has_wish(headers: Headers) -> bool:
    """Whether `read_wish` finds anything: asked of every request, so cheap."""
    return (
        IDEMPOTENCY_KEY in headers
        or (PREFER in headers and _prefers_async(headers))
        or WEBHOOK in headers
    )


def read_wish(headers: Headers, *, allow_private: bool) -> Wish:
    """Raises ProblemError 400 naming the header. `allow_private` is of webhooks."""
    key = _only(headers, IDEMPOTENCY_KEY)
    if key is not None and not is_idempotency_key(key):
        message = f"{IDEMPOTENCY_KEY} must match {IDEMPOTENCY_KEY_PATTERN}."
        raise _fault(IDEMPOTENCY_KEY, message)
    is_async = _prefers_async(headers)
    webhook = _only(headers, WEBHOOK)
    if webhook is not None:
        if not is_async:
            raise _fault(WEBHOOK, f"{WEBHOOK} goes with {PREFER}: {RESPOND_ASYNC}.")
        if fault := webhook_fault(webhook, allow_private=allow_private):
            raise _fault(WEBHOOK, f"{WEBHOOK} {fault}.")
    return Wish(key, is_async, webhook)


def _prefers_async(headers: Headers) -> bool:
    """Of preferences that are not known nothing is said, as the RFC has it."""
    preferences = ",".join(headers.getall(PREFER, ())).split(",")
    return any(one.partition(";")[0].strip().lower() == RESPOND_ASYNC for one in preferences)


def _only(headers: Headers, name: str) -> str | None:
    values = headers.getall(name, ())
    if len(values) > 1:
        raise _fault(name, f"{name} stands there more than once.")
    return values[0] if values else None


def _fault(name: str, message: str) -> ProblemError:
    return ProblemError(problems.bad_request(message, param=name))
