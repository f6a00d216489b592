"""Which client a request comes from, whatever a stranger writes into its head."""

from ipaddress import IPv4Address, IPv6Address, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.access.addresses import Proxies, networks_of

PROXIES = Proxies(networks_of(["127.0.0.1", "10.0.0.0/8", "fd00::/8"]))


@pytest.mark.parametrize(
    ("peer", "forwarded", "block"),
    [
        # Nobody's word but that of a proxy of ours is believed.
        ("203.0.113.9", ["198.51.100.1"], "203.0.113.9"),
        ("127.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("127.0.0.1", ["1.1.1.1, 198.51.100.1"], "198.51.100.1"),
        ("127.0.0.1", ["1.1.1.1, 198.51.100.1, 10.1.2.3"], "198.51.100.1"),
        ("127.0.0.1", ["1.1.1.1", "198.51.100.1", "10.1.2.3"], "198.51.100.1"),
        ("::ffff:127.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        # With ports, as some proxies write them.
        ("127.0.0.1", ["198.51.100.1:4711"], "198.51.100.1"),
        ("127.0.0.1", ["[2001:db8:1:2::9]:4711"], "2001:db8:1:2::/64"),
        ("127.0.0.1", ["::ffff:198.51.100.1"], "198.51.100.1"),
        # What is no address ends the line: whoever told it is counted.
        ("127.0.0.1", ["198.51.100.1, unknown"], "127.0.0.1"),
        ("127.0.0.1", ["198.51.100.1, , 10.0.0.1"], "10.0.0.1"),
        ("127.0.0.1", ["9" * 1000], "127.0.0.1"),
        ("127.0.0.1", [], "127.0.0.1"),
        ("10.0.0.1", ["10.0.0.2, 10.0.0.3"], "10.0.0.2"),
        ("2001:db8:1:2:3:4:5:6", [], "2001:db8:1:2::/64"),
        ("fe80::1%eth0", [], "fe80::/64"),
        (None, ["198.51.100.1"], "local"),
        ("", [], "local"),
    ],
)
def test_the_nearest_stranger_is_the_client(
    peer: str | None, forwarded: list[str], block: str
) -> None:
    assert PROXIES.block(peer, forwarded) == block


def test_without_proxies_the_header_says_nothing() -> None:
    assert Proxies().block("127.0.0.1", ["198.51.100.1"]) == "127.0.0.1"


@given(
    client=st.integers(0, 2**32 - 1).map(IPv4Address).filter(lambda one: not _is_ours(one)),
    invented=st.lists(st.text(max_size=30), max_size=60),
    through=st.lists(st.sampled_from(["10.1.1.1", "127.0.0.1", "fd00::7"]), max_size=5),
)
def test_a_client_cannot_choose_its_address_by_what_it_writes(
    client: IPv4Address, invented: list[str], through: list[str]
) -> None:
    lines = [", ".join([*invented, str(client), *through])]
    assert PROXIES.block("127.0.0.1", lines) == str(client)


@given(st.integers(2**64, 2**128 - 1).map(IPv6Address), st.integers(0, 2**64 - 1))
def test_a_subscriber_of_ipv6_is_one_client_by_any_of_its_addresses(
    one: IPv6Address, suffix: int
) -> None:
    network = IPv6Network((one, 64), strict=False)
    assert Proxies().block(str(one)) == Proxies().block(str(network[suffix])) == str(network)


def _is_ours(address: IPv4Address) -> bool:
    return any(address in network for network in PROXIES.networks)
