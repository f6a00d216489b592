"""Image files as their clients want them. Decoding and encoding happen once, in threads of their own.

Pillow is an extra: a gateway without it makes PNG only, and says so before anything is made.
"""

import asyncio
import importlib.util
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from io import BytesIO
from typing import Final

import msgspec
import structlog

from gateway.api.output import KINDS, METADATA_KEY, Format, Output, with_text
from gateway.storage.names import Kind
from network.errors import ProblemError
from network.wire import problems

_log = structlog.get_logger(__name__)

#: Threads: Pillow's codecs let others run meanwhile.
_WORKERS: Final = 2
#: Images that may be decoded at a time or wait for it; each holds its PNG in memory.
_MOST_WAITING: Final = 64
_SOFTWARE: Final = 0x0131
_EXIF_IFD: Final = 0x8769
_USER_COMMENT: Final = 0x9286
_NOT_READABLE: Final = "an image could not be read and is sent as the PNG that it came as"


class ImageFile(msgspec.Struct, frozen=True):
    """A file for a client."""

    data: bytes
    format: Format
    #: What of the wish could not be had; "" for nothing.
    warning: str = ""

    @property
    def kind(self) -> Kind:
        return KINDS[self.format]


def available_formats() -> tuple[Format, ...]:
    """What this installation can make, the usual one first."""
    return ("png",) if importlib.util.find_spec("PIL") is None else ("png", "jpeg", "webp")


class Finisher:
    """One per gateway; made by `open_finisher`."""

    def __init__(self, workers: ThreadPoolExecutor) -> None:
        self._workers = workers
        self._places = asyncio.Semaphore(_MOST_WAITING)

    def check(self, output: Output) -> None:
        """Raise ProblemError 400 for a format that this installation cannot make."""
        if output.format not in available_formats():
            raise ProblemError(
                problems.bad_request(
                    "This gateway makes png only; its operator adds jpeg and webp by installing "
                    "limner[gateway].",
                    param="output_format",
                )
            )

    async def finish(self, png: bytes, output: Output, metadata: str | None) -> ImageFile:
        """`png` is sound, and of the size that was asked for: decoding it is bounded by that."""
        if output.format == "png":
            return ImageFile(png if metadata is None else with_text(png, metadata), "png")
        loop = asyncio.get_running_loop()
        async with self._places:
            converted = await loop.run_in_executor(
                self._workers, _converted, png, output.format, output.quality, metadata
            )
        if converted is None:
            _log.warning("image_not_readable", bytes=len(png), wanted=output.format)
            return ImageFile(png, "png", _NOT_READABLE)
        return ImageFile(converted, output.format)


@asynccontextmanager
async def open_finisher() -> AsyncIterator[Finisher]:
    """Its threads start with the first image that needs them."""
    workers = ThreadPoolExecutor(_WORKERS, "image-finisher")
    try:
        yield Finisher(workers)
    finally:
        await asyncio.to_thread(workers.shutdown, cancel_futures=True)


def _converted(png: bytes, wanted: Format, quality: int, metadata: str | None) -> bytes | None:
    """None for a PNG whose pixels cannot be decoded."""
    from PIL import Image  # noqa: PLC0415  an extra, and half the price of a start

    file = BytesIO()
    try:
        with Image.open(BytesIO(png), formats=["PNG"]) as image:
            # JPEG has no transparency, and neither has what these models draw.
            plain = image.convert("RGB")
            exif = Image.Exif()
            if metadata is not None:
                exif[_SOFTWARE] = METADATA_KEY
                comment = b"ASCII\0\0\0" + metadata.encode("ascii")
                exif.get_ifd(_EXIF_IFD)[_USER_COMMENT] = comment
            plain.save(file, format=wanted, quality=quality, exif=exif)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    return file.getvalue()
