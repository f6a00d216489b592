"""A gateway that is killed again and again answers each request once, and charges for it once."""

import asyncio
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from scripts.local_network.network import Gateway, start_gateway
from tests.gateway.promises.receiver import Receiver, receiving
from tests.gateway.stub_orchestrator import StubModel, StubOrchestrator, running
from tests.gateway.test_app import BODY
from tests.gateway.waiting import until
from tests.integration.journals import assert_nothing_is_paid_twice, gateway_requests

#: What a request of BODY costs: 64 x 64 pixels at 1 wei.
FEE = 64 * 64
KILLS = 2


@asynccontextmanager
async def gateway_over(folder: Path, stub: StubOrchestrator) -> AsyncIterator[Gateway]:
    gateway = await asyncio.to_thread(
        start_gateway,
        folder,
        orchestrators=[stub.uri],
        settings={
            "default_model": "m",
            "admin_listen": "",
            "jobs.private_webhooks": True,
            "jobs.webhook_first_pause_seconds": 0.05,
        },
    )
    try:
        yield gateway
    finally:
        await asyncio.to_thread(gateway.program.stop)


async def kill_now_and_then(gateway: Gateway, stub: StubOrchestrator, count: int) -> None:
    """In the midst of `count` jobs: whenever another part of them is delivered."""
    for part in range(1, KILLS + 1):
        while stub.delivered < part * count // (KILLS + 2):  # noqa: ASYNC110  no event
            await asyncio.sleep(0.002)
        gateway.program.kill()
        await asyncio.to_thread(gateway.start)


class Client:
    """Asks until it is answered, as somebody on a bad line does."""

    def __init__(self, http: aiohttp.ClientSession, gateway: Gateway) -> None:
        self._http = http
        self._gateway = gateway
        self.cut_off = 0

    async def ask(
        self, method: str, path: str, is_answer: Callable[[int, Any], bool], **headers: str
    ) -> tuple[Any, bool]:
        """The answer's body, and whether it is a repeated one."""
        sent = {"Authorization": f"Bearer {self._gateway.key}"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        while True:
            try:
                async with self._http.request(
                    method,
                    self._gateway.url + path,
                    json=BODY if method == "POST" else None,
                    headers=sent,
                ) as answer:
                    told = await answer.json()
                    if is_answer(answer.status, told):
                        return told, "Idempotency-Replayed" in answer.headers
                    assert answer.status in {200, 429, 503}, told
            except aiohttp.ClientError:
                self.cut_off += 1
            await asyncio.sleep(0.02)


def ids_told(receiver: Receiver, failures: int) -> set[str]:
    """Of the jobs whose webhook was taken."""
    return {one.body["id"] for one in receiver.told[failures:]}


def is_ok(status: int, _: Any) -> bool:
    return status == 200


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_requests_repeated_across_kills_run_and_are_charged_once(tmp_path: Path) -> None:
    count = 60
    stub = StubOrchestrator({"m": StubModel()}, capacity=6, job_seconds=0.03)
    async with (
        running(stub),
        gateway_over(tmp_path, stub) as gateway,
        aiohttp.ClientSession() as http,
    ):
        client = Client(http, gateway)

        async def one(number: int) -> tuple[Any, bool]:
            path = "/text-to-image"
            return await client.ask("POST", path, is_ok, Idempotency_Key=f"key-{number}")

        async with asyncio.TaskGroup() as group:
            asking = [group.create_task(one(number)) for number in range(count)]
            group.create_task(kill_now_and_then(gateway, stub, count))
        first = [task.result()[0] for task in asking]
        again = await asyncio.gather(*(one(number) for number in range(count)))
        assert client.cut_off, "the kills came too late to cut anything"
        assert [told for told, _ in again] == first
        assert all(is_repeat for _, is_repeat in again)
        urls = [told["images"][0]["url"] for told in first]
        assert len(set(urls)) == count
        for url in urls:
            async with http.get(url) as image:
                assert image.status == 200
    requests = gateway_requests(gateway)
    settled = [request for request in requests if request.state == "settled"]
    assert len(settled) == count
    assert sum(request.fee for request in settled) == count * FEE
    assert_nothing_is_paid_twice(requests)
    # What was cut off between a node's answer and its settlement ran once more; nothing else did.
    assert stub.delivered - count <= KILLS * stub.capacity


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_jobs_and_their_webhooks_survive_kills(tmp_path: Path) -> None:
    count = 24
    stub = StubOrchestrator({"m": StubModel()}, capacity=4, job_seconds=0.05)
    async with (
        running(stub),
        gateway_over(tmp_path, stub) as gateway,
        aiohttp.ClientSession() as http,
    ):
        key_id = gateway.key.split("_")[1]
        secret = await asyncio.to_thread(gateway.run_tool, "keys", "webhook-secret", key_id)
        client = Client(http, gateway)
        async with receiving(secret.strip()) as receiver:
            failures = [500, 302, 503] * 10
            receiver.script.extend(failures)

            async def one(number: int) -> Any:
                name = f"job-of-the-test-{number:04}"
                await client.ask(
                    "POST",
                    "/text-to-image",
                    lambda status, _: status == 202,
                    X_Request_Id=name,
                    Idempotency_Key=name,
                    Prefer="respond-async",
                    Limner_Webhook=f"{receiver.url}/{name}",
                )
                told, _ = await client.ask(
                    "GET", f"/jobs/{name}", lambda _, told: told.get("state") == "done"
                )
                await until(lambda: name in ids_told(receiver, len(failures)), 60)
                return told

            async with asyncio.TaskGroup() as group:
                asking = [group.create_task(one(number)) for number in range(count)]
                group.create_task(kill_now_and_then(gateway, stub, count))
            ended = {task.result()["id"]: task.result() for task in asking}
            assert client.cut_off, "the kills came too late to cut anything"
            assert len(ended) == count
            assert {told["fee"] for told in ended.values()} == {str(FEE)}
            for told in receiver.told:
                assert told.is_signed
                assert told.body == ended[told.body["id"]]
            ids = Counter((told.body["id"], told.message_id) for told in receiver.told)
            assert len(ids) == len({name for name, _ in ids}) == count
    requests = gateway_requests(gateway)
    assert sum(request.state == "settled" for request in requests) == count
    assert_nothing_is_paid_twice(requests)
    with closing(sqlite3.connect(tmp_path / "data" / "gateway.sqlite3")) as database:
        left = database.execute("SELECT count(body), count(webhook), count(*) FROM promises")
        assert left.fetchone() == (0, 0, count), "a prompt or an address outlived its job"
