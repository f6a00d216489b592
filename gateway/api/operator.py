"""What the admin port has for its operator beside metrics, health and status."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from aiohttp.web import BaseRequest, Response, StreamResponse

from gateway.api.answers import SERVER, json_answer
from gateway.api.exchange import Exchange, Handler
from gateway.api.explanations import Explanations
from gateway.api.frontend import IMAGE_ROUTES
from gateway.api.kept_job import JOB_ROUTE
from gateway.api.router import Route
from network.errors import ProblemError
from network.runtime.clock import Clock
from network.runtime.console import Asset
from network.runtime.history import SPANS, History
from network.wire import problems

#: The page's own files.
PAGE: Final = Path(__file__).parent / "operator_page"


@dataclass(frozen=True, slots=True)
class RecentRequests:
    """Requests for images of the last hours (a `gateway.api.frontend.Watcher`).

    `spending` tells what the keys spent, as JSON.
    """

    clock: Clock
    spending: Callable[[], Sequence[Mapping[str, Any]]]
    history: History = field(default_factory=History)

    def finished(
        self, exchange: Exchange, status: int, seconds: float, own_seconds: float
    ) -> None:
        """Count one request for images, or the job of one whose answer is kept.

        Where a request waits for its job, the job's refusal is counted as the request's.
        """
        del status, own_seconds
        now = self.clock.now()
        if exchange.code:
            if exchange.route in IMAGE_ROUTES or exchange.route == JOB_ROUTE:
                self.history.bad(now, exchange.code)
        elif exchange.paid is not None:
            self.history.good(now, seconds, exchange.paid)

    async def show(self, request: BaseRequest, exchange: Exchange) -> StreamResponse:
        """`GET /history?seconds=3600`. Raises ProblemError 400."""
        del exchange
        asked = request.rel_url.query.get("seconds", "3600")
        span = next((span for span in SPANS if str(span) == asked), None)
        if span is None:
            known = ", ".join(map(str, SPANS))
            raise ProblemError(
                problems.bad_request(f"seconds is one of {known}.", param="seconds")
            )
        told = self.history.told(self.clock.now(), span)
        return json_answer({**told, "keys": self.spending()})


def operator_routes(
    explanations: Explanations, recent: RecentRequests, page: Mapping[str, Asset]
) -> Mapping[str, Route]:
    """By path."""
    return {
        "/explain": Route("explain", {"GET": explanations.show}),
        "/history": Route("history", {"GET": recent.show}),
        **{path: Route("page", {"GET": _file(asset)}) for path, asset in page.items()},
    }


def _file(asset: Asset) -> Handler:
    async def show(request: BaseRequest, exchange: Exchange) -> StreamResponse:
        del request, exchange
        return Response(body=asset.body, headers={**asset.headers, "Server": SERVER})

    return show
