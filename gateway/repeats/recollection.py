"""Answers in memory, their images in the image store."""

from collections.abc import Sequence
from functools import partial
from typing import Final

import structlog

from gateway.dispatch.journey import DispatchResult
from gateway.orchestrators.answers import Picture
from gateway.repeats.memory import Memory, Remembered, RememberedImage
from gateway.storage.names import parse_path
from gateway.storage.store import ImageNotStoredError, ImageStore, ImageStoreSilentError
from network.runtime.clock import Clock
from network.runtime.supervisor import Supervisor

_log = structlog.get_logger(__name__)

#: Answers on their way into a store that is slow; what comes on top is not remembered.
_MOST_UNDER_WAY: Final = 64


class Recollection:
    """Images are stored as they came, under names of their own that no client is told.

    So whoever gets an answer again gets addresses of its own, which live as long as any others: an
    address is the whole permission to see its image, and tells nobody who else has it.
    """

    def __init__(
        self, memory: Memory, images: ImageStore, supervisor: Supervisor, clock: Clock
    ) -> None:
        self._memory = memory
        self._images = images
        self._supervisor = supervisor
        self._clock = clock
        self._under_way = 0

    def __len__(self) -> int:
        return len(self._memory)

    def find(self, digest: bytes) -> Remembered | None:
        """Whose images may be gone all the same."""
        return self._memory.find(digest, self._clock.now())

    def distrust(self, orchestrator: str) -> None:
        """Forget what came from this URI."""
        self._memory.forget_of(orchestrator)

    async def pictures(self, digest: bytes, answer: Remembered) -> tuple[Picture, ...] | None:
        """The images of an answer that was found; None where one of them is gone."""
        found: list[Picture] = []
        for one in answer.images:
            png = await self._read(one)
            if png is None:
                self._memory.forget(digest, answer)
                return None
            found.append(Picture(png, one.seed, one.safety))
        return tuple(found)

    def remember_soon(self, digest: bytes, request_id: str, result: DispatchResult) -> None:
        """Beside the request, which does not wait for the store."""
        self._supervisor.start("remember", partial(self.remember, digest, request_id, result))

    async def remember(self, digest: bytes, request_id: str, result: DispatchResult) -> None:
        """Return when equal requests find it. Raises nothing."""
        if self._under_way >= _MOST_UNDER_WAY:
            return
        self._under_way += 1
        try:
            stored_at = self._clock.now()
            images = await self._stored(request_id, result.images)
        except ImageNotStoredError as error:
            _log.warning("answer_not_remembered", request_id=request_id, error=str(error))
            return
        finally:
            self._under_way -= 1
        if images is not None:
            answer = Remembered(
                request_id, images, result.fee, result.orchestrator, result.warnings, stored_at
            )
            self._memory.put(digest, answer)

    async def _stored(
        self, request_id: str, pictures: Sequence[Picture]
    ) -> tuple[RememberedImage, ...] | None:
        """None where they can only be fetched elsewhere. Raises ImageNotStoredError."""
        found: list[RememberedImage] = []
        for one in pictures:
            name = parse_path(await self._images.put(request_id, one.png))
            if name is None:
                return None
            found.append(RememberedImage(name, len(one.png), one.seed, one.safety))
        return tuple(found)

    async def _read(self, one: RememberedImage) -> bytes | None:
        try:
            stored = await self._images.open(one.name)
            if stored is None:
                return None
            try:
                png = b"".join([chunk async for chunk in stored.chunks(0, stored.size)])
            finally:
                stored.close()
        except (ImageStoreSilentError, OSError) as error:
            _log.warning("remembered_image_not_read", error=str(error))
            return None
        return png if len(png) == one.size else None
