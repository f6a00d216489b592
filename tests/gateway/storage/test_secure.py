"""Images that answers are kept of are on disk before anything is charged for them."""

from pathlib import Path

import pytest

from gateway.storage.disk import open_disk_store
from gateway.storage.store import ImageNotStoredError
from network.runtime.clock import SystemClock
from tests.gateway.stub_orchestrator import png
from tests.gateway.waiting import pngs

IMAGE = png(64, 64, 1000)


async def test_secured_images_are_on_disk_at_once(tmp_path: Path) -> None:
    async with open_disk_store(
        tmp_path / "i", lifetime=60.0, max_bytes=10**6, clock=SystemClock()
    ) as store:
        paths = [await store.put("request", IMAGE) for _ in range(3)]
        assert not pngs(tmp_path), "images were meant to gather first"
        await store.secure(paths)
        assert [file.read_bytes() for file in pngs(tmp_path)] == [IMAGE] * 3
        await store.secure(paths)
        await store.secure([])


async def test_what_the_disk_did_not_take_is_not_secure(tmp_path: Path) -> None:
    async with open_disk_store(
        tmp_path / "i", lifetime=60.0, max_bytes=10**6, clock=SystemClock()
    ) as store:
        path = await store.put("request", IMAGE)
        # No directory can be made by the name of a file.
        folder = path.removeprefix("/stream/request/")[0]
        (tmp_path / "i" / folder).write_bytes(b"")
        with pytest.raises(ImageNotStoredError):
            await store.secure([path])
