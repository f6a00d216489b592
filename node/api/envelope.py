"""Errors as JSON, in the one envelope that every client of apps parses."""

from collections.abc import Awaitable, Callable
from typing import Final

import structlog
from aiohttp import web

from network.errors import JSON_TYPE, Problem, ProblemError
from network.wire import problems
from node.apps.refusal import Refusal

_TYPES: Final = {402: "payment_required", 403: "permission_error", 503: "overloaded_error"}
_TYPE: Final = "invalid_request_error"
_SERVER_ERROR: Final = 500
_UNAVAILABLE: Final = 503
_RETRY_AFTER: Final = "5"
_MOST_CHARS: Final = 2000

log = structlog.get_logger(__name__)

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def in_json(refused: Callable[[str], None], handler: _Handler) -> _Handler:
    """Turn every error of `handler` into an answer. `refused` counts refusals by reason."""

    async def answering(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except Refusal as refusal:
            refused(refusal.reason)
            return answer(problem_of(refusal))
        except ProblemError as error:
            refused(error.problem.code)
            return answer(error.problem)
        except web.HTTPException as error:
            refused(f"http_{error.status}")
            code = error.reason.lower().replace(" ", "_")
            return answer(Problem(error.status, error.reason, _TYPE, code))
        except ConnectionError:
            raise
        except Exception:
            log.exception("request failed", path=request.path)
            refused("internal_error")
            return answer(problems.internal())

    return answering


def answer(problem: Problem) -> web.Response:
    """Return the answer."""
    return web.Response(
        status=problem.status,
        body=problem.body(),
        content_type=JSON_TYPE,
        headers=dict(problem.headers),
    )


def problem_of(refusal: Refusal) -> Problem:
    """Tell a refusal without the words that only gateways match."""
    headers = dict(refusal.headers or {})
    if refusal.status == _UNAVAILABLE:
        headers.setdefault("Retry-After", _RETRY_AFTER)
    other = "server_error" if refusal.status >= _SERVER_ERROR else _TYPE
    return Problem(
        refusal.status,
        refusal.message[:_MOST_CHARS],
        _TYPES.get(refusal.status, other),
        refusal.reason,
        headers=headers,
    )
