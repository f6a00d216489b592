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

_MOST_CHARS: Final = 2000

log = structlog.get_logger(__name__)


class Refusal(Exception):  # noqa: N818  it is an answer
    """`reason` is a short fixed word for the metrics; `text` goes to the gateway."""

    def __init__(
        self, status: int, text: str, reason: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.reason = reason
        self.headers = headers

    def with_headers(self, headers: Mapping[str, str]) -> "Refusal":
        """Return the same refusal with more headers."""
        return Refusal(self.status, self.text, self.reason, {**(self.headers or {}), **headers})

    def response(self) -> web.Response:
        """Return the answer."""
        return plain(self.status, self.text, self.headers)


def plain(status: int, text: str, headers: Mapping[str, str] | None = None) -> web.Response:
    """Answer as Go's `http.Error` does."""
    line = " ".join(text[:_MOST_CHARS].split())
    return web.Response(status=status, text=f"{line}\n", headers=headers)


def insufficient_capacity(reason: str) -> Refusal:
    """There is no room; the gateway tries another node and keeps this one."""
    return Refusal(503, f"insufficient capacity: {reason}", reason, {"Retry-After": "5"})


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
            return refusal.response()
        except ProblemError as error:
            refused("bad_request")
            return clients_fault(error).response()
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
