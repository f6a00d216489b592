"""Who can follow a name to where it leads."""

import socket

import pytest

from network.findings import Verdict
from network.reachability.addresses import (
    Scope,
    judge_connection,
    judge_name,
    own_addresses,
    resolve,
    scope_of,
)

PUBLIC, PRIVATE, SHARED = "93.184.215.14", "192.168.1.7", "100.72.3.4"


@pytest.mark.parametrize(
    ("address", "scope"),
    [
        (PUBLIC, Scope.PUBLIC),
        ("2606:4700::1111", Scope.PUBLIC),
        ("127.0.0.1", Scope.LOOPBACK),
        ("::1", Scope.LOOPBACK),
        ("::ffff:127.0.0.1", Scope.LOOPBACK),
        (PRIVATE, Scope.PRIVATE),
        ("10.0.0.1", Scope.PRIVATE),
        ("172.31.0.1", Scope.PRIVATE),
        ("169.254.1.1", Scope.PRIVATE),
        ("fd00::1", Scope.PRIVATE),
        ("fe80::1%eth0", Scope.PRIVATE),
        ("100.64.0.1", Scope.SHARED),
        ("100.127.255.254", Scope.SHARED),
        ("100.128.0.1", Scope.PUBLIC),
        ("::ffff:100.64.0.1", Scope.SHARED),
        ("0.0.0.0", Scope.RESERVED),  # noqa: S104
        ("224.0.0.1", Scope.RESERVED),
        ("240.0.0.1", Scope.RESERVED),
    ],
)
def test_an_address_is_told_by_from_where_it_can_be_reached(address: str, scope: Scope) -> None:
    assert scope_of(address) is scope


@pytest.mark.parametrize(
    ("addresses", "is_public", "verdict", "words"),
    [
        ((), True, Verdict.FAIL, "has no address: gone"),
        ((PUBLIC,), True, Verdict.OK, PUBLIC),
        ((PRIVATE,), True, Verdict.FAIL, "private"),
        ((SHARED,), True, Verdict.FAIL, "CGNAT"),
        (("127.0.0.1",), True, Verdict.FAIL, "loopback"),
        ((PUBLIC, PRIVATE), True, Verdict.WARN, "private"),
        ((PRIVATE,), False, Verdict.OK, "gateways elsewhere cannot come"),
    ],
)
def test_a_name_is_judged_by_whom_it_leads_where(
    addresses: tuple[str, ...], *, is_public: bool, verdict: Verdict, words: str
) -> None:
    found = judge_name("node.example", addresses, "gone", is_public=is_public)
    assert found.verdict is verdict
    assert words in found.detail
    assert bool(found.advice) is (verdict is not Verdict.OK)


def test_cgnat_is_told_that_no_port_can_be_forwarded() -> None:
    found = judge_name("node.example", (SHARED,), "", is_public=True)
    assert "no port can be forwarded" in found.advice


@pytest.mark.parametrize(
    ("problem", "addresses", "own", "verdict"),
    [
        ("", (PUBLIC,), (), Verdict.OK),
        # Behind a router that may not lead its own network back in: nobody can tell from here.
        ("refused", (PUBLIC,), (PRIVATE,), Verdict.SKIP),
        ("refused", (PUBLIC,), (SHARED,), Verdict.SKIP),
        # The public address is this machine's own: no router excuses it.
        ("refused", (PUBLIC,), (PUBLIC,), Verdict.FAIL),
        ("refused", (PRIVATE,), (PRIVATE,), Verdict.FAIL),
        ("refused", (PUBLIC,), (), Verdict.FAIL),
    ],
)
def test_a_router_without_hairpin_leaves_it_open(
    problem: str, addresses: tuple[str, ...], own: tuple[str, ...], verdict: Verdict
) -> None:
    found = judge_connection("node.example port 8936", problem, 0.012, addresses, own)
    assert found.verdict is verdict
    assert ("hairpin" in found.detail) is (verdict is Verdict.SKIP)


async def test_names_are_resolved_and_impossible_ones_are_an_oserror() -> None:
    assert await resolve("127.0.0.1", 80) == ("127.0.0.1",)
    for name in ("a..b", "x" * 70 + ".example", "no such name"):
        with pytest.raises(OSError, match=r"."):
            await resolve(name, 80)


def test_the_own_address_is_that_of_the_way_there() -> None:
    assert own_addresses(["127.0.0.1"]) == ("127.0.0.1",)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        other.settimeout(0)
        own_addresses(["127.0.0.1"])
        with pytest.raises(BlockingIOError):
            other.recv(1)
