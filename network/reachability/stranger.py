"""Looks at a service URI as a gateway does that never saw it before."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from network.findings import Finding, Verdict, fail
from network.identity import Signer
from network.reachability.addresses import (
    judge_connection,
    judge_name,
    own_addresses,
    resolve,
)
from network.reachability.calls import (
    CallError,
    Page,
    get,
    ping,
    port_of,
    printable,
    terms,
    words_of,
)
from network.reachability.certificates import judge_certificate, judge_handshake, shake_hands
from network.reachability.judgement import (
    Expectation,
    judge_account,
    judge_discovery,
    judge_health,
    judge_terms,
    judge_uri,
)
from network.runtime.clock import Clock
from network.units import ModelId

_STEP_SECONDS: Final = 4.0
_NODE_DOWN: Final = "see in its log why, and that what listens there is this node"


async def look(
    uri: str, expected: Expectation, *, asker: Signer | None, version: str, clock: Clock
) -> tuple[Finding, ...]:
    """Return what a stranger sees at `uri`. Takes about twelve seconds at most, and raises nothing.

    `asker` is in whose name terms are asked for, None for nobody in particular.
    """
    url = urlsplit(uri)
    try:
        host, port = url.hostname or "", port_of(url)
    except ValueError as error:
        return (fail("service URI", f"{printable(uri)}: {error}", "correct service_uri"),)
    findings = [judge_uri(uri, expected, has_port=url.port is not None)]
    addresses, problem = await _resolved(host, port)
    findings.append(judge_name(host, addresses, problem, is_public=expected.is_public))
    if not addresses:
        return tuple(findings)
    stranger = _Stranger(uri, host, port, expected, asker, version, clock)
    connection = await stranger.connect(addresses)
    findings.append(connection)
    if connection.verdict is Verdict.OK:
        findings += await stranger.ask(has_tls=url.scheme == "https")
    return tuple(findings)


@dataclass(frozen=True, slots=True)
class _Stranger:
    uri: str
    host: str
    port: int
    expected: Expectation
    asker: Signer | None
    version: str
    clock: Clock

    async def connect(self, addresses: tuple[str, ...]) -> Finding:
        where = f"{self.host} port {self.port}"
        started = self.clock.monotonic()
        problem = ""
        own: tuple[str, ...] = ()
        try:
            async with asyncio.timeout(_STEP_SECONDS):
                _, writer = await asyncio.open_connection(self.host, self.port)
        except OSError as error:  # TimeoutError is one
            problem = words_of(error)
            own = await asyncio.to_thread(own_addresses, addresses)
        else:
            writer.transport.abort()
        seconds = self.clock.monotonic() - started
        return judge_connection(where, problem, seconds, addresses, own)

    async def ask(self, *, has_tls: bool) -> list[Finding]:
        looks: list[Awaitable[tuple[Finding, ...]]] = [self._tls()] if has_tls else []
        looks += [self._ping(), self._terms(None)]
        if self.expected.model_id is not None:
            looks.append(self._terms(self.expected.model_id))
        looks.append(self._page("/discovery", "discovery", judge_discovery))
        looks.append(self._page("/health", "health", judge_health))
        return [finding for found in await asyncio.gather(*looks) for finding in found]

    async def _tls(self) -> tuple[Finding, ...]:
        try:
            async with asyncio.timeout(_STEP_SECONDS):
                shown = await shake_hands(self.host, self.port)
        except OSError as error:
            advice = "see that TLS is spoken there, and not plain HTTP"
            return (fail("TLS", f"no handshake: {words_of(error)}", advice),)
        certificate = judge_certificate(
            shown, self.host, self.clock.now(), is_public=self.expected.is_public
        )
        return judge_handshake(shown), certificate

    async def _ping(self) -> tuple[Finding, ...]:
        try:
            found = await ping(self.uri, _STEP_SECONDS)
        except CallError as error:
            return (fail("account", f"Ping is not answered: {error}", _NODE_DOWN),)
        return (judge_account(found, self.expected.account),)

    async def _terms(self, model_id: ModelId | None) -> tuple[Finding, ...]:
        what = "terms" if model_id is None else f"terms of {model_id}"
        try:
            answer = await terms(
                self.uri,
                self.asker,
                model_id,
                self.version,
                seconds=_STEP_SECONDS,
                clock=self.clock,
            )
        except CallError as error:
            return (fail(what, f"GetOrchestrator is not answered: {error}", _NODE_DOWN),)
        return (judge_terms(what, answer, self.expected, self.uri),)

    async def _page(
        self, path: str, what: str, judge: Callable[[Page], Finding]
    ) -> tuple[Finding, ...]:
        try:
            page = await get(self.uri, path, _STEP_SECONDS)
        except CallError as error:
            return (fail(what, f"GET {path} is not answered: {error}", _NODE_DOWN),)
        return (judge(page),)


async def _resolved(host: str, port: int) -> tuple[tuple[str, ...], str]:
    try:
        async with asyncio.timeout(_STEP_SECONDS):
            return await resolve(host, port), ""
    except OSError as error:
        return (), words_of(error)
