"""A lean HTTP/1.1 load generator: the same few connections for every target, so that its own cost cancels out."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit

from typing_extensions import override


class UnexpectedAnswerError(Exception):
    """The target answered with another status than 200; holds the beginning of what it said."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One run against one target: sorted latencies in seconds, and how long the whole run took."""

    latencies: tuple[float, ...]
    elapsed: float

    def quantile_ms(self, quantile: float) -> float:
        """The latency at `quantile` (nearest rank), in milliseconds."""
        rank = min(int(len(self.latencies) * quantile), len(self.latencies) - 1)
        return self.latencies[rank] * 1000

    @property
    def requests_per_s(self) -> float:
        return len(self.latencies) / self.elapsed


def post(url: str, path: str, body: bytes, headers: dict[str, str]) -> bytes:
    """The bytes of one POST request."""
    lines = [f"POST {path} HTTP/1.1", f"Host: {urlsplit(url).netloc}"]
    lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class _Connection(asyncio.Protocol):
    """One keep-alive connection; answers must carry Content-Length."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._expected: int | None = None
        self._answer: asyncio.Future[bytes] | None = None
        self._transport: asyncio.WriteTransport | None = None

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes, only their like.
        self._transport = cast("asyncio.WriteTransport", transport)

    @override
    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._expected is None:
            end = self._received.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self._received[:end]).lower()
            self._expected = end + 4 + int(head.partition(b"content-length:")[2].split(b"\r\n")[0])
        if len(self._received) >= self._expected and self._answer is not None:
            self._answer.set_result(bytes(self._received))
            self._answer = None

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionResetError("the target hung up"))

    async def exchange(self, request: bytes) -> bytes:
        self._received.clear()
        self._expected = None
        self._answer = asyncio.get_running_loop().create_future()
        if self._transport is None:
            message = "not connected"
            raise ConnectionError(message)
        self._transport.write(request)
        answer = await self._answer
        if not answer.startswith(b"HTTP/1.1 200 "):
            raise UnexpectedAnswerError(answer[:600].decode(errors="replace"))
        return answer

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


class Load:
    """`connections` open connections to one target, each sending its next request when the last was answered."""

    def __init__(self, url: str, make_request: Callable[[], bytes]) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname or "127.0.0.1", parts.port or 80)
        self._make_request = make_request

    async def run(self, *, requests: int, connections: int) -> Measured:
        """Send `requests` in all. Raises UnexpectedAnswerError at the first that is not 200."""
        loop = asyncio.get_running_loop()
        opened = [
            (await loop.create_connection(_Connection, *self._address))[1]
            for _ in range(connections)
        ]
        latencies: list[float] = []
        remaining = iter(range(requests))

        async def keep_sending(connection: _Connection) -> None:
            for _ in remaining:
                request = self._make_request()
                started = time.perf_counter()
                await connection.exchange(request)
                latencies.append(time.perf_counter() - started)

        started = time.perf_counter()
        try:
            async with asyncio.TaskGroup() as group:
                for connection in opened:
                    group.create_task(keep_sending(connection))
        finally:
            for connection in opened:
                connection.close()
        return Measured(tuple(sorted(latencies)), time.perf_counter() - started)

    async def run_at(self, rate: float, *, seconds: float, connections: int) -> Measured:
        """Open loop: a request falls due every 1/`rate` seconds, whether or not others were answered; one at least.

        Latencies count from when a request was due, so that whoever stalls is charged for all that
        it keeps waiting; at most `connections` are under way. As `run`.
        """
        loop = asyncio.get_running_loop()
        clock = time.perf_counter  # uvloop's own counts whole milliseconds
        opened = [
            (await loop.create_connection(_Connection, *self._address))[1]
            for _ in range(connections)
        ]
        latencies: list[float] = []
        due: asyncio.Queue[float | None] = asyncio.Queue()
        started = clock()

        async def keep_sending(connection: _Connection) -> None:
            while (moment := await due.get()) is not None:
                await connection.exchange(self._make_request())
                latencies.append(clock() - moment)

        try:
            async with asyncio.TaskGroup() as group:
                for connection in opened:
                    group.create_task(keep_sending(connection))
                for number in range(max(1, round(rate * seconds))):
                    moment = started + number / rate
                    if moment > clock():
                        await asyncio.sleep(moment - clock())
                    due.put_nowait(moment)
                for _ in opened:
                    due.put_nowait(None)
        finally:
            for connection in opened:
                connection.close()
        return Measured(tuple(sorted(latencies)), clock() - started)

    async def answer(self) -> bytes:
        """One whole answer, head and body."""
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(_Connection, *self._address)
        try:
            return await connection.exchange(self._make_request())
        finally:
            connection.close()
