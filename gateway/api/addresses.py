"""Where clients fetch the images that they were not sent."""

import re
from typing import Final, Protocol

import msgspec
import structlog
from aiohttp.web import BaseRequest
from pybase64 import b64encode_as_string

from gateway.storage.names import MEDIA, Kind
from gateway.storage.store import ImageNotStoredError

_log = structlog.get_logger(__name__)

_HOST: Final = re.compile(
    r"[A-Za-z0-9._-]{1,255}(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](:[0-9]{1,5})?"
)


class Images(Protocol):
    """What `gateway.storage` does for these endpoints."""

    async def put(self, request: str, png: bytes, kind: Kind = "png") -> str: ...


class Addresses:
    """Stores images, and tells their URLs."""

    def __init__(self, images: Images, public_url: str) -> None:
        """`public_url` "" builds addresses from each request's own Host header."""
        self._images = images
        self._public_url = public_url

    def base(self, request: BaseRequest) -> str:
        """What the URLs in the answer to `request` begin with."""
        return self._public_url or _own_url(request)

    async def of(self, request: BaseRequest, job_id: str, data: bytes, kind: Kind = "png") -> str:
        """The image's URL; a data URL if it cannot be stored."""
        try:
            address = await self._images.put(job_id, data, kind)
        except ImageNotStoredError as error:
            # The image is made and paid for: it goes into the answer itself.
            _log.error("image_sent_inline", error=str(error))
            return f"data:{MEDIA[kind]};base64,{b64encode_as_string(data)}"
        # One that is whole already is served elsewhere, by the store itself.
        return self.base(request) + address if address.startswith("/") else address


class Direct(msgspec.Struct, frozen=True):
    """Shows images to the client that waits for them (`gateway.api.generation.Showing`)."""

    addresses: Addresses
    request: BaseRequest
    job_id: str

    async def url(self, data: bytes, kind: Kind) -> str:
        return await self.addresses.of(self.request, self.job_id, data, kind)

    async def inline(self, data: bytes, kind: Kind) -> str:
        del kind
        return b64encode_as_string(data)


def _own_url(request: BaseRequest) -> str:
    host = request.headers.get("Host", "")
    if _HOST.fullmatch(host) is None:  # HTTP/1.0, or a header made to deceive
        address, port, *_ = request.get_extra_info("sockname", ("127.0.0.1", 80))
        host = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    return f"{request.scheme}://{host}"
