"""A request's body, bounded in size and in time."""

import asyncio
from time import perf_counter
from typing import Final

from aiohttp import hdrs
from aiohttp.http import HttpVersion11
from aiohttp.web import BaseRequest
from aiohttp.web_protocol import RequestPayloadError

from gateway.api.exchange import Exchange
from network.errors import Problem, ProblemError
from network.wire import problems

_UTF_8: Final = frozenset({"utf-8", "utf8"})
_PLAIN_JSON: Final = frozenset({"application/json", "application/json; charset=utf-8"})


async def read_json_body(
    request: BaseRequest, exchange: Exchange, *, max_bytes: int, timeout_seconds: float
) -> bytes:
    """The whole body of a JSON request.

    Raises ProblemError: 415 for another content type or coding, 413 beyond `max_bytes` (told by
    Content-Length before, or counted while, reading), 408 when it takes too long, 417 for an
    expectation we do not know, 400 for a body that breaks off.
    """
    expects_continue = _expects_continue(request)
    _check_media(request)
    length = request.content_length
    if length is not None and length > max_bytes:
        raise ProblemError(problems.too_large(max_bytes))
    content = request.content
    if content.is_eof():  # came in one piece with the head, as small bodies do
        body = content.read_nowait(-1)
        if len(body) > max_bytes:
            raise ProblemError(problems.too_large(max_bytes))
        return body
    if expects_continue:
        await _send_continue(request)
    waiting_since = perf_counter()
    try:
        async with asyncio.timeout(timeout_seconds):
            return await _read(request, max_bytes)
    except TimeoutError:
        raise ProblemError(_too_slow(timeout_seconds)) from None
    except RequestPayloadError as error:
        raise ProblemError(problems.bad_request("The request body is broken off.")) from error
    finally:
        exchange.foreign_seconds += perf_counter() - waiting_since


async def _read(request: BaseRequest, max_bytes: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    # `readany` gives b"" only at the end; a chunked body has no length to refuse beforehand.
    while chunk := await request.content.readany():
        size += len(chunk)
        if size > max_bytes:
            raise ProblemError(problems.too_large(max_bytes))
        chunks.append(chunk)
    return b"".join(chunks)


def _check_media(request: BaseRequest) -> None:
    # A compressed body could grow a thousandfold in the reading; nobody needs one here.
    coding = request.headers.get(hdrs.CONTENT_ENCODING, "identity")
    if coding.lower() != "identity":
        raise ProblemError(problems.unsupported_media())
    declared = request.headers.get(hdrs.CONTENT_TYPE, "")
    if declared in _PLAIN_JSON:
        return
    media, *parameters = (part.strip().lower() for part in declared.split(";"))
    charsets = [text for text in parameters if text.startswith("charset=")]
    is_utf8 = all(text.removeprefix("charset=").strip('"') in _UTF_8 for text in charsets)
    if media != "application/json" or not is_utf8:
        raise ProblemError(problems.unsupported_media())


def _expects_continue(request: BaseRequest) -> bool:
    expectation = request.headers.get(hdrs.EXPECT)
    if expectation is None or request.version < HttpVersion11:
        return False
    if expectation.lower() != "100-continue":
        raise ProblemError(_unknown_expectation())
    return True


async def _send_continue(request: BaseRequest) -> None:
    """Only now: a client that was refused before never sends its body."""
    writer = request.writer
    await writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    # The interim line is no part of the answer: were it counted, an error could not follow it.
    writer.output_size = 0


def _too_slow(seconds: float) -> Problem:
    return Problem(
        408,
        f"The request body did not arrive within {seconds:g} seconds.",
        "invalid_request_error",
        "body_timeout",
        headers={"Connection": "close"},
    )


def _unknown_expectation() -> Problem:
    return Problem(
        417,
        "The only expectation understood is 100-continue.",
        "invalid_request_error",
        "expectation_failed",
    )
