"""One orchestrator, one address, however it is written; and nothing that is none."""

from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.discovery.addresses import orchestrator_uri


@pytest.mark.parametrize(
    ("text", "uri"),
    [
        ("https://gpu.example:8935", "https://gpu.example:8935"),
        ("https://GPU.example/", "https://gpu.example:8935"),
        ("gpu.example", "https://gpu.example:8935"),
        ("gpu.example:443", "https://gpu.example:443"),
        ("localhost:8936", "https://localhost:8936"),
        ("http://10.0.0.7", "http://10.0.0.7:8935"),
        ("HTTPS://[2001:DB8::1]:7/orch/", "https://[2001:db8::1]:7/orch"),
        ("xn--bcher-kva.example", "https://xn--bcher-kva.example:8935"),
    ],
)
def test_livepeers_ways_of_writing_are_one(text: str, uri: str) -> None:
    assert orchestrator_uri(text) == uri
    assert orchestrator_uri(uri) == uri


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        ("https://", "host"),
        ("ftp://gpu.example", "neither http nor https"),
        ("javascript://gpu.example", "neither http nor https"),
        ("https://u:p@gpu.example", "more than"),
        ("https://gpu.example/?a=b", "more than"),
        ("https://gpu.example/#a", "more than"),
        ("https://gpu.example:0", "port"),
        ("https://gpu.example:70000", "port"),
        ("https://gpu.example:a", "port"),
        ("https://gpu example", "characters"),
        ("https://gpu.example\r\nHost: x", "characters"),
        ("https://bücher.example", "characters"),
        ("https://2130706433", "number"),
        ("https://127.1", "number"),
        ("https://0x7f.0x0.0x0.0x1", "number"),
        ("https://127.0.0.0x1", "number"),
        ("https://-gpu.example", "host"),
        ("https://[::1", "host"),
        ("https://[fe80::1%eth0]", "characters"),
        ("https://gpu..example", "host"),
        ("a" * 201, "200"),
    ],
)
def test_what_is_no_address_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        orchestrator_uri(text)


@given(st.text(max_size=250) | st.from_regex(r"(https?://)?[a-z0-9.\[\]:%@?#/-]{1,40}"))
def test_whatever_comes_is_an_address_in_normal_form_or_refused(text: str) -> None:
    try:
        uri = orchestrator_uri(text)
    except ValueError:
        return
    assert orchestrator_uri(uri) == uri
    parts = urlsplit(uri)
    assert parts.scheme in {"http", "https"}
    assert parts.hostname
    assert parts.port
    assert not any((parts.username, parts.query, parts.fragment))
    assert uri.isascii()
    assert uri.isprintable()
