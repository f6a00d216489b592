"""The event stream of a job: over real sockets, with a fake engine and with the built-in model."""

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import orjson
import pytest
from numpy.typing import NDArray
from PIL import Image
from yarl import URL

from network.wire.headers import JOB_ID
from node.api.job_events import JobEventService, event_of
from node.app import RunningNode, open_node
from node.config.catalogue import BUILTIN_FOLDER
from node.engine.work import FailureKind, JobFailedError
from node.jobs.news import Advanced, Fate, Over, Queued
from node.jobs.runner import JobRunner
from tests.node.fakes import FakeEngine
from tests.node.nodes import Answer, Buyer, eventually, running_node, settings_for

ATTEMPT = "0123456789abcdef0123456789abcdef"
OTHER = "fedcba9876543210fedcba9876543210"
Event = tuple[str, dict[str, Any]]


class Stream:
    """A client of an event stream."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self.answer = answer
        self.comments = 0

    async def event(self) -> Event | None:
        """The next event; None at the end of the stream."""
        name = ""
        while line := await self.answer.content.readline():
            field, _, value = line.decode().rstrip("\n").partition(": ")
            match field:
                case "event":
                    name = value
                case "data":
                    assert await self.answer.content.readline() == b"\n"
                    return name, orjson.loads(value)
                case _:
                    self.comments += line.startswith(b":")
        return None

    async def rest(self) -> list[Event]:
        """All events there are to come."""
        events = []
        while (event := await self.event()) is not None:
            events.append(event)
        return events


@asynccontextmanager
async def watching(buyer: Buyer, job_id: str = ATTEMPT) -> AsyncIterator[Stream]:
    async with buyer.http.get(f"{buyer.node.url}/jobs/{job_id}/events") as answer:
        assert answer.status == 200
        assert answer.content_type == "text/event-stream"
        yield Stream(answer)


def asking(buyer: Buyer, job_id: str = ATTEMPT, **fields: Any) -> "asyncio.Task[Answer]":
    return asyncio.ensure_future(buyer.ask({JOB_ID: job_id}, **fields))


async def test_a_watcher_sees_steps_and_previews_and_the_end(tmp_path: Path) -> None:
    engine = FakeEngine(step_seconds=0.02)
    async with running_node(tmp_path, engine) as node, Buyer(node) as buyer:
        job = asking(buyer, num_inference_steps=10, num_images_per_prompt=2)
        async with watching(buyer) as stream:
            events = await stream.rest()
        assert (await job).status == 200
    names = [name for name, _ in events]
    assert names[-1] == "done"
    assert names.count("done") == 1
    done = [data["done"] for name, data in events if name == "progress"]
    assert done == sorted(done)
    assert done[-1] == 20
    previews = [data for name, data in events if name == "preview"]
    assert {data["image"] for data in previews} == {0, 1}
    assert {base64.b64decode(data["jpeg"]) for data in previews} == {engine.jpeg}
    assert engine.previews_made >= len(previews) > 0


async def test_head_has_no_events_after_it_for_the_next_answer(tmp_path: Path) -> None:
    async with running_node(tmp_path, FakeEngine(step_seconds=0.02)) as node, Buyer(node) as buyer:
        job = asking(buyer, num_inference_steps=10)
        async with watching(buyer) as stream:
            await stream.event()
            url = URL(node.url)
            secured = None if url.scheme == "http" else ssl._create_unverified_context()  # noqa: S323
            reader, writer = await asyncio.open_connection(url.host, url.port, ssl=secured)
            head = f"HEAD /jobs/{ATTEMPT}/events HTTP/1.1\r\nHost: x\r\n\r\n"
            health = "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
            writer.write((head + health).encode())
            async with asyncio.timeout(20):
                first, _, rest = (await reader.read()).partition(b"\r\n\r\n")
            writer.close()
        assert (await job).status == 200
    assert first.startswith(b"HTTP/1.1 200 OK")
    assert rest.startswith(b"HTTP/1.1 200 OK")


async def test_a_stream_may_be_asked_for_before_its_job(tmp_path: Path) -> None:
    async with running_node(tmp_path, FakeEngine(step_seconds=0.01)) as node, Buyer(node) as buyer:
        headers = await buyer.headers()
        early = asyncio.ensure_future(buyer.get(f"/jobs/{ATTEMPT}/events"))
        await asyncio.sleep(0.1)
        assert not early.done()
        assert (await buyer.ask({**headers, JOB_ID: ATTEMPT})).status == 200
        answer = await early
        assert answer.status == 200
        assert b"event: done\ndata: {}\n\n" in answer.body


async def test_nobody_watching_means_no_previews(tmp_path: Path) -> None:
    engine = FakeEngine()
    async with running_node(tmp_path, engine) as node, Buyer(node) as buyer:
        assert (await buyer.ask({JOB_ID: ATTEMPT})).status == 200
    assert engine.previews_made == 0


async def test_only_the_id_its_gateway_gave_it_opens_a_job(tmp_path: Path) -> None:
    engine = FakeEngine(step_seconds=0.05)
    async with running_node(tmp_path, engine) as node, Buyer(node) as buyer:
        job = asking(buyer, num_inference_steps=100)

        async def runs() -> bool:
            return bool(engine.jobs)

        await eventually(runs)
        # The node's own id of the job, which is in its log and in its answer, opens nothing.
        foreign = (str(engine.jobs[0].job_id), OTHER, ATTEMPT[:-1], f"{ATTEMPT}0", "..", "%00")
        answers = await asyncio.gather(*(buyer.get(f"/jobs/{i}/events") for i in foreign))
        assert [answer.status for answer in answers] == [404] * len(foreign)
        assert engine.previews_made == 0
        job.cancel()


async def test_a_job_that_is_over_is_not_waited_for(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node, Buyer(node) as buyer:
        assert (await buyer.ask({JOB_ID: ATTEMPT})).status == 200
        answer = await asyncio.wait_for(buyer.get(f"/jobs/{ATTEMPT}/events"), 1.9)
        assert answer.status == 404


async def test_a_cancellation_ends_the_stream(tmp_path: Path) -> None:
    engine = FakeEngine(step_seconds=0.02)
    async with running_node(tmp_path, engine) as node, Buyer(node) as buyer:
        job = asking(buyer, num_inference_steps=100)
        async with watching(buyer) as stream:
            while (event := await stream.event()) is not None and event[0] != "preview":
                pass
            job.cancel()
            events = await asyncio.wait_for(stream.rest(), 10)
        assert events[-1] == ("cancelled", {})
    assert engine.cancelled


async def test_a_failure_ends_the_stream_with_its_reason(tmp_path: Path) -> None:
    engine = FakeEngine(step_seconds=0.01)
    engine.failures = [JobFailedError(FailureKind.OUT_OF_MEMORY, "too large")]
    async with running_node(tmp_path, engine) as node, Buyer(node) as buyer:
        job = asking(buyer)
        async with watching(buyer) as stream:
            assert (await stream.rest())[-1] == ("failed", {"reason": "out_of_memory"})
        assert (await job).status == 503


async def test_who_waits_in_line_hears_of_every_place(tmp_path: Path) -> None:
    engine = FakeEngine(step_seconds=0.03)
    async with running_node(tmp_path, engine) as node, Buyer(node) as buyer:
        jobs = []
        for number in range(4):  # two run, two wait
            jobs.append(asking(buyer, f"{number:032x}", num_inference_steps=4 + 6 * number))
            await asyncio.sleep(0.01)
        async with watching(buyer, f"{3:032x}") as stream:
            events = await stream.rest()
        assert [answer.status for answer in await asyncio.gather(*jobs)] == [200] * 4
    places = [data["position"] for name, data in events if name == "queued"]
    assert places == [2, 1]
    assert [name for name, _ in events][:2] == ["queued", "queued"]
    assert events[-1][0] == "done"


async def test_the_nodes_stop_ends_the_stream(tmp_path: Path) -> None:
    engine = FakeEngine(step_seconds=0.05)
    async with Buyer(RunningNode("", "", b"")) as buyer:  # type: ignore[arg-type]
        async with running_node(tmp_path, engine) as node:
            buyer.node = node
            job = asking(buyer, num_inference_steps=100)
            stream_task = asyncio.ensure_future(buyer.get(f"/jobs/{ATTEMPT}/events"))

            async def runs() -> bool:
                return engine.previews_made > 0

            await eventually(runs)
        body = (await stream_task).body
        assert body.endswith(b'event: failed\ndata: {"reason":"closing"}\n\n')
        assert (await job).status == 503


async def test_a_reader_who_takes_nothing_disturbs_no_job(tmp_path: Path) -> None:
    """Nothing but what sockets and one write hold is kept; the rest of 30 MB is dropped."""
    engine = FakeEngine(step_seconds=0.002)
    engine.jpeg = bytes(300_000)
    async with running_node(tmp_path, engine) as node, Buyer(node) as buyer:
        job = asking(buyer, num_inference_steps=100)
        async with watching(buyer) as stream:
            answer = await job
            assert answer.status == 200
            assert engine.previews_made == 100
            previews = [data for name, data in await stream.rest() if name == "preview"]
    assert 0 < len(previews) < 50
    assert previews[-1]["step"] == 100


async def test_silence_is_filled_and_a_reader_who_stalls_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def impatient(runner: JobRunner) -> JobEventService:
        return JobEventService(runner, heartbeat=0.02, stall=0.2)

    monkeypatch.setattr("node.app.public.JobEventService", impatient)
    engine = FakeEngine(step_seconds=0.15)
    async with running_node(tmp_path, engine) as node, Buyer(node) as buyer:
        job = asking(buyer, num_inference_steps=2)
        async with watching(buyer) as stream:
            assert (await stream.rest())[-1][0] == "done"
            assert stream.comments >= 2
        assert (await job).status == 200
        engine.jpeg = bytes(8_000_000)
        engine.step_seconds = 0.01
        job = asking(buyer, OTHER, num_inference_steps=20)
        async with watching(buyer, OTHER) as stream:
            assert (await job).status == 200
            await asyncio.sleep(1.0)
            with pytest.raises(aiohttp.ClientError):
                await stream.answer.read()


def test_events_are_written_as_the_standard_has_it() -> None:
    assert event_of(Queued(3)) == b'event: queued\ndata: {"position":3}\n\n'
    assert event_of(Advanced(1, 20)) == b'event: progress\ndata: {"done":1,"total":20}\n\n'
    assert event_of(Over(Fate.CANCELLED)) == b"event: cancelled\ndata: {}\n\n"


# The built-in model, in its own process.


@asynccontextmanager
async def shapes_node(folder: Path) -> AsyncIterator[Buyer]:
    """A node with the built-in model in memory."""
    settings = await settings_for(
        folder,
        models=[{"id": "limner/shapes", "path": BUILTIN_FOLDER, "price": "5/2", "capacity": 4}],
        engine={"device": "cpu", "threads": 1},
    )
    async with open_node(settings) as node, Buyer(node) as buyer:

        async def is_ready() -> bool:
            return bool((await buyer.get("/health")).json["status"] == "OK")

        await eventually(is_ready, seconds=90)
        yield buyer


def pixels(data: bytes, size: tuple[int, int]) -> NDArray[np.float64]:
    picture = Image.open(BytesIO(data)).convert("RGB")
    return np.asarray(picture.resize(size, Image.Resampling.BOX)).astype(np.float64)


def likeness(preview: str, image: str) -> float:
    """The correlation of the two pictures' pixels, both averaged to 16 x 8."""
    seen = pixels(base64.b64decode(preview), (16, 8))
    final = pixels(base64.b64decode(image.partition(",")[2]), (16, 8))
    return float(np.corrcoef(seen.ravel(), final.ravel())[0, 1])


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_the_built_in_models_previews_grow_into_its_images(tmp_path: Path) -> None:
    """Measured: a likeness of 0.8 after the first step and 0.99 after the last one."""
    fields: dict[str, Any] = {
        "prompt": "a large yellow star on a blue background",
        "width": 512,
        "height": 256,
        "num_inference_steps": 30,
        "num_images_per_prompt": 2,
    }
    async with shapes_node(tmp_path) as buyer:
        events: list[Event] = []
        answer = await buyer.ask(**fields)
        for attempt in range(20):  # until the worker has found out what its latents look like
            job = asking(buyer, f"{attempt:032x}", **fields)
            async with watching(buyer, f"{attempt:032x}") as stream:
                events = await stream.rest()
            assert (await job).json == answer.json  # watching changes no pixel
            if {data["image"] for name, data in events if name == "preview"} == {0, 1}:
                break
    assert answer.status == 200
    assert events[-1][0] == "done"
    for index, image in enumerate(answer.json["images"]):
        previews = [data for name, data in events if name == "preview" and data["image"] == index]
        steps = [data["step"] for data in previews]
        assert steps == sorted(set(steps))
        for data in previews:
            assert Image.open(BytesIO(base64.b64decode(data["jpeg"]))).size == (256, 128)
        assert likeness(previews[-1]["jpeg"], image["url"]) > 0.85
