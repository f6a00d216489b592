"""A request's news while it is made: for its own key, bounded, and through both interfaces."""

import asyncio
import io
from base64 import b64decode
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.orchestrators.job_events import (
    Advanced,
    News,
    NoEvents,
    Preview,
    Queued,
    StillThere,
    read_event,
)
from network.errors import ProblemError
from network.wire import problems
from tests.gateway.api.surface import Surface, open_surface
from tests.gateway.pictures import jpeg

JPEG = jpeg(8, 8)
ID = "a-request-of-16-letters"


@asynccontextmanager
async def under_way(surface: Surface, body: dict[str, Any] | None = None) -> AsyncIterator[None]:
    """A request that waits for the gate of the dispatcher."""
    surface.dispatcher.gate.clear()
    async with asyncio.TaskGroup() as group:
        group.create_task(surface.post(body, X_Request_Id=ID))
        await surface.until(lambda: surface.dispatcher.under_way)
        try:
            yield
        finally:
            surface.dispatcher.gate.set()


def watching(surface: Surface, key: str = "good") -> Any:
    headers = {"Authorization": f"Bearer {key}"}
    return surface.client.get(f"{surface.url}/jobs/{ID}/events", headers=headers)


async def read_events(response: aiohttp.ClientResponse) -> list[tuple[str, Any]]:
    raw = await response.read()
    events = []
    for chunk in raw.strip().split(b"\n\n"):
        name, data = chunk.split(b"\n")
        events.append((name.decode()[7:], orjson.loads(data[6:])))
    return events


async def test_everything_is_told_until_the_request_is_answered(tmp_path: Path) -> None:
    async with open_surface(tmp_path) as surface:
        surface.dispatcher.news = [Queued(2), Advanced(3, 50), Preview(0, 3, JPEG)]
        async with under_way(surface), watching(surface) as response:
            assert response.status == 200
            assert response.content_type == "text/event-stream"
            first = await response.content.readuntil(b"\n\n")
            assert first.startswith(b"event: queued")
            surface.dispatcher.gate.set()
            rest = await read_events(response)
        assert rest[0] == ("progress", {"done_steps": 3, "total_steps": 50})
        name, preview = rest[1]
        assert (name, b64decode(preview["jpeg"])) == ("preview", JPEG)
        assert rest[-1] == ("over", {})


async def test_another_keys_request_is_as_unknown_as_none(tmp_path: Path) -> None:
    async with open_surface(tmp_path) as surface, under_way(surface):
        async with watching(surface, "other") as response:
            assert response.status == 404
        async with watching(surface, "wrong") as response:
            assert response.status == 401


async def test_one_request_has_so_many_watchers_and_no_more(tmp_path: Path) -> None:
    async with open_surface(tmp_path) as surface:
        surface.dispatcher.news = [Queued(1)]
        async with (
            under_way(surface),
            watching(surface) as first,
            watching(surface) as second,
        ):
            await first.content.readuntil(b"\n\n")
            await second.content.readuntil(b"\n\n")
            async with watching(surface) as third:
                assert third.status == 429
                assert third.headers["Retry-After"]
            surface.dispatcher.gate.set()
            await first.read()
            await second.read()


async def test_a_watcher_who_leaves_makes_room_for_one_and_no_more(tmp_path: Path) -> None:
    async with open_surface(tmp_path) as surface:
        surface.dispatcher.news = [Queued(1)]
        async with under_way(surface):
            entry = surface.running.find("k1", ID)
            assert entry is not None
            async with watching(surface) as stays:
                await stays.content.readuntil(b"\n\n")
                for _ in range(4):
                    async with watching(surface) as leaves:
                        assert leaves.status == 200
                        await leaves.content.readuntil(b"\n\n")
                        assert entry.watchers == 2
                    await surface.until(lambda: entry.watchers == 1)


async def test_head_tells_no_news_and_leaves_the_connection_as_it_was(tmp_path: Path) -> None:
    async with open_surface(tmp_path) as surface:
        surface.dispatcher.news = [Queued(1)]
        async with under_way(surface):
            head = (
                f"HEAD /jobs/{ID}/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer good\r\n\r\n"
            )
            health = "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
            answered = await surface.raw((head + health).encode())
        first, _, rest = answered.partition(b"\r\n\r\n")
        assert first.startswith(b"HTTP/1.1 200 OK")
        assert b"Content-Type: text/event-stream" in first
        assert rest.startswith(b"HTTP/1.1 200 OK")
        head = head.replace("good", "other")
        answered = await surface.raw((head + health).encode())
        assert answered.startswith(b"HTTP/1.1 404")


async def test_a_stream_outlives_the_moment_in_which_others_have_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_surface(tmp_path) as surface:
        looks = 0

        async def news(_key_id: str, _request_id: str) -> AsyncGenerator[News]:
            nonlocal looks
            looks += 1
            if looks == 2:
                raise ProblemError(problems.rate_limited(1.0))
            yield Queued(looks)
            if looks == 3:
                surface.dispatcher.gate.set()

        monkeypatch.setattr(surface.running, "news", news)
        async with under_way(surface), asyncio.timeout(10), watching(surface) as response:
            told = await read_events(response)
        assert told[:2] == [("queued", {"position": 1}), ("queued", {"position": 3})]
        assert told[-1] == ("over", {})


async def test_no_second_answer_follows_one_that_has_begun(
    tmp_path: Path, said: io.StringIO
) -> None:
    async with open_surface(tmp_path) as surface:
        surface.dispatcher.failure = RuntimeError("out of the blue")
        surface.dispatcher.news = [Preview(0, 50, JPEG)]
        surface.dispatcher.gate.clear()
        body = b'{"prompt":"p","stream":true,"partial_images":1}'
        head = (
            "POST /v1/images/generations HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer good\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(surface.raw(head.encode() + body))
            await surface.until(lambda: surface.dispatcher.under_way)
            await asyncio.sleep(0.2)
            surface.dispatcher.gate.set()
        answered = asking.result()
        assert answered.count(b"HTTP/1.1") == 1
        assert b"partial_image" in answered
        # It was no whole answer, and is not taken for one.
        assert not answered.endswith(b"0\r\n\r\n")
        assert '"code":"internal_error"' in said.getvalue()


async def openai_stream(surface: Surface, **fields: Any) -> tuple[int, list[tuple[str, Any]]]:
    body = {"prompt": "p", "stream": True, "size": "64x64", **fields}
    headers = {"Authorization": "Bearer good"}
    async with surface.client.post(
        f"{surface.url}/v1/images/generations", json=body, headers=headers
    ) as response:
        if response.content_type != "text/event-stream":
            return response.status, []
        return response.status, await read_events(response)


async def test_partial_images_are_spread_over_the_steps(tmp_path: Path) -> None:
    async with open_surface(tmp_path) as surface:
        surface.dispatcher.news = [Preview(0, step, JPEG) for step in range(1, 10)]
        surface.dispatcher.gate.clear()
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(
                openai_stream(surface, partial_images=2, num_inference_steps=9)
            )
            await surface.until(lambda: surface.dispatcher.under_way)
            await asyncio.sleep(0.2)
            surface.dispatcher.gate.set()
        status, events = asking.result()
        assert status == 200
        names = [name.removeprefix("image_generation.") for name, _ in events]
        assert names == ["partial_image", "partial_image", "completed"]
        assert [told["partial_image_index"] for _, told in events[:2]] == [0, 1]
        assert b64decode(events[0][1]["b64_json"]) == JPEG
        assert b64decode(events[2][1]["b64_json"]).startswith(b"\x89PNG")


async def test_a_failure_before_anything_was_shown_has_its_status(tmp_path: Path) -> None:
    async with open_surface(tmp_path) as surface:
        surface.dispatcher.failure = ProblemError(problems.no_capacity(1.0))
        status, events = await openai_stream(surface, partial_images=2)
        assert (status, events) == (503, [])


async def test_a_failure_after_a_preview_is_an_event(tmp_path: Path) -> None:
    async with open_surface(tmp_path) as surface:
        surface.dispatcher.failure = ProblemError(problems.no_capacity(1.0))
        surface.dispatcher.news = [Preview(0, 50, JPEG)]
        surface.dispatcher.gate.clear()
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(openai_stream(surface, partial_images=1))
            await surface.until(lambda: surface.dispatcher.under_way)
            await asyncio.sleep(0.2)
            surface.dispatcher.gate.set()
        status, events = asking.result()
        assert status == 200
        assert [name for name, _ in events] == ["image_generation.partial_image", "error"]
        assert events[-1][1]["error"]["code"] == "no_capacity"


@pytest.mark.parametrize(
    ("event", "news"),
    [
        (b'event: queued\ndata: {"position":3}', Queued(3)),
        (b'event: progress\ndata: {"done":3,"total":9}', Advanced(3, 9)),
        (b": still here", StillThere()),
        (b"event: done\ndata: {}", None),
        (b"event: unheard\ndata: {}", None),
    ],
)
def test_a_nodes_events_are_understood(event: bytes, news: object) -> None:
    assert read_event(event) == news


@pytest.mark.parametrize(
    "event",
    [
        b"event: queued\ndata: 3",
        b'event: queued\ndata: {"position":"x"}',
        b'event: preview\ndata: {"image":0,"step":1,"jpeg":"bm90IGEganBlZw=="}',
        b'event: preview\ndata: {"image":0,"step":1,"jpeg":"?"}',
    ],
)
def test_nonsense_of_a_node_ends_its_stream(event: bytes) -> None:
    with pytest.raises(NoEvents):
        read_event(event)


@given(st.binary(max_size=80))
def test_no_bytes_of_a_node_are_more_than_nonsense(noise: bytes) -> None:
    for event in (noise, b"event: preview\ndata: " + noise, b"event: progress\ndata: " + noise):
        try:
            read_event(event)
        except NoEvents:
            continue
