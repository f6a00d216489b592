"""The trace of each request: in every line that is written for it, and as a span where somebody wants that."""

from time import time_ns
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from structlog.contextvars import bound_contextvars

from network.runtime.spans import Attribute, Span, Spans
from network.runtime.trace import TRACEPARENT, Trace, begin_trace
from network.wire.headers import JOB_ID

_OUR_FAULT: Final = 500
_LONGEST: Final = 64


def tracing(spans: Spans | None) -> Middleware:
    """Return the middleware. Spans are made of what asks for work; nobody wants those of health checks."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        trace = begin_trace(request.headers.getall(TRACEPARENT, ()))
        with bound_contextvars(trace_id=trace.trace_id):
            if spans is None or request.method != "POST":
                return await handler(request)
            return await _recorded(spans, trace, request, handler)

    return middleware


async def _recorded(
    spans: Spans, trace: Trace, request: web.Request, handler: Handler
) -> web.StreamResponse:
    began, status = time_ns(), 0
    try:
        response = await handler(request)
        status = response.status
    finally:
        problem = "cancelled" if status == 0 else str(status) if status >= _OUR_FAULT else ""
        told = _told(request, status)
        spans.record(Span("job", trace, began, time_ns(), told, problem))
    return response


def _told(request: web.Request, status: int) -> dict[str, Attribute]:
    """Never a prompt, and no path of a stranger's making."""
    resource = request.match_info.route.resource
    return {
        "http.request.method": request.method,
        "http.route": "unknown" if resource is None else resource.canonical,
        "http.response.status_code": status,
        "limner.attempt_id": request.headers.get(JOB_ID, "")[:_LONGEST],
    }
