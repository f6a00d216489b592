"""What every image store promises, on a real disk and on a real S3 server."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from obstore.store import S3Store

from gateway.storage import disk, s3, segment_files, segments
from gateway.storage.disk import open_disk_store
from gateway.storage.names import MEDIA, ImageName, Kind, parse_path
from gateway.storage.s3 import Bucket, open_s3_store
from gateway.storage.store import ImageNotStoredError, ImageStore, ImageStoreSilentError
from tests.gateway.storage.s3_server import gate_to, make_bucket, s3_server
from tests.gateway.stored_images import stored_images
from tests.gateway.waiting import until, until_async

LIFETIME = 60.0
MAX_BYTES = 1000
MAX_COUNT = 20


@dataclass
class HandClock:
    """Time that moves when told, from now on: servers have their own idea of it."""

    time: float

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time


@dataclass
class Place:
    """Where images are kept, and what can happen to it."""

    clock: HandClock
    #: A store over it, as a gateway would open it, for `MAX_COUNT` images or so many.
    open: Callable[..., AbstractAsyncContextManager[ImageStore]]
    #: The images there, without what is in memory.
    files: Callable[[], Awaitable[set[str]]]
    fail: Callable[[], None]
    recover: Callable[[], None]
    #: The module whose bound of memory counts.
    module: Any


@pytest.fixture(scope="session")
def s3_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with s3_server(tmp_path_factory.mktemp("s3")) as port:
        yield port


def _disk_place(folder: Path, clock: HandClock, monkeypatch: pytest.MonkeyPatch) -> Place:
    root = folder / "images"
    good_write = segment_files.write_whole
    # A segment for each image: then an image leaves the disk when it leaves the store.
    monkeypatch.setattr(segments, "SMALLEST_BYTES", 1)

    def refuse(descriptor: int, parts: Sequence[bytes]) -> None:
        raise OSError(28, f"No space left for {sum(map(len, parts))} bytes", descriptor)

    async def files() -> set[str]:
        return set(stored_images(root))

    return Place(
        clock,
        lambda most=MAX_COUNT: open_disk_store(
            root, lifetime=LIFETIME, max_bytes=MAX_BYTES, max_count=most, clock=clock
        ),
        files,
        lambda: monkeypatch.setattr(segment_files, "write_whole", refuse),
        lambda: monkeypatch.setattr(segment_files, "write_whole", good_write),
        disk,
    )


def bucket_at(url: str, bucket: str) -> S3Store:
    found = Bucket.of(f"s3://{bucket}/deep/er?endpoint={url}&region=eu-central-1")
    return found.opened("key", "secret")


_BUCKETS = iter(range(10_000))


@asynccontextmanager
async def _s3_place(port: int, clock: HandClock) -> AsyncIterator[Place]:
    name = f"images-{next(_BUCKETS)}"
    await asyncio.to_thread(make_bucket, port, name)
    async with gate_to(port) as gate:
        whole = Bucket.of(f"s3://{name}?endpoint=http://127.0.0.1:{port}").opened("key", "secret")

        async def files() -> set[str]:
            found = [entry["path"] async for page in whole.list() for entry in page]
            assert all(path.startswith("deep/er/") for path in found)
            return {path.removeprefix("deep/er/") for path in found}

        yield Place(
            clock,
            lambda most=MAX_COUNT: open_s3_store(
                bucket_at(gate.url, name),
                lifetime=LIFETIME,
                max_bytes=MAX_BYTES,
                max_count=most,
                clock=clock,
            ),
            files,
            gate.shut,
            lambda: setattr(gate, "is_open", True),
            s3,
        )


@pytest.fixture(params=["disk", "s3"])
async def place(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Place]:
    clock = HandClock(time.time())  # noqa: TID251 - files get the machine's own times
    if request.param == "disk":
        yield _disk_place(tmp_path, clock, monkeypatch)
        return
    async with _s3_place(request.getfixturevalue("s3_port"), clock) as opened:
        yield opened


@pytest.fixture
async def store(place: Place) -> AsyncIterator[ImageStore]:
    async with place.open() as opened:
        yield opened


def name_of(path: str) -> ImageName:
    name = parse_path(path)
    assert name is not None
    return name


async def read(
    store: ImageStore, path: str, start: int = 0, stop: int | None = None
) -> bytes | None:
    image = await store.open(name_of(path))
    if image is None:
        return None
    try:
        end = image.size if stop is None else stop
        return b"".join([chunk async for chunk in image.chunks(start, end)])
    finally:
        image.close()


async def written(place: Place, count: int) -> None:
    async def are_there() -> bool:
        return len(await place.files()) == count

    await until_async(are_there)


async def test_an_image_can_be_read_before_and_after_it_is_there(
    place: Place, store: ImageStore
) -> None:
    path = await store.put("request", b"a picture")
    assert await read(store, path) == b"a picture"
    await written(place, 1)
    await until(lambda: not store._unwritten)  # type: ignore[attr-defined]
    assert await read(store, path) == b"a picture"
    assert (store.count, store.total_bytes) == (1, 9)


@pytest.mark.parametrize("kind", MEDIA)
async def test_a_file_is_called_what_it_is_and_nothing_that_can_be_guessed(
    place: Place, store: ImageStore, kind: Kind
) -> None:
    paths = [await store.put("request", b"x", kind) for _ in range(3)]
    await written(place, 3)
    assert await place.files() == {path.removeprefix("/stream/") for path in paths}
    assert all(path.endswith(f".{kind}") for path in paths)
    assert min(len(name_of(path).name) for path in paths) >= 32
    assert len({name_of(path).name for path in paths}) == 3
    other: Kind = "png" if kind != "png" else "jpg"
    name = name_of(paths[0])
    assert await store.open(ImageName(name.request, name.name, other)) is None


async def test_a_part_of_an_image_can_be_read(place: Place, store: ImageStore) -> None:
    path = await store.put("request", bytes(range(200)))
    for _ in ("from memory", "from where it is kept"):
        assert await read(store, path, 5, 9) == bytes(range(5, 9))
        assert await read(store, path, 199, 200) == bytes([199])
        await written(place, 1)
        await until(lambda: not store._unwritten)  # type: ignore[attr-defined]


async def test_what_was_never_stored_is_not_there(store: ImageStore) -> None:
    assert await store.open(ImageName("request", "a" * 32)) is None


async def test_the_oldest_leave_when_there_are_too_many_bytes(
    place: Place, store: ImageStore
) -> None:
    paths = [await store.put(f"request-{i}", bytes([i]) * 400) for i in range(4)]
    found = [await read(store, path) for path in paths]
    assert found == [None, None, b"\x02" * 400, b"\x03" * 400]
    assert store.total_bytes == 800
    await store.sweep()
    await written(place, 2)


async def test_the_oldest_leave_when_there_are_too_many_images(
    place: Place, store: ImageStore
) -> None:
    paths = [await store.put("request", bytes([number])) for number in range(MAX_COUNT + 5)]
    assert store.count == MAX_COUNT
    found = [await read(store, path) for path in paths]
    assert found == [None] * 5 + [bytes([number]) for number in range(5, MAX_COUNT + 5)]
    await store.sweep()
    await written(place, MAX_COUNT)


async def test_a_start_takes_no_more_images_than_there_may_be(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "_PAGE", 3)
    async with place.open() as store:
        paths = [await store.put("request", bytes([number])) for number in range(MAX_COUNT)]
        await written(place, MAX_COUNT)
    async with place.open(5) as store:
        await written(place, 5)
        assert (store.count, store.total_bytes) == (5, 5)
        found = [await read(store, path) for path in paths]
        assert len([one for one in found if one is not None]) == 5


async def test_a_sweep_removes_what_is_past_its_lifetime(place: Place, store: ImageStore) -> None:
    old = await store.put("old", b"old")
    await written(place, 1)
    place.clock.time += 50
    young = await store.put("young", b"young")
    await written(place, 2)
    place.clock.time += 20
    assert await read(store, old) is None, "also before it is removed"
    assert await store.sweep() == 1
    assert (await read(store, old), await read(store, young)) == (None, b"young")
    await written(place, 1)


async def test_a_restart_keeps_images_and_their_age(place: Place) -> None:
    async with place.open() as store:
        path = await store.put("request", b"a picture", "webp")
        await written(place, 1)
    async with place.open() as store:
        assert (store.count, store.total_bytes) == (1, 9)
        assert await read(store, path) == b"a picture"
        place.clock.time += LIFETIME + 2
        assert await read(store, path) is None
        assert await store.sweep() == 1
        await written(place, 0)


async def test_what_is_secured_is_there(place: Place, store: ImageStore) -> None:
    paths = [await store.put("request", bytes([number]) * 20) for number in range(5)]
    await store.secure(paths)
    assert await place.files() == {path.removeprefix("/stream/") for path in paths}
    place.fail()
    lost = await store.put("request", b"lost")
    with pytest.raises(ImageNotStoredError):
        await store.secure([lost])
    place.recover()


async def test_leaving_waits_for_what_is_on_its_way(place: Place) -> None:
    async with place.open() as store:
        for number in range(20):
            await store.put("request", bytes([number]) * 20)
    assert len(await place.files()) == 20


async def test_a_failure_shows_and_loses_no_image_already_promised(
    place: Place, store: ImageStore
) -> None:
    place.fail()
    promised = await store.put("first", b"a picture")
    await until(lambda: store._fails, 30)  # type: ignore[attr-defined]
    assert await read(store, promised) == b"a picture"
    with pytest.raises(ImageNotStoredError):
        await store.put("second", b"another")
    assert await read(store, promised) == b"a picture"
    assert store.count == 1
    place.recover()
    recovered = await store.put("third", b"a third")
    assert await read(store, recovered) == b"a third"
    await written(place, 1)


async def test_memory_is_bounded_while_the_store_fails(
    place: Place, store: ImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place.module, "MAX_UNWRITTEN_BYTES", 100)
    place.fail()
    refused = 0
    for number in range(4):
        try:
            await store.put(str(number), b"x" * 60)
        except ImageNotStoredError:
            refused += 1
    assert refused >= 2
    await until(lambda: store._unwritten_bytes <= 100, 30)  # type: ignore[attr-defined]
    place.recover()


async def test_an_image_that_failed_is_not_safe_once_others_arrive(
    place: Place, store: ImageStore
) -> None:
    place.fail()
    lost = await store.put("first", b"a picture")
    await until(lambda: store._fails, 30)  # type: ignore[attr-defined]
    place.recover()
    later = await store.put("second", b"another")
    await store.secure([later])
    assert not store._fails  # type: ignore[attr-defined]
    async with asyncio.timeout(10):
        with pytest.raises(ImageNotStoredError):
            await store.secure([lost])
    assert await read(store, lost) == b"a picture"


# A bucket's own


async def test_a_bucket_that_is_silent_is_told_from_an_image_that_is_gone(s3_port: int) -> None:
    clock = HandClock(time.time())  # noqa: TID251
    async with _s3_place(s3_port, clock) as place, place.open() as store:
        path = await store.put("request", b"a picture")
        await written(place, 1)
        await until(lambda: not store._unwritten)  # type: ignore[attr-defined]
        place.fail()
        with pytest.raises(ImageStoreSilentError):
            await store.open(name_of(path))
        place.recover()
        assert await read(store, path) == b"a picture"


async def test_a_bucket_that_is_silent_at_the_start_is_no_obstacle(s3_port: int) -> None:
    clock = HandClock(time.time())  # noqa: TID251
    async with _s3_place(s3_port, clock) as place:
        async with place.open() as store:
            path = await store.put("request", b"a picture")
        place.fail()
        async with place.open() as store:
            place.recover()
            assert await read(store, path) == b"a picture"


async def test_gateways_that_share_a_bucket_serve_each_others_images(s3_port: int) -> None:
    clock = HandClock(time.time())  # noqa: TID251
    async with _s3_place(s3_port, clock) as place, place.open() as one, place.open() as other:
        path = await one.put("request", b"a picture")
        await written(place, 1)
        assert await read(other, path) == b"a picture"
        clock.time += LIFETIME + 2
        assert await read(other, path) is None


async def test_a_signed_url_works_by_itself_and_at_once(s3_port: int) -> None:
    name = f"images-{next(_BUCKETS)}"
    await asyncio.to_thread(make_bucket, s3_port, name)
    bucket = bucket_at(f"http://127.0.0.1:{s3_port}", name)
    async with (
        open_s3_store(
            bucket,
            lifetime=LIFETIME,
            max_bytes=MAX_BYTES,
            max_count=MAX_COUNT,
            clock=HandClock(time.time()),  # noqa: TID251
            urls="presigned",
        ) as store,
        aiohttp.ClientSession() as client,
    ):
        url = await store.put("request", b"a picture", "webp")
        assert "X-Amz-Expires=60" in url
        assert "secret" not in url
        async with client.get(url) as answer:
            assert (answer.status, await answer.read()) == (200, b"a picture")
            assert answer.headers["Content-Type"] == "image/webp"
            assert answer.headers["Cache-Control"] == "private, max-age=31536000, immutable"


async def test_a_bucket_that_is_not_there_is_named(s3_port: int) -> None:
    bucket = bucket_at(f"http://127.0.0.1:{s3_port}", "nobodys")
    with pytest.raises(ValueError, match="the bucket cannot be listed"):
        async with open_s3_store(
            bucket,
            lifetime=LIFETIME,
            max_bytes=MAX_BYTES,
            max_count=MAX_COUNT,
            clock=HandClock(0.0),
        ):
            pytest.fail("there is nothing to open")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("https://bucket/prefix", "write"),
        ("s3://", "write"),
        ("s3://key:hunter2@bucket", "keys go into"),
        ("s3://bucket?endpoint=s3.example", "whole address"),
        ("s3://bucket?secret=hunter2", "no parameter"),
    ],
)
def test_a_wrong_url_is_explained_and_not_repeated(url: str, why: str) -> None:
    with pytest.raises(ValueError, match=why) as caught:
        Bucket.of(url)
    assert "hunter2" not in str(caught.value)


def test_a_url_names_bucket_prefix_endpoint_and_region() -> None:
    found = Bucket.of("s3://pictures/a/b/?endpoint=https://s3.example:9000&region=eu-west-3")
    assert found == Bucket("pictures", "a/b", "https://s3.example:9000", "eu-west-3")
    assert Bucket.of("s3://pictures") == Bucket("pictures")
