"""Images in a bucket of S3, or of what speaks like it: held in memory until they are there.

What the bucket has is the truth for reading: gateways that share it serve each other's images. The
shelf knows what this gateway has put there, or found at its start, and removes that in time.
"""

import asyncio
import heapq
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Final, Literal
from urllib.parse import parse_qsl, urlsplit

import structlog
from obstore import sign_async
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import S3Store

from gateway.storage.names import ImageName, Kind, draw_name, parse_path
from gateway.storage.shelf import Held, Shelf
from gateway.storage.store import (
    CHUNK_BYTES,
    MAX_UNWRITTEN_BYTES,
    ImageNotStoredError,
    ImageStoreSilentError,
    StoredImage,
    nothing_to_close,
    slices,
)
from network.runtime.clock import Clock

_log = structlog.get_logger(__name__)

Urls = Literal["proxied", "presigned"]

#: Uploads at a time.
_UPLOADS: Final = 16
#: Names of one answer of a bucket, and of one removal.
_PAGE: Final = 1000
_PARAMETERS: Final = frozenset({"endpoint", "region"})
#: Answers by which no later try will do better, as S3 calls them.
_FINAL: Final = ("NoSuchBucket", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch")


@dataclass(frozen=True, slots=True)
class Bucket:
    """Where images go: `s3://bucket/prefix?endpoint=https://...&region=...`."""

    name: str
    prefix: str = ""
    #: "" is Amazon's own.
    endpoint: str = ""
    region: str = ""

    @classmethod
    def of(cls, url: str) -> "Bucket":
        """Raises ValueError that says what is wrong; the URL is not repeated."""
        parts = urlsplit(url)
        if parts.scheme != "s3" or not parts.netloc:
            raise ValueError('write "s3://bucket/prefix", for example with ?endpoint=https://...')
        if "@" in parts.netloc or ":" in parts.netloc:
            raise ValueError("keys go into access_key_id and secret_access_key, not into the URL")
        given = dict(parse_qsl(parts.query, keep_blank_values=True))
        unknown = sorted(given.keys() - _PARAMETERS)
        if unknown:
            raise ValueError(f"{unknown[0]} is no parameter; there are endpoint and region")
        endpoint = given.get("endpoint", "")
        if endpoint and urlsplit(endpoint).scheme not in {"http", "https"}:
            raise ValueError("the endpoint is a whole address, for example https://s3.example")
        return cls(parts.netloc, parts.path.strip("/"), endpoint, given.get("region", ""))

    def opened(self, access_key_id: str, secret_access_key: str) -> S3Store:
        """Keys of "" are looked for where Amazon's own tools do."""
        config = {
            "endpoint": self.endpoint,
            "region": self.region,
            "access_key_id": access_key_id,
            "secret_access_key": secret_access_key,
        }
        return S3Store(
            self.name,
            prefix=self.prefix or None,
            config={key: value for key, value in config.items() if value},  # type: ignore[arg-type]
            client_options={
                "allow_http": self.endpoint.startswith("http://"),
                "connect_timeout": timedelta(seconds=3),
                "timeout": timedelta(seconds=20),
            },
            retry_config={"max_retries": 2, "retry_timeout": timedelta(seconds=10)},
        )


class S3ImageStore:
    """Keeps images under `<prefix>/<request>/<name>.<kind>`; made by `open_s3_store`."""

    def __init__(
        self,
        bucket: S3Store,
        shelf: Shelf,
        clock: Clock,
        *,
        lifetime: float,
        urls: Urls,
    ) -> None:
        self._bucket = bucket
        self._shelf = shelf
        self._clock = clock
        #: Each handles its own errors; `close` waits for them.
        self._under_way: set[asyncio.Task[Exception | None]] = set()
        #: Those among them that bring an image. One that failed is not tried again.
        self._uploads: dict[ImageName, asyncio.Task[Exception | None]] = {}
        self._lifetime = lifetime
        self._urls = urls
        self._slots = asyncio.Semaphore(_UPLOADS)
        self._unwritten: dict[ImageName, bytes] = {}
        self._unwritten_bytes = 0
        #: Off the shelf, and perhaps in the bucket still.
        self._leaving: set[ImageName] = set()
        self._fails = False

    @property
    def total_bytes(self) -> int:
        return self._shelf.total_bytes

    @property
    def count(self) -> int:
        return len(self._shelf)

    async def put(self, request: str, data: bytes, kind: Kind = "png") -> str:
        """Raises ImageNotStoredError. A signed URL is told once its image is there."""
        name = draw_name(request, kind)
        self._unwritten[name] = data
        self._unwritten_bytes += len(data)
        gone = self._shelf.put(name, len(data), self._clock.now())
        if gone:
            _ = self._dismiss(gone)
        upload = self._uploads[name] = self._begin(self._upload(name, data))
        upload.add_done_callback(lambda _: self._uploads.pop(name, None))
        is_signed = self._urls == "presigned"
        if is_signed or self._fails or self._unwritten_bytes > MAX_UNWRITTEN_BYTES:
            # Shielded: others wait for the same store, and this image is known by its name already.
            error = await asyncio.shield(upload)
            if error is not None:
                self._forget(name)
                raise ImageNotStoredError(str(error)) from error
        if not is_signed:
            return name.path
        try:
            lives = timedelta(seconds=self._lifetime)
            return await sign_async(self._bucket, "GET", _key(name), lives)
        except BaseError as error:
            raise ImageNotStoredError(_said(error)) from error

    async def _upload(self, name: ImageName, data: bytes) -> Exception | None:
        try:
            async with self._slots:
                await self._bucket.put_async(
                    _key(name),
                    data,
                    attributes={
                        "Content-Type": name.media,
                        "Cache-Control": "private, max-age=31536000, immutable",
                    },
                    use_multipart=False,
                )
        except (BaseError, OSError) as error:
            self._note_failure(error)
            if name not in self._shelf:
                self._forget(name)
            return error
        self._fails = False
        self._release(name)
        if name not in self._shelf:  # it had to leave while it was on its way
            return await self._remove((name,))
        return None

    def _dismiss(self, names: tuple[ImageName, ...]) -> "asyncio.Task[Exception | None]":
        """Nobody gets them from now on."""
        self._leaving.update(names)
        return self._begin(self._remove(names))

    def _note_failure(self, error: Exception) -> None:
        if not self._fails:
            _log.error("image_not_written", store="s3", error=_said(error))
        self._fails = True
        # Addresses were given out: memory serves them, up to the bound.
        while self._unwritten_bytes > MAX_UNWRITTEN_BYTES:
            self._forget(next(iter(self._unwritten)))

    def _forget(self, name: ImageName) -> None:
        self._shelf.forget(name)
        self._release(name)
        self._leaving.discard(name)

    def _release(self, name: ImageName) -> None:
        data = self._unwritten.pop(name, None)
        if data is not None:
            self._unwritten_bytes -= len(data)

    async def open(self, name: ImageName) -> StoredImage | None:
        """Also what another gateway has put there. Raises ImageStoreSilentError."""
        now = self._clock.now()
        is_known = name in self._shelf
        if name in self._leaving or (is_known and self._shelf.find(name, now) is None):
            return None
        data = self._unwritten.get(name)
        if data is not None:
            return StoredImage(len(data), partial(slices, data), nothing_to_close)
        try:
            found = await self._bucket.head_async(_key(name))
        except FileNotFoundError:
            self._shelf.forget(name)
            return None
        except (BaseError, OSError) as error:
            raise ImageStoreSilentError(_said(error)) from error
        if not is_known and now >= found["last_modified"].timestamp() + self._lifetime:
            return None
        return StoredImage(found["size"], partial(self._chunks, name), nothing_to_close)

    async def _chunks(self, name: ImageName, start: int, stop: int) -> AsyncIterator[bytes]:
        try:
            found = await self._bucket.get_async(_key(name), options={"range": (start, stop)})
            async for chunk in found.stream(min_chunk_size=CHUNK_BYTES):
                yield bytes(chunk)
        except (BaseError, OSError) as error:
            raise ConnectionError(f"a stored image ended early: {_said(error)}") from None

    async def secure(self, paths: Sequence[str]) -> None:
        """What the bucket has is safe there. Raises ImageNotStoredError."""
        names = {name for path in paths if (name := parse_path(path)) is not None}
        under_way = [self._uploads[name] for name in names if name in self._uploads]
        if under_way:
            await asyncio.wait(under_way)
        if names & self._unwritten.keys() or any(name not in self._shelf for name in names):
            raise ImageNotStoredError("the bucket does not take images at the moment")

    async def sweep(self) -> int:
        leaving = self._shelf.expire(self._clock.now())
        for name in leaving:
            self._release(name)
        if leaving:
            await asyncio.shield(self._dismiss(leaving))
        return len(leaving)

    async def close(self) -> None:
        """Wait for what is on its way; each has a time limit of its own."""
        while self._under_way:
            await asyncio.wait(self._under_way)

    def _begin(
        self, work: Coroutine[None, None, Exception | None]
    ) -> "asyncio.Task[Exception | None]":
        task = asyncio.get_running_loop().create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return task

    async def _remove(self, names: tuple[ImageName, ...]) -> Exception | None:
        try:
            # Those that are on their way are removed when they have arrived.
            there = [_key(name) for name in names if name not in self._unwritten]
            if there:
                await self._bucket.delete_async(there)
        except FileNotFoundError:
            return None
        except (BaseError, OSError) as error:
            # A rule of the bucket for old files removes them some day.
            _log.warning("images_not_removed", count=len(names), error=_said(error))
            return error
        finally:
            self._leaving.difference_update(name for name in names if name not in self._unwritten)
        return None


@asynccontextmanager
async def open_s3_store(
    bucket: S3Store,
    *,
    lifetime: float,
    max_bytes: int,
    max_count: int,
    clock: Clock,
    urls: Urls = "proxied",
) -> AsyncIterator[S3ImageStore]:
    """A store over `bucket` that still serves an earlier run's images, and waits at exit for uploads.

    Raises ValueError where the bucket refuses us; one that is silent for now is no obstacle.
    """
    shelf = Shelf(lifetime=lifetime, max_bytes=max_bytes, max_count=max_count)
    try:
        shelf.restore(await _listed(bucket, max_count))
    except (BaseError, OSError) as error:
        reason = next((word for word in _FINAL if word in str(error)), "")
        if reason or isinstance(error, PermissionDeniedError | UnauthenticatedError):
            raise ValueError(f"the bucket cannot be listed: {reason or _said(error)}") from None
        _log.warning("image_store_silent", store="s3", error=_said(error))
    store = S3ImageStore(bucket, shelf, clock, lifetime=lifetime, urls=urls)
    try:
        yield store
    finally:
        await store.close()


async def _listed(bucket: S3Store, most: int) -> list[tuple[ImageName, Held]]:
    """The newest of what is there; what is more goes, a page at a time, as from a shelf that is full."""
    newest: list[tuple[float, ImageName, int]] = []
    surplus: list[ImageName] = []
    async for page in bucket.list(chunk_size=_PAGE):
        for entry in page:
            name = parse_path(f"/stream/{entry['path']}")
            if name is None:
                continue
            one = (entry["last_modified"].timestamp(), name, entry["size"])
            if len(newest) < most:
                heapq.heappush(newest, one)
            else:
                surplus.append(heapq.heappushpop(newest, one)[1])
        if len(surplus) >= _PAGE:
            await _remove_surplus(bucket, surplus)
            surplus = []
    if surplus:
        await _remove_surplus(bucket, surplus)
    return [(name, Held(size, stored_at)) for stored_at, name, size in newest]


async def _remove_surplus(bucket: S3Store, names: Sequence[ImageName]) -> None:
    try:
        await bucket.delete_async([_key(name) for name in names])
    except FileNotFoundError:
        return
    except (BaseError, OSError) as error:
        _log.warning("images_not_removed", count=len(names), error=_said(error))


def _key(name: ImageName) -> str:
    return f"{name.request}/{name.file}"


def _said(error: Exception) -> str:
    """The first line: the rest repeats addresses and requests."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
