"""Delivered images over HTTP."""

import asyncio
from pathlib import Path

import pytest

from tests.gateway.api.surface import Surface, open_surface
from tests.gateway.stub_orchestrator import png
from tests.gateway.waiting import pngs


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


async def test_an_image_is_gone_after_its_lifetime(tmp_path: Path) -> None:
    async with open_surface(tmp_path, lifetime=0.05) as surface:
        url = await url_of_one(surface)
        async with surface.client.get(url) as response:
            assert response.status == 200
        await asyncio.sleep(0.06)
        async with surface.client.get(url) as response:
            assert response.status == 404
        assert await surface.store.sweep() == 1
        assert not pngs(tmp_path)


async def test_images_survive_a_restart_of_the_gateway(tmp_path: Path) -> None:
    async with open_surface(tmp_path) as surface:
        path = (await url_of_one(surface)).removeprefix(surface.url)
    async with open_surface(tmp_path) as surface, surface.client.get(surface.url + path) as again:
        assert again.status == 200
