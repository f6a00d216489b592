"""Every error answer of the HTTP surfaces, one constructor each.

Status, `code` and `type` belong together and are decided here only; `Retry-After` is
whole seconds and present on every 429 and 503.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from network.errors import FieldFault, Problem

_INVALID: Final = "invalid_request_error"
_NO_ORCHESTRATOR_RETRY: Final = 5.0
_LISTED_MODELS: Final = 20
_LONGEST_ECHO: Final = 120


def unauthenticated(message: str = "Invalid bearer token.") -> Problem:
    """The bearer key is missing, unknown, revoked or expired."""
    return Problem(
        401,
        message,
        "authentication_error",
        "invalid_api_key",
        headers={"WWW-Authenticate": "Bearer"},
    )


def forbidden(message: str = "This key may not do that.") -> Problem:
    return Problem(403, message, "permission_error", "permission_denied")


def not_found(what: str = "resource") -> Problem:
    return Problem(404, f"No such {_echo(what)}.", _INVALID, "not_found")


def model_not_found(model: str, known: Collection[str]) -> Problem:
    """`known` are the models the client could have asked for."""
    offered = ", ".join(sorted(known)[:_LISTED_MODELS]) or "none at the moment"
    return Problem(
        404,
        f"Model '{_echo(model)}' is not offered here. Available: {offered}.",
        _INVALID,
        "model_not_found",
        param="model_id",
    )


def lora_not_found(message: str) -> Problem:
    """`message` is the orchestrator's, which names the LoRA and those there are."""
    return Problem(404, message, _INVALID, "lora_not_found", param="loras")


def method_not_allowed(allowed: Collection[str]) -> Problem:
    methods = ", ".join(sorted(allowed))
    return Problem(
        405,
        f"Method not allowed; use {methods}.",
        _INVALID,
        "method_not_allowed",
        headers={"Allow": methods},
    )


def too_large(limit: int) -> Problem:
    """`limit` in bytes."""
    return Problem(
        413, f"The request body is larger than {limit} bytes.", _INVALID, "body_too_large"
    )


def unsupported_media() -> Problem:
    return Problem(
        415,
        "The request body must be JSON, with Content-Type: application/json.",
        _INVALID,
        "unsupported_media_type",
    )


def invalid_fields(faults: Sequence[FieldFault]) -> Problem:
    """422 with one entry for each wrong field; `loc` starts with "body"."""
    sentences = "; ".join(f"{_place(fault)}: {fault.message}" for fault in faults)
    names = {part for fault in faults for part in fault.loc[1:2] if isinstance(part, str)}
    return Problem(
        422,
        f"The request is not valid: {sentences}.",
        _INVALID,
        "validation_error",
        param=names.pop() if len(names) == 1 else None,
        fields=tuple(faults),
    )


def bad_request(message: str, code: str = "invalid_request", param: str | None = None) -> Problem:
    return Problem(400, message, _INVALID, code, param=param)


def conflict(message: str, code: str, param: str | None = None) -> Problem:
    """What is asked does not go together with what happened before."""
    return Problem(409, message, _INVALID, code, param=param)


def key_reused() -> Problem:
    return Problem(
        422,
        "This Idempotency-Key was used for another request; take a new key for each.",
        _INVALID,
        "idempotency_key_reused",
        param="Idempotency-Key",
        fields=(
            FieldFault(
                ("header", "Idempotency-Key"), "was used for another request", "key_reused"
            ),
        ),
    )


def unsafe(message: str) -> Problem:
    """The images were made and found unsafe; the code is the one OpenAI's clients know."""
    return Problem(400, message, _INVALID, "content_policy_violation", param="prompt")


def rate_limited(
    retry_after: float,
    message: str = "Too many requests with this key; try again later.",
    headers: Mapping[str, str] | None = None,
) -> Problem:
    """`retry_after` in seconds, rounded up."""
    return Problem(
        429,
        message,
        "rate_limit_error",
        "rate_limited",
        headers={**_retry_after(retry_after), **(headers or {})},
    )


def budget_exceeded(message: str, retry_after: float) -> Problem:
    """`message` tells whose budget, what of it is spent, and when it begins anew."""
    return Problem(
        402, message, "insufficient_quota", "budget_exceeded", headers=_retry_after(retry_after)
    )


def no_capacity(
    retry_after: float, message: str = "Every orchestrator is busy; try again later."
) -> Problem:
    return _unavailable(message, "no_capacity", retry_after)


def price_above_cap(message: str, retry_after: float = 60.0) -> Problem:
    return _unavailable(message, "price_above_cap", retry_after)


def orchestrators_failed(message: str, retry_after: float = _NO_ORCHESTRATOR_RETRY) -> Problem:
    return _unavailable(message, "orchestrators_failed", retry_after)


def payments_unavailable(
    retry_after: float,
    message: str = "This gateway cannot pay orchestrators at the moment. Its operator has been told.",
) -> Problem:
    """The reason is in the gateway's log: clients cannot mend it."""
    return _unavailable(message, "payments_unavailable", retry_after)


def timed_out(message: str, retry_after: float = _NO_ORCHESTRATOR_RETRY) -> Problem:
    return _unavailable(message, "deadline_exceeded", retry_after)


def authentication_unavailable(message: str, retry_after: float) -> Problem:
    """Nobody can say now whether the key is good."""
    return _unavailable(message, "authentication_unavailable", retry_after)


def images_unavailable(message: str, retry_after: float) -> Problem:
    """Nobody can say now whether an image is still there."""
    return _unavailable(message, "image_store_unavailable", retry_after)


def not_cached() -> Problem:
    """The request wants an answer that is remembered, or none (RFC 9111, 5.2.1.7)."""
    message = "Cache-Control: only-if-cached was asked for, and no answer is remembered."
    return Problem(504, message, _INVALID, "not_cached", param="Cache-Control")


def internal() -> Problem:
    """Our own fault; the reason is in our log, never in the answer."""
    return Problem(
        500,
        "Something went wrong on our side; the error has been recorded.",
        "server_error",
        "internal_error",
    )


def _unavailable(message: str, code: str, retry_after: float) -> Problem:
    return Problem(503, message, "overloaded_error", code, headers=_retry_after(retry_after))


def _retry_after(seconds: float) -> dict[str, str]:
    return {"Retry-After": str(max(1, math.ceil(seconds)))}


def _place(fault: FieldFault) -> str:
    return ".".join(str(part) for part in fault.loc) or "body"


def _echo(text: str) -> str:
    """A client's own words back to it, bounded so that an error stays short."""
    return text if len(text) <= _LONGEST_ECHO else f"{text[:_LONGEST_ECHO]}..."
