"""Where a client's webhook may lead: out, and never into the network that the gateway stands in."""

import socket
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final

from aiohttp.connector import AddrInfoType
from yarl import URL

_LONGEST_URL: Final = 2048
#: What translators between the two families of addresses look at the last 32 bits of (RFC 6052).
_TRANSLATED: Final = IPv6Network("64:ff9b::/96")

Address = IPv4Address | IPv6Address


class RefusedTargetError(OSError):
    """The webhook's host is not one that the gateway posts to."""


def webhook_fault(text: str, *, allow_private: bool) -> str:
    """What is wrong with a webhook's URL, "" for nothing; names are looked up when it is posted to."""
    if not (text.isascii() and text.isprintable()) or " " in text or len(text) > _LONGEST_URL:
        return f"must be a URL of at most {_LONGEST_URL} visible ASCII characters"
    try:
        url = URL(text)
        host, port = url.host, url.port
    except ValueError:
        return "is not a URL"
    if url.scheme not in ({"https", "http"} if allow_private else {"https"}) or not host:
        return "must begin with https:// and name a host"
    if url.user is not None or url.password is not None or not port:
        return "must hold no user, no password and no port 0"
    if not allow_private and _is_private_literal(host):
        return "leads to an address that is not public"
    return ""


def _is_private_literal(host: str) -> bool:
    """Whether the host is an address, and not a public one. Names are no addresses."""
    try:
        return not is_public(ip_address(host.partition("%")[0]))
    except ValueError:
        return False


def is_public(address: Address) -> bool:
    """Whether an address belongs to the internet at large, and so do those that it stands for."""
    return all(
        one.is_global and not one.is_multicast and not one.is_reserved and not _is_of_a_site(one)
        for one in _meanings(address)
    )


def _is_of_a_site(address: Address) -> bool:
    """fec0::/10, which no standard library takes for private, and old networks still route."""
    return isinstance(address, IPv6Address) and address.is_site_local


def _meanings(address: Address) -> Iterator[Address]:
    """The address, and those in it that a tunnel or a translator would send packets to."""
    if isinstance(address, IPv4Address):
        yield address
        return
    if address.ipv4_mapped is not None:
        yield address.ipv4_mapped
        return
    if address in _TRANSLATED:
        yield IPv4Address(int(address) & 0xFFFFFFFF)
        return
    yield address
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:
        yield from address.teredo


def guarded_socket(information: AddrInfoType) -> socket.socket:
    """A socket for a connection to a public address. Raises RefusedTargetError.

    Asked once a name was looked up (`aiohttp.TCPConnector`), so that a name cannot stand for one
    address when it is checked and for another when it is connected to.
    """
    family, kind, proto, _, where = information
    if not is_public(ip_address(str(where[0]).partition("%")[0])):
        raise RefusedTargetError(f"{where[0]} is not a public address")
    return socket.socket(family=family, type=kind, proto=proto)
