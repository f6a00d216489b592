"""What the node did and refused in the last hours, for its operator's page."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import orjson
from aiohttp import web

from network.runtime.clock import Clock
from network.runtime.history import SPANS, History
from node.accounting.model import Outcome
from node.discovery.hardware import Hardware
from node.jobs.model import JobReport

#: The page's own files.
PAGE: Final = Path(__file__).parent / "operator_page"

#: Endings that no refusal tells of: whoever asked is gone.
_UNANSWERED: Final = frozenset({Outcome.CANCELLED, Outcome.INTERRUPTED})


@dataclass(frozen=True, slots=True)
class RecentJobs:
    """Counts jobs by how they ended, and refusals by reason."""

    clock: Clock
    hardware: Hardware
    history: History = field(default_factory=History)

    def job_ended(self, report: JobReport) -> None:
        """An observer of the runner. What failed is counted as the refusal that answers it."""
        ending, now = report.ending, self.clock.now()
        if ending.outcome is Outcome.DELIVERED:
            seconds = ending.waited_seconds + ending.run_seconds
            self.history.good(now, seconds, report.charged)
        elif ending.outcome in _UNANSWERED:
            self.history.bad(now, ending.outcome.value)

    def refused(self, reason: str) -> None:
        """`reason` is a short fixed word."""
        self.history.bad(self.clock.now(), reason)

    async def get_history(self, request: web.Request) -> web.Response:
        """`GET /history?seconds=3600`, with the devices as they are now."""
        asked = request.query.get("seconds", "3600")
        span = next((span for span in SPANS if str(span) == asked), None)
        if span is None:
            raise web.HTTPBadRequest(reason=f"seconds is one of {', '.join(map(str, SPANS))}")
        told = self.history.told(self.clock.now(), span)
        gpus = [
            {
                "name": reading.gpu.name,
                "utilization": reading.utilization_compute / 100,
                "memory_bytes": reading.gpu.memory_total,
                "memory_used_bytes": reading.gpu.memory_total - reading.gpu.memory_free,
            }
            for reading in await self.hardware.refresh()
        ]
        body = orjson.dumps({**told, "gpus": gpus})
        return web.Response(body=body, content_type="application/json")
