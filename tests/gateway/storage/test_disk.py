"""The image store on a real disk."""

import stat
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.storage import disk
from gateway.storage.disk import DiskImageStore, open_disk_store
from gateway.storage.names import ImageName, parse_path
from gateway.storage.store import ImageNotStoredError
from tests.gateway.waiting import pngs, until


@dataclass
class HandClock:
    """Time that moves when told."""

    time: float = 1000.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
async def store(tmp_path: Path, clock: HandClock) -> AsyncIterator[DiskImageStore]:
    async with open_disk_store(
        tmp_path / "images", lifetime=60.0, max_bytes=1000, clock=clock
    ) as opened:
        yield opened
        opened._shelf.validate()


def name_of(path: str) -> ImageName:
    name = parse_path(path)
    assert name is not None
    return name


async def read(store: DiskImageStore, path: str) -> bytes | None:
    image = await store.open(name_of(path))
    if image is None:
        return None
    try:
        found = b"".join([chunk async for chunk in image.chunks(0, image.size)])
        assert len(found) == image.size
        return found
    finally:
        image.close()


def mode_of(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


def age_of(file: Path) -> float:
    return file.stat().st_mtime


def remove(*files: Path) -> None:
    for file in files:
        file.unlink()


async def written(store: DiskImageStore) -> None:
    await until(lambda: not store._unwritten)


async def test_an_image_can_be_read_before_and_after_it_is_on_disk(store: DiskImageStore) -> None:
    path = await store.put("request", b"a picture")
    assert await read(store, path) == b"a picture"
    await written(store)
    assert await read(store, path) == b"a picture"


async def test_files_and_folders_are_the_owners_alone(
    store: DiskImageStore, tmp_path: Path
) -> None:
    await store.put("request", b"a picture")
    await written(store)
    (file,) = pngs(tmp_path)
    assert mode_of(file) == 0o600
    assert mode_of(file.parent) == mode_of(file.parent.parent) == 0o700


async def test_requests_have_no_folders_of_their_own(
    store: DiskImageStore, tmp_path: Path
) -> None:
    paths = [await store.put(f"request-{number}", b"x") for number in range(20)]
    await written(store)
    assert {file.parent.name for file in pngs(tmp_path)} == {name_of(p).name[0] for p in paths}
    assert [await read(store, path) for path in paths] == [b"x"] * 20


async def test_the_oldest_leave_when_there_are_too_many_bytes(
    store: DiskImageStore, tmp_path: Path
) -> None:
    paths = [await store.put(f"request-{i}", bytes([i]) * 400) for i in range(4)]
    await written(store)
    found = [await read(store, path) for path in paths]
    assert found == [None, None, b"\x02" * 400, b"\x03" * 400]
    assert store.total_bytes == 800
    await store.sweep()
    await until(lambda: len(pngs(tmp_path)) == 2)


async def test_a_sweep_removes_what_is_past_its_lifetime(
    store: DiskImageStore, clock: HandClock, tmp_path: Path
) -> None:
    old = await store.put("old", b"old")
    clock.time += 50
    young = await store.put("young", b"young")
    await written(store)
    clock.time += 20
    assert await store.sweep() == 1
    assert (await read(store, old), await read(store, young)) == (None, b"young")
    assert [file.name.partition(".")[0] for file in pngs(tmp_path)] == ["young"]


async def test_a_file_that_was_taken_away_is_forgotten(
    store: DiskImageStore, tmp_path: Path
) -> None:
    path = await store.put("request", b"a picture")
    await written(store)
    remove(*pngs(tmp_path))
    assert await read(store, path) is None
    assert store.total_bytes == 0


async def test_leaving_writes_what_is_still_in_memory(tmp_path: Path, clock: HandClock) -> None:
    async with open_disk_store(tmp_path, lifetime=60.0, max_bytes=10**6, clock=clock) as store:
        paths = [await store.put("request", bytes([i]) * 1000) for i in range(50)]
    clock.time = max(map(age_of, pngs(tmp_path)))
    async with open_disk_store(tmp_path, lifetime=60.0, max_bytes=10**6, clock=clock) as store:
        assert store.count == 50
        assert [await read(store, path) for path in paths] == [
            bytes([i]) * 1000 for i in range(50)
        ]


async def test_a_full_disk_shows_and_loses_no_image_already_promised(
    store: DiskImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(file: str, png: bytes) -> None:
        raise OSError(28, "No space left on device", file, None, str(len(png)))

    good_write = disk._write
    monkeypatch.setattr(disk, "_write", refuse)
    promised = await store.put("first", b"a picture")
    await until(lambda: store._fails)
    assert await read(store, promised) == b"a picture"
    with pytest.raises(ImageNotStoredError):
        await store.put("second", b"another")
    assert await read(store, promised) == b"a picture"
    monkeypatch.setattr(disk, "_write", good_write)
    recovered = await store.put("third", b"a third")
    assert await read(store, recovered) == b"a third"


async def test_a_slow_disk_makes_new_images_wait_instead_of_filling_memory(
    store: DiskImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "MAX_UNWRITTEN_BYTES", 500)
    for number in range(10):
        await store.put(str(number), b"x" * 200)
        assert store._unwritten_bytes <= 700
