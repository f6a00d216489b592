from ipaddress import ip_address

import hypothesis.strategies as st
import pytest
from hypothesis import given
from yarl import URL

from node.apps.addresses import Endpoint, Reach
from node.apps.upstream import refusal_of, target_of

DEFAULT = Reach.of(["127.0.0.0/8", "::1/128"], [Endpoint(ip_address("127.0.0.1"), 7935)])


@pytest.mark.parametrize(
    ("allowed", "host", "address", "port"),
    [
        ((), "127.0.0.1", "127.0.0.1", 9000),
        ((), "localhost", "::1", 9000),
        ((), "127.0.0.1", "::ffff:127.0.0.1", 9000),
        (("10.0.0.0/24",), "10.0.0.7", "10.0.0.7", 80),
        (("gpu.lan",), "GPU.lan", "10.0.0.7", 80),
    ],
)
def test_what_the_operator_meant_is_called(
    allowed: tuple[str, ...], host: str, address: str, port: int
) -> None:
    reach = Reach.of(allowed or ["127.0.0.0/8", "::1/128"], DEFAULT.own)
    assert reach.refusal(host, address, port) is None


@pytest.mark.parametrize(
    ("allowed", "host", "address", "port"),
    [
        # what nobody may reach, however much is allowed
        (("0.0.0.0/0", "::/0"), "x", "169.254.169.254", 80),
        (("0.0.0.0/0", "::/0"), "x", "::ffff:169.254.169.254", 80),
        (("0.0.0.0/0", "::/0", "x"), "x", "fd00:ec2::254", 80),
        (("0.0.0.0/0", "::/0"), "x", "100.100.100.200", 80),
        (("0.0.0.0/0", "::/0"), "x", "fe80::1%eth0", 80),
        (("0.0.0.0/0", "::/0"), "x", "0.0.0.0", 80),  # noqa: S104
        (("0.0.0.0/0", "::/0"), "x", "::", 80),
        (("0.0.0.0/0", "::/0"), "x", "224.0.0.1", 80),
        # our own ports
        (("127.0.0.0/8",), "127.0.0.1", "127.0.0.1", 7935),
        (("127.0.0.0/8",), "127.0.0.2", "127.0.0.2", 7935),
        (("::1/128",), "localhost", "::1", 7935),
        (("::1/128",), "localhost", "::ffff:127.0.0.1", 7935),
        # what was not named
        (("127.0.0.0/8",), "10.0.0.1", "10.0.0.1", 80),
        (("gpu.lan",), "other.lan", "10.0.0.7", 80),
    ],
)
def test_everything_else_is_not(
    allowed: tuple[str, ...], host: str, address: str, port: int
) -> None:
    assert Reach.of(allowed, DEFAULT.own).refusal(host, address, port) is not None


def test_a_port_of_ours_on_every_address_is_ours_on_every_address() -> None:
    reach = Reach.of(["10.0.0.0/8"], [Endpoint(None, 7935)])
    assert reach.refusal("10.0.0.1", "10.0.0.1", 7935) is not None
    assert reach.refusal("10.0.0.1", "10.0.0.1", 7936) is None


@pytest.mark.parametrize("text", ["10.0.0.1/33", "http://x", "ä.example", "."])
def test_what_is_no_address_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="neither"):
        Reach.of([text])


@pytest.mark.parametrize(
    "url",
    [
        "http://2130706433:9000",
        "http://0x7f.1:7935",
        "http://0:9000",
        "http://127.1:7935",
        "http://localhost:7935",
        "http://[::ffff:169.254.169.254]/latest",
        "http://169.254.169.254/latest/meta-data",
    ],
)
async def test_disguises_are_seen_through(url: str) -> None:
    refusal = await refusal_of(URL(url), DEFAULT)
    if "2130706433" in url:
        # The whole of 127.0.0.1 in one number: where it leads counts, and that is allowed.
        assert refusal is None
    else:
        assert refusal is not None


async def test_a_name_is_looked_up() -> None:
    assert await refusal_of(URL("http://localhost:9000"), DEFAULT) is None
    assert await refusal_of(URL("http://localhost"), Reach.of(["10.0.0.0/8"])) is not None


BASE = URL("http://127.0.0.1:9000/base")


def test_a_call_goes_below_the_apps_url() -> None:
    assert str(target_of(BASE, "", "")) == "http://127.0.0.1:9000/base"
    assert str(target_of(BASE, "/", "")) == "http://127.0.0.1:9000/base"
    found = target_of(BASE, "/v1/a b", "x=%2B&y=1")
    assert str(found) == "http://127.0.0.1:9000/base/v1/a%20b?x=%2B&y=1"


@pytest.mark.parametrize(
    "tail", ["../x", "a/../../x", "%2e%2e/x", "a/..%2fb", "..", "a\\..\\b", "."]
)
def test_and_never_out_of_it(tail: str) -> None:
    assert target_of(BASE, tail, "") is None


@given(st.text(max_size=40), st.text(alphabet="abc=&%20", max_size=10))
def test_whatever_is_asked_for(tail: str, query: str) -> None:
    found = target_of(BASE, tail, query)
    if found is not None:
        assert (found.host, found.port) == ("127.0.0.1", 9000)
        assert found.path == "/base" or found.path.startswith("/base/")
