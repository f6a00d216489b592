"""What the operator's monitoring reads, in Prometheus' format."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector
from typing_extensions import override

from network.units import ModelId
from node.accounting.model import Outcome
from node.discovery.hardware import GpuReading
from node.engine.backend import Engine
from node.jobs.board import ModelLoad
from node.jobs.model import JobReport
from node.payments.earning import TicketReport

_SECONDS: Final = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320)


class _Loads(Collector):
    """Shows how busy each model is, as of the scrape's beginning."""

    def __init__(self) -> None:
        self.latest: Mapping[ModelId, ModelLoad] = {}

    @override
    def collect(self) -> Iterable[GaugeMetricFamily]:
        running = GaugeMetricFamily(
            "limner_node_jobs_running", "Jobs in the engine", labels=["model"]
        )
        waiting = GaugeMetricFamily(
            "limner_node_jobs_waiting", "Jobs in the queue", labels=["model"]
        )
        free = GaugeMetricFamily("limner_node_slots_free", "Slots nobody holds", labels=["model"])
        for model_id, load in self.latest.items():
            running.add_metric([model_id], load.running)
            waiting.add_metric([model_id], load.waiting)
            free.add_metric([model_id], load.free)
        return running, waiting, free


class _Gpus(Collector):
    """Shows the devices as they were last read."""

    def __init__(self, latest: Callable[[], Iterable[GpuReading]]) -> None:
        self._latest = latest

    @override
    def collect(self) -> Iterable[GaugeMetricFamily]:
        use = GaugeMetricFamily(
            "limner_node_gpu_utilization_ratio", "Share of the time it computes", labels=["gpu"]
        )
        total = GaugeMetricFamily("limner_node_gpu_memory_bytes", "Memory", labels=["gpu"])
        used = GaugeMetricFamily("limner_node_gpu_memory_used_bytes", "In use", labels=["gpu"])
        for index, reading in enumerate(self._latest()):
            label = [str(index)]
            use.add_metric(label, reading.utilization_compute / 100)
            total.add_metric(label, reading.gpu.memory_total)
            used.add_metric(label, reading.gpu.memory_total - reading.gpu.memory_free)
        return use, total, used


class _Tickets(Collector):
    """Shows what winning tickets came to, as of the scrape's beginning."""

    def __init__(self, report: TicketReport) -> None:
        self.latest = report

    @override
    def collect(self) -> Iterable[GaugeMetricFamily]:
        total = self.latest.total
        # Floats, as every metric: `limner-node redemptions` has the exact sums.
        wei = GaugeMetricFamily(
            "limner_node_tickets_wei", "Winning tickets by what became of them", labels=["state"]
        )
        wei.add_metric(["pending"], float(total.pending))
        wei.add_metric(["redeemed"], float(total.redeemed))
        wei.add_metric(["written_off"], float(total.written_off))
        wei.add_metric(["gas"], float(total.gas))
        waiting = GaugeMetricFamily(
            "limner_node_tickets_waiting", "Winning tickets not redeemed yet"
        )
        waiting.add_metric([], sum(self.latest.waiting.values()))
        late = GaugeMetricFamily(
            "limner_node_tickets_late", "Winning tickets about to expire unredeemed"
        )
        late.add_metric([], self.latest.late)
        return wei, waiting, late


class Metrics:
    """The node's counters. Labels come from closed sets: models, outcomes, reasons of ours."""

    def __init__(
        self, version: str, engine: Engine, loads: Callable[[], Mapping[ModelId, ModelLoad]]
    ) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        self._gauges = _Loads()
        self._registry.register(self._gauges)
        self._loads = loads
        self._jobs = self._counter("jobs", "Accepted jobs by how they ended", "model", "outcome")
        self._images = self._counter("images", "Images delivered", "model")
        self._pixels = self._counter("pixels", "Pixels delivered", "model")
        # A float, as every metric: a rate to look at. The journal has the exact sums.
        self._earned = self._counter("earned_wei", "Wei charged, rounded", "model")
        self._refusals = self._counter("refusals", "Requests refused before work", "reason")
        self._restarts = self._counter("worker_restarts", "Starts of a new worker after the first")
        self._run = self._histogram("job_run_seconds", "Time in the engine")
        self._wait = self._histogram("job_wait_seconds", "Time in the queue")
        Gauge("version", "Always 1", ["app", "version"], registry=self._registry).labels(
            "limner-node", version
        ).set(1)
        self._engine = engine
        self._worker_pid = engine.worker_pid()
        self._report: Callable[[], Awaitable[TicketReport]] | None = None
        self._tickets: _Tickets | None = None
        self._told: Callable[[str], None] | None = None

    def tell_refusals(self, listener: Callable[[str], None]) -> None:
        """Tell `listener` the reason of every refusal, too, from now on."""
        self._told = listener

    def refused(self, reason: str) -> None:
        """Count a refusal."""
        self._refusals.labels(reason).inc()
        if self._told is not None:
            self._told(reason)

    def job_ended(self, report: JobReport) -> None:
        """Count the end of a job."""
        job, ending = report.job, report.ending
        self._jobs.labels(job.model_id, ending.outcome.value).inc()
        self._run.labels(job.model_id).observe(ending.run_seconds)
        self._wait.labels(job.model_id).observe(ending.waited_seconds)
        if ending.outcome is Outcome.DELIVERED:
            self._images.labels(job.model_id).inc(job.images)
            self._pixels.labels(job.model_id).inc(job.pixels)
            self._earned.labels(job.model_id).inc(float(report.charged))

    def engine_changed(self) -> None:
        """Notice a new worker process."""
        pid = self._engine.worker_pid()
        if pid is not None and pid != self._worker_pid:
            if self._worker_pid is not None:
                self._restarts.inc()
            self._worker_pid = pid

    def watch_gpus(self, latest: Callable[[], Iterable[GpuReading]]) -> None:
        """Show the devices, too, from now on."""
        self._registry.register(_Gpus(latest))

    def watch_tickets(self, report: Callable[[], Awaitable[TicketReport]]) -> None:
        """Show winning tickets, too, from now on."""
        self._report = report

    async def exposition(self) -> bytes:
        """Return the metrics as text; those of the process are read from disk, on a thread."""
        self._gauges.latest = self._loads()
        if self._report is not None:
            found = await self._report()
            if self._tickets is None:
                self._tickets = _Tickets(found)
                self._registry.register(self._tickets)
            self._tickets.latest = found
        return await asyncio.to_thread(generate_latest, self._registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"limner_node_{name}", text, labels, registry=self._registry)

    def _histogram(self, name: str, text: str) -> Histogram:
        return Histogram(
            f"limner_node_{name}", text, ["model"], buckets=_SECONDS, registry=self._registry
        )
