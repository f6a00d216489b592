"""Finished spans for OpenTelemetry, where its standard variables ask for them.

Nothing is imported, and nothing costs anything, until `OTEL_EXPORTER_OTLP_ENDPOINT`,
`OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` or `OTEL_TRACES_EXPORTER=otlp` is set. Ids are drawn by
`network.runtime.trace` when work begins; what is sent here is the whole span, once it is over.
"""

from asyncio import to_thread
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from network.runtime.trace import Trace

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

_log = structlog.get_logger(__name__)

_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_FLUSH_MS: Final = 5000

Attribute = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of work that is over. Times are Unix nanoseconds; `problem` is "" for success."""

    name: str
    trace: Trace
    began_ns: int
    ended_ns: int
    attributes: Mapping[str, Attribute]
    problem: str = ""
    #: Whether it answers somebody else's request, or makes one itself.
    is_server: bool = True


class Spans(Protocol):
    """Takes finished spans; never raises, never blocks."""

    def record(self, span: Span) -> None: ...


@asynccontextmanager
async def open_spans(
    service: str, version: str, environment: Mapping[str, str]
) -> AsyncIterator[Spans | None]:
    """Where spans go; None where nobody asked for any. At exit what waits is sent."""
    if not is_asked_for(environment):
        yield None
        return
    try:
        exporting = await to_thread(_open, service, version, environment)
    except ImportError:
        _log.warning(
            "no_traces",
            problem="OpenTelemetry is not installed",
            advice="install the extra: pip install 'limner[otel]'; or unset OTEL_EXPORTER_OTLP_ENDPOINT",
        )
        yield None
        return
    try:
        yield exporting
    finally:
        await to_thread(exporting.close)


def is_asked_for(environment: Mapping[str, str]) -> bool:
    """As the OpenTelemetry specification has it, but that nothing is sent by default."""
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    exporter = environment.get("OTEL_TRACES_EXPORTER", "")
    if exporter:
        return "otlp" in exporter.split(",")
    return any(environment.get(name) for name in _ENDPOINTS)


class _Exporting:
    """Batches on a thread of the SDK's own, with its bounds (`OTEL_BSP_*`)."""

    def __init__(self, service: str, version: str, environment: Mapping[str, str]) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415  an extra
            OTLPSpanExporter,
        )
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

        about: dict[str, Attribute] = {"service.version": version}
        if not environment.get("OTEL_SERVICE_NAME"):
            about["service.name"] = service
        self._resource = Resource.create(about)
        self._processor = BatchSpanProcessor(OTLPSpanExporter())

    def record(self, span: Span) -> None:
        if span.trace.is_sampled:
            self._processor.on_end(self._readable(span))

    def close(self) -> None:
        self._processor.force_flush(_FLUSH_MS)
        self._processor.shutdown()  # type: ignore[no-untyped-call]  # the SDK says not

    def _readable(self, span: Span) -> "ReadableSpan":
        from opentelemetry.sdk.trace import ReadableSpan  # noqa: PLC0415
        from opentelemetry.trace import (  # noqa: PLC0415
            SpanContext,
            SpanKind,
            Status,
            StatusCode,
            TraceFlags,
        )

        def context(span_id: str, *, is_remote: bool) -> SpanContext:
            flags = TraceFlags(TraceFlags.SAMPLED)
            trace_id = int(span.trace.trace_id, 16)
            return SpanContext(trace_id, int(span_id, 16), is_remote=is_remote, trace_flags=flags)

        parent_id = span.trace.parent_id
        return ReadableSpan(
            name=span.name,
            context=context(span.trace.span_id, is_remote=False),
            parent=context(parent_id, is_remote=span.is_server) if parent_id else None,
            resource=self._resource,
            attributes=dict(span.attributes),
            kind=SpanKind.SERVER if span.is_server else SpanKind.CLIENT,
            status=Status(StatusCode.ERROR, span.problem) if span.problem else Status(),
            start_time=span.began_ns,
            end_time=span.ended_ns,
        )


def _open(service: str, version: str, environment: Mapping[str, str]) -> _Exporting:
    return _Exporting(service, version, environment)
