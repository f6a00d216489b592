"""What the operator's service says, read; what cannot be read lets nobody in."""

from fractions import Fraction

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.access.verdict import (
    Allowed,
    Denied,
    UnreachableError,
    UnreadableError,
    read_verdict,
)
from gateway.keys import KeyGrant, UseLimits
from network.dollars import AttoUsd
from network.units import ModelId, Wei


def read(status: int = 200, **fields: object) -> Allowed | Denied:
    return read_verdict(status, orjson.dumps(fields))


def test_the_answer_that_livepeers_signer_asks_for_is_enough() -> None:
    answer = read(status=200, auth_id="demo-client:demo-user", expiry=1_764_000_000, balance=7)
    assert answer == Allowed(
        KeyGrant("auth:demo-client:demo-user", "demo-client:demo-user"), 1_764_000_000.0
    )


def test_limits_are_those_of_a_key() -> None:
    answer = read_verdict(
        200,
        orjson.dumps(
            {
                "auth_id": "alice",
                "limits": {
                    "requests_per_minute": 60,
                    "pixels_per_minute": 10**7,
                    "max_in_flight": 3,
                    "models": ["m"],
                    "max_price": "7/2",
                    "wei_per_day": "0.001 eth",
                    "wei_per_month": 12345,
                    "usd_per_month": "2.5 usd",
                    "max_steps": 30,
                },
            }
        ),
    )
    limits = UseLimits(
        wei_per_day=Wei(10**15),
        wei_per_month=Wei(12345),
        usd_per_month=AttoUsd(25 * 10**17),
        requests_per_minute=60,
        pixels_per_minute=10**7,
    )
    assert answer == Allowed(
        KeyGrant(
            "auth:alice",
            "alice",
            models=frozenset({ModelId("m")}),
            max_price=Fraction(7, 2),
            max_in_flight=3,
            limits=limits,
            max_steps=30,
        )
    )


@pytest.mark.parametrize(
    ("http", "fields", "status"),
    [
        (200, {"status": 401, "reason": "invalid api key"}, 401),
        (200, {"status": 403, "reason": "invalid api key"}, 403),
        (200, {"status": 483, "reason": "invalid api key"}, 402),
        (200, {"status": 418, "reason": "invalid api key"}, 401),
        (401, {"reason": "invalid api key"}, 401),
        (403, {"reason": "invalid\napi key", "auth_id": "alice"}, 403),
    ],
)
def test_refusals_bring_their_reason(http: int, fields: dict[str, object], status: int) -> None:
    assert read_verdict(http, orjson.dumps(fields)) == Denied(status, "invalid api key")


def test_a_refusal_needs_no_reason() -> None:
    assert read_verdict(401, b"<html>") == Denied(401, "This key is not accepted here.")
    assert read_verdict(200, b'{"status":401,"reason":7}') == Denied(
        401, "This key is not accepted here."
    )


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "auth_id"),
        ({"auth_id": ""}, "auth_id"),
        ({"auth_id": "a b"}, "auth_id"),
        ({"auth_id": "a" * 101}, "auth_id"),
        ({"auth_id": "\u00e9"}, "auth_id"),
        ({"auth_id": "a", "status": "ok"}, "status"),
        ({"auth_id": "a", "status": 200.5}, "status"),
        ({"status": 503, "reason": "no balances"}, r"cannot tell \(503: no balances\)"),
        ({"status": 500, "auth_id": "a"}, "cannot tell"),
        ({"auth_id": "a", "expiry": "tomorrow"}, "expiry"),
        ({"auth_id": "a", "expiry": -1}, "expiry"),
        ({"auth_id": "a", "limits": []}, "limits"),
        ({"auth_id": "a", "limits": 0}, "limits"),
        ({"auth_id": "a", "limits": {"request_per_minute": 5}}, "request_per_minute"),
        ({"auth_id": "a", "limits": {"requests_per_minute": 0}}, "requests_per_minute"),
        ({"auth_id": "a", "limits": {"requests_per_minute": True}}, "requests_per_minute"),
        ({"auth_id": "a", "limits": {"max_price": 0.5}}, "max_price"),
        ({"auth_id": "a", "limits": {"wei_per_day": "much"}}, "wei_per_day"),
        ({"auth_id": "a", "limits": {"wei_per_day": 0.5}}, "wei_per_day"),
        ({"auth_id": "a", "limits": {"usd_per_day": 5}}, "usd_per_day"),
        ({"auth_id": "a", "limits": {"usd_per_day": "5"}}, "usd_per_day"),
        ({"auth_id": "a", "limits": {"models": "m"}}, "models"),
        ({"auth_id": "a", "limits": {"models": [1]}}, "models"),
    ],
)
def test_what_is_not_understood_is_named(fields: dict[str, object], said: str) -> None:
    with pytest.raises(UnreadableError, match=said):
        read_verdict(200, orjson.dumps(fields))


@pytest.mark.parametrize(
    ("status", "error"),
    [
        *((status, UnreachableError) for status in (408, 429, 500, 503)),
        *((status, UnreadableError) for status in (204, 302, 400, 404, 406)),
    ],
)
def test_other_statuses_are_no_word_on_the_key(status: int, error: type[Exception]) -> None:
    with pytest.raises(error, match=f"it answered {status}"):
        read_verdict(status, b'{"status":200,"auth_id":"alice"}')


@given(st.integers(100, 599), st.binary(max_size=60))
def test_bytes_never_let_anybody_in(status: int, body: bytes) -> None:
    try:
        answer = read_verdict(status, body)
    except (UnreadableError, UnreachableError):
        return
    assert isinstance(answer, Denied)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
NAMES = st.sampled_from(["status", "auth_id", "expiry", "reason", "limits"])


@given(st.dictionaries(NAMES, JSON))
def test_whatever_the_fields_it_is_read_or_named_as_wrong(fields: dict[str, object]) -> None:
    try:
        body = orjson.dumps(fields)
    except orjson.JSONEncodeError:
        return
    try:
        answer = read_verdict(200, body)
    except UnreadableError:
        return
    if isinstance(answer, Allowed):
        assert fields["auth_id"] == answer.grant.name
