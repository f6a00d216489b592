"""Both sides' books, read from their databases as an auditor would, and whether they agree."""

import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.local_network.network import Gateway, LocalNetwork, Node


@dataclass(frozen=True, slots=True)
class Bought:
    """An attempt as the gateway's journal has it; `state` is None while it has no outcome."""

    attempt_id: str
    request_id: str
    number: int
    orchestrator: str
    state: str | None
    fee: int
    node_job_id: str


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as the gateway's journal has it; `state` is None while it is not settled."""

    request_id: str
    state: str | None
    fee: int
    attempts: tuple[Bought, ...]


@dataclass(frozen=True, slots=True)
class Sold:
    """A job as the node's journal has it; `state` is None while it has no end."""

    job_id: str
    state: str | None
    charged: int


def _rows(database: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=20)) as connection:
        return connection.execute(query).fetchall()


def wait_for_the_database(gateway: Gateway, seconds: float = 20) -> None:
    """Return once a running gateway's database has all that its write-ahead log had."""
    log = gateway.data_dir / "journal.ahead"
    deadline = time.monotonic() + seconds
    while gateway.program.is_running and any(log.read_bytes()[:4]):
        if time.monotonic() > deadline:
            raise AssertionError("the database does not follow the write-ahead log")
        time.sleep(0.01)


def gateway_requests(gateway: Gateway) -> list[Asked]:
    """Every request ever accepted, the oldest first."""
    wait_for_the_database(gateway)
    database = gateway.data_dir / "gateway.sqlite3"
    attempts = [
        Bought(attempt, request, number, uri, state, int(fee or 0), node_job or "")
        for attempt, request, number, uri, state, fee, node_job in _rows(
            database,
            "SELECT a.attempt_id, a.request_id, a.number, a.orchestrator, o.state, o.fee,"
            " o.node_job_id FROM attempts a LEFT JOIN outcomes o USING (attempt_id)"
            " ORDER BY a.number",
        )
    ]
    return [
        Asked(request, state, int(fee or 0), tuple(a for a in attempts if a.request_id == request))
        for request, state, fee in _rows(
            database,
            "SELECT r.request_id, s.state, s.fee FROM requests r"
            " LEFT JOIN settlements s USING (request_id) ORDER BY r.accepted_at",
        )
    ]


def node_jobs(node: Node) -> list[Sold]:
    """Every job ever accepted, the oldest first."""
    database = node.data_dir / "node.sqlite"
    return [
        Sold(job, state, int(charged or 0))
        for job, state, charged in _rows(
            database,
            "SELECT j.job_id, e.state, e.charged FROM jobs j LEFT JOIN ends e USING (job_id)"
            " ORDER BY j.accepted_at",
        )
    ]


def assert_every_job_has_its_end(network: LocalNetwork) -> None:
    for request in gateway_requests(network.gateway):
        assert request.state is not None, request
        assert all(attempt.state is not None for attempt in request.attempts), request
    for node in network.nodes:
        assert all(job.state is not None for job in node_jobs(node))


def wait_for_every_end(network: LocalNetwork, seconds: float = 20) -> None:
    """Return once nothing is under way any more: those who left took their jobs with them."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        open_requests = any(r.state is None for r in gateway_requests(network.gateway))
        open_jobs = any(job.state is None for node in network.nodes for job in node_jobs(node))
        if not open_requests and not open_jobs:
            return
        time.sleep(0.1)
    raise AssertionError("a job has no end")


def assert_nothing_is_paid_twice(requests: Sequence[Asked]) -> None:
    for request in requests:
        delivered = [attempt for attempt in request.attempts if attempt.state == "succeeded"]
        assert len(delivered) == (request.state == "settled"), request
        assert request.fee == sum(attempt.fee for attempt in request.attempts), request
        assert all(a.fee == 0 for a in request.attempts if a.state != "succeeded"), request


def assert_the_books_balance(network: LocalNetwork) -> None:
    """To the wei, job by job: nobody died between delivery and settlement."""
    assert_every_job_has_its_end(network)
    requests = gateway_requests(network.gateway)
    assert_nothing_is_paid_twice(requests)
    for node in network.nodes:
        bought = {
            attempt.node_job_id: attempt.fee
            for request in requests
            for attempt in request.attempts
            if attempt.orchestrator == node.url and attempt.fee
        }
        sold = {job.job_id: job.charged for job in node_jobs(node) if job.charged}
        assert bought == sold, node.url
