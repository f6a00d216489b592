"""Calls an app of somebody else, at addresses that were looked at, and hands its answer on as it comes."""

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final
from urllib.parse import unquote

import aiohttp
from aiohttp import hdrs, web
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from multidict import CIMultiDict
from typing_extensions import override
from yarl import URL

from node.apps.addresses import Reach
from node.apps.calls import Delivery, UpstreamError

_CONNECT_SECONDS: Final = 5.0
_MAX_HEADER_BYTES: Final = 16 * 1024
_HTTP_OK_FROM: Final = 200
_HTTP_OK_UNTIL: Final = 400
_HTTP_PORTS: Final = {"http": 80, "https": 443}
#: Between two neighbours only (RFC 9110, 7.6.1).
_HOP_BY_HOP: Final = frozenset(
    {
        *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization"),
        *("proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"),
    }
)
#: Meant for us, or for us to say.
_NOT_FORWARDED: Final = _HOP_BY_HOP | {
    *("host", "content-length", "expect", "authorization", "cookie", "forwarded"),
}
#: An app answers from our origin, for which it cannot speak; and lengths are counted anew.
_NOT_RETURNED: Final = _HOP_BY_HOP | {
    *("content-length", "set-cookie", "server", "strict-transport-security", "alt-svc"),
    *("clear-site-data", "public-key-pins", "service-worker-allowed"),
}
_OURS: Final = re.compile(r"(livepeer|limner|x-forwarded)-.*", re.IGNORECASE)


class _LookedAt(AbstractResolver):
    """Finds only addresses that may be called. What it returns is what is connected to."""

    def __init__(self, reach: Reach) -> None:
        self._reach = reach
        self._inner = ThreadedResolver()

    @override
    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        refusals = [self._reach.refusal(host, one["host"], port) for one in found]
        good = [one for one, refusal in zip(found, refusals, strict=True) if refusal is None]
        if not good:
            raise OSError(next(filter(None, refusals), f"{host} has no address"))
        return good

    @override
    async def close(self) -> None:
        await self._inner.close()


async def refusal_of(url: URL, reach: Reach) -> str | None:
    """Tell why an app may not be at `url`, by what its host's name means now; None if it may."""
    host, port = url.host or "", url.port or _HTTP_PORTS[url.scheme]
    if _is_address(host):
        return reach.refusal(host, host, port)
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            await _LookedAt(reach).resolve(host, port)
    except TimeoutError:
        return f"{host} cannot be looked up in time"
    except OSError as error:
        return error.strerror or str(error)
    return None


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


@asynccontextmanager
async def open_upstream(reach: Reach, call_seconds: float) -> AsyncIterator["Upstream"]:
    """Call apps for the length of the block; `call_seconds` is the longest a call may take."""
    connector = aiohttp.TCPConnector(
        resolver=_LookedAt(reach), use_dns_cache=False, limit=0, force_close=True
    )
    async with aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS),
        auto_decompress=False,
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        max_line_size=_MAX_HEADER_BYTES,
        max_field_size=_MAX_HEADER_BYTES,
    ) as session:
        yield Upstream(session, reach, call_seconds)


@dataclass(frozen=True, slots=True)
class Upstream:
    """Makes calls."""

    session: aiohttp.ClientSession
    reach: Reach
    call_seconds: float

    async def hand_on(
        self,
        request: web.Request,
        body: bytes,
        target: URL,
        *,
        told: Mapping[str, str],
        added: Mapping[str, str],
    ) -> Delivery[web.StreamResponse]:
        """Send a request on to an app, and its answer back; returns when all but its end has left.

        `told` are headers for the app, `added` some for whoever called. Raises UpstreamError, and
        ConnectionError where the caller is gone.
        """
        # An address is not resolved, and so not looked at when connecting.
        host = target.host or ""
        port = target.port or _HTTP_PORTS[target.scheme]
        if _is_address(host) and self.reach.refusal(host, host, port) is not None:
            raise UpstreamError("forbidden_address", is_cut=False)
        response: web.StreamResponse | None = None
        try:
            async with (
                asyncio.timeout(self.call_seconds),
                self._asked(request, body, target, told) as answer,
            ):
                response = _head(request, answer, added)
                await response.prepare(request)
                await _hand_on_body(answer, response)
                status = answer.status
        except TimeoutError:
            raise _failure("timeout", request, response) from None
        except _BrokenAnswerError as error:
            raise _failure(error.reason, request, response) from None
        except asyncio.CancelledError:
            _failure("cancelled", request, response)
            raise
        fault = "" if status < _HTTP_OK_UNTIL else f"http_{status}"
        return Delivery(response, fault)

    @asynccontextmanager
    async def _asked(
        self, request: web.Request, body: bytes, target: URL, told: Mapping[str, str]
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        headers = _passed_on(request.headers, _NOT_FORWARDED)
        headers.update(told)
        try:
            answer = await self.session.request(
                request.method,
                target,
                data=body or None,
                headers=headers,
                # Where an app sends its callers is theirs to see, and not ours to follow.
                allow_redirects=False,
            )
        except (aiohttp.ClientError, OSError) as error:
            is_late = isinstance(error, TimeoutError)
            raise _BrokenAnswerError("timeout" if is_late else "unreachable") from error
        try:
            if answer.status < _HTTP_OK_FROM:
                # It goes over to another protocol, which nobody asked for.
                raise _BrokenAnswerError("broken_answer")
            yield answer
        finally:
            answer.close()


class _BrokenAnswerError(Exception):
    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def _failure(
    reason: str, request: web.Request, response: web.StreamResponse | None
) -> UpstreamError:
    is_cut = response is not None and response.prepared
    if is_cut and request.transport is not None:
        # The only way to tell that what came is not all.
        request.transport.abort()
    return UpstreamError(reason, is_cut=is_cut)


def _head(
    request: web.Request, answer: aiohttp.ClientResponse, added: Mapping[str, str]
) -> web.StreamResponse:
    headers = _passed_on(answer.headers, _NOT_RETURNED)
    headers.update(added)
    response = web.StreamResponse(status=answer.status, headers=headers)
    if request.method == hdrs.METH_HEAD:
        response.content_length = answer.content_length
    # Any other answer goes out in chunks, and ends with one that we send when it is in the books.
    return response


async def _hand_on_body(answer: aiohttp.ClientResponse, response: web.StreamResponse) -> None:
    """Never ahead of the reader by more than a buffer: writing waits, and then reading does."""
    while True:
        try:
            chunk = await answer.content.readany()
        except (aiohttp.ClientError, OSError) as error:
            raise _BrokenAnswerError("broken_answer") from error
        if not chunk:
            return
        await response.write(chunk)


def _passed_on(headers: Mapping[str, str], dropped: frozenset[str]) -> CIMultiDict[str]:
    named = {name.strip().lower() for name in headers.get("Connection", "").split(",")}
    return CIMultiDict(
        (name, value)
        for name, value in headers.items()
        if name.lower() not in dropped and name.lower() not in named and not _OURS.match(name)
    )


def target_of(base: URL, tail: str, query: str) -> URL | None:
    """Return where a call goes: below the app's URL, None for a path that would leave it.

    `tail` is decoded; `query` is as it came.
    """
    # Twice encoded, for apps that decode twice.
    for text in (tail, unquote(tail)):
        if {".", ".."} & set(text.replace("\\", "/").split("/")):
            return None
    path = base.path.rstrip("/") + "/" + tail.lstrip("/") if tail.strip("/") else base.path
    target = base.with_path(path)
    return URL(f"{target}?{query}", encoded=True) if query else target
