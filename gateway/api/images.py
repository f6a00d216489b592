"""`GET /stream/{request}/{name}`: delivered images. The name is the secret; no key is asked."""

from typing import Final

from aiohttp.web import BaseRequest, StreamResponse

from gateway.api.answers import SERVER
from gateway.api.exchange import Exchange
from gateway.storage.disk import DiskImageStore, StoredImage
from gateway.storage.names import ImageName, parse_path
from network.errors import ProblemError
from network.wire import problems

PREFIX: Final = "/stream/"


class Images:
    """The endpoint. An image never changes under its name, so browsers may keep it for ever."""

    def __init__(self, store: DiskImageStore) -> None:
        self._store = store

    async def show(self, request: BaseRequest, exchange: Exchange) -> StreamResponse:
        name = parse_path(request.rel_url.raw_path)
        image = None if name is None else await self._store.open(name)
        if name is None or image is None:
            raise ProblemError(problems.not_found("image"))
        try:
            if request.headers.get("If-None-Match") == _tag(name):
                return StreamResponse(status=304, headers=_headers(name, exchange))
            return await _send(request, image, _headers(name, exchange))
        finally:
            image.close()


async def _send(
    request: BaseRequest, image: StoredImage, headers: dict[str, str]
) -> StreamResponse:
    response = StreamResponse(headers=headers)
    response.content_length = image.size
    await response.prepare(request)
    if request.method != "HEAD":
        async for chunk in image.chunks():
            await response.write(chunk)
    await response.write_eof()
    return response


def _tag(name: ImageName) -> str:
    return f'"{name.name}"'


def _headers(name: ImageName, exchange: Exchange) -> dict[str, str]:
    return {
        "Content-Type": name.media,
        "Cache-Control": "private, max-age=31536000, immutable",
        "ETag": _tag(name),
        "X-Content-Type-Options": "nosniff",
        # An image opened as a page of its own may run nothing and frame nothing.
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "X-Request-Id": exchange.request_id,
        "Server": SERVER,
    }
