"""Where a name leads, and who can follow it there."""

import asyncio
import ipaddress
import socket
from collections.abc import Sequence
from contextlib import suppress
from enum import StrEnum
from typing import Final

from network.findings import Finding, fail, ok, skip, warn

_MOST_ADDRESSES: Final = 8
_SHARED: Final = ipaddress.ip_network("100.64.0.0/10")
_NAME: Final = "name"
_CONNECTION: Final = "connection"


class Scope(StrEnum):
    """From where an IP address can be reached."""

    PUBLIC = "public"
    LOOPBACK = "loopback"
    PRIVATE = "private"
    #: RFC 6598: behind the provider's own translation, shared by many of its customers.
    SHARED = "shared by a provider's customers (CGNAT)"
    RESERVED = "reserved"


def scope_of(address: str) -> Scope:
    """Return whose `address` it is; the scope id of a link-local address does not matter."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(parsed, "ipv4_mapped", None)
    if mapped is not None:
        parsed = mapped
    if parsed.is_loopback:
        return Scope.LOOPBACK
    if parsed.version == _SHARED.version and parsed in _SHARED:
        return Scope.SHARED
    if parsed.is_unspecified or parsed.is_multicast or parsed.is_reserved:
        return Scope.RESERVED
    if parsed.is_private or parsed.is_link_local:
        return Scope.PRIVATE
    return Scope.PUBLIC


async def resolve(host: str, port: int) -> tuple[str, ...]:
    """Return the addresses of `host`, each once. Raises OSError where it has none."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # the IDNA codec's word for an empty or overlong label
        raise OSError(f"{host[:80]!r} is no host name") from error
    return tuple(dict.fromkeys(str(entry[4][0]) for entry in found))[:_MOST_ADDRESSES]


def judge_name(host: str, addresses: Sequence[str], problem: str, *, is_public: bool) -> Finding:
    """Say whether strangers are led to an address that they can reach.

    `problem` is why there is no address; `is_public` that strangers from anywhere are to come.
    """
    if not addresses:
        return fail(
            _NAME,
            f"{host} has no address: {problem}",
            "correct service_uri, or the name's A and AAAA records",
        )
    told = ", ".join(addresses)
    shown = told if told == host else f"{host} is {told}"
    hidden = {scope_of(address) for address in addresses} - {Scope.PUBLIC}
    if not hidden:
        return ok(_NAME, shown)
    shown = f"{shown}: {' and '.join(sorted(hidden))}"
    if not is_public:
        return ok(_NAME, f"{shown}; gateways elsewhere cannot come")
    advice = "set service_uri to a name or address that the whole internet reaches"
    if Scope.SHARED in hidden:
        advice += (
            "; behind CGNAT no port can be forwarded, so ask the provider for a public address"
        )
    all_hidden = all(scope_of(address) is not Scope.PUBLIC for address in addresses)
    return fail(_NAME, shown, advice) if all_hidden else warn(_NAME, shown, advice)


def judge_connection(
    where: str, problem: str, seconds: float, addresses: Sequence[str], own: Sequence[str]
) -> Finding:
    """Say whether a connection came about; `problem` "" means that it did.

    `own` are this machine's addresses towards `addresses`. Where they differ, and ours is private, a
    router stands between, and many routers do not lead their own network back in.
    """
    if not problem:
        return ok(_CONNECTION, f"{where} answers in {seconds * 1000:.0f} ms")
    outside = any(scope_of(address) is Scope.PUBLIC for address in addresses)
    behind = bool(own) and all(scope_of(address) is not Scope.PUBLIC for address in own)
    if outside and behind:
        return skip(
            _CONNECTION,
            f"{where} does not answer this machine ({problem}), which is behind a router at "
            f"{', '.join(own)}; routers without hairpin refuse that even where strangers get through, "
            "so this cannot tell",
            "try it from another network, and see that the router forwards the port",
        )
    return fail(
        _CONNECTION,
        f"{where} does not answer: {problem}",
        "see that the node runs, listens on that port (listen), and that no firewall is before it",
    )


def own_addresses(addresses: Sequence[str]) -> tuple[str, ...]:
    """Return this machine's addresses on the ways to `addresses`. Sends nothing."""
    found: list[str] = []
    for address in addresses:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            # Connecting a datagram socket only picks the route.
            probe.connect((address, 9))
            found.append(str(probe.getsockname()[0]))
    return tuple(dict.fromkeys(found))
