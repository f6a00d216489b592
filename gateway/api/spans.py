"""A finished request for images as spans: the request, and each of its attempts below it."""

from dataclasses import dataclass
from time import perf_counter, time_ns
from typing import Final

from gateway.api.exchange import Exchange
from gateway.api.frontend import IMAGE_ROUTES
from gateway.orchestrators.trail import DELIVERED
from network.runtime.spans import Attribute, Span, Spans

_NANOSECONDS: Final = 10**9
_OUR_FAULT: Final = 500


@dataclass(frozen=True, slots=True)
class Recorder:
    """Records what ends (a `gateway.api.frontend.Watcher`)."""

    spans: Spans

    def finished(
        self, exchange: Exchange, status: int, seconds: float, own_seconds: float
    ) -> None:
        """Record a request for images, or a kept one's job; nobody wants spans of the rest."""
        del own_seconds
        if exchange.route in IMAGE_ROUTES or exchange.trail.attempts:
            record_request(self.spans, exchange, status, seconds)


def record_request(spans: Spans, exchange: Exchange, status: int, seconds: float) -> None:
    """Called at the end of a request that took `seconds`; neither prompt nor key is told."""
    now, ticks = time_ns(), perf_counter()

    def at(moment: float) -> int:
        return now - round((ticks - moment) * _NANOSECONDS)

    facts: dict[str, Attribute] = {
        "http.request.method": "POST",
        "http.route": exchange.route,
        "http.response.status_code": status,
        "limner.request_id": exchange.request_id,
        "limner.job_id": exchange.job_id,
        "limner.model_id": exchange.model_id,
        "limner.pixels": exchange.pixels,
        "limner.orchestrator": exchange.orchestrator,
        "limner.attempts": len(exchange.trail.attempts),
    }
    if exchange.key_id is not None:
        facts["limner.key_id"] = exchange.key_id
    if exchange.fee is not None:
        facts["limner.fee_wei"] = str(exchange.fee)
    if exchange.code:
        facts["error.type"] = exchange.code
    # By the convention for servers a client's fault is no error of the span.
    problem = exchange.code if status >= _OUR_FAULT else ""
    began, ended = at(exchange.started), at(exchange.started + seconds)
    spans.record(Span("request", exchange.trail.trace, began, ended, facts, problem))
    for attempt in exchange.trail.attempts:
        told: dict[str, Attribute] = {
            "limner.attempt_id": attempt.attempt_id,
            "limner.node_job_id": attempt.node_job_id,
            "limner.orchestrator": attempt.orchestrator,
            "limner.outcome": attempt.outcome,
        }
        spans.record(
            Span(
                "attempt",
                attempt.trace,
                at(attempt.began),
                at(attempt.ended or ticks),
                told,
                "" if attempt.outcome == DELIVERED else attempt.outcome,
                is_server=False,
            )
        )
