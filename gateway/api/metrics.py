"""What Prometheus is told. Counting happens on the request's path, so every child is made once."""

from asyncio import to_thread
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from typing_extensions import override

from gateway.api.exchange import Exchange

#: A picture takes from tenths of seconds to minutes.
_REQUEST_BUCKETS: Final = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0)
#: Our own share is meant to stay below a millisecond.
_OWN_BUCKETS: Final = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.25, 1.0)


_MONEY: Final = {
    "deposit_wei": "Deposit in the TicketBroker, as last read.",
    "reserve_wei": "Reserve in the TicketBroker, as last read.",
    "outstanding_wei": "What tickets that have not expired are worth.",
    "outstanding_face_value_wei": "What they would cost if all of them won.",
    "credit_wei": "Paid and not worked off yet, at all orchestrators.",
    "paid_in_the_last_hour_wei": "What the tickets of the last hour are worth.",
    "payments_in_doubt": "Attempts of which the orchestrator did not tell what they came to.",
}

_REPEATS: Final = {
    "remembered": "Answers that may be given again.",
    "runs": "Runs that equal requests may join.",
    "waiting": "Requests that wait for such a run.",
    "unclaimed_wei": "Wei paid for runs whose first client had left.",
}


@dataclass(frozen=True, slots=True)
class Gauges:
    """What is looked up only when somebody asks."""

    in_flight: Callable[[], int]
    waiting: Callable[[], int]
    live_keys: Callable[[], int]
    stored_images: Callable[[], int]
    stored_bytes: Callable[[], int]
    #: Orchestrators by state.
    orchestrators: Callable[[], Mapping[str, int]]
    #: Deposit, reserve and what hangs on them, by name; nothing off-chain.
    payments: Callable[[], Mapping[str, int]] = dict
    #: By what they came to; nothing where none are made.
    spot_checks: Callable[[], Mapping[str, int]] = dict
    #: Late jobs by what became of them; nothing where they are left alone.
    hedges: Callable[[], Mapping[str, int]] = dict
    #: Of `_REPEATS`; nothing where no answer is given again.
    repeats: Callable[[], Mapping[str, int]] = dict


class Metrics:
    """One registry per gateway; nothing global, so that tests and embedders can have several."""

    def __init__(self, gauges: Gauges) -> None:
        self._registry = CollectorRegistry()
        self._spent = 0
        ProcessCollector(registry=self._registry)
        self._looked = _Looked(gauges)
        self._registry.register(self._looked)
        self._requests = Counter(
            "limner_gateway_requests",
            "Finished requests; code is empty for successes.",
            ("route", "status", "code"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "limner_gateway_request_seconds",
            "Delivered requests for images, from their head to their answer.",
            ("route",),
            buckets=_REQUEST_BUCKETS,
            registry=self._registry,
        )
        self._own_seconds = Histogram(
            "limner_gateway_overhead_seconds",
            "The gateway's own share of a delivered request for images.",
            ("route",),
            buckets=_OWN_BUCKETS,
            registry=self._registry,
        )
        self._waits = Histogram(
            "limner_gateway_wait_seconds",
            "Time in line of requests that had to wait for a free place.",
            buckets=_REQUEST_BUCKETS,
            registry=self._registry,
        )
        self._attempts = Counter(
            "limner_gateway_attempts",
            "Orders sent to orchestrators by what became of them.",
            ("outcome",),
            registry=self._registry,
        )
        self._cache = Counter(
            "limner_gateway_cache",
            "Delivered requests by how the memory of earlier answers was used.",
            ("use",),
            registry=self._registry,
        )
        self._uses: dict[str, Counter] = {}
        self._children: dict[tuple[str, int, str], Counter] = {}
        self._timed: dict[str, tuple[Histogram, Histogram]] = {}
        self._outcomes: dict[str, Counter] = {}

    @property
    def spent_wei(self) -> int:
        """Wei paid since the start."""
        return self._spent

    def finished(
        self, exchange: Exchange, status: int, seconds: float, own_seconds: float
    ) -> None:
        """Count one request (`gateway.api.frontend.Watcher`)."""
        label = (exchange.route, status, exchange.code)
        child = self._children.get(label)
        if child is None:
            child = self._children[label] = self._requests.labels(*label)
        child.inc()
        if exchange.paid is not None and not exchange.code:
            self._spent += exchange.paid
            whole, own = self._times(exchange.route)
            whole.observe(seconds)
            own.observe(own_seconds)
            if exchange.cache:
                self._note_use(exchange.cache)
        if exchange.trail.waited:
            self._waits.observe(exchange.trail.waited)
        for attempt in exchange.trail.attempts:
            tried = self._outcomes.get(attempt.outcome)
            if tried is None:
                tried = self._attempts.labels(attempt.outcome)
                self._outcomes[attempt.outcome] = tried
            tried.inc()

    def _note_use(self, use: str) -> None:
        child = self._uses.get(use)
        if child is None:
            child = self._uses[use] = self._cache.labels(use)
        child.inc()

    def _times(self, route: str) -> tuple[Histogram, Histogram]:
        found = self._timed.get(route)
        if found is None:
            found = self._seconds.labels(route), self._own_seconds.labels(route)
            self._timed[route] = found
        return found

    async def render(self) -> bytes:
        """Text exposition format 0.0.4."""
        self._looked.look(self._spent)
        # On a thread: the process's own figures are read out of /proc.
        return await to_thread(generate_latest, self._registry)


class _Looked(Collector):
    """Figures taken on the event loop, where they change, and rendered elsewhere."""

    def __init__(self, gauges: Gauges) -> None:
        self._gauges = gauges
        self._families: tuple[Metric, ...] = ()

    @override
    def collect(self) -> Iterable[Metric]:
        return self._families

    def look(self, spent: int) -> None:
        gauges = self._gauges
        plain = (
            ("in_flight", "Text-to-image requests under way.", gauges.in_flight),
            ("waiting", "Requests waiting for a free orchestrator.", gauges.waiting),
            ("live_keys", "Keys neither revoked nor expired.", gauges.live_keys),
            ("stored_images", "Images in the store.", gauges.stored_images),
            ("stored_image_bytes", "Bytes of images in the store.", gauges.stored_bytes),
        )
        money = [
            GaugeMetricFamily(f"limner_gateway_{name}", _MONEY[name], amount)
            for name, amount in gauges.payments().items()
        ]
        repeats = [
            GaugeMetricFamily(f"limner_gateway_repeats_{name}", _REPEATS[name], count)
            for name, count in gauges.repeats().items()
        ]
        paid = "Wei paid to orchestrators since the start."
        states = GaugeMetricFamily(
            "limner_gateway_orchestrators", "Orchestrators by state.", labels=("state",)
        )
        for state, count in gauges.orchestrators().items():
            states.add_metric((state,), count)
        checks = CounterMetricFamily(
            "limner_gateway_spot_checks",
            "Deliveries that were made again elsewhere, by what that came to.",
            labels=("finding",),
        )
        for finding, count in gauges.spot_checks().items():
            checks.add_metric((finding,), count)
        late = CounterMetricFamily(
            "limner_gateway_hedges",
            "Late jobs, by who of the two orchestrators that were asked was sooner.",
            labels=("fate",),
        )
        for fate, count in gauges.hedges().items():
            late.add_metric((fate,), count)
        self._families = (
            *(
                GaugeMetricFamily(f"limner_gateway_{name}", text, ask())
                for name, text, ask in plain
            ),
            CounterMetricFamily("limner_gateway_spent_wei", paid, spent),
            states,
            checks,
            late,
            *money,
            *repeats,
        )
