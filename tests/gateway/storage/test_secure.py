"""Images that answers are kept of are on disk before anything is charged for them."""

import asyncio
from pathlib import Path

import pytest

from gateway.storage.disk import open_disk_store
from gateway.storage.store import ImageNotStoredError
from network.runtime.clock import SystemClock
from tests.gateway.stored_images import segments, stored_images
from tests.gateway.stub_orchestrator import png
from tests.gateway.waiting import until

IMAGE = png(64, 64, 1000)


async def test_secured_images_are_on_disk_at_once(tmp_path: Path) -> None:
    async with open_disk_store(
        tmp_path / "i", lifetime=60.0, max_bytes=10**6, max_count=10_000, clock=SystemClock()
    ) as store:
        paths = [await store.put("request", IMAGE) for _ in range(3)]
        assert not segments(tmp_path), "images were meant to gather first"
        await store.secure(paths)
        assert list(stored_images(tmp_path).values()) == [IMAGE] * 3
        await store.secure(paths)
        await store.secure([])


async def test_what_the_disk_did_not_take_is_not_secure(tmp_path: Path) -> None:
    async with open_disk_store(
        tmp_path / "i", lifetime=60.0, max_bytes=10**6, max_count=10_000, clock=SystemClock()
    ) as store:
        path = await store.put("request", IMAGE)
        # No folder for segments can be made by the name of a file.
        (tmp_path / "i").rmdir()
        (tmp_path / "i").write_bytes(b"")
        with pytest.raises(ImageNotStoredError):
            await store.secure([path])


async def test_what_was_taken_away_is_not_secure(tmp_path: Path) -> None:
    async with open_disk_store(
        tmp_path / "i", lifetime=60.0, max_bytes=10**6, max_count=10_000, clock=SystemClock()
    ) as store:
        path = await store.put("request", IMAGE)
        await until(lambda: not store._unwritten)
        (file,) = segments(tmp_path)
        file.unlink()
        with pytest.raises(ImageNotStoredError):
            await store.secure([path])


async def test_many_are_secured_at_once(tmp_path: Path) -> None:
    async with open_disk_store(
        tmp_path / "i", lifetime=60.0, max_bytes=10**6, max_count=10_000, clock=SystemClock()
    ) as store:

        async def put_and_secure() -> str:
            path = await store.put("request", IMAGE)
            await store.secure([path])
            assert path.removeprefix("/stream/") in stored_images(tmp_path)
            return path

        paths = await asyncio.gather(*(put_and_secure() for _ in range(30)))
        assert len(set(paths)) == len(stored_images(tmp_path)) == 30
