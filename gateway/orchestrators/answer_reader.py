"""An answer of an orchestrator as it comes in: parsed by llhttp, and little of it believed."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import httptools

from gateway.orchestrators.answers import OrchestratorFailed, printable
from network.wire import image_parts

_OK: Final = 200
_LONGEST_REFUSAL: Final = 4096
_LARGEST_HEAD: Final = 128 * 1024
#: A chunk of one byte takes this many on the wire.
_FRAMING: Final = 6


@dataclass(slots=True)
class PostAnswer:
    """What came back: images with status 200 whole, of anything else the first kilobytes."""

    status: int
    #: Names in lower case.
    headers: Mapping[str, str]
    body: bytes | bytearray

    @property
    def is_delivery(self) -> bool:
        """Whether it says to be images, in JSON or as parts."""
        return _is_delivery(self.status, self.headers)

    @property
    def has_parts(self) -> bool:
        return self.headers.get("content-type", "") == image_parts.CONTENT_TYPE


class AnswerReader:
    """One answer being read. httptools calls the methods that begin with `on_`."""

    def __init__(self, most: int, answer: "asyncio.Future[PostAnswer]") -> None:
        self._most = most
        self.answer = answer
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        self._read = 0
        self._head: dict[str, str] = {}
        self._status = 0
        self._has_head = False
        self._is_whole = False
        self._may_be_followed = False
        self._chunks: list[bytes] = []
        self._size = 0
        #: Where the rest of a body of known length goes, past the parser.
        self._body: bytearray | None = None

    @property
    def is_in_body(self) -> bool:
        """Whether the head has come and the body has not."""
        return self._has_head and not self._is_whole

    @property
    def may_be_followed(self) -> bool:
        """Whether the connection can carry another exchange."""
        return self._may_be_followed

    def close(self) -> None:
        """Read no further."""
        # The parser and this object hold each other: left alone, they would wait for the collector.
        self._parser = None

    @property
    def room(self) -> memoryview | None:
        """Where the next bytes belong, if that is known; to be told of by `filled`."""
        return None if self._body is None else memoryview(self._body)[self._size :]

    def filled(self, count: int) -> None:
        """So many bytes were put into `room`."""
        self._size += count
        if self._body is not None and self._size == len(self._body):
            self._is_whole = True
            self.conclude()

    def feed(self, data: memoryview) -> None:
        """Take what arrived. Raises OrchestratorFailed."""
        if self._parser is None:
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            shown = printable(f"{type(error).__name__} {error}", 200)
            raise OrchestratorFailed(f"its answer is not the HTTP we know: {shown}") from None
        self._read += len(data)
        if not self._has_head:
            if self._read > _LARGEST_HEAD:
                raise OrchestratorFailed(f"its answer's head is above {_LARGEST_HEAD} bytes")
            return
        if _is_delivery(self._status, self._head):
            self._refuse_too_much()
        elif self._size >= _LONGEST_REFUSAL or self._read > _LARGEST_HEAD + _LONGEST_REFUSAL:
            self.conclude()
        if self._is_whole:
            self.conclude()
        else:
            self._make_room()

    def _make_room(self) -> None:
        """Images are megabytes: no copy is made of what is still to come of a body of known length."""
        length = self._head.get("content-length", "")
        is_framed = "transfer-encoding" in self._head
        if is_framed or not length.isdigit() or not _is_delivery(self._status, self._head):
            return
        parser, self._parser = self._parser, None
        self._may_be_followed = parser is not None and parser.should_keep_alive()
        self._body = bytearray(int(length))
        self._body[: self._size] = b"".join(self._chunks)
        self._chunks.clear()

    def conclude(self) -> None:
        """Answer with what is there."""
        if not self.answer.done():
            body = self._body if self._body is not None else b"".join(self._chunks)
            self._body = None
            self._chunks.clear()
            if not _is_delivery(self._status, self._head):
                body = body[:_LONGEST_REFUSAL]
            self.answer.set_result(PostAnswer(self._status, self._head, body))

    def end(self) -> bool:
        """The connection ended; whether that is how this answer was meant to end."""
        has_length = "content-length" in self._head or "transfer-encoding" in self._head
        if self._has_head and not has_length:
            self.conclude()
        return self.answer.done()

    def _refuse_too_much(self) -> None:
        announced = self._head.get("content-length", "")
        if announced.isdigit() and int(announced) > self._most:
            raise OrchestratorFailed(f"its answer of {announced} bytes is larger than asked for")
        # What frames the body counts as well: chunks of one byte, and trailers without end.
        if self._size > self._most or self._read > _FRAMING * self._most + _LARGEST_HEAD:
            raise OrchestratorFailed(f"its answer is larger than the {self._most} bytes asked for")

    def on_message_begin(self) -> None:
        if self._is_whole:  # it speaks without being asked: whose answer would the next one be?
            self._may_be_followed = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._has_head:  # trailers tell nothing
            self._head[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        if self._parser is not None and not self._is_whole:
            self._status = self._parser.get_status_code()
            self._has_head = self._status >= _OK

    def on_body(self, body: bytes) -> None:
        if not self._is_whole:
            self._chunks.append(body)
            self._size += len(body)

    def on_message_complete(self) -> None:
        if self._is_whole:
            return
        if self._has_head and self._parser is not None:
            self._is_whole = True
            # Only known here: what decides it is cleared for the next message.
            self._may_be_followed = self._parser.should_keep_alive()
        else:  # an interim answer, 1xx, which nobody asked for
            self._head.clear()


def _is_delivery(status: int, head: Mapping[str, str]) -> bool:
    told = head.get("content-type", "")
    return status == _OK and ("json" in told.lower() or told == image_parts.CONTENT_TYPE)
