"""The image store on a real disk."""

import asyncio
import os
import resource
import stat
import threading
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.storage import disk, segment_files
from gateway.storage import segments as segments_module
from gateway.storage.disk import DiskImageStore, open_disk_store
from gateway.storage.names import ImageName, draw_name, parse_path
from gateway.storage.records import head_of
from gateway.storage.store import ImageNotStoredError, ImageStoreSilentError
from tests.gateway.stored_images import read_below, segments, stored_images
from tests.gateway.waiting import until


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
        tmp_path / "images", lifetime=60.0, max_bytes=1000, max_count=10_000, clock=clock
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
    (file,) = segments(tmp_path)
    assert mode_of(file) == 0o600
    assert mode_of(file.parent) == 0o700


async def test_requests_have_no_files_of_their_own(store: DiskImageStore, tmp_path: Path) -> None:
    paths = []
    for number in range(20):
        paths.append(await store.put(f"request-{number}", bytes([number])))
        if number % 5 == 4:
            await written(store)
    assert [file.name for file in (tmp_path / "images").iterdir()] == ["1.segment"]
    assert stored_images(tmp_path) == {
        path.removeprefix("/stream/"): bytes([number]) for number, path in enumerate(paths)
    }
    assert [await read(store, path) for path in paths] == [bytes([n]) for n in range(20)]


async def test_the_oldest_leave_when_there_are_too_many_bytes(
    store: DiskImageStore,
) -> None:
    paths = [await store.put(f"request-{i}", bytes([i]) * 400) for i in range(4)]
    await written(store)
    found = [await read(store, path) for path in paths]
    assert found == [None, None, b"\x02" * 400, b"\x03" * 400]
    assert store.total_bytes == 800


HEAD = len(head_of(draw_name("request"), 0.0, 0))


@pytest.mark.parametrize("size", [20, 700, 3000])
async def test_the_disk_holds_little_more_than_the_store(
    size: int, tmp_path: Path, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments_module, "SMALLEST_BYTES", 1)
    most = 32_000
    async with open_disk_store(
        tmp_path, lifetime=60.0, max_bytes=most, max_count=10_000, clock=clock
    ) as store:
        for number in range(80_000 // size):
            path = await store.put("request", bytes(size))
            if number % (4000 // size) == 0:
                await store.secure([path])
                kept = sum(file.stat().st_size for file in segments(tmp_path))
                record = HEAD + size
                # The oldest segment's images are needed no more, but for the last.
                assert kept <= store.count * record + most // 16 + record
        assert store.total_bytes > most - size - 1


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
    assert [path.partition("/")[0] for path in stored_images(tmp_path)] == ["young"]


async def test_the_last_image_takes_the_newest_segment_with_it(
    store: DiskImageStore, clock: HandClock, tmp_path: Path
) -> None:
    await store.put("old", b"old")
    await written(store)
    clock.time += 70
    assert await store.sweep() == 1
    assert not segments(tmp_path)
    path = await store.put("young", b"young")
    await written(store)
    assert await read(store, path) == b"young"


async def test_a_file_that_was_taken_away_is_forgotten(
    store: DiskImageStore, tmp_path: Path
) -> None:
    path = await store.put("request", b"a picture")
    await written(store)
    remove(*segments(tmp_path))
    assert await read(store, path) is None
    assert store.total_bytes == 0
    later = await store.put("request", b"another")
    await written(store)
    assert await read(store, later) == b"another"
    assert list(stored_images(tmp_path).values()) == [b"another"]


@pytest.mark.parametrize("size", [9, 600_000])
async def test_a_download_goes_on_when_its_image_leaves(
    size: int, tmp_path: Path, clock: HandClock
) -> None:
    async with open_disk_store(
        tmp_path, lifetime=60.0, max_bytes=10**6, max_count=10_000, clock=clock
    ) as store:
        picture = os.urandom(size)
        before = await store.put("before", b"x" * 77)
        path = await store.put("request", picture)
        await written(store)
        image = await store.open(name_of(path))
        assert image is not None
        clock.time += 70
        assert await store.sweep() == 2
        assert not segments(tmp_path)
        assert b"".join([chunk async for chunk in image.chunks(0, size)]) == picture
        assert b"".join([chunk async for chunk in image.chunks(5, 7)]) == picture[5:7]
        image.close()
        assert (await read(store, path), await read(store, before)) == (None, None)


async def test_a_download_that_is_given_up_leaves_nothing_open(
    tmp_path: Path, clock: HandClock
) -> None:
    async with open_disk_store(
        tmp_path, lifetime=60.0, max_bytes=10**6, max_count=10_000, clock=clock
    ) as store:
        path = await store.put("request", bytes(600_000))
        await written(store)
        gate = threading.Event()
        for _ in range(2):
            store._reader.submit(gate.wait)
        opening = asyncio.ensure_future(store.open(name_of(path)))
        await asyncio.sleep(0)
        opening.cancel()
        gate.set()
        with pytest.raises(asyncio.CancelledError):
            await opening
        assert await read(store, path) == bytes(600_000)
        await until(lambda: not read_below(tmp_path))


async def test_leaving_writes_what_is_still_in_memory(tmp_path: Path, clock: HandClock) -> None:
    async with open_disk_store(
        tmp_path, lifetime=60.0, max_bytes=10**6, max_count=10_000, clock=clock
    ) as store:
        paths = [await store.put("request", bytes([i]) * 1000) for i in range(50)]
    async with open_disk_store(
        tmp_path, lifetime=60.0, max_bytes=10**6, max_count=10_000, clock=clock
    ) as store:
        assert store.count == 50
        assert [await read(store, path) for path in paths] == [
            bytes([i]) * 1000 for i in range(50)
        ]


async def test_a_start_adds_nothing_to_what_an_earlier_run_left(
    tmp_path: Path, clock: HandClock
) -> None:
    for number in range(3):
        async with open_disk_store(
            tmp_path, lifetime=60.0, max_bytes=10**6, max_count=10_000, clock=clock
        ) as store:
            assert store.count == number
            await store.put("request", b"a picture")
    assert [file.name for file in segments(tmp_path)] == [f"{n}.segment" for n in (1, 2, 3)]


async def test_a_start_brings_back_nothing_that_is_too_old_or_too_much(
    tmp_path: Path, clock: HandClock
) -> None:
    async with open_disk_store(
        tmp_path, lifetime=60.0, max_bytes=10**6, max_count=10_000, clock=clock
    ) as store:
        old = await store.put("request", b"old")
        clock.time += 30
        first, second = [await store.put("request", bytes(400)) for _ in range(2)]
    clock.time += 40
    async with open_disk_store(
        tmp_path, lifetime=60.0, max_bytes=10**6, max_count=10_000, clock=clock
    ) as store:
        assert (store.count, store.total_bytes) == (2, 800)
    async with open_disk_store(
        tmp_path, lifetime=60.0, max_bytes=700, max_count=10_000, clock=clock
    ) as store:
        assert (store.count, store.total_bytes) == (1, 400)
        assert [await read(store, path) for path in (old, first, second)] == [
            *(None, None, bytes(400))
        ]
        assert [file.name for file in segments(tmp_path)] == ["2.segment"]


async def test_a_clock_that_was_ahead_keeps_no_image_longer(
    tmp_path: Path, clock: HandClock
) -> None:
    clock.time += 10**6
    async with open_disk_store(
        tmp_path, lifetime=60.0, max_bytes=10**6, max_count=10_000, clock=clock
    ) as store:
        path = await store.put("request", b"a picture")
    clock.time -= 10**6
    async with open_disk_store(
        tmp_path, lifetime=60.0, max_bytes=10**6, max_count=10_000, clock=clock
    ) as store:
        assert await read(store, path) == b"a picture"
        clock.time += 60
        assert await read(store, path) is None
        assert await store.sweep() == 1
        assert not segments(tmp_path)


async def test_what_else_is_in_the_folder_is_neither_followed_nor_touched(
    tmp_path: Path, clock: HandClock
) -> None:
    root, elsewhere = tmp_path / "images", tmp_path / "elsewhere"
    async with open_disk_store(
        elsewhere, lifetime=60.0, max_bytes=10**6, max_count=10_000, clock=clock
    ) as store:
        secret = await store.put("request", b"of another store")
    root.mkdir()
    (root / "3.segment").symlink_to(elsewhere / "1.segment")
    os.mkfifo(root / "4.segment")
    (root / "5.segment").mkdir()
    (root / "6.segment").write_bytes(b"nobody knows")
    (root / "07.segment").write_bytes(b"no number of ours")
    (root / "notes.txt").write_bytes(b"")
    (root / "a").symlink_to(elsewhere)
    before = {path.name for path in root.iterdir()}
    async with open_disk_store(
        root, lifetime=60.0, max_bytes=10**6, max_count=10_000, clock=clock
    ) as store:
        assert store.count == 0
        assert await read(store, secret) is None
        path = await store.put("request", b"a picture")
        await store.secure([path])
        assert await read(store, path) == b"a picture"
        assert {path.name for path in root.iterdir()} == before | {"7.segment"}
        # Not even where it comes later, in place of ours.
        remove(root / "7.segment")
        (root / "7.segment").symlink_to(elsewhere / "1.segment")
        with pytest.raises(ImageStoreSilentError):
            await read(store, path)
    assert list(stored_images(elsewhere).values()) == [b"of another store"]


async def test_files_of_one_image_each_that_an_earlier_version_left_are_removed(
    tmp_path: Path, clock: HandClock
) -> None:
    name = draw_name("request")
    former = tmp_path / name.name[0] / f"{name.request}.{name.file}"
    other = tmp_path / "x" / "notes.txt"
    for file in (former, other):
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"")
    async with open_disk_store(
        tmp_path, lifetime=60.0, max_bytes=10**6, max_count=10_000, clock=clock
    ):
        assert not former.exists()
        assert other.exists()
        assert former.parent == other.parent or not former.parent.exists()


async def test_an_image_is_not_forgotten_when_the_machine_is_out_of_descriptors(
    store: DiskImageStore,
) -> None:
    path = await store.put("request", b"a picture")
    await written(store)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        with pytest.raises(ImageStoreSilentError):
            await store.open(name_of(path))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert await read(store, path) == b"a picture"


def refuse(descriptor: int, parts: Sequence[bytes]) -> None:
    raise OSError(28, "No space left on device", descriptor, None, str(len(parts)))


async def test_a_full_disk_shows_and_loses_no_image_already_promised(
    store: DiskImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    good_write = segment_files.write_whole
    monkeypatch.setattr(segment_files, "write_whole", refuse)
    promised = await store.put("first", b"a picture")
    await until(lambda: store._fails)
    assert await read(store, promised) == b"a picture"
    with pytest.raises(ImageNotStoredError):
        await store.put("second", b"another")
    assert await read(store, promised) == b"a picture"
    monkeypatch.setattr(segment_files, "write_whole", good_write)
    recovered = await store.put("third", b"a third")
    assert await read(store, recovered) == b"a third"


async def test_memory_forgets_what_a_full_disk_refused_when_it_leaves(
    store: DiskImageStore, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(segment_files, "write_whole", refuse)
        for number in range(2):
            await store.put("request", bytes([number]) * 400)
        await until(lambda: store._fails)
    await store.put("request", bytes(900))
    await written(store)
    assert (store.count, store._unwritten_bytes) == (1, 0)
    clock.time += 70
    assert await store.sweep() == 1
    assert (store.count, store._places) == (0, {})


async def test_a_slow_disk_makes_new_images_wait_instead_of_filling_memory(
    store: DiskImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "MAX_UNWRITTEN_BYTES", 500)
    for number in range(10):
        await store.put(str(number), b"x" * 200)
        assert store._unwritten_bytes <= 700
