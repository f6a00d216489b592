"""Which client a request comes from, by its address. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
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

#: What a subscriber of IPv6 has at the least, and may draw a new address from for each request.
_BLOCK_BITS: Final = 64
#: Proxies in a row that are looked through; a longer line is nobody's setup.
_MOST_HOPS: Final = 32
#: Longer than any address with its port.
_LONGEST_HOP: Final = 64
#: Parsing is slow, and the same ones come again.
_REMEMBERED: Final = 2048
#: Where connections have no address.
_NOWHERE: Final = "local"


def networks_of(texts: Iterable[str]) -> tuple[Network, ...]:
    """Addresses and networks as they are written, "10.0.0.0/8", "::1". Raises ValueError."""
    return tuple(ip_network(text) for text in texts)


@dataclass(frozen=True, slots=True)
class Proxies:
    """Those whose word on their clients' addresses is believed: the operator's own."""

    networks: tuple[Network, ...] = ()

    def block(self, peer: str | None, forwarded: Sequence[str] = ()) -> str:
        """What a request is counted under: an IPv4 address, or the /64 of an IPv6 one.

        `peer` is whom the connection comes from, `forwarded` the lines of `X-Forwarded-For`. Each proxy
        adds whom it heard from at the right. So the line is read from there, and for as long as it is
        told by a proxy of ours: what is left of a stranger is the stranger's own invention.
        """
        found = _address(peer or "")
        if found is None:
            return _NOWHERE
        for hop in _hops(forwarded) if self.networks else ():
            if not self._is_ours(found):
                break
            told = _address(hop)
            if told is None:
                # A proxy of ours names nobody: whoever comes this way counts as one.
                break
            found = told
        return _block(found)

    def _is_ours(self, address: Address) -> bool:
        return any(address in network for network in self.networks)


def _hops(lines: Sequence[str]) -> Iterator[str]:
    """The last first."""
    seen = 0
    for line in reversed(lines):
        for hop in reversed(line.rsplit(",", _MOST_HOPS)):
            if seen == _MOST_HOPS:
                return
            seen += 1
            yield hop.strip()


def _address(text: str) -> Address | None:
    """Of "192.0.2.1", "192.0.2.1:80", "2001:db8::1", "[2001:db8::1]:80"; IPv4 in IPv6 is IPv4."""
    return _parsed(text) if len(text) <= _LONGEST_HOP else None


@lru_cache(_REMEMBERED)
def _parsed(text: str) -> Address | None:
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        found = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
        return found.ipv4_mapped
    return found


@lru_cache(_REMEMBERED)
def _block(address: Address) -> str:
    if isinstance(address, IPv4Address):
        return str(address)
    return str(IPv6Network((address, _BLOCK_BITS), strict=False))
