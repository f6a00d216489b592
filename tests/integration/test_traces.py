"""One request is one trace: in the answer, in both sides' lines, and in what OpenTelemetry gets."""

import io
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from network.runtime import log
from tests.gateway.test_app import BODY, Stage, serving, settings_for
from tests.node.fakes import MODEL
from tests.node.nodes import running_node

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


@asynccontextmanager
async def both(folder: Path) -> AsyncIterator[Stage]:
    """A gateway that buys from a node of ours."""
    async with (
        running_node(folder / "node") as node,
        serving(settings_for(folder / "gateway", node.url, default_model=MODEL)) as stage,
    ):
        yield stage


async def ask(stage: Stage, **headers: str) -> aiohttp.ClientResponse:
    sent = {"Authorization": f"Bearer {stage.key}", **headers}
    async with stage.client.post(
        f"{stage.gateway.url}/text-to-image", json=BODY, headers=sent
    ) as response:
        await response.read()
        return response


@pytest.fixture
def said() -> io.StringIO:
    stream = io.StringIO()
    log.configure("info", "json", stream)
    return stream


def lines(said: io.StringIO, event: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in said.getvalue().splitlines()]
    return [line for line in found if line["event"] == event]


async def test_both_sides_tell_the_same_ids_in_one_line_each(
    tmp_path: Path, said: io.StringIO
) -> None:
    async with both(tmp_path) as stage:
        answer = await ask(stage, traceparent=PARENT)
        assert answer.status == 200
    [ours] = lines(said, "request")
    [theirs] = lines(said, "job")
    assert ours["trace_id"] == theirs["trace_id"] == TRACE
    assert ours["attempt_id"] == theirs["attempt_id"]
    assert ours["node_job_id"] == theirs["job_id"]
    assert ours["job_id"] == answer.headers["Limner-Job-Id"]
    assert ours["request_id"] == answer.headers["X-Request-Id"]
    assert re.fullmatch(f"00-{TRACE}-[0-9a-f]{{16}}-01", answer.headers["traceparent"])
    assert answer.headers["traceparent"] != PARENT


async def test_without_a_trace_of_the_clients_one_is_drawn(
    tmp_path: Path, said: io.StringIO
) -> None:
    async with both(tmp_path) as stage:
        first, second = (
            await ask(stage),
            await ask(stage, traceparent=PARENT.replace("00-", "ff-")),
        )
    traces = [answer.headers["traceparent"].split("-")[1] for answer in (first, second)]
    assert len({*traces, TRACE}) == 3
    assert [line["trace_id"] for line in lines(said, "request")] == traces
    assert [line["trace_id"] for line in lines(said, "job")] == traces


async def test_a_kept_answers_job_is_of_the_same_trace_and_counted_once(
    tmp_path: Path, said: io.StringIO
) -> None:
    async with both(tmp_path) as stage:
        key = {"Idempotency-Key": "once", "traceparent": PARENT}
        assert [(await ask(stage, **key)).status for _ in range(2)] == [200, 200]
        async with stage.client.get(f"{stage.gateway.admin_url}/history") as response:
            whole = (await response.json())["whole"]
    jobs = lines(said, "job")
    assert {line["trace_id"] for line in jobs} == {TRACE}
    assert len([line for line in jobs if "outcome" in line]) == 1, "the node's"
    assert (whole["good"], whole["bad"]) == (1, 0)


async def test_spans_of_both_sides_hang_together(
    tmp_path: Path, said: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    spans: list[dict[str, Any]] = []
    async with collector(spans) as url:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        async with both(tmp_path) as stage:
            assert (await ask(stage, traceparent=PARENT)).status == 200
            assert (await ask(stage, traceparent=PARENT[:-1] + "0")).status == 200
            broken = await ask(stage, Authorization="Bearer wrong")
            assert broken.status == 401
    by_name = {(span["service"], span["name"]): span for span in spans if span["trace"] == TRACE}
    assert len(spans) == 4, "one request was not to be sampled, one was refused"
    request = by_name["limner-gateway", "request"]
    attempt = by_name["limner-gateway", "attempt"]
    job = by_name["limner-node", "job"]
    assert request["parent"] == "00f067aa0ba902b7"
    assert attempt["parent"] == request["span"]
    assert job["parent"] == attempt["span"]
    assert request["began"] <= attempt["began"] <= attempt["ended"] <= request["ended"]
    assert attempt["facts"]["limner.outcome"] == "delivered"
    assert request["facts"]["limner.request_id"] == lines(said, "request")[0]["request_id"]
    assert "a boat" not in str(spans)
    assert stage.key not in str(spans)


@asynccontextmanager
async def collector(spans: list[dict[str, Any]]) -> AsyncIterator[str]:
    """An OTLP receiver on a loopback socket."""

    async def take(request: web.Request) -> web.Response:
        told = ExportTraceServiceRequest.FromString(await request.read())
        for group in told.resource_spans:
            service = {one.key: one.value.string_value for one in group.resource.attributes}
            for scope in group.scope_spans:
                spans.extend(read(span, service["service.name"]) for span in scope.spans)
        return web.Response()

    app = web.Application()
    app.router.add_post("/v1/traces", take)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def read(span: Any, service: str) -> dict[str, Any]:
    return {
        "service": service,
        "name": span.name,
        "trace": span.trace_id.hex(),
        "span": span.span_id.hex(),
        "parent": span.parent_span_id.hex(),
        "began": span.start_time_unix_nano,
        "ended": span.end_time_unix_nano,
        "facts": {one.key: one.value.string_value for one in span.attributes},
    }
