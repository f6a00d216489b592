"""A gateway that is killed again and again answers each request once, and charges for it once."""

import asyncio
import sqlite3
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
#: Of requests, and of jobs.
COUNT = 30


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


def is_ok(status: int, _: Any) -> bool:
    return status == 200


class Requests:
    """So many, each repeated by its idempotency key until it is answered."""

    def __init__(self, client: Client, count: int) -> None:
        self._client = client
        self._count = count
        self._answers: list[Any] = []

    async def ask(self) -> None:
        self._answers = [told for told, _ in await self._all()]

    async def check(self, http: aiohttp.ClientSession) -> None:
        """Another repeat of each has the same answer, and every image is there."""
        again = await self._all()
        assert [told for told, _ in again] == self._answers
        assert all(is_repeat for _, is_repeat in again)
        urls = {told["images"][0]["url"] for told in self._answers}
        assert len(urls) == self._count
        for url in urls:
            async with http.get(url) as image:
                assert image.status == 200

    async def _all(self) -> list[tuple[Any, bool]]:
        return await asyncio.gather(*map(self._one, range(self._count)))

    async def _one(self, number: int) -> tuple[Any, bool]:
        path = "/text-to-image"
        return await self._client.ask("POST", path, is_ok, Idempotency_Key=f"key-{number}")


class Jobs:
    """So many, each looked at until it has ended and its webhook was told."""

    def __init__(self, client: Client, count: int, receiver: Receiver) -> None:
        self._client = client
        self._count = count
        self._receiver = receiver
        self._failures = [500, 302, 503] * 10
        receiver.script.extend(self._failures)
        self._ends: dict[str, Any] = {}

    async def ask(self) -> None:
        ends = await asyncio.gather(*map(self._one, range(self._count)))
        self._ends = {told["id"]: told for told in ends}

    def check(self) -> None:
        """Each ended well, and its webhook was told just that, by one id however often."""
        assert len(self._ends) == self._count
        assert {told["fee"] for told in self._ends.values()} == {str(FEE)}
        for told in self._receiver.told:
            assert told.is_signed
            assert told.body == self._ends[told.body["id"]]
        ids = {(told.body["id"], told.message_id) for told in self._receiver.told}
        assert len(ids) == len({name for name, _ in ids}) == self._count

    async def _one(self, number: int) -> Any:
        name = f"job-of-the-test-{number:04}"
        await self._client.ask(
            "POST",
            "/text-to-image",
            lambda status, _: status == 202,
            X_Request_Id=name,
            Idempotency_Key=name,
            Prefer="respond-async",
            Limner_Webhook=f"{self._receiver.url}/{name}",
        )
        told, _ = await self._client.ask(
            "GET", f"/jobs/{name}", lambda _, told: told.get("state") == "done"
        )
        taken = slice(len(self._failures), None)
        await until(lambda: name in {one.body["id"] for one in self._receiver.told[taken]}, 60)
        return told


@pytest.mark.slow
@pytest.mark.timeout(150)
async def test_across_kills_all_is_answered_and_charged_once(tmp_path: Path) -> None:
    stub = StubOrchestrator({"m": StubModel()}, capacity=6, job_seconds=0.03)
    async with (
        running(stub),
        gateway_over(tmp_path, stub) as gateway,
        aiohttp.ClientSession() as http,
    ):
        key_id = gateway.key.split("_")[1]
        secret = await asyncio.to_thread(gateway.run_tool, "keys", "webhook-secret", key_id)
        client = Client(http, gateway)
        async with receiving(secret.strip()) as receiver:
            requests, jobs = Requests(client, COUNT), Jobs(client, COUNT, receiver)
            async with asyncio.TaskGroup() as group:
                group.create_task(requests.ask())
                group.create_task(jobs.ask())
                group.create_task(kill_now_and_then(gateway, stub, 2 * COUNT))
            assert client.cut_off, "the kills came too late to cut anything"
            await requests.check(http)
            jobs.check()
    accepted = gateway_requests(gateway)
    settled = [request for request in accepted if request.state == "settled"]
    assert len(settled) == 2 * COUNT
    assert sum(request.fee for request in settled) == 2 * COUNT * FEE
    assert_nothing_is_paid_twice(accepted)
    with closing(sqlite3.connect(tmp_path / "data" / "gateway.sqlite3")) as database:
        left = database.execute("SELECT count(body), count(webhook), count(*) FROM promises")
        assert left.fetchone() == (0, 0, 2 * COUNT), "a prompt or an address outlived its job"
