"""Answers of a runner when there are no images, in what go-livepeer's worker survives.

The worker knows five answers to a request for images: 200, 400, 401, 422 and 500, in JSON. Any
other ends the process that asked. A 400 is the client's fault and final; a 500 has the
orchestrator suspended for tens of minutes, unless it says "insufficient capacity".
"""

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from network.errors import JSON_TYPE, Problem, ProblemError
from network.wire import problems
from node.apps.refusal import Refusal

#: What the node says in front of a client's fault, for gateways that match it.
_FOR_GATEWAYS: Final = "text-to-image returned 400: "

log = structlog.get_logger(__name__)


def answering(refused: Callable[[str], None]) -> Middleware:
    """Return the middleware that turns every error into an answer. `refused` counts reasons."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except ProblemError as error:
            problem = error.problem
        except Refusal as refusal:
            problem = _refusal(refusal)
        except web.HTTPException as error:
            problem = _routing(error)
        except ConnectionError:
            raise
        except Exception as error:  # noqa: BLE001  go-livepeer survives only an answer
            # A traceback reads source files, which would hold up everybody.
            await asyncio.to_thread(log.error, "request failed", path=request.path, exc_info=error)
            problem = _broken("Text-to-image pipeline error.", "internal_error")
        refused(problem.code)
        return answer(problem)

    return middleware


def answer(problem: Problem) -> web.Response:
    """Return the answer, which says the same in the words of every client."""
    return web.Response(
        status=problem.status,
        body=problem.body(),
        content_type=JSON_TYPE,
        headers=problem.headers,
    )


def _refusal(refusal: Refusal) -> Problem:
    """The node's answer to gateways, in one of the five."""
    text = refusal.text.removeprefix(_FOR_GATEWAYS)
    match refusal.status:
        case HTTPStatus.SERVICE_UNAVAILABLE:
            return Problem(500, text, "overloaded_error", refusal.reason)
        case status if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return _broken(text, refusal.reason)
        case _:
            return problems.bad_request(text, refusal.reason)


def _routing(error: web.HTTPException) -> Problem:
    """A path or method that is not there: no request for images."""
    match error.status:
        case HTTPStatus.METHOD_NOT_ALLOWED:
            return problems.method_not_allowed(error.headers.get("Allow", "").split(","))
        case HTTPStatus.NOT_FOUND:
            return problems.not_found()
        case _:
            return problems.bad_request(error.reason)


def _broken(message: str, code: str) -> Problem:
    return Problem(500, message, "server_error", code)
