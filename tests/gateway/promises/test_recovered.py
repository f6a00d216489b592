"""A gateway that is killed while a node works for a promise has it made once, and pays for it once."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from typing_extensions import override

from network.units import ModelId
from node.engine.work import ImageJob, ImageResult, Progress
from scripts.local_network.network import Gateway, free_port, start_gateway
from tests.gateway.waiting import until, until_async
from tests.integration.journals import assert_nothing_is_paid_twice, gateway_requests
from tests.node.fakes import MODEL, FakeEngine
from tests.node.nodes import running_node

BODY: dict[str, Any] = {
    "prompt": "a small red circle",
    "model_id": MODEL,
    "width": 64,
    "height": 64,
    "num_inference_steps": 2,
}
FEE = 64 * 64 * 5 // 2
KEY, NAME = "key-of-the-request", "job-of-the-test-0001"


class GatedEngine(FakeEngine):
    """Makes nothing before the gate is open."""

    def __init__(self, model: ModelId = MODEL) -> None:
        super().__init__(model)
        self.gate = asyncio.Event()
        self.delivered = 0

    @override
    async def generate(
        self, job: ImageJob, on_progress: Callable[[Progress], None]
    ) -> ImageResult:
        self.jobs.append(job)
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled.append(job)
            raise
        self.jobs.remove(job)  # as it is noted once more now
        result = await super().generate(job, on_progress)
        self.delivered += 1
        return result


@dataclass
class Wire:
    """What leads to a node: its connections can be held, so that neither end hears of the other any more."""

    url: str
    target: int = 0
    open: set[asyncio.StreamWriter] = field(default_factory=set)
    held: set[asyncio.StreamWriter] = field(default_factory=set)

    def hold(self) -> None:
        """All that are open now; those made later are good."""
        self.held |= self.open

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self.target)
        ends = {writer, back}
        self.open |= ends
        try:
            await asyncio.gather(self._pump(reader, back), self._pump(there, writer))
        except OSError:
            pass
        finally:
            self.open -= ends
            for end in ends:
                end.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(64 * 1024):
            if writer not in self.held:
                writer.write(data)
                await writer.drain()
        while writer in self.held:  # noqa: ASYNC110  what is held has no end
            await asyncio.sleep(0.01)
        writer.transport.abort()


@asynccontextmanager
async def wire() -> AsyncIterator[Wire]:
    found = Wire("")
    server = await asyncio.start_server(found.carry, "127.0.0.1", 0)
    found.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield found
    finally:
        found.held.clear()
        for end in tuple(found.open):
            end.transport.abort()
        server.close()
        await server.wait_closed()
        await until(lambda: not found.open)


@dataclass
class Stage:
    """A gateway process, and the node that it buys from by `wire`."""

    folder: Path
    gateway: Gateway
    wire: Wire
    engine: GatedEngine
    http: aiohttp.ClientSession
    asking: "asyncio.Future[Any]" = field(init=False)

    async def ask(self) -> Any:
        """The request, repeated until it is answered; how a client on a bad line asks."""
        while True:
            try:
                async with self._post(Idempotency_Key=KEY) as answer:
                    if answer.status == 200:
                        return await answer.json()
                    assert answer.status == 503, await answer.text()
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.05)

    async def begin_job(self) -> None:
        async with self._post(X_Request_Id=NAME, Prefer="respond-async") as answer:
            assert answer.status == 202, await answer.text()

    async def job(self) -> Any:
        """How the job ended, once it has."""
        url, ended = f"{self.gateway.url}/jobs/{NAME}", {}

        async def is_over() -> bool:
            async with self.http.get(url, headers=self._sent()) as answer:
                ended.update(await answer.json())
            return ended.get("state") in {"done", "failed"}

        await until_async(is_over, 30)
        return ended

    async def kill(self) -> None:
        self.gateway.program.kill()

    async def restart(self) -> None:
        await asyncio.to_thread(self.gateway.start)

    def sold(self) -> list[tuple[str, int]]:
        """State and charge of each job that has an end in the node's books."""
        query = "SELECT state, charged FROM ends"
        with closing(sqlite3.connect(self.folder / "node" / "data" / "node.sqlite")) as books:
            return [(state, int(charged)) for state, charged in books.execute(query)]

    def _sent(self, **headers: str) -> dict[str, str]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return {"Authorization": f"Bearer {self.gateway.key}", **named}

    def _post(self, **headers: str) -> Any:
        url = f"{self.gateway.url}/text-to-image"
        return self.http.post(url, json=BODY, headers=self._sent(**headers))


@asynccontextmanager
async def stage_in(folder: Path) -> AsyncIterator[Stage]:
    """Both requests are at the node, and nothing is made yet."""
    engine = GatedEngine()
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        line = await enter(wire())
        line.target = free_port()
        listen = f"http://127.0.0.1:{line.target}"
        await enter(running_node(folder / "node", engine, listen=listen, service_uri=line.url))
        gateway = await asyncio.to_thread(
            start_gateway,
            folder / "gateway",
            orchestrators=[line.url],
            settings={"default_model": MODEL, "admin_listen": "", "images.sweep_seconds": 1},
        )
        # Another program than this by then.
        stack.push_async_callback(lambda: asyncio.to_thread(gateway.program.stop))
        http = await enter(aiohttp.ClientSession())
        stage = Stage(folder, gateway, line, engine, http)
        await stage.begin_job()
        asking = asyncio.ensure_future(stage.ask())
        stack.callback(asking.cancel)
        await until(lambda: len(engine.jobs) == 2)
        stage.asking = asking
        yield stage


def seeds_of(engine: GatedEngine) -> set[tuple[int, ...]]:
    return {job.seeds for job in engine.jobs}


async def assert_all_is_well(stage: Stage) -> None:
    """Both are answered, each was made once, and both sides' books say so."""
    answer, job = await stage.asking, await stage.job()
    assert (job["state"], job["fee"]) == ("done", str(FEE))
    urls = [answer["images"][0]["url"], job["result"]["images"][0]["url"]]
    for url in urls:
        async with stage.http.get(url) as image:
            assert image.status == 200
    again = await stage.ask()
    assert again == answer
    assert stage.engine.delivered == 2
    requests = await asyncio.to_thread(gateway_requests, stage.gateway)
    assert_nothing_is_paid_twice(requests)
    assert [one.fee for one in requests if one.state == "settled"] == [FEE, FEE]
    sold = await asyncio.to_thread(stage.sold)
    assert [charged for state, charged in sold if state == "delivered"] == [FEE, FEE]
    bought = {a.node_job_id for one in requests for a in one.attempts if a.state == "succeeded"}
    assert bought <= {job.job_id for job in stage.engine.jobs}


@pytest.mark.timeout(90)
async def test_what_was_delivered_before_the_kill_is_not_made_again(tmp_path: Path) -> None:
    async with stage_in(tmp_path) as stage:
        stage.wire.hold()  # what the node answers reaches nobody
        stage.engine.gate.set()
        await until_async(lambda: has_sold(stage, 2))
        await stage.kill()
        await stage.restart()
        await assert_all_is_well(stage)
        assert len(stage.engine.jobs) == 2
        requests = await asyncio.to_thread(gateway_requests, stage.gateway)
        assert [(one.state, len(one.attempts)) for one in requests] == [("settled", 1)] * 2


@pytest.mark.timeout(90)
async def test_what_a_node_still_works_at_is_waited_for(tmp_path: Path) -> None:
    """It did not notice that its gateway is gone."""
    async with stage_in(tmp_path) as stage:
        stage.wire.hold()
        await stage.kill()
        await stage.restart()
        await asyncio.sleep(0.3)  # both are asked for again
        stage.engine.gate.set()
        await assert_all_is_well(stage)
        assert len(stage.engine.jobs) == 2


@pytest.mark.timeout(90)
async def test_what_the_kill_cancelled_is_made_anew_from_the_same_seed(tmp_path: Path) -> None:
    async with stage_in(tmp_path) as stage:
        seeds = seeds_of(stage.engine)
        await stage.kill()
        await until(lambda: len(stage.engine.cancelled) == 2)
        await stage.restart()
        stage.engine.gate.set()
        await assert_all_is_well(stage)
        assert len(stage.engine.jobs) == 4
        assert seeds_of(stage.engine) == seeds
        states = sorted(state for state, _ in await asyncio.to_thread(stage.sold))
        assert states == ["cancelled", "cancelled", "delivered", "delivered"]


async def has_sold(stage: Stage, count: int) -> bool:
    sold = await asyncio.to_thread(stage.sold)
    return len(sold) == count
