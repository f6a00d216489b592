"""A runner as go-livepeer's worker sees it: at start, under load, when it is busy and when it stops."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from typing_extensions import override

from network.units import ModelId
from network.wire.safety import Safety
from node.container.app import RunningContainer
from node.engine.work import EncodedImage, ImageJob, ImageResult, ModelState, Progress
from tests.node.container.go_worker import GoPanicError, GoWorker, WorkerError
from tests.node.container.runners import TOKEN, called, calling, running, until_active
from tests.node.fakes import MODEL, FakeEngine
from tests.node.nodes import SMALL, eventually

OTHER = ModelId("other/model")
ASKED: dict[str, Any] = {"prompt": "a red circle", **SMALL}


class HeldEngine(FakeEngine):
    """Keeps every job until it is told to let go."""

    def __init__(self) -> None:
        super().__init__()
        self.released = asyncio.Event()

    @override
    async def generate(
        self, job: ImageJob, on_progress: Callable[[Progress], None]
    ) -> ImageResult:
        self.active += 1
        try:
            await self.released.wait()
        finally:
            self.active -= 1
        return await super().generate(job, on_progress)


@asynccontextmanager
async def worker_of(
    container: RunningContainer, *, place: int = 0, token: str = "", period: float = 0.01
) -> AsyncIterator[GoWorker]:
    """go-livepeer's worker, started, that looks after the runner all the time."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        entry = orjson.loads(container.ai_models[place])
        worker = GoWorker(http, entry, token, period)
        await worker.start()
        watching = asyncio.ensure_future(worker.watch())
        try:
            yield worker
            assert not watching.done() or watching.exception() is None
            assert not worker.is_destroyed
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching


async def test_the_printed_line_is_all_it_takes(tmp_path: Path) -> None:
    async with (
        running(tmp_path, container={"token": TOKEN}) as container,
        worker_of(container, token=TOKEN) as worker,
    ):
        assert worker.entry["pipeline"] == "text-to-image"
        assert worker.entry["model_id"] == MODEL
        assert worker.entry["warm"] is True
        assert worker.entry["capacity"] == 2
        assert TOKEN not in "".join(container.ai_models)
        assert worker.version
        images = await worker.text_to_image(**ASKED)
        assert [image["seed"] for image in images] == [7]


async def test_it_waits_for_models_that_load(tmp_path: Path) -> None:
    engine = FakeEngine()
    engine.states[MODEL] = ModelState(MODEL, "loading", 0.5)
    async with running(tmp_path, engine) as container:
        asyncio.get_running_loop().call_later(0.1, engine.change, ModelState(MODEL, "ready", 1.0))
        async with worker_of(container) as worker:
            assert await worker.text_to_image(**ASKED)


async def test_far_more_than_it_can_take_gets_images_or_is_sent_elsewhere_unblamed(
    tmp_path: Path,
) -> None:
    engine = FakeEngine(step_seconds=0.005)
    queue = {"max_waiting": 4, "max_wait_seconds": 30}
    async with running(tmp_path, engine, queue=queue) as container, worker_of(container) as worker:
        jobs = [worker.text_to_image(**ASKED) for _ in range(32)]
        ends = await asyncio.gather(*jobs, return_exceptions=True)
        refusals = [end for end in ends if isinstance(end, WorkerError)]
        assert sum(isinstance(end, list) for end in ends) == 2 + 4
        assert len(refusals) == 32 - 6
        assert {refusal.consequence for refusal in refusals} == {"another is tried"}
        assert engine.most_active == 2
        assert set(worker.healths) == {"OK"}
        assert await worker.text_to_image(**ASKED)


async def test_what_its_clients_do_wrong_never_falls_on_the_orchestrator(tmp_path: Path) -> None:
    wrong: list[dict[str, Any]] = [
        {"prompt": ""},
        {"width": 100},
        {"width": 9000},
        {"num_inference_steps": 5000},
        {"num_images_per_prompt": 99},
        {"seed": -5},
        {"loras": "{"},
    ]
    async with running(tmp_path) as container, worker_of(container) as worker:
        for fields in wrong:
            with pytest.raises(WorkerError) as raised:
                await worker.text_to_image(**{**ASKED, **fields})
            assert raised.value.consequence == "client is told", fields


async def test_the_scripted_worker_would_not_survive_other_answers() -> None:
    """A check that cannot fail proves nothing."""

    async def answer(request: aiohttp.web.Request) -> aiohttp.web.Response:
        status = int((await request.json())["prompt"])
        return aiohttp.web.json_response({"detail": {"msg": "x"}}, status=status)

    app = aiohttp.web.Application()
    app.router.add_post("/text-to-image", answer)
    server = aiohttp.web.AppRunner(app)
    await server.setup()
    try:
        site = aiohttp.web.TCPSite(server, "127.0.0.1", 0)
        await site.start()
        host, port = server.addresses[0][:2]
        async with aiohttp.ClientSession() as http:
            entry = {"model_id": MODEL, "url": f"http://{host}:{port}"}
            worker = GoWorker(http, entry)
            for status in (429, 503, 413, 504):
                with pytest.raises(GoPanicError):
                    await worker.text_to_image(prompt=str(status))
    finally:
        await server.cleanup()


async def test_models_have_their_own_places_and_run_side_by_side(tmp_path: Path) -> None:
    path = tmp_path / "model"
    models = [
        {"id": MODEL, "path": path, "capacity": 3},
        {"id": OTHER, "path": path, "capacity": 2},
    ]
    engine = FakeEngine(MODEL, OTHER, step_seconds=0.02)
    async with (
        running(tmp_path, engine, models=models) as container,
        worker_of(container) as one,
        worker_of(container, place=1) as two,
    ):
        assert (one.entry["capacity"], two.entry["model_id"]) == (3, OTHER)
        jobs = [worker.text_to_image(**ASKED) for worker in (one, two) for _ in range(4)]
        assert all(await asyncio.gather(*jobs))
        assert engine.most_active == 5


async def test_health_is_answered_while_jobs_are_held(tmp_path: Path) -> None:
    """Every place and the queue taken, and not a step done: what answers does not wait for it."""
    engine = HeldEngine()
    async with running(tmp_path, engine) as container, worker_of(container) as worker:
        jobs = [asyncio.ensure_future(worker.text_to_image(**ASKED)) for _ in range(8)]
        await until_active(engine, 2)
        async with calling(container) as caller:
            for path in ("/health", "/version", "/hardware/info", "/hardware/stats"):
                assert (await caller.get(path)).status == 200
        assert not any(job.done() for job in jobs)
        assert engine.active == 2
        engine.released.set()
        assert len(await asyncio.gather(*jobs)) == 8


@dataclass(frozen=True, slots=True)
class Witness:
    """An image that notes which thread turns it into an answer."""

    seen: list[int]
    png: bytes
    safety: Safety = Safety.UNCHECKED

    @property
    def seed(self) -> int:
        self.seen.append(threading.get_ident())
        return 7


class LargeEngine(FakeEngine):
    """Makes images of any number of bytes."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.seen: list[int] = []
        self.size = size

    @override
    async def generate(
        self, job: ImageJob, on_progress: Callable[[Progress], None]
    ) -> ImageResult:
        image: Any = Witness(self.seen, bytes(self.size))
        made: tuple[EncodedImage, ...] = (image,)
        return ImageResult(made, 0.0)


@pytest.mark.parametrize(("size", "elsewhere"), [(1000, False), (3_000_000, True)])
async def test_large_answers_are_put_together_on_a_thread(
    tmp_path: Path, size: int, *, elsewhere: bool
) -> None:
    engine = LargeEngine(size)
    async with called(tmp_path, engine) as caller:
        answer = await caller.ask()
    assert len(answer.json["images"][0]["url"]) > size
    assert (engine.seen != [threading.get_ident()]) is elsewhere


async def test_a_caller_that_goes_away_frees_its_place(tmp_path: Path) -> None:
    engine = FakeEngine(step_seconds=0.02)
    async with running(tmp_path, engine) as container, worker_of(container) as worker:
        asked = {**ASKED, "num_inference_steps": 100}
        running_job, other, waiting = (
            asyncio.ensure_future(worker.text_to_image(**asked)) for _ in range(3)
        )
        await until_active(engine, 2)
        for job in (running_job, waiting):
            job.cancel()
        await until_active(engine, 1)
        assert len(engine.cancelled) == 1
        other.cancel()
        await until_active(engine, 0)
        assert await worker.text_to_image(**ASKED)
        assert len(engine.jobs) == 3, "the one that waited never started"


@pytest.mark.parametrize(
    ("grace", "expected"),
    [(30.0, ["images", "images", "closing"]), (0.0, ["closing", "closing", "closing"])],
)
async def test_a_stop_lets_running_jobs_finish_and_sends_the_rest_elsewhere(
    tmp_path: Path, grace: float, expected: list[str]
) -> None:
    engine = FakeEngine(step_seconds=0.01)
    async with (
        aiohttp.ClientSession() as http,
        AsyncExitStack() as runner,
    ):
        server = {"shutdown_seconds": grace}
        container = await runner.enter_async_context(running(tmp_path, engine, server=server))
        worker = GoWorker(http, orjson.loads(container.ai_models[0]))
        asked = {**ASKED, "num_inference_steps": 20}
        jobs = [asyncio.ensure_future(worker.text_to_image(**asked)) for _ in range(3)]
        await until_active(engine, 2)

        async def is_waiting() -> bool:
            return await _metric(http, container, "limner_node_jobs_waiting") == 1

        await eventually(is_waiting)
        await runner.aclose()
        ends = await asyncio.gather(*jobs, return_exceptions=True)
    assert sorted((_told(end) for end in ends), reverse=True) == sorted(expected, reverse=True)


def _told(end: object) -> str:
    if isinstance(end, WorkerError):
        assert end.consequence == "another is tried"
        return str(end).rpartition(": ")[2]
    assert isinstance(end, list)
    return "images"


async def _metric(http: aiohttp.ClientSession, container: RunningContainer, name: str) -> float:
    async with http.get(f"{container.url}/metrics") as answer:
        for line in (await answer.text()).splitlines():
            if line.startswith(name):
                return float(line.rpartition(" ")[2])
    raise AssertionError(f"there is no {name}")
