"""Which addresses an app of somebody else may be at. Pure.

Whoever registers a URL has the node call it, and gets others to have it called: so it must not be
this node's own ports, the metadata service of a cloud, or anything but what the operator meant.
"""

from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Final

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

#: Instance metadata that is not link-local: EC2 by IPv6, Azure, Alibaba.
_METADATA: Final = frozenset(
    ip_address(text) for text in ("fd00:ec2::254", "168.63.129.16", "100.100.100.200")
)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One of our own ports; `address` is None where it is open on every address."""

    address: Address | None
    port: int


@dataclass(frozen=True, slots=True)
class Reach:
    """What may be called: addresses in `networks`, and the hosts that the operator names."""

    networks: tuple[Network, ...]
    names: frozenset[str]
    own: tuple[Endpoint, ...] = ()

    @classmethod
    def of(cls, allowed: Collection[str], own: Collection[Endpoint] = ()) -> "Reach":
        """Read networks, addresses and host names. Raises ValueError."""
        networks = [network for text in allowed if (network := _network(text)) is not None]
        names = {text.lower() for text in allowed if _network(text) is None}
        for name in names:
            if "/" in name or ":" in name or not name.isascii() or not name.strip("."):
                raise ValueError(f"{name!r} is neither an address, a network nor a host's name")
        return cls(tuple(networks), frozenset(names), tuple(own))

    def refusal(self, host: str, address: str, port: int) -> str | None:
        """Tell why `host`, which is at `address`, may not be called; None if it may."""
        found = _plain(address)
        if (
            found is None
            or found.is_link_local
            or found.is_multicast
            or found.is_unspecified
            or found in _METADATA
        ):
            return f"{address} is no address of an app"
        if any(_is_same(found, port, endpoint) for endpoint in self.own):
            return f"port {port} is this node's own"
        if host.lower() in self.names or any(found in network for network in self.networks):
            return None
        return f"{address} is not allowed here; the operator's runners.allow says what is"


def _network(text: str) -> Network | None:
    try:
        return ip_network(text)
    except ValueError:
        return None


def _plain(text: str) -> Address | None:
    """An address without its disguise as another family's."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _is_same(address: Address, port: int, own: Endpoint) -> bool:
    if port != own.port:
        return False
    if own.address is None or address == own.address:
        return True
    return address.is_loopback and own.address.is_loopback
