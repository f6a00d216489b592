"""Answers to gateways when there are no images: plain text, in the words they match.

Livepeer's gateways decide by what the text says (wire, 3.7): "insufficient capacity" sends them
elsewhere without a grudge, "returned 400" is passed on to their client and not tried again, and
anything else suspends the node for half an hour.
"""

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Final

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from network.errors import ProblemError
from node.apps.refusal import Refusal, insufficient_capacity

__all__ = ["Refusal", "answering", "clients_fault", "insufficient_capacity", "plain"]

_MOST_CHARS: Final = 2000

log = structlog.get_logger(__name__)


def plain(status: int, text: str, headers: Mapping[str, str] | None = None) -> web.Response:
    """Answer as Go's `http.Error` does."""
    line = " ".join(text[:_MOST_CHARS].split())
    return web.Response(status=status, text=f"{line}\n", headers=headers)


def clients_fault(error: ProblemError) -> Refusal:
    """The request itself is wrong, wherever it goes."""
    problem = error.problem
    status = problem.status if problem.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE else 400
    return Refusal(status, f"text-to-image returned 400: {problem.message}", "bad_request")


def answering(refused: Callable[[str], None]) -> Middleware:
    """Return the middleware that turns every error into an answer. `refused` counts reasons."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except Refusal as refusal:
            refused(refusal.reason)
            return _answer(refusal)
        except ProblemError as error:
            refused("bad_request")
            return _answer(clients_fault(error))
        except web.HTTPException as error:
            refused(f"http_{error.status}")
            allow = error.headers.get("Allow")
            headers = {"Allow": allow} if allow is not None else None
            return plain(error.status, error.reason, headers)
        except ConnectionError:
            raise
        except Exception:
            log.exception("request failed", path=request.path)
            refused("internal_error")
            return plain(500, "Internal Server Error")

    return middleware


def _answer(refusal: Refusal) -> web.Response:
    return plain(refusal.status, refusal.text, refusal.headers)
