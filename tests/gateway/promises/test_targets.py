"""Webhooks lead out, and never into the gateway's own network."""

import socket
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.promises.courier import open_session
from gateway.promises.targets import (
    RefusedTargetError,
    guarded_socket,
    is_public,
    webhook_fault,
)
from tests.gateway.promises.receiver import receiving

PRIVATE = [
    ip_network(text)
    for text in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
        *("172.16.0.0/12", "192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/4", "240.0.0.0/4"),
        *("::/127", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8", "2001:db8::/32"),
    )
]
private = st.sampled_from(PRIVATE).flatmap(lambda net: st.ip_addresses(network=net))
private_v4 = st.sampled_from(PRIVATE[:10]).flatmap(lambda net: st.ip_addresses(network=net))


@given(private)
def test_no_address_of_a_private_network_is_posted_to(address: IPv4Address | IPv6Address) -> None:
    assert not is_public(address)
    host = f"[{address}]" if address.version == 6 else str(address)
    assert "not public" in webhook_fault(f"https://{host}/hook", allow_private=False)
    assert not webhook_fault(f"https://{host}/hook", allow_private=True)
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    with pytest.raises(RefusedTargetError):
        guarded_socket((family, socket.SOCK_STREAM, 6, "", (str(address), 443)))


@given(private_v4, st.sampled_from(["::ffff:0:0", "64:ff9b::"]))
def test_nor_one_that_hides_in_an_address_of_the_other_family(
    address: IPv4Address, prefix: str
) -> None:
    assert not is_public(IPv6Address(int(IPv6Address(prefix)) | int(address)))


@given(private_v4)
def test_nor_one_at_the_end_of_a_tunnel(address: IPv4Address) -> None:
    assert not is_public(IPv6Address(0x2002 << 112 | int(address) << 80))


@pytest.mark.parametrize("text", ["1.1.1.1", "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_the_internet_is_posted_to(text: str) -> None:
    assert is_public(ip_address(text))


@pytest.mark.parametrize(
    "url",
    [
        *("", "hook", "http://example.org/", "ftp://example.org/", "https:///hook", "https://"),
        *("https://u:p@example.org/", "https://u@example.org/", "https://example.org:0/"),
        *("https://example.org:99999/", "https://ex ample.org/", "https://example.org/ü"),
        *("https://example.org\\@127.0.0.1/", "https://x/" + "y" * 2048, "https://[::1"),
        "https://example.org/\n",
    ],
)
def test_what_is_no_webhook(url: str) -> None:
    assert webhook_fault(url, allow_private=False)


@given(st.text())
def test_no_text_is_a_fault_of_ours(text: str) -> None:
    webhook_fault(text, allow_private=False)
    webhook_fault("https://" + text, allow_private=True)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "2130706433"])
async def test_a_name_is_judged_by_what_it_stands_for(host: str) -> None:
    async with receiving("whsec_") as receiver:
        port = receiver.url.rpartition(":")[2]
        async with open_session(allow_private=False) as session:
            with pytest.raises((aiohttp.ClientError, OSError)):
                async with session.post(f"http://{host}:{port}/"):
                    pass
        assert not receiver.told
