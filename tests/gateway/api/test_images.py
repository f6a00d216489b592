"""Delivered images over HTTP."""

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api import images
from gateway.api.ranges import UnsatisfiableRangeError, asked_range
from gateway.storage.names import ImageName
from gateway.storage.store import ImageStoreSilentError
from tests.gateway.api.surface import Surface, open_surface
from tests.gateway.stored_images import read_below, segments
from tests.gateway.stub_orchestrator import png


async def url_of_one(surface: Surface) -> str:
    url: str = (await (await surface.post()).json())["images"][0]["url"]
    return url


async def test_an_image_is_served_with_headers_that_keep_it_private_and_cached(
    surface: Surface,
) -> None:
    url = await url_of_one(surface)
    async with surface.client.get(url) as response:
        body = await response.read()
        assert body == png(1024, 576, 100)
        assert response.headers["Content-Type"] == "image/png"
        assert response.headers["Content-Length"] == str(len(body))
        assert response.headers["Cache-Control"] == "private, max-age=31536000, immutable"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        tag = response.headers["ETag"]
    async with surface.client.get(url, headers={"If-None-Match": tag}) as response:
        assert (response.status, await response.read()) == (304, b"")


async def test_head_tells_the_size_and_sends_nothing(surface: Surface) -> None:
    url = await url_of_one(surface)
    async with surface.client.head(url) as response:
        assert response.status == 200
        assert response.headers["Content-Length"] == str(len(png(1024, 576, 100)))
        assert await response.read() == b""


async def test_a_large_image_comes_whole_from_the_disk(surface: Surface) -> None:
    surface.dispatcher.pixel_bytes = 1_500_000
    url = await url_of_one(surface)
    await surface.until(lambda: not surface.store._unwritten)
    async with surface.client.get(url) as response:
        assert await response.read() == png(1024, 576, 1_500_000)


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=5-9", 5, 10),
        ("BYTES=5-9", 5, 10),
        ("bytes=100-", 100, None),
        ("bytes=-7", -7, None),
        ("bytes=-99999999", 0, None),
        ("bytes=3-99999999", 3, None),
    ],
)
async def test_a_range_of_bytes_is_served(
    surface: Surface, asked: str, start: int, stop: int | None
) -> None:
    url = await url_of_one(surface)
    whole = png(1024, 576, 100)
    for _ in ("from memory", "from the disk"):
        async with surface.client.get(url, headers={"Range": asked}) as response:
            body = await response.read()
            assert response.status == 206
            assert body == whole[start:stop]
            first = whole.index(body) if len(body) > 8 else start % len(whole)
            told = f"bytes {first}-{first + len(body) - 1}/{len(whole)}"
            assert response.headers["Content-Range"] == told
            assert response.headers["Content-Length"] == str(len(body))
            assert response.headers["Content-Type"] == "image/png"
        await surface.until(lambda: not surface.store._unwritten)


@pytest.mark.parametrize("asked", ["bytes=999999-", "bytes=999999-9999999", "bytes=-0"])
async def test_a_range_beyond_the_end_is_416_with_the_size(surface: Surface, asked: str) -> None:
    url = await url_of_one(surface)
    async with surface.client.get(url, headers={"Range": asked}) as response:
        assert response.status == 416
        assert response.headers["Content-Range"] == f"bytes */{len(png(1024, 576, 100))}"
        assert (await response.json())["error"]["code"] == "range_not_satisfiable"


@pytest.mark.parametrize(
    "asked",
    ["", "bytes", "bytes=", "bytes=-", "bytes=9-5", "bytes=a-b", "lines=0-5", "bytes=0-1,5-6"],
)
async def test_what_is_no_single_range_is_the_whole_image(surface: Surface, asked: str) -> None:
    url = await url_of_one(surface)
    async with surface.client.get(url, headers={"Range": asked}) as response:
        assert (response.status, await response.read()) == (200, png(1024, 576, 100))
        assert response.headers["Accept-Ranges"] == "bytes"
        assert "Content-Range" not in response.headers


async def test_a_part_is_sent_only_of_the_image_that_is_meant(surface: Surface) -> None:
    url = await url_of_one(surface)
    async with surface.client.head(url, headers={"Range": "bytes=0-3"}) as response:
        assert response.status == 200, "ranges are of GET"
        tag = response.headers["ETag"]
    for if_range, status in (
        (tag, 206),
        ('"another"', 200),
        (f"W/{tag}", 200),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 200),
    ):
        headers = {"Range": "bytes=0-3", "If-Range": if_range}
        async with surface.client.get(url, headers=headers) as response:
            assert response.status == status


@pytest.mark.parametrize(
    ("pattern", "status"),
    [("{0}", 304), ("W/{0}", 304), ('"x", {0}', 304), ("*", 304), ('"x"', 200), ("x", 200)],
)
async def test_what_a_client_has_is_not_sent_again(
    surface: Surface, pattern: str, status: int
) -> None:
    url = await url_of_one(surface)
    async with surface.client.head(url) as response:
        tag = response.headers["ETag"]
    headers = {"If-None-Match": pattern.format(tag), "Range": "bytes=0-3"}
    async with surface.client.get(url, headers=headers) as response:
        assert response.status == (status if status == 304 else 206)


async def test_a_store_that_cannot_tell_is_no_missing_image(
    surface: Surface, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = await url_of_one(surface)

    async def silent(name: ImageName) -> None:
        raise ImageStoreSilentError(f"no answer about {name.file}")

    monkeypatch.setattr(surface.store, "open", silent)
    async with surface.client.get(url) as response:
        assert response.status == 503
        assert (await response.json())["error"]["code"] == "image_store_unavailable"
        assert int(response.headers["Retry-After"]) >= 1


@given(st.text(max_size=40) | st.from_regex(r"bytes=[0-9]{0,20}-[0-9]{0,20}"), st.integers(0, 99))
def test_a_range_is_within_the_file(text: str, size: int) -> None:
    try:
        part = asked_range(text, size)
    except UnsatisfiableRangeError:
        return
    assert part is None or 0 <= part[0] < part[1] <= size


@pytest.mark.parametrize(
    "path",
    [
        "/stream/",
        "/stream/a.png",
        "/stream/a/b.png",
        "/stream/../../etc/passwd",
        "/stream/..%2f..%2fetc/passwd.png",
        "/stream/%2e%2e/x.png",
        "/stream/a/b/c.png",
        "/stream//.png",
        "/stream/a/b.png/",
        "/stream/a/b.PNG",
        "/stream/a/b.png%00",
    ],
)
async def test_a_name_never_given_out_is_not_found(surface: Surface, path: str) -> None:
    await url_of_one(surface)
    answer = await surface.raw(
        b"GET " + path.encode() + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    assert answer.startswith(b"HTTP/1.1 404")
    assert b'"code":"not_found"' in answer


async def test_a_reader_who_takes_nothing_is_dropped_and_keeps_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "_STALL", 0.2)
    async with open_surface(tmp_path, max_bytes=10**8) as surface:
        # More than the buffers of a connection hold.
        surface.dispatcher.pixel_bytes = 20_000_000
        url = await url_of_one(surface)
        await surface.until(lambda: not surface.store._unwritten)
        reader, writer = await asyncio.open_connection(surface.host, surface.port, limit=1000)
        writer.write(
            b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % url.removeprefix(surface.url).encode()
        )
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        assert read_below(tmp_path)
        await surface.until(lambda: not read_below(tmp_path), 30)
        writer.transport.abort()
        async with surface.client.get(url) as response:
            assert len(await response.read()) > 20_000_000


async def test_an_image_is_gone_after_its_lifetime(tmp_path: Path) -> None:
    async with open_surface(tmp_path, lifetime=0.05) as surface:
        url = await url_of_one(surface)
        async with surface.client.get(url) as response:
            assert response.status == 200
        await asyncio.sleep(0.06)
        async with surface.client.get(url) as response:
            assert response.status == 404
        assert await surface.store.sweep() == 1
        assert not segments(tmp_path)


async def test_images_survive_a_restart_of_the_gateway(tmp_path: Path) -> None:
    async with open_surface(tmp_path) as surface:
        path = (await url_of_one(surface)).removeprefix(surface.url)
    async with open_surface(tmp_path) as surface, surface.client.get(surface.url + path) as again:
        assert again.status == 200
