"""Images of answers that are kept: the answer has their paths, the image store has them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import orjson
import structlog
from pybase64 import b64encode_as_string

from gateway.promises.model import ANSWER_LOST
from gateway.storage.names import MEDIA, ImageName, Kind, parse_path
from gateway.storage.store import ImageNotStoredError, ImageStoreSilentError, StoredImage
from network.errors import Problem, ProblemError
from network.wire import problems

_log = structlog.get_logger(__name__)

#: An image in base64 begins otherwise: a path in this field stands for the image.
_INLINE: Final = b'"b64_json":"/stream/'
_RETRY_SECONDS: Final = 5.0


class Images(Protocol):
    """What `gateway.storage` does for answers that are kept."""

    async def put(self, request: str, png: bytes, kind: Kind = "png") -> str: ...

    async def secure(self, paths: Sequence[str]) -> None: ...

    async def open(self, name: ImageName) -> StoredImage | None:
        """Raises ImageStoreSilentError."""


@dataclass(slots=True)
class Stored:
    """Shows images by where they are (`gateway.api.generation.Showing`)."""

    images: Images
    base_url: str
    request_id: str
    paths: list[str] = field(default_factory=list)
    #: An image is in the answer itself, which is therefore not kept.
    is_whole: bool = True

    @property
    def job_id(self) -> str:
        return self.request_id

    async def url(self, data: bytes, kind: Kind) -> str:
        address = await self._put(data, kind)
        if address is None:
            return f"data:{MEDIA[kind]};base64,{b64encode_as_string(data)}"
        return self.base_url + address if address.startswith("/") else address

    async def inline(self, data: bytes, kind: Kind) -> str:
        address = await self._put(data, kind)
        if address is not None and address.startswith("/"):
            return address
        self.is_whole = False
        return b64encode_as_string(data)

    async def secure(self) -> bool:
        """Whether a crash leaves all of the images where they are."""
        try:
            await self.images.secure(self.paths)
        except ImageNotStoredError as error:
            _log.error("answer_not_kept", error=str(error))
            return False
        return self.is_whole

    async def _put(self, data: bytes, kind: Kind) -> str | None:
        try:
            address = await self.images.put(self.request_id, data, kind)
        except ImageNotStoredError:
            self.is_whole = False
            return None
        if address.startswith("/"):  # what is served elsewhere is there already
            self.paths.append(address)
        return address


async def filled(answer: bytes, images: Images, fee: str) -> bytes:
    """The answer as its client gets it.

    Raises ProblemError 409 where it, or an image, is gone; 503 while nobody can tell.
    """
    if not answer:
        raise ProblemError(answer_lost(fee))
    if _INLINE not in answer:
        return answer
    told: dict[str, Any] = orjson.loads(answer)
    for datum in told["data"]:
        name = parse_path(datum["b64_json"])
        if name is not None:
            png = await _read(images, name, fee)
            datum["b64_json"] = b64encode_as_string(png)
    return orjson.dumps(told)


async def _read(images: Images, name: ImageName, fee: str) -> bytes:
    try:
        image = await images.open(name)
        if image is None:
            raise ProblemError(answer_lost(fee))
        try:
            return b"".join([chunk async for chunk in image.chunks(0, image.size)])
        finally:
            image.close()
    except (ImageStoreSilentError, OSError) as error:
        _log.error("image_store_silent", error=str(error))
        message = (
            f"The images were delivered, and charged with {fee} wei, but the image store does not "
            "answer. Ask again: nothing is made or charged again."
        )
        raise ProblemError(problems.images_unavailable(message, _RETRY_SECONDS)) from None


def answer_lost(fee: str) -> Problem:
    """`fee` in wei."""
    message = (
        f"The images were delivered, and charged with {fee} wei, but they are not kept any more. "
        "Nothing was made or charged again; take a new Idempotency-Key for new images."
    )
    return problems.conflict(message, ANSWER_LOST)
