"""`GET /stream/{request}/{name}`: delivered images. The name is the secret; no key is asked."""

from typing import Final

import structlog
from aiohttp.web import BaseRequest, StreamResponse

from gateway.api.answers import SERVER
from gateway.api.exchange import SERVER_TIMING, Exchange
from gateway.api.ranges import UnsatisfiableRangeError, asked_range, goes_on, knows
from gateway.api.stalling import taken
from gateway.storage.names import ImageName, parse_path
from gateway.storage.store import CHUNK_BYTES, ImageStore, ImageStoreSilentError, StoredImage
from network.errors import Problem, ProblemError
from network.wire import problems

_log = structlog.get_logger(__name__)

PREFIX: Final = "/stream/"
_RETRY_SECONDS: Final = 5.0
#: Seconds in which a reader has to take the next `CHUNK_BYTES`: a segment's file is there as long as it is read.
_STALL: Final = 120.0


class Images:
    """The endpoint. An image never changes under its name, so browsers may keep it for ever."""

    def __init__(self, store: ImageStore) -> None:
        self._store = store

    async def show(self, request: BaseRequest, exchange: Exchange) -> StreamResponse:
        name = parse_path(request.rel_url.raw_path)
        image = None if name is None else await self._opened(name)
        if name is None or image is None:
            raise ProblemError(problems.not_found("image"))
        try:
            if knows(request.headers.get("If-None-Match"), _tag(name)):
                return StreamResponse(status=304, headers=_headers(name, exchange))
            part = _part(request, name, image.size)
            return await _send(request, image, part, _headers(name, exchange))
        finally:
            image.close()

    async def _opened(self, name: ImageName) -> StoredImage | None:
        try:
            return await self._store.open(name)
        except ImageStoreSilentError as error:
            _log.error("image_store_silent", error=str(error))
            message = "The image store does not answer; try again."
            raise ProblemError(problems.images_unavailable(message, _RETRY_SECONDS)) from None


def _part(request: BaseRequest, name: ImageName, size: int) -> tuple[int, int] | None:
    """What of the image is asked for; None is all of it. Raises ProblemError 416."""
    if request.method != "GET" or not goes_on(request.headers.get("If-Range"), _tag(name)):
        return None
    try:
        return asked_range(request.headers.get("Range"), size)
    except UnsatisfiableRangeError:
        raise ProblemError(
            Problem(
                416,
                f"The image has {size} bytes.",
                "invalid_request_error",
                "range_not_satisfiable",
                headers={"Content-Range": f"bytes */{size}"},
            )
        ) from None


async def _send(
    request: BaseRequest,
    image: StoredImage,
    part: tuple[int, int] | None,
    headers: dict[str, str],
) -> StreamResponse:
    start, stop = part or (0, image.size)
    response = StreamResponse(headers=headers)
    if part is not None:
        response.set_status(206)
        response.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{image.size}"
    response.content_length = stop - start
    await response.prepare(request)
    if request.method != "HEAD":
        async for chunk in image.chunks(start, stop):
            # Images in memory come whole.
            for begin in range(0, len(chunk), CHUNK_BYTES):
                piece = memoryview(chunk)[begin : begin + CHUNK_BYTES]
                await taken(request, response.write(piece), _STALL)
    await taken(request, response.write_eof(), _STALL)
    return response


def _tag(name: ImageName) -> str:
    return f'"{name.name}"'


def _headers(name: ImageName, exchange: Exchange) -> dict[str, str]:
    return {
        "Content-Type": name.media,
        "Cache-Control": "private, max-age=31536000, immutable",
        "ETag": _tag(name),
        "Accept-Ranges": "bytes",
        "X-Content-Type-Options": "nosniff",
        # An image opened as a page of its own may run nothing and frame nothing.
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "X-Request-Id": exchange.request_id,
        SERVER_TIMING: exchange.timing(),
        "Server": SERVER,
    }
